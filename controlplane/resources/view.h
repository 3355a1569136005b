#ifndef TH_RESOURCES_VIEW_H
#define TH_RESOURCES_VIEW_H
/* What a validation rule sees: one object inside the object that is validated, the way to it, and
 * where causes go. Views live on the stack, parent before child; a path is only written out when
 * there is something to say. Members may be dotted ("resources.limits"); NULL is the view itself. */
#include "base/json/json.h"
#include "controlplane/schema/names.h"

#define TH_NO_INDEX SIZE_MAX
struct th_view {
    const struct th_json *obj;
    const struct th_view *up; /* NULL at the top */
    const char *member;       /* of up; NULL at the top */
    size_t index;             /* in up's list, or TH_NO_INDEX */
    const char *key;          /* in up's map, or NULL */
    struct th_err *err;
};
#define TH_VIEW(o, e)                                                                              \
    (struct th_view)                                                                               \
    {                                                                                              \
        .obj = (o), .index = TH_NO_INDEX, .err = (e)                                               \
    }
struct th_view th_view_at(const struct th_view *v, const char *member);
struct th_view th_view_item(const struct th_view *v, const char *member, size_t i);
struct th_view th_view_key(const struct th_view *v, const char *member, const char *key);
const struct th_view *th_view_top(const struct th_view *v);
/* "spec.containers[0].image"; the caller frees. */
char *th_view_path(const struct th_view *v, const char *member);

/* Values of members; "" and the default when missing. */
const struct th_json *th_view_get(const struct th_view *v, const char *member);
const char *th_view_str(const struct th_view *v, const char *member);
int64_t th_view_int(const struct th_view *v, const char *member, int64_t dflt);
bool th_view_bool(const struct th_view *v, const char *member);
bool th_view_has(const struct th_view *v, const char *member);
size_t th_view_len(const struct th_view *v, const char *member);
bool th_view_is(const struct th_view *v, const char *member, const char *text);

/* Causes, in upstream's words. */
void th_bad_required(const struct th_view *v, const char *member, const char *detail);
void th_bad_str(const struct th_view *v, const char *member, const char *bad, const char *detail);
void th_bad_int(const struct th_view *v, const char *member, int64_t bad, const char *detail);
/* Shows the member's own value ("" when missing and `as_str`, else null). */
void th_bad_value(const struct th_view *v, const char *member, const char *detail);
void th_bad_json(const struct th_view *v, const char *member, const struct th_json *bad,
                 const char *detail);
/* values: A|B|C in the order that is shown. */
void th_bad_unsupported(const struct th_view *v, const char *member, const char *bad,
                        const char *values);
void th_bad_forbidden(const struct th_view *v, const char *member, const char *detail);
void th_bad_duplicate(const struct th_view *v, const char *member, const char *bad);
void th_bad_not_found(const struct th_view *v, const char *member, const char *bad);
void th_bad_too_long(const struct th_view *v, const char *member, int max);
void th_bad_too_many(const struct th_view *v, const char *member, size_t n, size_t max);

/* Checks that add causes and say whether all was well. */
bool th_check_format(const struct th_view *v, const char *member, const char *value,
                     enum th_name_format f);
bool th_check_one_of(const struct th_view *v, const char *member, const char *value,
                     const char *values);
bool th_word_in(const char *word, const char *values); /* values: A|B|C */
/* Keys and values of labels; all causes name the map itself. */
void th_check_labels(const struct th_view *v, const char *member);
void th_check_annotations(const struct th_view *v, const char *member);
/* Members `port` and `protocol` of a Service's or an Endpoints' port. */
void th_check_port_and_protocol(const struct th_view *port);
void th_check_port_or_name(const struct th_view *v, const char *member);
void th_check_no_backsteps(const struct th_view *v, const char *member, const char *path);
void th_check_descending(const struct th_view *v, const char *member, const char *path);
void th_check_non_reserved(const struct th_view *v, const char *member, const char *path);
void th_check_non_negative(const struct th_view *v, const char *member);
/* A quantity of at least 0; false (and a cause) otherwise. */
bool th_check_quantity(const struct th_view *v, const char *member);
#endif

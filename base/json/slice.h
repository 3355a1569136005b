#ifndef TH_BASE_JSON_SLICE_H
#define TH_BASE_JSON_SLICE_H
/* Reading JSON text in place: members and elements as slices of the text, without a tree. For hot
 * paths that need a few fields of a large text which comes from th_json_dump or from our own
 * server.
 *
 * Brackets, strings and separators are checked, numbers and literals are not. Names are compared as
 * they stand in the text: one written with \u escapes is not found. */
#include "base/buf.h"

/* A walk over the members of an object or the elements of an array.
 * struct th_json_slice s = TH_JSON_SLICE(text); while (th_json_slice_member(&s, &name, &value)) */
struct th_json_slice {
    const char *p, *end;
    bool started;
};
#define TH_JSON_SLICE(str)                                                                         \
    {                                                                                              \
        .p = (str).p, .end = (str).p + (str).n                                                     \
    }
/* false at the end and on malformed text; th_json_slice_ended tells which. A slice with p NULL has
 * no members. */
bool th_json_slice_member(struct th_json_slice *s, struct th_str *ret_name,
                          struct th_str *ret_value);
bool th_json_slice_element(struct th_json_slice *s, struct th_str *ret_value);
/* After the walk: the closing bracket was reached. s->p stands on it. */
bool th_json_slice_ended(const struct th_json_slice *s);

/* The value of the first member with this name, or {NULL, 0}. */
struct th_str th_json_slice_get(struct th_str object, const char *name);
/* The same over several levels: "metadata.name". */
struct th_str th_json_slice_path(struct th_str object, const char *path);
/* The inside of a string without escapes; {NULL, 0} for all else. */
struct th_str th_json_slice_text(struct th_str value);
#endif

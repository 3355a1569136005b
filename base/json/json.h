#ifndef TH_BASE_JSON_H
#define TH_BASE_JSON_H
/* JSON trees. The inside is json-c; nothing outside base/json may include it.
 *
 * A `struct th_json *` is one reference-counted node; NULL stands for JSON null and every function
 * here accepts it. A tree belongs to one thread at a time. th_json_set* and th_json_append TAKE
 * the reference they are given; th_json_get* BORROW (valid while the parent lives and keeps it).
 * Objects keep insertion order.
 *
 * Paths ("spec.template.metadata.labels") are dots between member names; "[2]" indexes an array
 * ("spec.containers[0].image"). A member whose own name holds dots is reached through
 * th_json_get(). */
#include "base/buf.h"
#include "base/err.h"

struct th_json;

enum th_json_type {
    TH_JSON_NULL,
    TH_JSON_BOOL,
    TH_JSON_INT,
    TH_JSON_DOUBLE,
    TH_JSON_STRING,
    TH_JSON_ARRAY,
    TH_JSON_OBJECT
};

/* Parses one document of at most TH_LIMIT_JSON_DEPTH levels. Trailing bytes other than white
 * space, invalid UTF-8, NaN and numbers out of range are TH_R_PARSE with line and column.
 * Duplicate members: the last wins; with `dups` not NULL their paths are added to it
 * ("spec.replicas"). */
int th_json_parse(const char *p, size_t n, struct th_strv *dups, struct th_json **ret,
                  struct th_err *err) TH_MUST_USE;
int th_json_parse_cstr(const char *s, struct th_json **ret, struct th_err *err) TH_MUST_USE;

struct th_json *th_json_ref(struct th_json *o);
void th_json_unref(struct th_json *o);
TH_DEFINE_AUTO(th_json, th_json_unref)
struct th_json *th_json_dup(const struct th_json *o);                 /* deep copy */
bool th_json_equal(const struct th_json *a, const struct th_json *b); /* member order ignored */

enum th_json_type th_json_type(const struct th_json *o);
static inline bool th_json_is_null(const struct th_json *o)
{
    return o == NULL;
}
bool th_json_is(const struct th_json *o, enum th_json_type t);

/* Compact canonical text appended to b ('/' is not escaped, members in their order). */
void th_json_dump(const struct th_json *o, struct th_buf *b);
void th_json_dump_pretty(const struct th_json *o, struct th_buf *b); /* 2 spaces, as kubectl */
/* The same two with members in byte order at every level; for hashes, and for `-o json`. */
void th_json_dump_sorted(const struct th_json *o, struct th_buf *b);
void th_json_dump_pretty_sorted(const struct th_json *o, struct th_buf *b);
char *th_json_to_string(const struct th_json *o); /* the caller frees */

/* New nodes. */
struct th_json *th_json_object(void);
struct th_json *th_json_array(void);
struct th_json *th_json_string(const char *s); /* NULL gives null */
struct th_json *th_json_string_n(const char *s, size_t n);
struct th_json *th_json_stringf(const char *fmt, ...) TH_PRINTF(1, 2);
struct th_json *th_json_int(int64_t v);
struct th_json *th_json_bool(bool v);
struct th_json *th_json_double(double v); /* NaN and infinities give null */

/* Scalars; the default is what the node is not. Strings are borrowed. */
const char *th_json_str(const struct th_json *o); /* NULL unless a string */
size_t th_json_str_len(const struct th_json *o);
int64_t th_json_as_int(const struct th_json *o, int64_t def); /* ints and integral doubles */
double th_json_as_double(const struct th_json *o, double def);
bool th_json_as_bool(const struct th_json *o, bool def);

/* v as Go's %v shows a float64: shortest, the exponent form below 1e-4 and from 1e6
 * on. buf has 48 bytes. */
size_t th_json_format_double_g(double v, char *buf);

/* Objects. th_json_has is true for a member that is null, th_json_get gives NULL for both. */
size_t th_json_len(const struct th_json *o); /* members or elements; 0 for scalars */
struct th_json *th_json_get(const struct th_json *o, const char *name);
bool th_json_has(const struct th_json *o, const char *name);
void th_json_set(struct th_json *o, const char *name, struct th_json *value); /* takes value */
void th_json_set_str(struct th_json *o, const char *name, const char *value);
void th_json_set_int(struct th_json *o, const char *name, int64_t value);
void th_json_set_bool(struct th_json *o, const char *name, bool value);
bool th_json_del(struct th_json *o, const char *name); /* false when it was not there */
/* struct th_json_iter it = TH_JSON_ITER(obj); while (th_json_next(&it)) { it.name, it.value }
 * Deleting the current member is allowed; any other change is not. */
struct th_json_iter {
    const struct th_json *obj;
    void *pos;
    const char *name;
    struct th_json *value;
    bool started;
};
#define TH_JSON_ITER(o)                                                                            \
    {                                                                                              \
        .obj = (o)                                                                                 \
    }
bool th_json_next(struct th_json_iter *it);

/* Arrays. */
struct th_json *th_json_at(const struct th_json *a, size_t i); /* borrowed; NULL past the end */
void th_json_append(struct th_json *a, struct th_json *value); /* takes value */
void th_json_append_str(struct th_json *a, const char *s);
void th_json_set_at(struct th_json *a, size_t i, struct th_json *value);    /* takes; i < len */
void th_json_insert_at(struct th_json *a, size_t i, struct th_json *value); /* i <= len */
void th_json_del_at(struct th_json *a, size_t i);
void th_json_sort(struct th_json *a, int (*cmp)(const struct th_json *, const struct th_json *));

/* By path; borrowed, NULL when any step is missing. */
struct th_json *th_json_path(const struct th_json *o, const char *path);
const char *th_json_path_str(const struct th_json *o, const char *path);
int64_t th_json_path_int(const struct th_json *o, const char *path, int64_t def);
bool th_json_path_bool(const struct th_json *o, const char *path, bool def);
/* Makes missing objects on the way, also in place of what is no object. A step into an array must
 * name an element that exists. Takes value; NULL value sets null. */
void th_json_path_set(struct th_json *o, const char *path, struct th_json *value);
void th_json_path_set_str(struct th_json *o, const char *path, const char *value);
void th_json_path_set_int(struct th_json *o, const char *path, int64_t value);
void th_json_path_set_bool(struct th_json *o, const char *path, bool value);
bool th_json_path_del(struct th_json *o, const char *path);
/* The object at path, made when missing; borrowed. */
struct th_json *th_json_path_object(struct th_json *o, const char *path);
struct th_json *th_json_path_array(struct th_json *o, const char *path);

/* Builds a tree from a printf-like template: th_json_build("{'a':%s,'n':%d,'o':%o}", str, int64_t,
 * struct th_json *). Single quotes stand for double ones in the template only; %s is a C string
 * (escaped; NULL gives null), %d an int64_t (cast plain ints), %f a double, %b an int taken as
 * bool, %o a node that is taken. %s may also stand for a member's name. Inside quotes % means
 * itself. A template that does not parse is a broken invariant (aborts). */
struct th_json *th_json_build(const char *template, ...);
#endif

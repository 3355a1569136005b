#ifndef TH_SCHEMA_FIELDSET_H
#define TH_SCHEMA_FIELDSET_H
/* Sets of field paths, the currency of server-side apply: which fields of an object somebody owns.
 * A set belongs to one thread. */
#include "base/json/json.h"

/* One step of a path: 'f' a member (text is its name), 'k' an element of a list map (text is the
 * canonical JSON of its keys), 'v' an element of a set (JSON of the value), 'i' an index. val is
 * the parsed form of text for 'k' and 'v', else NULL. */
struct th_fstep {
    char kind;
    const char *text;
    const struct th_json *val;
};
/* A path, innermost step first; frames live on the walker's stack. */
struct th_fpath {
    const struct th_fpath *up;
    struct th_fstep step;
};

struct th_fset;
struct th_fnode {
    char kind;
    bool member;         /* the path that ends here is in the set */
    char *text;          /* owned */
    struct th_json *val; /* owned reference */
    struct th_fset *sub; /* longer paths, or NULL */
};
struct th_fset {
    struct th_fnode *v; /* sorted as upstream sorts path elements */
    size_t n, cap;
};

struct th_fset *th_fset_new(void);
void th_fset_free(struct th_fset *s);
TH_DEFINE_AUTO(th_fset, th_fset_free)
struct th_fset *th_fset_dup(const struct th_fset *s);
bool th_fset_empty(const struct th_fset *s); /* NULL is empty */
/* Adds the path; NULL (the whole object) is never tracked. */
void th_fset_insert(struct th_fset *s, const struct th_fpath *path);
const struct th_fnode *th_fset_find(const struct th_fset *s, struct th_fstep step);
struct th_fnode *th_fset_node(struct th_fset *s, struct th_fstep step); /* made when missing */
/* New sets. Difference works path by path: a parent's path does not take its children away. */
struct th_fset *th_fset_union(const struct th_fset *a, const struct th_fset *b);
struct th_fset *th_fset_intersection(const struct th_fset *a, const struct th_fset *b);
struct th_fset *th_fset_difference(const struct th_fset *a, const struct th_fset *b);
/* Replaces *a by what fn makes of it and b. */
void th_fset_update(struct th_fset **a, const struct th_fset *b,
                    struct th_fset *(*fn)(const struct th_fset *, const struct th_fset *));
/* Removes a dotted path of members and all below; "a.*" all below a but not a. */
void th_fset_exclude(struct th_fset *s, const char *path);
/* Calls fn with each path as upstream prints it (".spec.ports[port=80,protocol=\"TCP\"]"). */
void th_fset_each(const struct th_fset *s, void (*fn)(void *arg, const char *path), void *arg);
/* fieldsV1. Unknown kinds of steps are dropped, malformed ones are TH_R_PARSE. */
int th_fset_parse(const struct th_json *fields, struct th_fset **ret, struct th_err *err) TH_MUST_USE;
struct th_json *th_fset_to_json(const struct th_fset *s);
/* Appends one step as it stands in messages. */
void th_fstep_print(struct th_fstep step, struct th_buf *b);
#endif

#ifndef TH_SCHEMA_TYPED_PRIV_H
#define TH_SCHEMA_TYPED_PRIV_H
/* Values seen through their type, for server-side apply: validation, field sets, comparison, merge
 * and removal, as structured-merge-diff defines them. */
#include "controlplane/schema/fieldset.h"
#include "controlplane/schema/schema.h"

enum th_tkind {
    TH_T_SCALAR,
    TH_T_STRUCT,  /* members are the type's fields */
    TH_T_MAP,     /* members of one type */
    TH_T_LIST,
    TH_T_DEDUCED, /* no schema: maps granular, lists atomic */
    TH_T_UNTYPED  /* no schema, below an atomic list */
};
/* The type of a place. */
struct th_tref {
    enum th_tkind kind;
    bool atomic;                  /* maps, structs and lists */
    bool element;                 /* the element of field's map of lists */
    const struct th_type *type;   /* STRUCT */
    const struct th_field *field; /* what says the element's type of MAP and LIST; scalar type */
};
/* A value that may be absent, which differs from null. */
struct th_tval {
    const struct th_json *o;
    bool has;
};

struct th_tref th_tref_root(const struct th_type *t); /* NULL: deduced */
/* The type of a member; false when the struct has no such field. *ret_named (may be NULL) tells
 * whether it is a field and not a map's key. */
bool th_tref_member(struct th_tref t, const char *name, struct th_tref *ret, bool *ret_named);
struct th_tref th_tref_element(struct th_tref list);
/* What a value of an ambiguous type makes of it (DEDUCED and UNTYPED become SCALAR, MAP, LIST). */
struct th_tref th_tref_resolve(struct th_tref t, struct th_tval v);
/* One element's step in an associative list; the caller releases it. */
struct th_titem {
    struct th_fstep step;
    char *text;
    struct th_json *val;
};
int th_titem_of(struct th_tref list, const struct th_json *e, struct th_titem *ret,
                struct th_err *err) TH_MUST_USE;
void th_titem_done(struct th_titem *i);

/* All faults as upstream lists them; allow_dups for live objects. */
int th_typed_validate(struct th_tref t, const struct th_json *o, bool allow_dups,
                      struct th_err *err) TH_MUST_USE;
struct th_fset *th_typed_fields(struct th_tref t, const struct th_json *o);
/* Adds to the set what is typically left out: named fields on the way to members. */
struct th_fset *th_typed_ensure_named(struct th_tref t, const struct th_fset *s);
struct th_comparison {
    struct th_fset *added, *modified, *removed;
};
void th_typed_compare(struct th_tref t, const struct th_json *a, const struct th_json *b,
                      struct th_comparison *ret);
void th_comparison_done(struct th_comparison *c);
/* The result shares no node with its inputs. */
struct th_json *th_typed_merge(struct th_tref t, const struct th_json *a, const struct th_json *b);
struct th_json *th_typed_remove(struct th_tref t, const struct th_json *o, const struct th_fset *s);
/* Makes sets agree with a schema whose lists or maps have become atomic since. */
void th_typed_reconcile(struct th_tref t, struct th_fset *s);
/* Adds the members that Go's encoder writes for built-in types though they hold nothing: what
 * upstream compares. NULL gives an empty object of the type. */
struct th_json *th_typed_fill(const struct th_type *t, const struct th_json *o);
#endif

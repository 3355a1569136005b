#ifndef TH_SCHEMA_STRATEGIC_PRIV_H
#define TH_SCHEMA_STRATEGIC_PRIV_H
/* Between strategic.c and strategic_order.c: the order of merged lists, and faults. */
#include "base/json/json.h"

/* Position of an element in a list, by merge key (NULL: by value); -1 when it is not there. */
int64_t th_strategic_index(const struct th_json *list, const struct th_json *e, const char *key);
/* Scalars of a, then of b, each once. */
struct th_json *th_strategic_union(const struct th_json *a, const struct th_json *b);
/* `merged` in the order of `wanted` for what that names and of `live` for the rest. */
int th_strategic_order(const struct th_json *merged, const struct th_json *wanted,
                       const struct th_json *live, const char *key, bool maps,
                       struct th_json **ret, struct th_err *err);
/* A patch list may only name elements of its $setElementOrder, in the same order. */
int th_strategic_check_order(const struct th_json *patch, const struct th_json *order,
                             const char *key, struct th_err *err);

int th_strategic_no_merge_key(const struct th_json *map, const char *key, struct th_err *err);
int th_strategic_bad_arg_type(const char *expected, const struct th_json *got, struct th_err *err);
int th_strategic_bad_patch_type(const struct th_json *directive, const struct th_json *map,
                                struct th_err *err);
#endif

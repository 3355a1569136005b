#ifndef TH_BASE_JSON_PRIV_H
#define TH_BASE_JSON_PRIV_H
/* Shared by the files of base/json: how a th_json is a json-c node, and the scanner. */
#include "base/json/json.h"

#include <json-c/json.h>
#include <json-c/linkhash.h>

/* A th_json IS a json_object; const is dropped because json-c's getters take non-const nodes. */
static inline struct json_object *th_json_c(const struct th_json *o)
{
    return (struct json_object *)(uintptr_t)o;
}
static inline struct th_json *th_json_of(struct json_object *o)
{
    return (struct th_json *)o;
}
static inline struct lh_entry *th_json_first(const struct th_json *o)
{
    return lh_table_head(json_object_get_object(th_json_c(o)));
}

/* The member whose name is the n bytes at name; json-c's entry or NULL. o must be an object. */
struct lh_entry *th_json_find(const struct th_json *o, const char *name, size_t n);

/* Checks that the text is one JSON document within our limits and counts its members (duplicates
 * included). TH_R_PARSE with line and column otherwise. */
int th_json_scan(const char *p, size_t n, size_t *ret_members, struct th_err *err);
/* Adds the path of each member that is there more than once, each path once, at most 100. The text
 * has passed th_json_scan. */
void th_json_scan_dups(const char *p, size_t n, struct th_strv *dups);
/* Shortest text that reads back as v, laid out as Go's encoding/json does; buf has 48 bytes. */
size_t th_json_format_double(double v, char *buf);
#endif

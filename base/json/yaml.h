#ifndef TH_BASE_YAML_H
#define TH_BASE_YAML_H
/* YAML <-> JSON trees, over libyaml, with the scalar rules of Kubernetes' sigs.k8s.io/yaml
 * (YAML 1.1 booleans true/false/yes/no/on/off/y/n as go-yaml resolves them, also as keys; quoted
 * scalars are strings; anchors and aliases expanded under TH_LIMIT_YAML_NODES). */
#include "base/json/json.h"

/* All documents of a stream; empty ones are left out. ret_docs is a JSON array (caller unrefs).
 * Errors are TH_R_PARSE: "line 3, column 5: ...". */
int th_yaml_parse(const char *p, size_t n, struct th_json **ret_docs,
                  struct th_err *err) TH_MUST_USE;
/* Exactly one document; JSON is accepted too, since it is YAML. */
int th_yaml_parse_one(const char *p, size_t n, struct th_strv *dups, struct th_json **ret,
                      struct th_err *err) TH_MUST_USE;
/* Members given twice are TH_R_PARSE, in the words and with the lines of go-yaml's strict reading:
 * 'yaml: unmarshal errors:\n  line 9: key "foo" already set in map'. */
int th_yaml_check_unique(const char *p, size_t n, struct th_err *err) TH_MUST_USE;
/* Block style, keys sorted as kubectl -o yaml prints them. */
void th_yaml_dump(const struct th_json *o, struct th_buf *b);
#endif

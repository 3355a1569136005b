#ifndef TH_BASE_YAML_PRIV_H
#define TH_BASE_YAML_PRIV_H
/* What reading and writing YAML share: which value an unquoted scalar stands for. */
#include "base/json/json_priv.h"

enum th_yaml_kind {
    TH_YAML_STR,
    TH_YAML_NULL,
    TH_YAML_BOOL,
    TH_YAML_INT,
    TH_YAML_FLOAT,
    TH_YAML_TIME,  /* a string for us, but one that must be quoted when written */
    TH_YAML_MERGE, /* << */
    TH_YAML_RANGE  /* a number that does not fit, an infinity or NaN: no JSON value */
};
struct th_yaml_value {
    enum th_yaml_kind kind;
    bool b;
    bool is_unsigned; /* then u holds an integer above INT64_MAX */
    int64_t i;
    uint64_t u;
    double d;
};
struct th_yaml_value th_yaml_resolve(const char *s, size_t n);
/* "1:30" and the like: old readers take them for numbers in base 60, so they are written quoted. */
bool th_yaml_is_base60(const char *s, size_t n);
#endif

#ifndef TH_RESOURCES_RULES_H
#define TH_RESOURCES_RULES_H
/* Validation as data: rules.tsv hangs rules on types and members, gen_rules.py compiles them. What a
 * line cannot say is a hook "@name": th_rule_name(). */
#include "controlplane/resources/view.h"
#include "controlplane/schema/schema.h"

enum th_rule_kind {
    TH_RULE_HOOK,
    TH_RULE_REQUIRED,     /* not missing, "", 0, [] or {}; arg: detail */
    TH_RULE_PRESENT,      /* not missing; arg: detail */
    TH_RULE_FORBIDDEN,    /* missing; arg: detail */
    TH_RULE_ONE_OF,       /* arg: A|B; "" is fine */
    TH_RULE_ONE_OF_ALWAYS,/* "" is not */
    TH_RULE_NON_NEGATIVE,
    TH_RULE_POSITIVE,     /* when there */
    TH_RULE_POSITIVE_ALWAYS,
    TH_RULE_RANGE,        /* min, max; arg: the words instead of upstream's usual ones */
    TH_RULE_PORT,         /* 0 is fine */
    TH_RULE_PORT_OR_NAME,
    TH_RULE_FILE_MODE,
    TH_RULE_FORMAT,       /* min: enum th_name_format; "" is fine */
    TH_RULE_FORMAT_ALWAYS,/* "" is not */
    TH_RULE_FORMAT_PRESENT,/* "" is not, but a member that is missing is */
    TH_RULE_FORMAT_EACH,  /* every string of a list */
    TH_RULE_MAX_BYTES,    /* max */
    TH_RULE_MAX_ITEMS,    /* max */
    TH_RULE_UNIQUE,       /* list of objects: member arg occurs once */
    TH_RULE_UNIQUE_STRINGS,
    TH_RULE_QUANTITY,     /* at least 0 */
    TH_RULE_NO_BACKSTEPS,
    TH_RULE_DESCENDING,   /* relative path without '..' */
    TH_RULE_LABELS
};
struct th_rule {
    const char *member;
    enum th_rule_kind kind;
    const char *arg;
    int64_t min, max;
    void (*hook)(const struct th_view *v);
};
struct th_rule_list {
    const struct th_rule *rules;
    uint16_t n;
    bool below; /* a type further down has rules */
};
/* By a type's place among the built-in types (th_type_at); generated. */
extern const struct th_rule_list th_type_rules[];
extern const size_t th_type_rules_n;

/* Checks a whole object of a built-in type. metadata and status at the top are left out. */
void th_rules_check(const struct th_type *t, const struct th_json *obj, struct th_err *err);
/* The same for a part of an object, at the view's path. */
void th_rules_check_view(const struct th_type *t, const struct th_view *v);

/* Numbers and percentages (rules_apps.c). */
int64_t th_int_or_percent(const struct th_json *v);
void th_check_int_or_percent(const struct th_view *v, const char *member);
void th_check_at_most_100_percent(const struct th_view *v, const char *member);
/* An address that traffic can be sent to (rules_core.c). */
void th_check_endpoint_ip(const struct th_view *v, const char *member, const char *ip);
/* "example.com/thing" (rules_net.c). */
void th_check_domain_path(const struct th_view *v, const char *member, const char *value);
/* The name of a CSI driver at member (rules_volumes.c). */
void th_check_driver_name(const struct th_view *v, const char *member);

/* Member matchConditions of a webhook or a policy (rules_admission.c). */
void th_check_match_conditions(const struct th_view *v, bool params);

#define TH_RULE_HOOK_FN(name) void th_rule_##name(const struct th_view *v)
#include <controlplane/resources/rule_hooks.h> /* generated: one declaration per hook */
#endif

#ifndef TH_RESOURCES_RBAC_ROWS_H
#define TH_RESOURCES_RBAC_ROWS_H
/* One line of rbac_defaults.tsv, as it stands there. */
struct th_rbac_row {
    const char *kind, *ns, *name;
    const char *labels;  /* "key=value", or "" */
    const char *ref;     /* "aggregate:key=value" of a role, "Kind:name" of a binding's roleRef */
    const char *content; /* rules, or subjects */
};
extern const struct th_rbac_row th_rbac_rows[]; /* ends with kind NULL */
#endif

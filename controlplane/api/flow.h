#ifndef TH_API_FLOW_H
#define TH_API_FLOW_H
/* Flow control: FlowSchemas say to which priority level and flow a request belongs, priority levels
 * share the seats of the worker threads, and within a level flows take turns. Thread-safe. */
#include "controlplane/resources/access.h"
#include "controlplane/store/store.h"

struct th_flow;
struct th_flow_class {
    char schema_uid[40], level_uid[40]; /* "" when there is none */
    size_t level;                       /* inside of flow.c */
    uint64_t hash;                      /* of the flow: schema and distinguisher */
};
/* Follows the FlowSchemas and PriorityLevelConfigurations in the store. */
struct th_flow *th_flow_new(struct th_store *store);
/* No job may be waiting or running. NULL-safe. */
void th_flow_free(struct th_flow *f);
void th_flow_classify(struct th_flow *f, const struct th_attrs *at, struct th_flow_class *ret);
/* Runs fn(arg) through start (which hands it to a thread) when its turn comes, at once when a seat is
 * free. The job must end with th_flow_finish(f, c). TH_R_TOO_MANY_REQUESTS when its queue is full. */
typedef void th_flow_start_fn(void *self, void (*fn)(void *arg), void *arg);
void th_flow_seats(struct th_flow *f, size_t seats, th_flow_start_fn *start, void *self);
int th_flow_submit(struct th_flow *f, const struct th_flow_class *c, void (*fn)(void *arg), void *arg,
                   struct th_err *err) TH_MUST_USE;
void th_flow_finish(struct th_flow *f, const struct th_flow_class *c);
/* Appends the metrics apiserver_flowcontrol_*. */
void th_flow_metrics(struct th_flow *f, struct th_buf *b);

/* ---- flow_bootstrap.c ---- */
struct th_api;
/* Makes the levels and schemas that every cluster has, where they are missing. */
int th_flow_bootstrap(struct th_api *api, struct th_err *err) TH_MUST_USE;

/* ---- flow_rules.c: the stored objects, compiled ---- */
struct th_flow_rule {
    bool resource;
    struct th_strv verbs, groups, resources, namespaces; /* or non-resource URLs in `resources` */
    bool cluster_scope;
};
struct th_flow_subjects {
    struct th_strv users, groups; /* service accounts are users and groups by their names */
    struct th_flow_rule *rules;
    size_t n_rules;
};
struct th_flow_schema {
    char *name, *level;
    char uid[40];
    int64_t precedence;
    enum { TH_FLOW_ONE, TH_FLOW_BY_USER, TH_FLOW_BY_NAMESPACE } distinguish;
    struct th_flow_subjects *subjects;
    size_t n_subjects;
};
struct th_flow_schema *th_flow_schema_new(const struct th_json *o);
void th_flow_schema_free(struct th_flow_schema *s);
/* The order in which schemas are tried. */
int th_flow_schema_cmp(const void *a, const void *b);
bool th_flow_schema_matches(const struct th_flow_schema *s, const struct th_attrs *at);
#endif

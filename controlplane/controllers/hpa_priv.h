#ifndef TH_HPA_PRIV_H
#define TH_HPA_PRIV_H
/* Inside of the HorizontalPodAutoscaler: hpa.c (the loop), hpa_metrics.c (measured values),
 * hpa_replicas.c (how many replicas they call for), hpa_behavior.c (how fast). */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/pod_control.h"
#include "controlplane/schema/selector.h"

/* ---- Measured values (hpa_metrics.c); amounts are thousandths ---- */
struct th_hpa_value {
    char *pod;     /* NULL in values that are no pod's */
    int64_t milli;
    int64_t at_ms, window_ms;
};
struct th_hpa_values {
    struct th_hpa_value *v;
    size_t n, cap;
};
void th_hpa_values_done(struct th_hpa_values *m);
struct th_hpa_value *th_hpa_values_get(const struct th_hpa_values *m, const char *pod);
/* Replaces or adds. */
void th_hpa_values_set(struct th_hpa_values *m, const char *pod, int64_t milli);
void th_hpa_values_remove(struct th_hpa_values *m, const char *pod);
/* A resource of the pods that the selector names; container "" sums all. Errors in upstream's words. */
int th_hpa_resource(struct th_client *c, const char *ns, const char *selector, const char *resource,
                    const char *container, struct th_hpa_values *ret, struct th_err *err) TH_MUST_USE;
/* A metric of the pods; metric is the spec's {name, selector}. */
int th_hpa_pods_metric(struct th_client *c, const char *ns, const char *selector,
                       const struct th_json *metric, struct th_hpa_values *ret,
                       struct th_err *err) TH_MUST_USE;
/* A metric of one object; path is its part of the URL ("namespaces/x/ingresses.networking.k8s.io/y"). */
int th_hpa_object_metric(struct th_client *c, const char *path, const struct th_json *metric,
                         int64_t *ret_milli, struct th_err *err) TH_MUST_USE;
int th_hpa_external_metric(struct th_client *c, const char *ns, const struct th_json *metric,
                           struct th_hpa_values *ret, struct th_err *err) TH_MUST_USE;
/* A quantity's text in thousandths; 0 when it is none. */
int64_t th_hpa_milli(const struct th_json *text);

/* ---- Replicas (hpa_replicas.c) ---- */
struct th_hpa_tolerance {
    double up, down;
};
struct th_hpa_query { /* what all calculations know */
    struct th_ctrl *c;
    const char *ns, *selector;
    int64_t current, status_replicas;
    struct th_hpa_tolerance tolerance;
};
/* Each gives the replicas that are called for. *ret_usage: the average in thousandths. */
int th_hpa_by_utilization(const struct th_hpa_query *q, const char *resource, const char *container,
                          int64_t target, int64_t *ret_replicas, int64_t *ret_utilization,
                          int64_t *ret_usage, struct th_err *err) TH_MUST_USE;
int th_hpa_by_average(const struct th_hpa_query *q, struct th_hpa_values *values, const char *resource,
                      int64_t target, int64_t *ret_replicas, int64_t *ret_usage,
                      struct th_err *err) TH_MUST_USE;
int th_hpa_by_total(const struct th_hpa_query *q, int64_t usage, int64_t target,
                    int64_t *ret_replicas, struct th_err *err) TH_MUST_USE;
int64_t th_hpa_by_share(const struct th_hpa_query *q, int64_t *usage, int64_t target);
/* Pods that the selector names, whatever their state. */
void th_hpa_pods(const struct th_hpa_query *q, struct th_pods *ret);

/* ---- Who reads which pods (hpa_selectors.c); any thread, keys are "ns/name" ---- */
struct th_hpa_selectors;
struct th_hpa_selectors *th_hpa_selectors_new(void);
void th_hpa_selectors_free(struct th_hpa_selectors *s);
void th_hpa_selectors_know(struct th_hpa_selectors *s, const char *key);
void th_hpa_selectors_forget(struct th_hpa_selectors *s, const char *key);
/* Keeps the query's selector as the autoscaler's; why it may not scale (the caller's) when others read
 * its pods too, else NULL. */
char *th_hpa_selectors_others(struct th_hpa_selectors *s, const char *key, const struct th_hpa_query *q);

/* ---- Speed (hpa_behavior.c) ---- */
struct th_hpa_mark {
    int64_t at_ms, value;
};
struct th_hpa_marks {
    struct th_hpa_mark *v;
    size_t n, cap;
};
struct th_hpa_memory { /* of one autoscaler; one thread at a time */
    struct th_hpa_marks recommendations, ups, downs;
};
void th_hpa_memory_free(void *memory);
struct th_hpa_verdict {
    int64_t replicas;
    const char *able_reason, *able_message;
    bool limited;
    const char *limit_reason, *limit_message;
};
/* desired, held back by what was recommended lately and by the rules of behavior (may be NULL) and
 * the bounds. Remembers the recommendation. */
struct th_hpa_verdict th_hpa_hold_back(struct th_hpa_memory *m, const struct th_json *behavior,
                                       int64_t current, int64_t desired, int64_t min, int64_t max,
                                       int64_t now_ms);
/* The first recommendation is what was there. */
void th_hpa_first(struct th_hpa_memory *m, int64_t current, int64_t now_ms);
/* It was scaled. */
void th_hpa_scaled(struct th_hpa_memory *m, const struct th_json *behavior, int64_t from, int64_t to,
                   int64_t now_ms);
#endif

/*
 * The order of deletion, as upstream's ActivePodsWithRanks: not on a node; Pending, Unknown,
 * Running; not ready; cheaper by the annotation pod-deletion-cost; more related pods on the same
 * node; ready for a shorter time; more restarts; younger. Times are compared by their order of
 * magnitude (a power of two) and by uid within it, so that among pods of about the same age chance
 * decides and not the order in which nodes were filled.
 */
#include "controlplane/controllers/pod_rank.h"
#include "base/clock.h"

struct ranked {
    struct th_json *pod;
    int64_t cost, same_node, restarts, sidecar_restarts, ready_ms, created_ms;
    int phase;
    bool assigned, ready;
};

static int64_t most_restarts(const struct th_json *list)
{
    int64_t most = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        int64_t n = th_json_path_int(th_json_at(list, i), "restartCount", 0);
        most = n > most ? n : most;
    }
    return most;
}

static int phase_rank(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return th_streq(phase, "Running") ? 2 : th_streq(phase, "Unknown") ? 1 : 0;
}

static int by_number(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static int log2_age(int64_t then_ms, int64_t now_ms)
{
    int64_t age = now_ms - then_ms;
    int n = -1;
    for (; age > 0; age >>= 1) {
        n++;
    }
    return n;
}

/* Younger first; unknown (0) is youngest. */
static int by_age(const struct ranked *a, const struct ranked *b, int64_t ta, int64_t tb)
{
    if (ta == tb) {
        return 0;
    }
    if (ta == 0 || tb == 0) {
        return ta == 0 ? -1 : 1;
    }
    int64_t now = th_now_ms();
    int d = by_number(log2_age(ta, now), log2_age(tb, now));
    return d ? d
             : strcmp(th_json_path_str(a->pod, "metadata.uid"),
                      th_json_path_str(b->pod, "metadata.uid"));
}

static int compare(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    int d;
    if (a->assigned != b->assigned) {
        return a->assigned ? 1 : -1;
    }
    if ((d = by_number(a->phase, b->phase)) != 0) {
        return d;
    }
    if (a->ready != b->ready) {
        return a->ready ? 1 : -1;
    }
    if ((d = by_number(a->cost, b->cost)) != 0) {
        return d;
    }
    if ((d = by_number(b->same_node, a->same_node)) != 0) {
        return d;
    }
    if (a->ready && (d = by_age(a, b, a->ready_ms, b->ready_ms)) != 0) {
        return d;
    }
    if ((d = by_number(b->restarts, a->restarts)) != 0 ||
        (d = by_number(b->sidecar_restarts, a->sidecar_restarts)) != 0) {
        return d;
    }
    return by_age(a, b, a->created_ms, b->created_ms);
}

struct th_json **th_pod_rank(const struct th_pods *pods, const struct th_pods *related)
{
    th_autofree struct ranked *v = th_xcalloc(pods->n + 1, sizeof(*v));
    for (size_t i = 0; i < pods->n; i++) {
        struct th_json *pod = pods->v[i];
        const char *node = th_json_path_str(pod, "spec.nodeName");
        const struct th_json *annotations = th_json_path(pod, "metadata.annotations");
        const char *cost =
            th_json_str(th_json_get(annotations, "controller.kubernetes.io/pod-deletion-cost"));
        v[i] = (struct ranked){
            .pod = pod,
            .assigned = node && *node,
            .phase = phase_rank(pod),
            .ready = th_pod_is_ready(pod),
            .cost = cost ? strtoll(cost, NULL, 10) : 0,
            .restarts = most_restarts(th_json_path(pod, "status.containerStatuses")),
            .sidecar_restarts = most_restarts(th_json_path(pod, "status.initContainerStatuses")),
            .ready_ms = th_obj_time_ms(th_cond_get(pod, "Ready"), "lastTransitionTime"),
            .created_ms = th_obj_time_ms(pod, "metadata.creationTimestamp"),
        };
        for (size_t k = 0; node && k < related->n; k++) {
            v[i].same_node += th_streq(node, th_json_path_str(related->v[k], "spec.nodeName"));
        }
    }
    qsort(v, pods->n, sizeof(*v), compare);
    struct th_json **order = th_xcalloc(pods->n + 1, sizeof(struct th_json *));
    for (size_t i = 0; i < pods->n; i++) {
        order[i] = v[i].pod;
    }
    return order;
}

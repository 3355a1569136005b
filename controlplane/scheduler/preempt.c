/*
 * Preemption: when a pod fits nowhere, pods of lower priority may have to go.
 *
 * For each node that other pods keep it from: hide all pods of lower priority; when it fits then,
 * give them back one by one, the most important first (those that a disruption budget protects
 * before the others), and keep those hidden that it would not fit with. Of the nodes where that
 * works the one is taken that breaks fewest budgets, then has the least important greatest victim,
 * the least sum of priorities, the fewest victims, and the latest start of its greatest ones.
 *
 * Rules as k8s.io/kubernetes pkg/scheduler/framework/preemption. Hiding works on the picture itself
 * (under the scheduler's lock) and is undone before the call returns.
 */
#include "base/buf.h"
#include "controlplane/scheduler/framework.h"

#define CANDIDATES_MAX 100
#define NONE_FOUND "No preemption victims found for incoming pod"
#define NOT_HELPFUL "Preemption is not helpful for scheduling"

struct victims {
    struct th_sched_pod **v;
    size_t n;
    size_t violations;
};

static int important_first(const void *pa, const void *pb)
{
    const struct th_sched_pod *a = *(struct th_sched_pod *const *)pa;
    const struct th_sched_pod *b = *(struct th_sched_pod *const *)pb;
    if (a->priority != b->priority) {
        return a->priority > b->priority ? -1 : 1;
    }
    return a->start_ms < b->start_ms ? -1 : a->start_ms > b->start_ms;
}

/* Pods that a budget protects from going (in order of importance, each uses the budget up). */
static void find_protected(const struct th_json *pdbs, struct th_sched_pod *const *pods, size_t n,
                           bool *ret)
{
    th_autofree int64_t *allowed = th_xcalloc(th_json_len(pdbs) + 1, sizeof(*allowed));
    for (size_t b = 0; b < th_json_len(pdbs); b++) {
        allowed[b] = th_json_path_int(th_json_at(pdbs, b), "status.disruptionsAllowed", 0);
    }
    for (size_t i = 0; i < n; i++) {
        const char *name = strchr(pods[i]->key, '/') + 1;
        for (size_t b = 0; b < th_json_len(pdbs); b++) {
            const struct th_json *pdb = th_json_at(pdbs, b);
            struct th_selector *sel TH_AUTO(th_selector) = NULL;
            if (!th_streq(th_json_path_str(pdb, "metadata.namespace"), pods[i]->ns) ||
                th_selector_from_json(th_json_path(pdb, "spec.selector"), &sel, NULL) < 0 ||
                th_selector_empty(sel) || !th_selector_matches(sel, pods[i]->labels) ||
                th_json_has(th_json_path(pdb, "status.disruptedPods"), name)) {
                continue;
            }
            ret[i] = ret[i] || --allowed[b] < 0;
        }
    }
}

static bool fits_now(struct th_sched_ctx *c, struct th_picture *p, struct th_node_info *n,
                     char **ret_why)
{
    th_sched_prepare(c);
    return th_sched_filter_nominated(c, p, n, ret_why) == TH_FIT;
}

/* The pods that must go from n; false with *ret_why when it does not fit even without them. */
static bool find_victims(struct th_sched_ctx *c, struct th_picture *p, struct th_node_info *n,
                         const struct th_json *pdbs, struct victims *ret, char **ret_why)
{
    th_autofree struct th_sched_pod **low =
        th_xcalloc(n->n_pods + 1, sizeof(struct th_sched_pod *));
    size_t count = 0;
    for (size_t i = 0; i < n->n_pods; i++) {
        if (n->pods[i]->priority < c->priority) {
            low[count++] = n->pods[i];
        }
    }
    if (count == 0) {
        *ret_why = th_xstrdup(NONE_FOUND);
        return false;
    }
    qsort(low, count, sizeof(struct th_sched_pod *), important_first);
    for (size_t i = 0; i < count; i++) {
        th_node_hide(n, low[i], true);
    }
    bool fits = fits_now(c, p, n, ret_why);
    if (fits) {
        th_autofree bool *guarded = th_xcalloc(count + 1, sizeof(*guarded));
        find_protected(pdbs, low, count, guarded);
        for (size_t k = 0; k < 2 * count; k++) {
            size_t i = k % count;
            if (guarded[i] != (k < count)) {
                continue; /* the protected ones come in the first round */
            }
            th_node_hide(n, low[i], false);
            if (!fits_now(c, p, n, NULL)) {
                th_node_hide(n, low[i], true);
                ret->violations += guarded[i];
            }
        }
        ret->v = th_xcalloc(count + 1, sizeof(struct th_sched_pod *));
        for (size_t i = 0; i < count; i++) {
            if (low[i]->removed) {
                ret->v[ret->n++] = low[i];
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        th_node_hide(n, low[i], false);
    }
    return fits;
}

static int64_t sum_of_priorities(const struct victims *x)
{
    int64_t sum = 0;
    for (size_t i = 0; i < x->n; i++) {
        sum += x->v[i]->priority + (int64_t)INT32_MAX + 1;
    }
    return sum;
}

/* The earliest start among the victims of the greatest priority. */
static int64_t earliest(const struct victims *x)
{
    int64_t start = INT64_MAX;
    for (size_t i = 0; i < x->n && x->v[i]->priority == x->v[0]->priority; i++) {
        start = x->v[i]->start_ms < start ? x->v[i]->start_ms : start;
    }
    return start;
}

/* a is the better choice; both have victims, the most important first. */
static bool better(const struct victims *a, const struct victims *b)
{
    if (a->n == 0 || b->n == 0) {
        return a->n < b->n;
    }
    if (a->violations != b->violations) {
        return a->violations < b->violations;
    }
    if (a->v[0]->priority != b->v[0]->priority) {
        return a->v[0]->priority < b->v[0]->priority;
    }
    int64_t sa = sum_of_priorities(a), sb = sum_of_priorities(b);
    if (sa != sb) {
        return sa < sb;
    }
    return a->n != b->n ? a->n < b->n : earliest(a) > earliest(b);
}

struct th_node_info *th_sched_preempt(struct th_sched_ctx *c, struct th_picture *p,
                                      const struct th_verdict *verdicts, const struct th_json *pdbs,
                                      struct th_sched_pod ***ret_victims, size_t *ret_n,
                                      char **ret_why)
{
    struct th_reasons why TH_CLEANUP(th_reasons_done);
    th_reasons_init(&why);
    struct th_node_info *best = NULL;
    struct victims taken = {NULL, 0, 0};
    size_t candidates = 0;
    for (size_t i = 0; i < c->n_nodes && candidates < CANDIDATES_MAX; i++) {
        if (verdicts[i].fit == TH_UNFIT_FOR_CERTAIN) {
            th_reasons_add(&why, NOT_HELPFUL);
            continue;
        }
        struct victims x = {NULL, 0, 0};
        th_autofree char *text = NULL;
        if (!find_victims(c, p, c->nodes[i], pdbs, &x, &text)) {
            th_reasons_add(&why, text);
            continue;
        }
        candidates++;
        if (!best || better(&x, &taken)) {
            free(taken.v);
            taken = x;
            best = c->nodes[i];
        } else {
            free(x.v);
        }
    }
    th_sched_prepare(c);
    if (!best) {
        *ret_why = th_reasons_text(&why, c->n_nodes);
        return NULL;
    }
    *ret_victims = taken.v;
    *ret_n = taken.n;
    return best;
}

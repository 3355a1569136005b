/*
 * How fast an autoscaler may go: stabilization, rate policies, bounds. Pure but for its memory.
 *
 * Recommendations are remembered. Going down (and up, when the rules say so) takes the least of what the
 * recommendations of a window allow, so a short dip does not take pods away. Then the rules of
 * spec.behavior say how many pods may come or go in a period, counted from the scalings that are
 * remembered; without them upstream's old limit holds: twice as many pods, or four.
 */
#include "controlplane/controllers/hpa_priv.h"

#include <math.h>

#define DOWN_WINDOW_S 300
#define UP_FACTOR 2
#define UP_LEAST 4
#define KEEP_MS 3600000 /* the longest window and period that rules may have */

void th_hpa_memory_free(void *p)
{
    struct th_hpa_memory *m = p;
    if (m) {
        free(m->recommendations.v);
        free(m->ups.v);
        free(m->downs.v);
        free(m);
    }
}

static void mark(struct th_hpa_marks *l, int64_t at_ms, int64_t value)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].at_ms > at_ms - KEEP_MS) {
            l->v[n++] = l->v[i];
        }
    }
    l->n = n;
    l->v = th_xgrow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
    l->v[l->n++] = (struct th_hpa_mark){at_ms, value};
}

void th_hpa_first(struct th_hpa_memory *m, int64_t current, int64_t now_ms)
{
    if (m->recommendations.n == 0) {
        mark(&m->recommendations, now_ms, current);
    }
}

void th_hpa_scaled(struct th_hpa_memory *m, const struct th_json *behavior, int64_t from, int64_t to,
                   int64_t now_ms)
{
    if (behavior && to != from) {
        mark(to > from ? &m->ups : &m->downs, now_ms, to > from ? to - from : from - to);
    }
}

static int64_t window_ms(const struct th_json *behavior, const char *direction, int64_t dflt_s)
{
    return th_json_path_int(th_json_get(behavior, direction), "stabilizationWindowSeconds", dflt_s) *
           1000;
}

static int64_t stabilize(struct th_hpa_memory *m, const struct th_json *behavior, int64_t current,
                         int64_t desired, int64_t now_ms)
{
    int64_t up_from = now_ms - window_ms(behavior, "scaleUp", 0);
    int64_t down_from = now_ms - window_ms(behavior, "scaleDown", DOWN_WINDOW_S);
    int64_t up = desired, down = desired;
    for (size_t i = 0; i < m->recommendations.n; i++) {
        const struct th_hpa_mark *r = &m->recommendations.v[i];
        if (r->at_ms > up_from && r->value < up) {
            up = r->value;
        }
        if (r->at_ms > down_from && r->value > down) {
            down = r->value;
        }
    }
    mark(&m->recommendations, now_ms, desired);
    if (!behavior) {
        return down;
    }
    int64_t held = current;
    held = held < up ? up : held;
    return held > down ? down : held;
}

/* ---- rate policies ---- */

static int64_t changed_since(const struct th_hpa_marks *l, int64_t from_ms)
{
    int64_t sum = 0;
    for (size_t i = 0; i < l->n; i++) {
        sum += l->v[i].at_ms > from_ms ? l->v[i].value : 0;
    }
    return sum;
}

/* The replicas that the policies of a direction allow. */
static int64_t rate_limit(const struct th_hpa_memory *m, const struct th_json *rules, bool up,
                          int64_t current, int64_t now_ms)
{
    const char *select = th_json_path_str(rules, "selectPolicy");
    const struct th_json *policies = th_json_get(rules, "policies");
    if (th_streq(select, "Disabled")) {
        return current;
    }
    bool least_change = th_streq(select, "Min");
    bool want_min = up == least_change; /* going up, less is the smaller number; going down not */
    int64_t limit = want_min ? INT32_MAX : INT32_MIN;
    for (size_t i = 0; i < th_json_len(policies); i++) {
        const struct th_json *p = th_json_at(policies, i);
        int64_t from_ms = now_ms - th_json_path_int(p, "periodSeconds", 0) * 1000;
        int64_t start = current - changed_since(&m->ups, from_ms) + changed_since(&m->downs, from_ms);
        int64_t value = th_json_path_int(p, "value", 0);
        double factor = (double)value / 100.0;
        int64_t proposed = th_streq(th_json_path_str(p, "type"), "Pods")
                               ? (up ? start + value : start - value)
                           : up ? (int64_t)ceil((double)start * (1.0 + factor))
                                : (int64_t)((double)start * (1.0 - factor));
        limit = want_min ? (proposed < limit ? proposed : limit)
                         : (proposed > limit ? proposed : limit);
    }
    return limit;
}

static void cap(struct th_hpa_verdict *v, int64_t bound, bool above, const char *reason,
                const char *message)
{
    if (above ? v->replicas > bound : v->replicas < bound) {
        v->replicas = bound;
        v->limit_reason = reason;
        v->limit_message = message;
    }
}

#define TOO_FAST_UP "the desired replica count is increasing faster than the maximum scale rate"
#define TOO_FAST_DOWN "the desired replica count is decreasing faster than the maximum scale rate"
#define TOO_MANY "the desired replica count is more than the maximum replica count"
#define TOO_FEW "the desired replica count is less than the minimum replica count"

static void bound_by_rules(const struct th_hpa_memory *m, const struct th_json *behavior,
                           int64_t current, int64_t min, int64_t max, int64_t now_ms,
                           struct th_hpa_verdict *v)
{
    if (v->replicas > current) {
        int64_t limit = rate_limit(m, th_json_get(behavior, "scaleUp"), true, current, now_ms);
        limit = limit < current ? current : limit;
        if (max > limit) {
            cap(v, limit, true, "ScaleUpLimit", TOO_FAST_UP);
        } else {
            cap(v, max, true, "TooManyReplicas", TOO_MANY);
        }
    } else if (v->replicas < current) {
        int64_t limit = rate_limit(m, th_json_get(behavior, "scaleDown"), false, current, now_ms);
        limit = limit > current ? current : limit;
        if (min < limit) {
            cap(v, limit, false, "ScaleDownLimit", TOO_FAST_DOWN);
        } else {
            cap(v, min, false, "TooFewReplicas", TOO_FEW);
        }
    }
}

static void bound_by_default(int64_t current, int64_t min, int64_t max, struct th_hpa_verdict *v)
{
    int64_t limit = current * UP_FACTOR > UP_LEAST ? current * UP_FACTOR : UP_LEAST;
    if (v->replicas < min) {
        cap(v, min, false, "TooFewReplicas", TOO_FEW);
    } else if (max > limit) {
        cap(v, limit, true, "ScaleUpLimit", TOO_FAST_UP);
    } else {
        cap(v, max, true, "TooManyReplicas", TOO_MANY);
    }
}

struct th_hpa_verdict th_hpa_hold_back(struct th_hpa_memory *m, const struct th_json *behavior,
                                       int64_t current, int64_t desired, int64_t min, int64_t max,
                                       int64_t now_ms)
{
    struct th_hpa_verdict v = {
        .able_reason = "ReadyForNewScale",
        .able_message = "recommended size matches current size",
        .limit_reason = "DesiredWithinRange",
        .limit_message = "the desired count is within the acceptable range"};
    v.replicas = stabilize(m, behavior, current, desired, now_ms);
    if (v.replicas != desired) {
        bool up = behavior && desired >= current;
        v.able_reason = up ? "ScaleUpStabilized" : "ScaleDownStabilized";
        v.able_message = up ? "recent recommendations were lower than current one, applying the "
                              "lowest recent recommendation"
                            : "recent recommendations were higher than current one, applying the "
                              "highest recent recommendation";
    }
    int64_t stabilized = v.replicas;
    if (behavior) {
        bound_by_rules(m, behavior, current, min, max, now_ms, &v);
    } else {
        bound_by_default(current, min, max, &v);
    }
    v.limited = v.replicas != stabilized;
    return v;
}

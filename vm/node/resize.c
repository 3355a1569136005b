/* Resizing pods in place.
 *
 * Three things are told apart, as upstream does: what the object wants (spec), what the node has granted
 * (the allocation: p->allocated, kept in state.json) and what a running container really has (the
 * instance's resources, kept in inst.json). resize_take lays the allocation over the object that came
 * from the API server, so that everything else here (control groups, downward API, OOM score, requests
 * of the pod) reads spec.containers[].resources and sees the allocation; what is wanted and not granted
 * waits in ctr->wanted.
 *
 *   wanted != allocated   does it fit beside the other pods? then it is allocated, and the condition
 *                         PodResizeInProgress set; else PodResizePending says why (Deferred) and it is
 *                         tried again when another pod gives something back, or after half a minute
 *   allocated != actual   the control groups of running containers are changed; a container whose
 *                         resizePolicy says RestartContainer is stopped and started instead
 *
 * Memory limits are never set below what is in use: the condition then has the reason Error and it is
 * tried again. The pod's own group grows before its containers do and shrinks after them.
 *
 * Whether there is room says room.c. Other than upstream: pods that wait are not sorted by priority; whichever is looked at first and fits
 * gets it. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "controlplane/schema/podresources.h"
#include "controlplane/schema/quantity.h"
#include "vm/node/agent.h"

#define RETRY_MS 30000
#define ERROR_RETRY_MS 5000

static const char *const MEMBERS[] = {"requests", "limits"};
static const char *const RESOURCES[] = {"cpu", "memory"};

static bool resizable(const struct ctr *c)
{
    return c->kind != CTR_EPHEMERAL;
}

static bool same_amount(const struct th_json *a, const struct th_json *b)
{
    struct th_quantity x = {0}, y = {0};
    const char *s = th_json_str(a), *t = th_json_str(b);
    if ((s && th_quantity_parse(s, &x, NULL) < 0) || (t && th_quantity_parse(t, &y, NULL) < 0)) {
        return th_streq(s, t);
    }
    x = s ? x : (struct th_quantity){.nano = (__int128)th_json_as_int(a, 0) * 1000000000};
    y = t ? y : (struct th_quantity){.nano = (__int128)th_json_as_int(b, 0) * 1000000000};
    return th_quantity_cmp(x, y) == 0;
}

/* CPU and memory of two resource requirements are the same amounts, however written. */
static bool same_resource(const struct th_json *a, const struct th_json *b, const char *name)
{
    for (size_t m = 0; m < TH_ARRAY_LEN(MEMBERS); m++) {
        if (!same_amount(th_json_get(th_json_get(a, MEMBERS[m]), name),
                         th_json_get(th_json_get(b, MEMBERS[m]), name))) {
            return false;
        }
    }
    return true;
}

bool resources_same(const struct th_json *a, const struct th_json *b)
{
    for (size_t r = 0; r < TH_ARRAY_LEN(RESOURCES); r++) {
        if (!same_resource(a, b, RESOURCES[r])) {
            return false;
        }
    }
    return true;
}

static void put_resources(struct ctr *c, const struct th_json *resources)
{
    if (resources) {
        th_json_set(c->spec, "resources", th_json_dup(resources));
    } else {
        th_json_del(c->spec, "resources");
    }
}

static void allocate(struct pod *p, const struct ctr *c, const struct th_json *resources)
{
    if (!p->allocated) {
        p->allocated = th_json_object();
    }
    th_json_set(p->allocated, c->name, resources ? th_json_dup(resources) : th_json_object());
}

void resize_take(struct pod *p)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        if (!resizable(c)) {
            continue;
        }
        const struct th_json *want = th_json_get(c->spec, "resources");
        const struct th_json *have = th_json_get(p->allocated, c->name);
        th_json_unref(c->wanted);
        c->wanted = NULL;
        if (!have) {
            allocate(p, c, want); /* what the pod came with */
            p->saved = false;
        } else if (!resources_same(want, have)) {
            c->wanted = want ? th_json_dup(want) : th_json_object();
            put_resources(c, have);
        }
    }
}

/* ---- granting ---- */

/* ---- conditions and events ---- */

static void drop(struct th_json **condition)
{
    th_json_unref(*condition);
    *condition = NULL;
}

static struct th_json *condition(const char *reason, const char *message, int64_t generation)
{
    return th_json_build("{'reason':%s,'message':%s,'observedGeneration':%d}", reason, message, generation);
}

static struct th_json *summary_list(const struct pod *p, bool apps)
{
    struct th_json *l = th_json_array();
    for (size_t i = 0; i < p->n_ctrs; i++) {
        const struct ctr *c = &p->ctrs[i];
        if (resizable(c) && (c->kind == CTR_APP) == apps) {
            struct th_json *o = th_json_object();
            th_json_set_str(o, "name", c->name);
            const struct th_json *r = c->wanted ? c->wanted : th_json_get(c->spec, "resources");
            th_json_set(o, "resources", r ? th_json_dup(r) : th_json_object());
            th_json_append(l, o);
        }
    }
    return l;
}

/* "Pod resize started: {"containers":[...],"generation":2}" */
static void tell(struct pod *p, const char *type, const char *reason, const char *what, int64_t generation,
                 const char *error)
{
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    TH_AUTO(th_json) struct th_json *inits = summary_list(p, false);
    if (th_json_len(inits) > 0) {
        th_json_set(o, "initContainers", th_json_ref(inits));
    }
    th_json_set(o, "containers", summary_list(p, true));
    th_json_set_int(o, "generation", generation);
    if (error && *error) {
        th_json_set_str(o, "error", error);
    }
    th_autofree char *text = th_json_to_string(o);
    pod_event(p, type, reason, NULL, "%s: %s", what, text);
}

static void set_pending(struct pod *p, const char *message, int64_t generation)
{
    const char *reason = "Deferred";
    bool fresh = !p->resize_pending || th_json_path_int(p->resize_pending, "observedGeneration", 0) != generation;
    drop(&p->resize_pending);
    p->resize_pending = condition(reason, message, generation);
    if (fresh) {
        tell(p, "Warning", "ResizeDeferred", "Pod resize Deferred", generation, message);
    }
}

static void set_error(struct pod *p, const char *message)
{
    int64_t gen = th_json_path_int(p->resize_progress, "observedGeneration",
                                   th_json_path_int(p->obj, "metadata.generation", 0));
    bool fresh = !th_streq(th_json_path_str(p->resize_progress, "message"), message);
    drop(&p->resize_progress);
    p->resize_progress = condition("Error", message, gen);
    if (fresh) {
        tell(p, "Warning", "ResizeError", "Pod resize error", gen, message);
    }
    agent_kick_after(p->a, p->uid, ERROR_RETRY_MS);
}

static void swap_wanted(struct pod *p)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->wanted) {
            struct th_json *now = th_json_dup(th_json_get(c->spec, "resources"));
            put_resources(c, c->wanted);
            th_json_unref(c->wanted);
            c->wanted = now ? now : th_json_object();
        }
    }
}

static bool any_wanted(const struct pod *p)
{
    for (size_t i = 0; i < p->n_ctrs; i++) {
        if (p->ctrs[i].wanted) {
            return true;
        }
    }
    return false;
}

/* Grants what is wanted when there is room. */
static void grant(struct pod *p)
{
    int64_t generation = th_json_path_int(p->obj, "metadata.generation", 0);
    if (!any_wanted(p)) {
        drop(&p->resize_pending);
        return;
    }
    struct th_amounts before TH_CLEANUP(th_amounts_done) = {NULL, 0};
    struct th_amounts after TH_CLEANUP(th_amounts_done) = {NULL, 0};
    th_pod_requests(p->obj, &before);
    swap_wanted(p);
    th_pod_requests(p->obj, &after);
    bool grows = false, shrinks = false;
    for (size_t r = 0; r < TH_ARRAY_LEN(RESOURCES); r++) {
        int64_t d = th_amounts_get(&after, RESOURCES[r]) - th_amounts_get(&before, RESOURCES[r]);
        grows = grows || d > 0;
        shrinks = shrinks || d < 0;
    }
    th_autofree char *why = grows ? room_resources(p, NULL) : NULL;
    if (why) {
        swap_wanted(p);
        set_pending(p, why, generation);
        agent_kick_after(p->a, p->uid, RETRY_MS);
        return;
    }
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->wanted) {
            allocate(p, c, th_json_get(c->spec, "resources"));
            th_json_unref(c->wanted);
            c->wanted = NULL;
        }
    }
    p->saved = false;
    drop(&p->resize_pending);
    drop(&p->resize_progress);
    p->resize_progress = condition("", "", generation);
    tell(p, "Normal", "ResizeStarted", "Pod resize started", generation, NULL);
    if (shrinks) {
        p->freed = true;
    }
}

/* ---- doing ---- */

static bool restarts_for(const struct ctr *c)
{
    const struct th_json *policy = th_json_get(c->spec, "resizePolicy");
    for (size_t i = 0; i < th_json_len(policy); i++) {
        const char *name = th_json_path_str(th_json_at(policy, i), "resourceName");
        if (th_streq(th_json_path_str(th_json_at(policy, i), "restartPolicy"), "RestartContainer") && name &&
            !same_resource(th_json_get(c->spec, "resources"), c->cur.resources, name)) {
            return true;
        }
    }
    return false;
}

/* Running with other resources than it has been granted. */
static bool differs(const struct ctr *c)
{
    return resizable(c) && c->kind != CTR_INIT && c->cur.state == I_RUNNING && c->cur.resources &&
           !resources_same(th_json_get(c->spec, "resources"), c->cur.resources);
}

static int check_memory(struct pod *p, const struct ctr *c, struct th_buf *why)
{
    int64_t want = quantity_value(th_json_path(c->spec, "resources.limits.memory"), 0);
    int64_t have = quantity_value(th_json_path(c->cur.resources, "limits.memory"), 0);
    if (want == 0 || (have != 0 && want >= have)) {
        return 0;
    }
    th_autofree char *pod = cg_pod_path(p);
    th_autofree char *group = th_path_join(pod, c->cur.id);
    struct cg_usage u;
    if (cg_usage_read(p->a, group, &u) >= 0 && u.memory_b >= (uint64_t)want) {
        th_buf_printf(why, "%sattempting to set container \"%s\" memory limit (%lld) below current usage (%lld)",
                      why->n ? ", " : "", c->name, (long long)want, (long long)u.memory_b);
        return -1;
    }
    return 0;
}

static int update(struct pod *p, struct ctr *c, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *res = cg_resources(p, c);
    th_json_del(res, "unified");
    TH_TRY(rt_update(p->a, c->cur.id, c->cur.dir, res, err));
    th_json_unref(c->cur.resources);
    c->cur.resources = th_json_dup(th_json_get(c->spec, "resources"));
    return inst_save(&c->cur, err);
}

static int update_all(struct pod *p, struct th_err *err)
{
    th_autobuf struct th_buf why = TH_BUF_INIT;
    bool any = false;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        struct ctr *c = &p->ctrs[i];
        if (differs(c) && c->stop == STOP_NONE) {
            any = true;
            if (restarts_for(c)) {
                th_autofree char *m = th_xasprintf("Container %s resize requires restart", c->name);
                c->restart_after_stop = true;
                ctr_stop_begin(p, c, p->grace_s, m);
            } else {
                (void)check_memory(p, c, &why);
            }
        }
    }
    if (!any) {
        return 0;
    }
    if (why.n) {
        return th_fail(err, TH_R_INVALID, "cannot decrease memory limits: %s", th_buf_cstr(&why));
    }
    cg_pod_limits(p, true);
    for (int grow = 0; grow < 2; grow++) { /* what shrinks makes room for what grows */
        for (size_t i = 0; i < p->n_ctrs; i++) {
            struct ctr *c = &p->ctrs[i];
            int64_t d = quantity_value(th_json_path(c->spec, "resources.limits.memory"), 0) -
                        quantity_value(th_json_path(c->cur.resources, "limits.memory"), 0);
            if (differs(c) && c->stop == STOP_NONE && (grow ? d >= 0 : d < 0)) {
                TH_TRY(update(p, c, err));
            }
        }
    }
    cg_pod_limits(p, false);
    return 0;
}

void resize_step(struct pod *p)
{
    grant(p);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (update_all(p, &err) < 0) {
        set_error(p, err.msg);
        return;
    }
    bool under_way = false;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        under_way = under_way || differs(&p->ctrs[i]);
    }
    if (p->resize_progress && !under_way) {
        int64_t gen = th_json_path_int(p->resize_progress, "observedGeneration", 0);
        drop(&p->resize_progress);
        tell(p, "Normal", "ResizeCompleted", "Pod resize completed", gen, NULL);
    }
}

void resize_retry_others(struct agent *a)
{
    th_autostrv struct th_strv uids = TH_STRV_INIT;
    pthread_mutex_lock(&a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&a->pods, &it));) {
        struct pod *o = e->value;
        pthread_mutex_lock(&o->mu);
        if (o->view.resize_pending) {
            th_strv_add(&uids, o->uid);
        }
        pthread_mutex_unlock(&o->mu);
    }
    pthread_mutex_unlock(&a->mu);
    for (size_t i = 0; i < uids.n; i++) {
        agent_kick(a, uids.v[i]);
    }
}

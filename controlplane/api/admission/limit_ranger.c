/* LimitRanger: containers get the default requests and limits of their namespace's LimitRanges, and
 * pods and claims outside of the bounds are refused. */
#include "controlplane/api/admission/admission.h"

#include "controlplane/schema/podresources.h"
#include "controlplane/schema/quota.h"

#define NOTE "kubernetes.io/limit-ranger"

typedef int per_range_fn(struct th_call *c, const struct th_json *range, void *arg);

static int each_range(struct th_call *c, per_range_fn *fn, void *arg, struct th_err *err)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    th_autofree char *prefix = th_xasprintf("core/limitranges/%s/", c->route.ns);
    TH_TRY(th_store_range(c->api->store, prefix, NULL, 0, 0, &l, err));
    for (size_t i = 0; i < l.n; i++) {
        TH_AUTO(th_json) struct th_json *t = NULL;
        TH_TRY(th_json_parse(l.objs[i]->bytes, l.objs[i]->n, NULL, &t, err));
        TH_TRY(fn(c, t, arg));
    }
    return 0;
}

/* ---- Defaults ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adds what is missing of defaults; notes gets "cpu, memory request for container c". */
static void fill(struct th_json *container, const char *path, const struct th_json *defaults,
                 const char *what, struct th_strv *notes)
{
    TH_CLEANUP(th_strv_done) struct th_strv set = {0};
    struct th_json_iter it = TH_JSON_ITER(defaults);
    while (th_json_next(&it)) {
        struct th_json *map = th_json_path_object(container, path);
        if (!th_json_has(map, it.name)) {
            th_json_set(map, it.name, th_json_dup(it.value));
            th_strv_add(&set, it.name);
        }
    }
    if (set.n == 0) {
        return;
    }
    qsort(set.v, set.n, sizeof(*set.v), by_name);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < set.n; i++) {
        th_buf_printf(&b, "%s%s", i ? ", " : "", set.v[i]);
    }
    th_strv_addf(notes, "%s %s %s", th_buf_cstr(&b), what, th_json_path_str(container, "name"));
}

static int set_defaults(struct th_call *c, const struct th_json *range, void *arg)
{
    (void)c;
    static const char *const lists[][3] = {
        {"spec.containers", "request for container", "limit for container"},
        {"spec.initContainers", "request for init container", "limit for init container"}};
    struct th_json *pod = arg;
    TH_CLEANUP(th_strv_done) struct th_strv notes = {0};
    const struct th_json *limits = th_json_path(range, "spec.limits");
    for (size_t i = 0; i < th_json_len(limits); i++) {
        const struct th_json *item = th_json_at(limits, i);
        if (!th_streq(th_json_path_str(item, "type"), "Container")) {
            continue;
        }
        for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
            const struct th_json *all = th_json_path(pod, lists[l][0]);
            for (size_t k = 0; k < th_json_len(all); k++) {
                struct th_json *ct = th_json_at(all, k);
                fill(ct, "resources.requests", th_json_get(item, "defaultRequest"), lists[l][1],
                     &notes);
                fill(ct, "resources.limits", th_json_get(item, "default"), lists[l][2], &notes);
            }
        }
    }
    if (notes.n > 0) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_puts(&b, "LimitRanger plugin set: ");
        for (size_t i = 0; i < notes.n; i++) {
            th_buf_printf(&b, "%s%s", i ? "; " : "", notes.v[i]);
        }
        th_json_set_str(th_json_path_object(pod, "metadata.annotations"), NOTE, th_buf_cstr(&b));
    }
    return 0;
}

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    return th_admission_creates(c, "", "pods", old) ? each_range(c, set_defaults, obj, err) : 0;
}

/* ---- Bounds ---- */

struct amounts {
    const char *type; /* of the limit: "Container" */
    const struct th_json *requests, *limits;
    struct th_strv *bad;
};
struct pair {
    const char *request, *limit; /* text, NULL when missing */
    struct th_quantity r, l, bound;
};

static bool read_pair(const struct amounts *a, const char *name, const char *bound, struct pair *ret)
{
    *ret = (struct pair){.request = th_json_str(th_json_get(a->requests, name)),
                         .limit = th_json_str(th_json_get(a->limits, name))};
    return th_quantity_parse(bound, &ret->bound, NULL) >= 0 &&
           (!ret->request || th_quantity_parse(ret->request, &ret->r, NULL) >= 0) &&
           (!ret->limit || th_quantity_parse(ret->limit, &ret->l, NULL) >= 0);
}

static void check_min(const struct amounts *a, const char *name, const char *bound)
{
    struct pair p;
    if (!read_pair(a, name, bound, &p)) {
        return;
    }
    if (!p.request) {
        th_strv_addf(a->bad, "minimum %s usage per %s is %s.  No request is specified", name,
                     a->type, bound);
    } else if (th_quantity_cmp(p.r, p.bound) < 0) {
        th_strv_addf(a->bad, "minimum %s usage per %s is %s, but request is %s", name, a->type,
                     bound, p.request);
    } else if (p.limit && th_quantity_cmp(p.l, p.bound) < 0) {
        th_strv_addf(a->bad, "minimum %s usage per %s is %s, but limit is %s", name, a->type, bound,
                     p.limit);
    }
}

static void check_max(const struct amounts *a, const char *name, const char *bound)
{
    struct pair p;
    bool claim = a->limits == NULL; /* claims have only requests */
    if (!read_pair(a, name, bound, &p)) {
        return;
    }
    if (claim ? !p.request : !p.limit) {
        th_strv_addf(a->bad, "maximum %s usage per %s is %s.  No %s is specified", name, a->type,
                     bound, claim ? "request" : "limit");
    } else if (p.limit && th_quantity_cmp(p.l, p.bound) > 0) {
        th_strv_addf(a->bad, "maximum %s usage per %s is %s, but limit is %s", name, a->type, bound,
                     p.limit);
    } else if (p.request && th_quantity_cmp(p.r, p.bound) > 0) {
        th_strv_addf(a->bad, "maximum %s usage per %s is %s, but request is %s", name, a->type,
                     bound, p.request);
    }
}

static void check_ratio(const struct amounts *a, const char *name, const char *bound)
{
    struct pair p;
    if (!read_pair(a, name, bound, &p)) {
        return;
    }
    double r = (double)th_quantity_milli(p.r), l = (double)th_quantity_milli(p.l);
    if (!p.request || p.r.nano == 0) {
        th_strv_addf(a->bad, "%s max limit to request ratio per %s is %s, but no request is specified "
                             "or request is 0",
                     name, a->type, bound);
    } else if (!p.limit || p.l.nano == 0) {
        th_strv_addf(a->bad, "%s max limit to request ratio per %s is %s, but no limit is specified "
                             "or limit is 0",
                     name, a->type, bound);
    } else if (l / r * 1000 > (double)th_quantity_milli(p.bound)) {
        th_strv_addf(a->bad, "%s max limit to request ratio per %s is %s, but provided ratio is %f",
                     name, a->type, bound, l / r);
    }
}

static void check_item(const struct amounts *a, const struct th_json *item)
{
    static const struct {
        const char *member;
        void (*check)(const struct amounts *a, const char *name, const char *bound);
    } kinds[] = {{"min", check_min}, {"max", check_max}, {"maxLimitRequestRatio", check_ratio}};
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        struct th_json_iter it = TH_JSON_ITER(th_json_get(item, kinds[i].member));
        while (th_json_next(&it)) {
            kinds[i].check(a, it.name, th_json_str(it.value));
        }
    }
}

/* What the whole pod asks for, its overhead aside, as a map of quantities. */
static struct th_json *pod_amounts(const struct th_json *pod, bool limits)
{
    TH_CLEANUP(th_amounts_done) struct th_amounts sum = {.n = 0};
    TH_AUTO(th_json) struct th_json *plain = th_json_dup(pod);
    struct th_json *map = th_json_object();
    th_json_path_del(plain, "spec.overhead");
    if (limits) {
        th_pod_limits(plain, &sum);
    } else {
        th_pod_requests(plain, &sum);
    }
    for (size_t i = 0; i < sum.n; i++) {
        char text[TH_QUANTITY_LEN];
        struct th_quantity q = th_quota_quantity(sum.v[i].name, sum.v[i].value);
        th_json_set_str(map, sum.v[i].name, th_quantity_format(q, text));
    }
    return map;
}

struct bounds {
    const struct th_json *obj;
    struct th_strv bad;
};

static void check_containers(struct bounds *b, const struct th_json *item)
{
    static const char *const lists[] = {"spec.containers", "spec.initContainers"};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *all = th_json_path(b->obj, lists[l]);
        for (size_t i = 0; i < th_json_len(all); i++) {
            TH_AUTO(th_json) struct th_json *none = th_json_object();
            const struct th_json *limits = th_json_path(th_json_at(all, i), "resources.limits");
            struct amounts a = {.type = "Container", .bad = &b->bad, .limits = limits ? limits : none};
            a.requests = th_json_path(th_json_at(all, i), "resources.requests");
            check_item(&a, item);
        }
    }
}

static int check_pod(struct th_call *c, const struct th_json *range, void *arg)
{
    (void)c;
    struct bounds *b = arg;
    const struct th_json *limits = th_json_path(range, "spec.limits");
    for (size_t i = 0; i < th_json_len(limits); i++) {
        const struct th_json *item = th_json_at(limits, i);
        const char *type = th_json_path_str(item, "type");
        if (th_streq(type, "Container")) {
            check_containers(b, item);
        } else if (th_streq(type, "Pod")) {
            TH_AUTO(th_json) struct th_json *r = pod_amounts(b->obj, false);
            TH_AUTO(th_json) struct th_json *l = pod_amounts(b->obj, true);
            struct amounts a = {.type = type, .requests = r, .limits = l, .bad = &b->bad};
            check_item(&a, item);
        }
    }
    return 0;
}

static int check_claim(struct th_call *c, const struct th_json *range, void *arg)
{
    (void)c;
    struct bounds *b = arg;
    const struct th_json *limits = th_json_path(range, "spec.limits");
    for (size_t i = 0; i < th_json_len(limits); i++) {
        const char *type = th_json_path_str(th_json_at(limits, i), "type");
        if (th_streq(type, "PersistentVolumeClaim")) {
            struct amounts a = {.type = type, .bad = &b->bad};
            a.requests = th_json_path(b->obj, "spec.resources.requests");
            check_item(&a, th_json_at(limits, i));
        }
    }
    return 0;
}

static int validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    bool core = th_streq(c->res->group, "");
    bool pod = core && th_streq(c->res->plural, "pods") &&
               (c->sub ? th_streq(c->sub->name, "resize") : !old);
    bool claim = core && !c->sub && th_streq(c->res->plural, "persistentvolumeclaims");
    if ((!pod && !claim) || th_json_path_str(old, "metadata.deletionTimestamp")) {
        return 0;
    }
    struct bounds b = {.obj = obj};
    int r = each_range(c, pod ? check_pod : check_claim, &b, err);
    if (r >= 0 && b.bad.n > 0) {
        th_autobuf struct th_buf text = TH_BUF_INIT;
        for (size_t i = 0; i < b.bad.n; i++) {
            th_buf_printf(&text, "%s%s", i ? ", " : "", b.bad.v[i]);
        }
        r = th_fail_forbidden(err, c->res, th_json_path_str(obj, "metadata.name"),
                              b.bad.n > 1 ? "[%s]" : "%s", th_buf_cstr(&text));
    }
    th_strv_done(&b.bad);
    return r;
}

const struct th_admission_plugin th_admission_limit_ranger = {
    .name = "LimitRanger", .mutate = mutate, .validate = validate};

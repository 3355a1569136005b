/* Measured values for autoscalers: metrics.k8s.io, custom.metrics.k8s.io and external.metrics.k8s.io,
 * asked like any API. The last two are there only when somebody registers a server for them; failures
 * carry upstream's words, since users look for them in conditions. */
#include "base/clock.h"
#include "base/encode.h"
#include "controlplane/controllers/hpa_priv.h"
#include "controlplane/schema/quantity.h"

void th_hpa_values_done(struct th_hpa_values *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->v[i].pod);
    }
    free(m->v);
    *m = (struct th_hpa_values){NULL, 0, 0};
}

struct th_hpa_value *th_hpa_values_get(const struct th_hpa_values *m, const char *pod)
{
    for (size_t i = 0; i < m->n; i++) {
        if (th_streq(m->v[i].pod, pod)) {
            return &m->v[i];
        }
    }
    return NULL;
}

static struct th_hpa_value *add(struct th_hpa_values *m, const char *pod)
{
    m->v = th_xgrow(m->v, &m->cap, m->n + 1, sizeof(*m->v));
    m->v[m->n] = (struct th_hpa_value){.pod = th_xstrdup(pod)};
    return &m->v[m->n++];
}

void th_hpa_values_set(struct th_hpa_values *m, const char *pod, int64_t milli)
{
    struct th_hpa_value *v = th_hpa_values_get(m, pod);
    v = v ? v : add(m, pod);
    v->milli = milli;
}

void th_hpa_values_remove(struct th_hpa_values *m, const char *pod)
{
    struct th_hpa_value *v = th_hpa_values_get(m, pod);
    if (v) {
        free(v->pod);
        *v = m->v[--m->n];
    }
}

int64_t th_hpa_milli(const struct th_json *text)
{
    struct th_quantity q;
    const char *s = th_json_str(text);
    return s && th_quantity_parse(s, &q, NULL) >= 0 ? th_quantity_milli(q) : 0;
}

static int ask(struct th_client *c, const char *path, struct th_json **ret, struct th_err *err)
{
    th_autobuf struct th_buf body = TH_BUF_INIT;
    const struct th_raw_req req = {.method = "GET", .path = path};
    TH_TRY(th_client_raw(c, &req, NULL, &body, err));
    return th_json_parse(th_buf_cstr(&body), body.n, NULL, ret, err);
}

static void when(struct th_hpa_value *v, const struct th_json *o)
{
    int64_t us = 0;
    const char *t = th_json_path_str(o, "timestamp"), *w = th_json_path_str(o, "window");
    v->at_ms = t && th_time_parse(t, &us, NULL) >= 0 ? us / 1000 : 0;
    v->window_ms = w && th_duration_parse(w, &us, NULL) >= 0
                       ? us / 1000
                       : th_json_path_int(o, "windowSeconds", 60) * 1000;
}

/* Sums the resource over containers; false when one lacks it. */
static bool sum_containers(const struct th_json *o, const char *resource, const char *container,
                           int64_t *ret, bool *ret_found)
{
    const struct th_json *l = th_json_get(o, "containers");
    *ret_found = !*container;
    for (size_t i = 0; i < th_json_len(l); i++) {
        const struct th_json *ctr = th_json_at(l, i);
        if (*container && !th_streq(th_json_path_str(ctr, "name"), container)) {
            continue;
        }
        const struct th_json *v = th_json_get(th_json_get(ctr, "usage"), resource);
        *ret_found = true;
        if (!v) {
            return false;
        }
        *ret += th_hpa_milli(v);
    }
    return true;
}

static int fail_fetch(struct th_err *err, struct th_err *why, const char *which, const char *gr)
{
    bool missing = why->reason == TH_R_NOT_FOUND;
    return th_fail(err, TH_R_UNAVAILABLE, "unable to fetch metrics from %s metrics API: %s%s%s%s", which,
                   missing ? "the server could not find the requested resource" : why->msg,
                   missing ? " (get " : "", missing ? gr : "", missing ? ")" : "");
}

int th_hpa_resource(struct th_client *c, const char *ns, const char *selector, const char *resource,
                    const char *container, struct th_hpa_values *ret, struct th_err *err)
{
    th_autobuf struct th_buf path = TH_BUF_INIT;
    th_buf_printf(&path, "/apis/metrics.k8s.io/v1beta1/namespaces/%s/pods?labelSelector=", ns);
    th_url_escape(&path, selector);
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (ask(c, th_buf_cstr(&path), &list, &local) < 0) {
        return fail_fetch(err, &local, "resource", "pods.metrics.k8s.io");
    }
    const struct th_json *items = th_json_get(list, "items");
    if (th_json_len(items) == 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "no metrics returned from resource metrics API");
    }
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *o = th_json_at(items, i);
        const char *pod = th_json_path_str(o, "metadata.name");
        int64_t sum = 0;
        bool found = false;
        bool whole = sum_containers(o, resource, container, &sum, &found);
        if (!found) {
            return th_fail(err, TH_R_UNAVAILABLE,
                           "failed to get container metrics: container %s not present in metrics "
                           "for pod %s/%s",
                           container, ns, pod);
        }
        if (whole && pod) {
            struct th_hpa_value *v = add(ret, pod);
            v->milli = sum;
            when(v, o);
        }
    }
    return 0;
}

/* "&metricLabelSelector=..." of a metric's selector. */
static int add_metric_selector(const struct th_json *metric, const char *name, struct th_buf *path,
                               struct th_err *err)
{
    const struct th_json *sel = th_json_get(metric, "selector");
    if (!sel) {
        return 0;
    }
    TH_AUTO(th_selector) struct th_selector *s = NULL;
    TH_TRY(th_selector_from_json(sel, &s, err));
    th_autofree char *text = th_selector_format(s);
    th_buf_printf(path, "%c%s=", strchr(th_buf_cstr(path), '?') ? '&' : '?', name);
    th_url_escape(path, text);
    return 0;
}

/* The version of custom.metrics.k8s.io that is served. */
static int custom_version(struct th_client *c, char **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *group = NULL;
    if (ask(c, "/apis/custom.metrics.k8s.io", &group, NULL) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "unable to fetch metrics from custom metrics API: no "
                                              "custom metrics API (custom.metrics.k8s.io) registered");
    }
    const char *v = th_json_path_str(group, "preferredVersion.version");
    *ret = th_xstrdup(v ? v : "v1beta2");
    return 0;
}

static const char *metric_name(const struct th_json *metric)
{
    const char *name = th_json_path_str(metric, "name");
    return name ? name : "";
}

static int custom_list(struct th_client *c, const char *what, const struct th_json *metric,
                       const char *selector, struct th_json **ret, struct th_err *err)
{
    th_autofree char *version = NULL;
    TH_TRY(custom_version(c, &version, err));
    th_autobuf struct th_buf path = TH_BUF_INIT;
    th_buf_printf(&path, "/apis/custom.metrics.k8s.io/%s/%s/", version, what);
    th_url_escape(&path, metric_name(metric));
    if (selector) {
        th_buf_puts(&path, "?labelSelector=");
        th_url_escape(&path, selector);
    }
    TH_TRY(add_metric_selector(metric, "metricLabelSelector", &path, err));
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (ask(c, th_buf_cstr(&path), ret, &local) < 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "unable to fetch metrics from custom metrics API: %s",
                       local.msg);
    }
    return 0;
}

int th_hpa_pods_metric(struct th_client *c, const char *ns, const char *selector,
                       const struct th_json *metric, struct th_hpa_values *ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    th_autofree char *what = th_xasprintf("namespaces/%s/pods/*", ns);
    TH_TRY(custom_list(c, what, metric, selector, &list, err));
    const struct th_json *items = th_json_get(list, "items");
    if (th_json_len(items) == 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "no metrics returned from custom metrics API");
    }
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *o = th_json_at(items, i);
        const char *pod = th_json_path_str(o, "describedObject.name");
        struct th_hpa_value *v = add(ret, pod ? pod : "");
        v->milli = th_hpa_milli(th_json_get(o, "value"));
        when(v, o);
    }
    return 0;
}

int th_hpa_object_metric(struct th_client *c, const char *path, const struct th_json *metric,
                         int64_t *ret_milli, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_TRY(custom_list(c, path, metric, NULL, &list, err));
    const struct th_json *items = th_json_get(list, "items");
    if (th_json_len(items) == 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "no metrics returned from custom metrics API");
    }
    *ret_milli = th_hpa_milli(th_json_get(th_json_at(items, 0), "value"));
    return 0;
}

int th_hpa_external_metric(struct th_client *c, const char *ns, const struct th_json *metric,
                           struct th_hpa_values *ret, struct th_err *err)
{
    th_autobuf struct th_buf path = TH_BUF_INIT;
    th_buf_printf(&path, "/apis/external.metrics.k8s.io/v1beta1/namespaces/%s/", ns);
    th_url_escape(&path, metric_name(metric));
    TH_TRY(add_metric_selector(metric, "labelSelector", &path, err));
    TH_AUTO(th_json) struct th_json *list = NULL;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (ask(c, th_buf_cstr(&path), &list, &local) < 0) {
        th_autofree char *gr = th_xasprintf("%s.external.metrics.k8s.io", metric_name(metric));
        return fail_fetch(err, &local, "external", gr);
    }
    const struct th_json *items = th_json_get(list, "items");
    if (th_json_len(items) == 0) {
        return th_fail(err, TH_R_UNAVAILABLE, "no metrics returned from external metrics API");
    }
    for (size_t i = 0; i < th_json_len(items); i++) {
        add(ret, NULL)->milli = th_hpa_milli(th_json_get(th_json_at(items, i), "value"));
    }
    return 0;
}

/* Amounts of resources and what a pod asks for; see podresources.h. */
#include "controlplane/schema/podresources.h"
#include "controlplane/schema/quantity.h"

void th_amounts_done(struct th_amounts *a)
{
    for (size_t i = 0; i < a->n; i++) {
        free(a->v[i].name);
    }
    free(a->v);
    *a = (struct th_amounts){NULL, 0};
}

static int64_t *slot(struct th_amounts *a, const char *name)
{
    for (size_t i = 0; i < a->n; i++) {
        if (th_streq(a->v[i].name, name)) {
            return &a->v[i].value;
        }
    }
    a->v = th_xrealloc(a->v, (a->n + 1) * sizeof(*a->v));
    a->v[a->n] = (struct th_amount){th_xstrdup(name), 0};
    return &a->v[a->n++].value;
}

int64_t th_amounts_get(const struct th_amounts *a, const char *name)
{
    for (size_t i = 0; i < a->n; i++) {
        if (th_streq(a->v[i].name, name)) {
            return a->v[i].value;
        }
    }
    return 0;
}

void th_amounts_add(struct th_amounts *a, const struct th_amounts *b, int sign)
{
    for (size_t i = 0; i < b->n; i++) {
        *slot(a, b->v[i].name) += sign * b->v[i].value;
    }
}

void th_amounts_read(struct th_amounts *a, const struct th_json *map)
{
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        struct th_quantity q;
        const char *text = th_json_str(it.value);
        if (text && th_quantity_parse(text, &q, NULL) == 0) {
            *slot(a, it.name) =
                th_streq(it.name, "cpu") ? th_quantity_milli(q) : th_quantity_value(q);
        }
    }
}

static void raise_to(struct th_amounts *a, const struct th_amounts *b)
{
    for (size_t i = 0; i < b->n; i++) {
        int64_t *v = slot(a, b->v[i].name);
        *v = *v > b->v[i].value ? *v : b->v[i].value;
    }
}

/* What spec.resources says holds for the whole pod, resource by resource. */
static void override(struct th_amounts *a, const struct th_json *map)
{
    struct th_amounts pod TH_CLEANUP(th_amounts_done) = {NULL, 0};
    th_amounts_read(&pod, map);
    for (size_t i = 0; i < pod.n; i++) {
        *slot(a, pod.v[i].name) = pod.v[i].value;
    }
}

static bool is_sidecar(const struct th_json *container)
{
    return th_streq(th_json_path_str(container, "restartPolicy"), "Always");
}

/* which: "requests" or "limits" */
static void aggregate(const struct th_json *pod, const char *which, struct th_amounts *ret)
{
    struct th_amounts init TH_CLEANUP(th_amounts_done) = {NULL, 0};
    struct th_amounts sidecars TH_CLEANUP(th_amounts_done) = {NULL, 0};
    *ret = (struct th_amounts){NULL, 0};
    const struct th_json *list = th_json_path(pod, "spec.containers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct th_amounts one TH_CLEANUP(th_amounts_done) = {NULL, 0};
        th_amounts_read(&one, th_json_get(th_json_get(th_json_at(list, i), "resources"), which));
        th_amounts_add(ret, &one, 1);
    }
    list = th_json_path(pod, "spec.initContainers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        struct th_amounts one TH_CLEANUP(th_amounts_done) = {NULL, 0};
        th_amounts_read(&one, th_json_get(th_json_get(th_json_at(list, i), "resources"), which));
        if (is_sidecar(th_json_at(list, i))) {
            th_amounts_add(&sidecars, &one, 1);
            th_amounts_add(ret, &one, 1);
            raise_to(&init, &sidecars);
        } else {
            th_amounts_add(&one, &sidecars, 1);
            raise_to(&init, &one);
        }
    }
    raise_to(ret, &init);
    override(ret, th_json_get(th_json_path(pod, "spec.resources"), which));
    struct th_amounts overhead TH_CLEANUP(th_amounts_done) = {NULL, 0};
    th_amounts_read(&overhead, th_json_path(pod, "spec.overhead"));
    th_amounts_add(ret, &overhead, 1);
}

void th_pod_requests(const struct th_json *pod, struct th_amounts *ret)
{
    aggregate(pod, "requests", ret);
    *slot(ret, "pods") = 1;
}

void th_pod_limits(const struct th_json *pod, struct th_amounts *ret)
{
    aggregate(pod, "limits", ret);
}

#define DEFAULT_CPU_MILLI 100
#define DEFAULT_MEMORY_B (200ll << 20)

void th_pod_nonzero(const struct th_json *pod, int64_t *ret_cpu, int64_t *ret_memory)
{
    struct th_amounts all TH_CLEANUP(th_amounts_done) = {NULL, 0};
    th_pod_requests(pod, &all);
    *ret_cpu = th_amounts_get(&all, "cpu");
    *ret_memory = th_amounts_get(&all, "memory");
    const struct th_json *list = th_json_path(pod, "spec.containers");
    const struct th_json *whole = th_json_path(pod, "spec.resources.requests");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *r = th_json_path(th_json_at(list, i), "resources.requests");
        *ret_cpu += th_json_has(r, "cpu") || th_json_has(whole, "cpu") ? 0 : DEFAULT_CPU_MILLI;
        *ret_memory +=
            th_json_has(r, "memory") || th_json_has(whole, "memory") ? 0 : DEFAULT_MEMORY_B;
    }
}

#include "controlplane/resources/pod_amounts.h"

#include "base/buf.h"
#include "controlplane/schema/quantity.h"

static struct th_quantity amount(const struct th_json *map, const char *name)
{
    struct th_quantity q = {.nano = 0};
    const char *text = th_json_str(th_json_get(map, name));
    if (text && th_quantity_parse(text, &q, NULL) < 0) {
        q.nano = 0;
    }
    return q;
}

static void put(struct th_json *into, const char *name, struct th_quantity q)
{
    char buf[TH_QUANTITY_LEN];
    th_json_set_str(into, name, th_quantity_format(q, buf));
}

void th_amount_add(struct th_json *into, const char *name, const char *text)
{
    struct th_quantity q = {.nano = 0};
    if (text && th_quantity_parse(text, &q, NULL) >= 0) {
        put(into, name, th_quantity_add(amount(into, name), q));
    }
}

static void add_all(struct th_json *into, const struct th_json *map)
{
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        th_amount_add(into, it.name, th_json_str(it.value));
    }
}

static void keep_most(struct th_json *into, const struct th_json *map)
{
    struct th_json_iter it = TH_JSON_ITER(map);
    while (th_json_next(&it)) {
        struct th_quantity q = amount(map, it.name);
        if (!th_json_has(into, it.name) || th_quantity_cmp(q, amount(into, it.name)) > 0) {
            put(into, it.name, q);
        }
    }
}

struct th_json *th_pod_amounts(const struct th_json *pod, const char *which, bool overhead)
{
    struct th_json *sum = th_json_object();
    TH_AUTO(th_json) struct th_json *sidecars = th_json_object();
    TH_AUTO(th_json) struct th_json *init = th_json_object();
    th_autofree char *path = th_xasprintf("resources.%s", which);
    const struct th_json *list = th_json_path(pod, "spec.containers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        add_all(sum, th_json_path(th_json_at(list, i), path));
    }
    list = th_json_path(pod, "spec.initContainers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *its = th_json_path(th_json_at(list, i), path);
        TH_AUTO(th_json) struct th_json *now = th_json_dup(sidecars);
        add_all(now, its);
        if (th_streq(th_json_path_str(th_json_at(list, i), "restartPolicy"), "Always")) {
            add_all(sum, its);
            add_all(sidecars, its);
        }
        keep_most(init, now);
    }
    keep_most(sum, init);
    th_autofree char *whole = th_xasprintf("spec.resources.%s", which);
    struct th_json_iter it = TH_JSON_ITER(th_json_path(pod, whole));
    while (th_json_next(&it)) {
        th_json_set(sum, it.name, th_json_dup(it.value));
    }
    if (overhead) {
        struct th_json_iter o = TH_JSON_ITER(th_json_path(pod, "spec.overhead"));
        while (th_json_next(&o)) {
            if (th_streq(which, "requests") || th_json_has(sum, o.name)) {
                th_amount_add(sum, o.name, th_json_str(o.value));
            }
        }
    }
    return sum;
}

/* Host ports of pods; see plugin.h. */
#include "controlplane/scheduler/plugin.h"

static bool is_sidecar(const struct th_json *container)
{
    return th_streq(th_json_path_str(container, "restartPolicy"), "Always");
}

void th_host_ports_done(struct th_host_ports *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->v[i].ip);
        free(p->v[i].proto);
    }
    free(p->v);
    *p = (struct th_host_ports){NULL, 0};
}

static void add_port(struct th_host_ports *ret, const struct th_json *port)
{
    int64_t number = th_json_path_int(port, "hostPort", 0);
    if (number <= 0) {
        return;
    }
    const char *ip = th_json_path_str(port, "hostIP");
    const char *proto = th_json_path_str(port, "protocol");
    ret->v = th_xrealloc(ret->v, (ret->n + 1) * sizeof(*ret->v));
    ret->v[ret->n++] = (struct th_host_port){th_xstrdup(ip && !th_streq(ip, "0.0.0.0") ? ip : ""),
                                             th_xstrdup(proto ? proto : "TCP"), (int)number};
}

void th_host_ports_read(const struct th_json *pod, struct th_host_ports *ret)
{
    static const char *const lists[] = {"spec.containers", "spec.initContainers"};
    *ret = (struct th_host_ports){NULL, 0};
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        const struct th_json *list = th_json_path(pod, lists[l]);
        for (size_t i = 0; i < th_json_len(list); i++) {
            const struct th_json *ports = th_json_get(th_json_at(list, i), "ports");
            if (l == 1 && !is_sidecar(th_json_at(list, i))) {
                continue; /* it has ended before the others begin */
            }
            for (size_t k = 0; k < th_json_len(ports); k++) {
                add_port(ret, th_json_at(ports, k));
            }
        }
    }
}

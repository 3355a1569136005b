/* Is there room for a pod beside the others on this node?
 *
 * The scheduler has seen to that, but a pod may come with its nodeName written in, and a resize asks again.
 * As upstream's admission of a pod by the kubelet: requests of CPU and memory against what is allocatable,
 * and host ports, with upstream's reasons and words. A pod counts until its containers are gone, also
 * while it ends. What others hold is read from their views, which their workers publish: of two pods that
 * come at the same moment neither may see the other.
 *
 * Other than upstream: node selectors and taints are not looked at again here. */
#include "controlplane/schema/podresources.h"
#include "vm/node/agent.h"

static const char *const RESOURCES[] = {"cpu", "memory"};

/* "TCP 0.0.0.0 80\n", a line for each host port of the pod. */
char *room_ports(const struct pod *p)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < p->n_ctrs; i++) {
        const struct th_json *ports = th_json_get(p->ctrs[i].spec, "ports");
        for (size_t k = 0; k < th_json_len(ports); k++) {
            const struct th_json *port = th_json_at(ports, k);
            int64_t n = th_json_path_int(port, "hostPort", 0);
            const char *proto = th_json_path_str(port, "protocol"), *ip = th_json_path_str(port, "hostIP");
            if (n > 0) {
                th_buf_printf(&b, "%s %s %lld\n", proto && *proto ? proto : "TCP", ip && *ip ? ip : "0.0.0.0",
                              (long long)n);
            }
        }
    }
    return th_xstrdup(th_buf_cstr(&b));
}

static bool line_clashes(const char *a, const char *b)
{
    th_autostrv struct th_strv x = TH_STRV_INIT, y = TH_STRV_INIT;
    th_strv_split(&x, a, ' ');
    th_strv_split(&y, b, ' ');
    return x.n == 3 && y.n == 3 && th_streq(x.v[0], y.v[0]) && th_streq(x.v[2], y.v[2]) &&
           (th_streq(x.v[1], y.v[1]) || th_streq(x.v[1], "0.0.0.0") || th_streq(y.v[1], "0.0.0.0"));
}

bool room_ports_clash(const char *a, const char *b)
{
    th_autostrv struct th_strv x = TH_STRV_INIT, y = TH_STRV_INIT;
    th_strv_split(&x, a ? a : "", '\n');
    th_strv_split(&y, b ? b : "", '\n');
    for (size_t i = 0; i < x.n; i++) {
        for (size_t k = 0; k < y.n; k++) {
            if (line_clashes(x.v[i], y.v[k])) {
                return true;
            }
        }
    }
    return false;
}

struct held {
    int64_t used[2]; /* thousandths of a CPU, bytes */
    bool clash;
};

static struct held held_by_others(struct pod *p)
{
    struct held h = {{0, 0}, false};
    th_autofree char *ports = room_ports(p);
    pthread_mutex_lock(&p->a->mu);
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&p->a->pods, &it));) {
        struct pod *o = e->value;
        if (o == p) {
            continue;
        }
        pthread_mutex_lock(&o->mu);
        if (o->view.holds) {
            h.used[0] += o->view.cpu_request_m;
            h.used[1] += (int64_t)o->view.memory_request_b;
            h.clash = h.clash || room_ports_clash(ports, o->view.ports);
        }
        pthread_mutex_unlock(&o->mu);
    }
    pthread_mutex_unlock(&p->a->mu);
    return h;
}

char *room_resources(struct pod *p, const char **ret_reason)
{
    struct th_amounts need TH_CLEANUP(th_amounts_done) = {NULL, 0};
    int64_t room[2] = {node_cpus() * 1000, node_allocatable_memory_b()};
    struct held h = held_by_others(p);
    th_pod_requests(p->obj, &need);
    for (size_t r = 0; r < TH_ARRAY_LEN(RESOURCES); r++) {
        int64_t n = th_amounts_get(&need, RESOURCES[r]);
        if (n > 0 && n > room[r] - h.used[r]) {
            if (ret_reason) {
                *ret_reason = r == 0 ? "OutOfcpu" : "OutOfmemory";
            }
            return th_xasprintf("Node didn't have enough resource: %s, requested: %lld, used: %lld, capacity: %lld",
                                RESOURCES[r], (long long)n, (long long)h.used[r], (long long)room[r]);
        }
    }
    return NULL;
}

char *room_for(struct pod *p, const char **ret_reason)
{
    char *why = room_resources(p, ret_reason);
    if (!why && held_by_others(p).clash) {
        *ret_reason = "NodePorts";
        why = th_xstrdup("Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports");
    }
    return why;
}

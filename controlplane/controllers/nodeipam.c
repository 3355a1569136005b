/*
 * What the cluster gives its nodes: each its own part (a /24) of the pods' network in
 * spec.podCIDR(s), and to the one that the control plane runs on the role label that kubeadm gives.
 *
 * The lowest free range is taken, so that a node that comes again gets its old one. What was given
 * but is not in the cache yet is kept in `given`, under a lock, since two nodes may come at once. A
 * node that brings a range of its own keeps it. The label is given when the node appears (and at a
 * start), not again when somebody takes it away.
 */
#include "base/buf.h"
#include "base/hmap.h"
#include "controlplane/controllers/controller.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>

#define NODE_BITS 24
#define RANGES_MAX 4096
#define ROLE "node-role.kubernetes.io/control-plane"

struct state {
    pthread_mutex_t lock;
    struct th_hmap given; /* lock; node -> index of its range + 1, not seen in the cache yet */
    uint32_t base;        /* of the pods' network */
    size_t n;             /* ranges; 0: no pods' network */
};

static void *state_new(struct th_ctrl *c)
{
    struct state *s = TH_NEW(struct state);
    char ip[16];
    unsigned bits = 0;
    struct in_addr addr;
    const char *cidr = th_ctrl_opts(c)->pod_cidr;
    pthread_mutex_init(&s->lock, NULL);
    th_hmap_init(&s->given, NULL);
    if (cidr && sscanf(cidr, "%15[0-9.]/%u", ip, &bits) == 2 && inet_pton(AF_INET, ip, &addr) == 1 &&
        bits <= NODE_BITS) {
        size_t n = (size_t)1 << (NODE_BITS - bits);
        s->n = n < RANGES_MAX ? n : RANGES_MAX;
        s->base = ntohl(addr.s_addr);
    }
    return s;
}

static void state_free(void *p)
{
    struct state *s = p;
    th_hmap_done(&s->given);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* The range's number, or -1 when it is none of ours. */
static int64_t index_of(const struct state *s, const char *cidr)
{
    char ip[16];
    struct in_addr addr;
    if (!cidr || sscanf(cidr, "%15[0-9.]", ip) != 1 || inet_pton(AF_INET, ip, &addr) != 1) {
        return -1;
    }
    int64_t i = ((int64_t)ntohl(addr.s_addr) - s->base) >> (32 - NODE_BITS);
    return i >= 0 && i < (int64_t)s->n ? i : -1;
}

struct look {
    struct state *s;
    uint8_t *used;
    struct th_hmap names;
};

static bool look_at_node(void *arg, struct th_json *node)
{
    struct look *l = arg;
    const char *name = th_json_path_str(node, "metadata.name");
    int64_t i = index_of(l->s, th_json_path_str(node, "spec.podCIDR"));
    th_hmap_set(&l->names, name, l);
    if (i >= 0) {
        l->used[i] = 1;
        (void)th_hmap_remove(&l->s->given, name);
    }
    return true;
}

/* A free range for the node, noted as given; -1: all are taken. */
static int64_t take(struct th_ctrl *c, struct state *s, const char *name)
{
    th_autofree uint8_t *used = th_xcalloc(s->n + 1, 1);
    struct look l = {.s = s, .used = used};
    struct th_strv gone TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    struct th_hmap_entry *e;
    int64_t found = -1;
    th_hmap_init(&l.names, NULL);
    pthread_mutex_lock(&s->lock);
    th_informer_each(th_ctrl_informer(c, TH_GVR_NODES), NULL, look_at_node, &l);
    for (size_t it = 0; (e = th_hmap_next(&s->given, &it));) {
        if (th_hmap_has(&l.names, e->key)) {
            used[(uintptr_t)e->value - 1] = 1;
        } else {
            th_strv_add(&gone, e->key);
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        (void)th_hmap_remove(&s->given, gone.v[i]);
    }
    for (size_t i = 0; i < s->n && found < 0; i++) {
        found = used[i] ? -1 : (int64_t)i;
    }
    if (found >= 0) {
        th_hmap_set(&s->given, name, (void *)(uintptr_t)(found + 1));
    }
    pthread_mutex_unlock(&s->lock);
    th_hmap_done(&l.names);
    return found;
}

static int give_range(struct th_ctrl *c, const struct th_json *node, struct th_err *err)
{
    struct state *s = th_ctrl_state(c);
    const char *have = th_json_path_str(node, "spec.podCIDR");
    const char *name = th_json_path_str(node, "metadata.name");
    if ((have && *have) || s->n == 0) {
        return 0;
    }
    int64_t i = take(c, s, name);
    if (i < 0) {
        th_event_record(th_ctrl_recorder(c), node, "Normal", "CIDRNotAvailable",
                        "Node %s status is now: CIDRNotAvailable", name);
        return th_fail(err, TH_R_INTERNAL, "no free range of %s for node %s",
                       th_ctrl_opts(c)->pod_cidr, name);
    }
    char ip[INET_ADDRSTRLEN];
    struct in_addr addr = {htonl(s->base + ((uint32_t)i << (32 - NODE_BITS)))};
    (void)inet_ntop(AF_INET, &addr, ip, sizeof(ip));
    th_autofree char *cidr = th_xasprintf("%s/%d", ip, NODE_BITS);
    struct th_json *patch TH_AUTO(th_json) =
        th_json_build("{'spec':{'podCIDR':%s,'podCIDRs':[%s]}}", cidr, cidr);
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC,
                              .field_manager = "kube-controller-manager"};
    int r = th_client_patch(th_ctrl_client(c), TH_GVR_NODES, NULL, name, "", &o, patch, NULL, err);
    if (r < 0) {
        pthread_mutex_lock(&s->lock);
        (void)th_hmap_remove(&s->given, name);
        pthread_mutex_unlock(&s->lock);
    }
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

static bool has_address(const struct th_json *node, const char *ip)
{
    const struct th_json *all = th_json_path(node, "status.addresses");
    for (size_t i = 0; ip && i < th_json_len(all); i++) {
        if (th_streq(th_json_path_str(th_json_at(all, i), "type"), "InternalIP") &&
            th_streq(th_json_path_str(th_json_at(all, i), "address"), ip)) {
            return true;
        }
    }
    return false;
}

static int give_role(struct th_ctrl *c, const char *name, struct th_err *err)
{
    struct th_json *node TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_NODES), "", name);
    if (!has_address(node, th_ctrl_opts(c)->control_plane_ip) ||
        th_json_get(th_json_path(node, "metadata.labels"), ROLE)) {
        return 0;
    }
    struct th_json *patch TH_AUTO(th_json) =
        th_json_build("{'metadata':{'labels':{'" ROLE "':''}}}");
    struct th_patch_opts o = {.kind = TH_PATCH_STRATEGIC,
                              .field_manager = "kube-controller-manager"};
    int r = th_client_patch(th_ctrl_client(c), TH_GVR_NODES, NULL, name, "", &o, patch, NULL, err);
    if (r == -TH_R_NOT_FOUND) {
        th_err_done(err);
        r = 0;
    }
    return r;
}

/* Keys: "node", and "role/node" for a node that has just appeared. */
static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    if (th_startswith(key, "role/")) {
        return give_role(c, key + strlen("role/"), err);
    }
    struct th_json *node TH_AUTO(th_json) =
        th_informer_get(th_ctrl_informer(c, TH_GVR_NODES), "", key);
    return node && !th_json_path_str(node, "metadata.deletionTimestamp") ? give_range(c, node, err)
                                                                         : 0;
}

static void on_node(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    const char *name = th_json_path_str(now, "metadata.name");
    const char *cidr = th_json_path_str(now, "spec.podCIDR");
    if (now && (!cidr || !*cidr)) {
        th_ctrl_enqueue(c, name);
    }
    if (now && !old) {
        th_autofree char *key = th_xasprintf("role/%s", name);
        th_ctrl_enqueue(c, key);
    }
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "nodes"}, .on_event = on_node},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_nodeipam = {
    .name = "node-ipam-controller",
    .component = "cidrAllocator",
    .account = "node-controller",
    .watches = watches,
    .reconcile = reconcile,
    .state_new = state_new,
    .state_free = state_free,
};

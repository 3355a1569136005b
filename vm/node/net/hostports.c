/* Host ports: every port of a LoadBalancer or NodePort Service, and every hostPort of a pod, is asked
 * for on the host.
 *
 * A LoadBalancer Service gets the host address 127.(96+k).A.B that belongs to its ClusterIP
 * 10.96.A.B and its own port numbers, which lead to the entry ports of the node (state.c); node
 * ports, healthCheckNodePorts and hostPorts get 127.0.0.1 and their own numbers. The host answers over the ports
 * endpoint (vm/launcher/protocol.h), one JSON line each way, and may refuse or give another port;
 * then the Service's status says so, and an Event.
 *
 * All that can reach the host's loopback addresses are the host's own programs, whose address is
 * 127.0.0.1 and which the relay hides. So loadBalancerSourceRanges are looked at here: without
 * 127.0.0.1 among them there is no forward at all.
 *
 * A port without endpoints is refused inside, but the host's relay has accepted the connection by
 * then. So such a forward is closed after a moment, and opened again with the first endpoint; the
 * address in the status stays.
 *
 * One thread compares what is wanted with what has been given. Nothing is remembered over a
 * restart: forward is idempotent, so everything is asked for again. Failures are tried again with
 * back-off, which goes to 30 seconds. SCTP is not forwarded. Upstream leaves all of this to cloud
 * providers, and so the status of Services is written with the rights of their controller. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "controlplane/client/client.h"
#include "vm/node/net/net_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/time.h>
#include <time.h>

#define CALL_TIMEOUT_S 20
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 30000
#define IDLE_MS 2000 /* a forward without endpoints is kept so long */

struct fwd {
    char host_ip[INET_ADDRSTRLEN], proto[8];
    int port, inside; /* the host's port; the node's that it leads to */
    int got; /* the host's port; 0: not given */
    bool wanted, closed; /* closed: given back for want of endpoints, got is what it was */
    int64_t idle_ms;     /* without endpoints since; 0: has some */
    char *error; /* why not */
};

struct th_hostports {
    struct th_net *n;
    struct th_recorder *rec;
    pthread_t thread;
    pthread_mutex_t mu; /* guards state, stop */
    pthread_cond_t cond;
    struct th_net_state *state; /* newest, not yet taken */
    bool stop;
    /* of the thread */
    struct th_net_state *now;
    struct th_hmap fwds; /* "ip port proto" -> struct fwd */
    struct th_hmap said; /* uid -> char * the last event */
    int fd;
};

static void fwd_free(void *p)
{
    struct fwd *f = p;
    free(f->error);
    free(f);
}

/* ---- one request ---- */

static int dial(const char *ep, struct th_err *err)
{
    if (th_startswith(ep, "unix:")) {
        return th_io_unix_connect(ep + 5, err);
    }
    struct sockaddr_in to = {.sin_family = AF_INET};
    const char *colon = strrchr(ep, ':');
    th_autofree char *ip = th_startswith(ep, "tcp:") && colon > ep + 3
                               ? th_xstrndup(ep + 4, (size_t)(colon - ep - 4))
                               : NULL;
    if (!ip || inet_pton(AF_INET, ip, &to.sin_addr) != 1) {
        return th_fail(err, TH_R_INVALID, "ports endpoint \"%s\": tcp:IP:PORT or unix:PATH", ep);
    }
    to.sin_port = htons((uint16_t)strtol(colon + 1, NULL, 10));
    th_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = CALL_TIMEOUT_S};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        return th_fail_errno(err, errno, TH_R_UNAVAILABLE, "connecting to %s", ep);
    }
    return th_steal_fd(&fd);
}

static int call(struct th_hostports *h, struct th_json *req, struct th_json **ret, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(req, &b);
    th_buf_putc(&b, '\n');
    if (h->fd < 0) {
        h->fd = dial(h->n->o.ports_endpoint, err);
        TH_TRY(h->fd);
        struct timeval tv = {.tv_sec = CALL_TIMEOUT_S};
        (void)setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    }
    char line[TH_LIMIT_HOST_PORT_LINE_B];
    size_t n = 0;
    ssize_t got = send(h->fd, b.p, b.n, MSG_NOSIGNAL) == (ssize_t)b.n ? 1 : -1;
    while (got > 0 && n < sizeof(line)) {
        got = recv(h->fd, line + n, 1, 0); /* answers are short and rare */
        if (got > 0 && line[n++] == '\n') {
            return th_json_parse(line, n, NULL, ret, err);
        }
    }
    (void)close(h->fd);
    h->fd = -1;
    return th_fail(err, TH_R_UNAVAILABLE, "the host does not answer for its ports");
}

/* 0; negative when the host could not be asked or said no. */
static int request(struct th_hostports *h, const char *op, struct fwd *f, struct th_err *err)
{
    TH_AUTO(th_json)
    struct th_json *req = th_json_build("{'op':%s,'host_ip':%s,'host_port':%d,'proto':%s}", op, f->host_ip,
                                        (int64_t)f->port, f->proto);
    if (th_streq(op, "forward")) {
        th_json_set_int(req, "guest_port", f->inside);
    }
    TH_AUTO(th_json) struct th_json *ans = NULL;
    int r = call(h, req, &ans, err);
    if (r < 0 && h->fd < 0) {
        th_err_done(err); /* the connection was stale: once more on a new one */
        r = call(h, req, &ans, err);
    }
    TH_TRY(r);
    if (!th_json_path_bool(ans, "ok", false)) {
        const char *msg = th_json_path_str(ans, "msg");
        return th_fail(err, TH_R_CONFLICT, "%s", msg ? msg : "refused by the host");
    }
    if (th_streq(op, "forward")) {
        f->got = (int)th_json_path_int(ans, "host_port", f->port);
    }
    return 0;
}

/* ---- what is wanted ---- */

static struct fwd *want(struct th_hostports *h, const char *ip, int port, int inside,
                        const char *proto, bool usable)
{
    th_autofree char *key = th_xasprintf("%s %d %s", ip, port, proto);
    struct fwd *f = th_hmap_get(&h->fwds, key);
    if (!f) {
        if (h->fwds.n >= TH_LIMIT_HOST_PORTS) {
            return NULL;
        }
        f = TH_NEW(struct fwd);
        (void)snprintf(f->host_ip, sizeof(f->host_ip), "%s", ip);
        (void)snprintf(f->proto, sizeof(f->proto), "%s", proto);
        f->port = port;
        th_hmap_set(&h->fwds, key, f);
    }
    if (f->inside != inside) {
        f->got = 0;
        f->closed = false;
        f->inside = inside;
    }
    f->wanted = true;
    f->idle_ms = usable ? 0 : f->idle_ms ? f->idle_ms : th_mono_ms();
    return f;
}

/* The forward of a Service's port; lb: at its own address, otherwise of its node port. */
static struct fwd *fwd_of(struct th_hostports *h, const struct th_json *svc, size_t i, bool lb)
{
    const struct th_json *p = th_json_at(th_json_path(svc, "spec.ports"), i);
    const char *type = th_json_path_str(svc, "spec.type"), *proto = th_proto_of(p);
    int node_port = (int)th_json_path_int(p, "nodePort", 0);
    int entry = (int)th_json_path_int(p, TH_ENTRY_PORT, 0);
    char ip[INET_ADDRSTRLEN];
    if (th_streq(proto, "sctp") || th_json_path_str(svc, "metadata.deletionTimestamp")) {
        return NULL;
    }
    bool usable = th_port_usable(&h->n->o, h->now, svc, p);
    if (lb) {
        return entry > 0 && th_lb_ours(svc) && th_lb_open_to_host(svc) &&
                       th_lb_ip(&h->n->o, th_json_path_str(svc, "spec.clusterIP"), ip)
                   ? want(h, ip, (int)th_json_path_int(p, "port", 0), entry, proto, usable)
                   : NULL;
    }
    return node_port > 0 && (th_streq(type, "NodePort") || th_streq(type, "LoadBalancer"))
               ? want(h, "127.0.0.1", node_port, node_port, proto, usable)
               : NULL;
}

static void want_host_port(void *arg, const struct th_json *pod, const struct th_json *port)
{
    const char *at = th_json_path_str(port, "hostIP"), *proto = th_proto_of(port);
    int number = (int)th_json_path_int(port, "hostPort", 0);
    bool open = !at || !*at || th_streq(at, "0.0.0.0") || th_startswith(at, "127.") ||
                th_streq(at, ((struct th_hostports *)arg)->n->o.node_ip);
    (void)pod;
    if (open && !th_streq(proto, "sctp")) {
        (void)want(arg, "127.0.0.1", number, number, proto, true);
    }
}

static void mark(struct th_hostports *h, const struct th_json *svcs)
{
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&h->fwds, &it));) {
        ((struct fwd *)e->value)->wanted = false;
    }
    for (size_t s = 0; s < th_json_len(svcs); s++) {
        const struct th_json *svc = th_json_at(svcs, s);
        for (size_t i = 0; i < th_json_len(th_json_path(svc, "spec.ports")); i++) {
            (void)fwd_of(h, svc, i, true);
            (void)fwd_of(h, svc, i, false);
        }
        int health = (int)th_json_path_int(svc, "spec.healthCheckNodePort", 0);
        if (health > 0 && th_lb_ours(svc) && !th_json_path_str(svc, "metadata.deletionTimestamp")) {
            (void)want(h, "127.0.0.1", health, health, "tcp", true);
        }
    }
    th_host_ports(h->now, want_host_port, h);
}

/* Opens, closes or gives back one forward; false when it has to be tried again. *ret_gone: it is no
 * more. */
static bool sync_one(struct th_hostports *h, struct fwd *f, bool *ret_gone)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    bool idle = f->idle_ms && th_mono_ms() - f->idle_ms >= IDLE_MS;
    *ret_gone = false;
    if (!f->wanted || (idle && f->got && !f->closed)) {
        if (f->got && !f->closed && request(h, "unforward", f, &err) == -TH_R_UNAVAILABLE) {
            return false;
        }
        f->closed = true;
        *ret_gone = !f->wanted;
    } else if (!f->got || (f->closed && !f->idle_ms)) {
        free(th_steal(&f->error));
        if (request(h, "forward", f, &err) < 0) {
            f->got = 0;
            f->error = th_xstrdup(err.msg);
            return false;
        }
        f->closed = false;
    }
    return true;
}

/* Asks and gives back; false when some of it has to be tried again. */
static bool sync_host(struct th_hostports *h)
{
    bool good = true;
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&h->fwds, &it));) {
        bool is_gone;
        good = sync_one(h, e->value, &is_gone) && good;
        if (is_gone) {
            th_strv_add(&gone, e->key);
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        fwd_free(th_hmap_remove(&h->fwds, gone.v[i]));
    }
    return good;
}

/* Is a forward to be closed soon? */
static bool some_idle(struct th_hostports *h)
{
    struct th_hmap_entry *e;
    for (size_t it = 0; (e = th_hmap_next(&h->fwds, &it));) {
        const struct fwd *f = e->value;
        if (f->idle_ms && f->got && !f->closed) {
            return true;
        }
    }
    return false;
}

/* ---- what the Service says ---- */

static void say(struct th_hostports *h, const struct th_json *svc, bool good, const char *text)
{
    const char *uid = th_json_path_str(svc, "metadata.uid");
    if (!uid || th_streq(th_hmap_get(&h->said, uid), text)) {
        return;
    }
    th_hmap_set(&h->said, uid, th_xstrdup(text));
    th_event_record(h->rec, svc, good ? "Normal" : "Warning",
                    good ? "EnsuredLoadBalancer" : "SyncLoadBalancerFailed", "%s", text);
}

/* What one port of a LoadBalancer Service says; false when it is neither given nor closed on purpose. */
static bool port_status(struct th_hostports *h, const struct th_json *svc, size_t i, const char *ip,
                        struct th_json *ports, struct th_buf *why)
{
    const struct th_json *sp = th_json_at(th_json_path(svc, "spec.ports"), i);
    const char *proto = th_json_path_str(sp, "protocol");
    proto = proto ? proto : "TCP";
    int number = (int)th_json_path_int(sp, "port", 0);
    const struct fwd *f = fwd_of(h, svc, i, true);
    struct th_json *p = th_json_build("{'port':%d,'protocol':%s}", (int64_t)number, proto);
    th_json_append(ports, p);
    if (f && f->got == f->port) {
        return true;
    }
    th_json_set_str(p, "error", f && f->got ? "thimble.dev/other-port" : "thimble.dev/port-refused");
    th_buf_printf(why, "%sport %d/%s: ", why->n ? "; " : "", number, proto);
    if (!th_lb_open_to_host(svc)) {
        th_buf_puts(why, "loadBalancerSourceRanges leave out 127.0.0.1, so the host has no way in");
        return true;
    }
    if (f && f->got) {
        th_buf_printf(why, "the host gave %s:%d instead", ip, f->got);
        return true;
    }
    th_buf_puts(why, f ? (f->error ? f->error : "not given yet")
                       : (th_streq(proto, "SCTP") ? "the host does not forward SCTP" : "too many host ports"));
    return false;
}

/* The status a LoadBalancer Service should have; NULL when no port was given. */
static struct th_json *ingress_of(struct th_hostports *h, const struct th_json *svc, struct th_buf *why)
{
    char ip[INET_ADDRSTRLEN];
    if (!th_lb_ip(&h->n->o, th_json_path_str(svc, "spec.clusterIP"), ip)) {
        return NULL;
    }
    TH_AUTO(th_json) struct th_json *ports = th_json_array();
    bool any = false;
    for (size_t i = 0; i < th_json_len(th_json_path(svc, "spec.ports")); i++) {
        any = port_status(h, svc, i, ip, ports, why) || any;
    }
    if (!any) {
        return NULL;
    }
    struct th_json *in = th_json_build("{'ip':%s,'ipMode':'Proxy'}", ip);
    if (why->n > 0) {
        th_json_set(in, "ports", th_steal(&ports));
    }
    return in;
}

static bool sync_status(struct th_hostports *h, const struct th_json *svc)
{
    const struct th_json *now = th_json_path(svc, "status.loadBalancer.ingress");
    TH_AUTO(th_json) struct th_json *list = th_json_array();
    th_autobuf struct th_buf why = TH_BUF_INIT;
    bool lb = th_streq(th_json_path_str(svc, "spec.type"), "LoadBalancer");
    if (th_json_path_str(svc, "spec.loadBalancerClass") ||
        (!lb && !th_streq(th_json_path_str(th_json_at(now, 0), "ipMode"), "Proxy"))) {
        return true; /* another implementation's */
    }
    struct th_json *in = lb ? ingress_of(h, svc, &why) : NULL;
    if (in) {
        th_json_append(list, in);
    }
    if (lb) {
        say(h, svc, why.n == 0, why.n ? th_buf_cstr(&why) : "Ensured load balancer");
    }
    if ((th_json_len(list) == 0 && th_json_len(now) == 0) || th_json_equal(list, now)) {
        return true;
    }
    TH_AUTO(th_json)
    struct th_json *patch = th_json_build("{'status':{'loadBalancer':{'ingress':%o}}}", th_steal(&list));
    struct th_patch_opts o = {.kind = TH_PATCH_MERGE_RFC7386};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int r = th_client_patch(h->n->o.lb_client, TH_GVR_SERVICES, th_json_path_str(svc, "metadata.namespace"),
                            th_json_path_str(svc, "metadata.name"), "status", &o, patch, NULL, &err);
    if (r < 0 && r != -TH_R_NOT_FOUND) {
        th_warn("net", "status of a Service not written", "name=%s err=%s",
                th_json_path_str(svc, "metadata.name"), th_log_q(err.msg));
        return false;
    }
    return true;
}

static bool sync_all(struct th_hostports *h)
{
    const struct th_json *svcs = h->now->services;
    mark(h, svcs);
    bool good = sync_host(h);
    for (size_t i = 0; i < th_json_len(svcs); i++) {
        good = sync_status(h, th_json_at(svcs, i)) && good;
    }
    return good;
}

/* ---- the thread ---- */

/* Under the lock: waits for a state, a stop, or until wait_ms have gone by when that is not 0. */
static void await(struct th_hostports *h, int wait_ms)
{
    struct timespec end;
    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += wait_ms / 1000;
    for (int e = 0; !h->stop && !h->state && e != ETIMEDOUT;) {
        e = wait_ms ? pthread_cond_timedwait(&h->cond, &h->mu, &end) : pthread_cond_wait(&h->cond, &h->mu);
    }
}

static void *hostports_thread(void *arg)
{
    struct th_hostports *h = arg;
    int wait = 0, retry = 0;
    pthread_mutex_lock(&h->mu);
    for (;;) {
        await(h, wait);
        if (h->stop) {
            break;
        }
        if (h->state) {
            th_net_state_free(h->now);
            h->now = th_steal(&h->state);
        }
        pthread_mutex_unlock(&h->mu);
        retry = sync_all(h) ? 0 : retry ? (retry * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : retry * 2) : RETRY_MIN_MS;
        wait = some_idle(h) && (retry == 0 || retry > IDLE_MS) ? IDLE_MS : retry;
        pthread_mutex_lock(&h->mu);
    }
    pthread_mutex_unlock(&h->mu);
    return NULL;
}

void th_hostports_update(struct th_hostports *h, struct th_net_state *st)
{
    pthread_mutex_lock(&h->mu);
    th_net_state_free(h->state);
    h->state = st;
    pthread_cond_signal(&h->cond);
    pthread_mutex_unlock(&h->mu);
}

static void hostports_free(struct th_hostports *h)
{
    th_net_state_free(h->state);
    th_net_state_free(h->now);
    th_recorder_free(h->rec);
    th_hmap_done(&h->fwds);
    th_hmap_done(&h->said);
    pthread_cond_destroy(&h->cond);
    pthread_mutex_destroy(&h->mu);
    if (h->fd >= 0) {
        (void)close(h->fd);
    }
    free(h);
}

int th_hostports_start(struct th_net *n, struct th_hostports **ret, struct th_err *err)
{
    struct th_hostports *h = TH_NEW(struct th_hostports);
    h->n = n;
    h->fd = -1;
    th_hmap_init(&h->fwds, fwd_free);
    th_hmap_init(&h->said, free);
    pthread_mutex_init(&h->mu, NULL);
    pthread_cond_init(&h->cond, NULL);
    h->rec = th_recorder_new(n->o.lb_client, "service-controller", n->o.node_name);
    int e = pthread_create(&h->thread, NULL, hostports_thread, h);
    if (e != 0) {
        hostports_free(h);
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    *ret = h;
    return 0;
}

void th_hostports_stop(struct th_hostports *h)
{
    if (!h) {
        return;
    }
    pthread_mutex_lock(&h->mu);
    h->stop = true;
    pthread_cond_signal(&h->cond);
    pthread_mutex_unlock(&h->mu);
    pthread_join(h->thread, NULL);
    hostports_free(h);
}

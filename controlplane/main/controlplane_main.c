/* `thimbled controlplane`: store, API server, controllers and scheduler in one process.
 *
 * Start: identity, store, API, bootstrap objects, server; "ready URL" goes to standard output (and a
 * newline to --ready-fd) when /readyz answers 200; then the controllers and the scheduler.
 * SIGTERM and SIGINT stop in the reverse order: controllers, scheduler, server (watches end, writes
 * under way are finished), API, store. kill -9 at any moment loses nothing that was acknowledged.
 */
#include "controlplane/controlplane.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "controlplane/api/api.h"
#include "controlplane/api/local.h"
#include "controlplane/api/server.h"
#include "controlplane/controllers/controllers.h"
#include "controlplane/main/identity.h"
#include "controlplane/main/yield.h"
#include "controlplane/resources/ipalloc.h"
#include "controlplane/scheduler/scheduler.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

struct config {
    const char *data, *listen, *unix_socket, *kubeconfig;
    bool memory;
    const char *tls_cert, *tls_key, *ca_cert, *ca_key, *client_ca, *sa_key, *sa_issuer, *token_file;
    const char *service_cidr, *pod_cidr, *cluster_domain, *dns_ip, *advertise;
    const char *controllers, *scheduler, *node_socket, *authorization_mode;
    const char *audit_policy, *audit_log, *audit_size, *audit_backups, *audit_age;
    const char *volumes;
    const char *run, *etc, *continue_expiry, *event_ttl, *request_timeout;
    const char *node_monitor_period, *node_monitor_grace, *pod_gc_threshold;
    const char *workers_yield;
    struct th_strv disable_admission;
    struct th_strv made; /* strings that the members above point to */
    int ready_fd;
};

/* What runs, in the order of starting. */
struct parts {
    struct th_store *store;
    struct th_api *api;
    struct th_server *server;
    struct th_client *controllers_client, *scheduler_client;
    int64_t yielding_ms; /* 0: workers do not give way */
    struct th_controllers *controllers;
    struct th_scheduler *scheduler;
    char *advertise_ip, *dns_ip; /* what the cluster's configuration points to */
};

static const char usage[] =
    "usage: thimbled controlplane (--data DIR | --memory) [options]\n"
    "  --data DIR              store and identity live here\n"
    "  --memory                keep objects in memory only (--data then holds the identity)\n"
    "  --listen IP:PORT        TLS address; port 0 takes any (default 127.0.0.1:6443)\n"
    "  --unix-socket PATH      plain HTTP for root on this machine\n"
    "  --advertise IP:PORT     where pods reach the API server (default: the listen address)\n"
    "  --tls-cert, --tls-key FILE     server certificate (default: made)\n"
    "  --ca-cert, --ca-key FILE       cluster CA (default: made)\n"
    "  --client-ca FILE        CA of client certificates (default: the cluster CA)\n"
    "  --sa-key FILE           key that signs ServiceAccount tokens (default: made)\n"
    "  --sa-issuer URL         issuer of those tokens\n"
    "  --token-file FILE       static tokens: token,user,uid,\"group,...\"\n"
    "  --service-cidr, --pod-cidr CIDR, --cluster-domain NAME, --dns-ip IP\n"
    "  --controllers all|none|NAME,-NAME   --scheduler on|off\n"
    "  --node-monitor-period, --node-monitor-grace-period DURATION (default 5s, 40s)\n"
    "  --terminated-pod-gc-threshold N (default 12500)\n"
    "  --authorization-mode MODE,...  Node,RBAC (default), AlwaysAllow, AlwaysDeny\n"
    "  --audit-policy-file FILE  audit.k8s.io/v1 Policy; --audit-log-path FILE|- (default -)\n"
    "  --audit-log-maxsize MIB, --audit-log-maxbackup N, --audit-log-maxage DAYS   its rotation\n"
    "  --disable-admission NAME,...   --node-socket PATH\n"
    "  --kubeconfig PATH       admin's kubeconfig (default: DIR/admin.kubeconfig)\n"
    "  --etc DIR               identity files and cluster.json of `thimbled init` give defaults\n"
    "  --volumes DIR           where volumes of the class `standard` are made (default: DATA/volumes)\n"
    "  --run DIR               api.sock is made there, node.sock looked for\n"
    "  --continue-expiry TIME  how long the next page of a list may be asked for (default 5m)\n"
    "  --request-timeout TIME  the longest that a request may take (default 1m)\n"
    "  --event-ttl TIME        how long events last (default 1h)\n"
    "  --workers-yield TIME    how long after the start controllers give way to requests (default 0)\n"
    "  --ready-fd N            gets one line when ready, and is closed\n";

static const struct option options[] = {
    {"data", required_argument, NULL, 'd'},       {"memory", no_argument, NULL, 'm'},
    {"listen", required_argument, NULL, 'l'},     {"unix-socket", required_argument, NULL, 'u'},
    {"advertise", required_argument, NULL, 'a'},  {"tls-cert", required_argument, NULL, 1},
    {"tls-key", required_argument, NULL, 2},      {"ca-cert", required_argument, NULL, 3},
    {"ca-key", required_argument, NULL, 4},       {"client-ca", required_argument, NULL, 5},
    {"sa-key", required_argument, NULL, 6},       {"sa-issuer", required_argument, NULL, 7},
    {"token-file", required_argument, NULL, 8},   {"service-cidr", required_argument, NULL, 9},
    {"pod-cidr", required_argument, NULL, 10},    {"cluster-domain", required_argument, NULL, 11},
    {"dns-ip", required_argument, NULL, 12},      {"controllers", required_argument, NULL, 13},
    {"scheduler", required_argument, NULL, 14},   {"disable-admission", required_argument, NULL, 15},
    {"node-socket", required_argument, NULL, 16}, {"kubeconfig", required_argument, NULL, 17},
    {"ready-fd", required_argument, NULL, 18},    {"help", no_argument, NULL, 'h'},
    {"continue-expiry", required_argument, NULL, 19},
    {"event-ttl", required_argument, NULL, 24},
    {"workers-yield", required_argument, NULL, 25},
    {"request-timeout", required_argument, NULL, 36},
    {"run", required_argument, NULL, 'r'},        {"etc", required_argument, NULL, 'e'},
    {"node-monitor-period", required_argument, NULL, 22},
    {"node-monitor-grace-period", required_argument, NULL, 20},
    {"terminated-pod-gc-threshold", required_argument, NULL, 21},
    {"authorization-mode", required_argument, NULL, 23},
    {"audit-policy-file", required_argument, NULL, 30},
    {"audit-log-path", required_argument, NULL, 31},
    {"audit-log-maxsize", required_argument, NULL, 32},
    {"audit-log-maxbackup", required_argument, NULL, 33},
    {"audit-log-maxage", required_argument, NULL, 34},
    {"volumes", required_argument, NULL, 35},
    {NULL, 0, NULL, 0},
};

/* A flag's small number, 0 when it was not given; -1 when it is none. */
static int small(const char *text)
{
    char *end = NULL;
    long n = text ? strtol(text, &end, 10) : 0;
    return text && (end == text || *end || n < 0 || n > 1000000) ? -1 : (int)n;
}

/* 0 go on, 1 help was shown, negative bad usage. */
static int parse_flags(int argc, char **argv, struct config *c)
{
    const char **slots[] = {
        [1] = &c->tls_cert,      [2] = &c->tls_key,        [3] = &c->ca_cert,
        [4] = &c->ca_key,        [5] = &c->client_ca,      [6] = &c->sa_key,
        [7] = &c->sa_issuer,     [8] = &c->token_file,     [9] = &c->service_cidr,
        [10] = &c->pod_cidr,     [11] = &c->cluster_domain, [12] = &c->dns_ip,
        [13] = &c->controllers,  [14] = &c->scheduler,     [16] = &c->node_socket,
        [17] = &c->kubeconfig,   [19] = &c->continue_expiry,
         ['a'] = &c->advertise,    ['d'] = &c->data,
        ['l'] = &c->listen,      ['u'] = &c->unix_socket,   ['r'] = &c->run,
        ['e'] = &c->etc,         [22] = &c->node_monitor_period,
        [20] = &c->node_monitor_grace, [21] = &c->pod_gc_threshold,
        [23] = &c->authorization_mode, [24] = &c->event_ttl,
        [25] = &c->workers_yield,
        [36] = &c->request_timeout,
        [30] = &c->audit_policy, [31] = &c->audit_log,
        [32] = &c->audit_size,   [33] = &c->audit_backups, [34] = &c->audit_age,
        [35] = &c->volumes,
    };
    optind = 1;
    for (int o = 0; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (o == 'h') {
            (void)fputs(usage, stdout);
            return 1;
        }
        if (o == '?') {
            return -1;
        }
        if (o == 'm') {
            c->memory = true;
        } else if (o == 15) {
            th_strv_split(&c->disable_admission, optarg, ',');
        } else if (o == 18) {
            c->ready_fd = (int)strtol(optarg, NULL, 10);
        } else {
            *slots[o] = optarg;
        }
    }
    if (small(c->audit_size) < 0 || small(c->audit_backups) < 0 || small(c->audit_age) < 0) {
        (void)fputs("--audit-log-max… takes a number, 0 for no limit\n", stderr);
        return -1;
    }
    if (optind < argc || (!c->data && !c->memory)) {
        (void)fputs(optind < argc ? "unexpected argument\n" : "--data or --memory is needed\n",
                    stderr);
        return -1;
    }
    return 0;
}

static const char *keep(struct config *c, char *s)
{
    th_strv_take(&c->made, s);
    return s;
}

static void dflt(const char **slot, const char *value)
{
    *slot = *slot ? *slot : value;
}

/* What the command line did not say, from `thimbled init`: identity files and cluster.json in ETC
 * (vm/launcher/protocol.h), sockets in RUN. */
static int read_surroundings(struct config *c, struct th_err *err)
{
    if (c->run) {
        dflt(&c->unix_socket, keep(c, th_path_join(c->run, "api.sock")));
        dflt(&c->node_socket, keep(c, th_path_join(c->run, "node.sock")));
    }
    if (!c->etc) {
        return 0;
    }
    const struct {
        const char **slot;
        const char *file;
    } files[] = {{&c->tls_cert, "server.crt"}, {&c->tls_key, "server.key"}, {&c->ca_cert, "ca.crt"},
                 {&c->ca_key, "ca.key"},       {&c->sa_key, "sa.key"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        dflt(files[i].slot, keep(c, th_path_join(c->etc, files[i].file)));
    }
    th_autofree char *path = th_path_join(c->etc, "cluster.json");
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(th_io_read_file(path, 1u << 20, &text, err));
    TH_TRY(th_json_parse(th_buf_cstr(&text), text.n, NULL, &o, err));
    const struct {
        const char **slot;
        const char *name;
    } members[] = {{&c->service_cidr, "serviceCIDR"}, {&c->pod_cidr, "podCIDR"},
                   {&c->cluster_domain, "clusterDomain"}, {&c->dns_ip, "dnsIP"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        const char *v = th_json_path_str(o, members[i].name);
        if (v) {
            dflt(members[i].slot, keep(c, th_xstrdup(v)));
        }
    }
    int port = (int)th_json_path_int(o, "apiPort", 6443);
    const char *ip = th_json_path_str(o, "nodeIP");
    dflt(&c->listen, keep(c, th_xasprintf("0.0.0.0:%d", port)));
    if (ip) {
        dflt(&c->advertise, keep(c, th_xasprintf("%s:%d", ip, port)));
    }
    return 0;
}

static int read_pem(const char *path, char **slot, struct th_err *err)
{
    if (!path) {
        return 0;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(path, 1u << 20, &b, err));
    *slot = th_buf_steal(&b, NULL);
    return 0;
}

static int split_address(const char *text, char **ret_ip, int *ret_port, struct th_err *err)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    if (!colon || end == colon + 1 || *end || port < 0 || port > 65535) {
        return th_fail(err, TH_R_USAGE, "\"%s\" is not an address and a port", text);
    }
    *ret_ip = th_xstrndup(text, (size_t)(colon - text));
    *ret_port = (int)port;
    return 0;
}

/* The address `offset` behind the network's in "10.96.0.0/16". */
static int cidr_address(const char *cidr, uint32_t offset, char *buf, size_t n, struct th_err *err)
{
    th_autofree char *ip = th_xstrndup(cidr, strcspn(cidr, "/"));
    struct in_addr a;
    if (inet_pton(AF_INET, ip, &a) != 1 || !strchr(cidr, '/')) {
        return th_fail(err, TH_R_USAGE, "\"%s\" is not an IPv4 CIDR", cidr);
    }
    a.s_addr = htonl(ntohl(a.s_addr) + offset);
    (void)inet_ntop(AF_INET, &a, buf, (socklen_t)n);
    return 0;
}

static void raise_file_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &l);
    }
}

static int start_store(const struct config *c, struct parts *p, struct th_err *err)
{
    struct th_store_opts o = {.path = NULL};
    th_autofree char *path = NULL;
    if (!c->memory) {
        th_autofree char *dir = th_path_join(c->data, "store");
        TH_TRY(th_io_mkdir_p(dir, 0700, err));
        path = th_path_join(dir, "state.db");
        o.path = path;
    }
    return th_store_open(&o, &p->store, err);
}

/* The allocator knows what the stored Services hold before anybody can ask it for more. */
static int start_allocator(const struct config *c, struct th_cluster *k, struct parts *p,
                           struct th_err *err)
{
    TH_TRY(th_ipalloc_new(c->service_cidr, k->node_port_first, k->node_port_last, &k->services, err));
    struct th_store_list list;
    TH_TRY(th_store_range(p->store, "core/services/", NULL, 0, 0, &list, err));
    for (size_t i = 0; i < list.n; i++) {
        TH_AUTO(th_json) struct th_json *svc = NULL;
        if (th_json_parse(list.objs[i]->bytes, list.objs[i]->n, NULL, &svc, NULL) == 0) {
            th_ipalloc_note(k->services, svc);
        }
    }
    th_store_list_done(&list);
    return 0;
}

static int duration(const char *text, int64_t *ret_ms, struct th_err *err)
{
    int64_t us = 0;
    TH_TRY(text ? th_duration_parse(text, &us, err) : 0);
    *ret_ms = us / 1000;
    return 0;
}

#ifdef TH_WITH_CONTROLLERS
/* A controller's own identity: a ServiceAccount of kube-system, as upstream's controller manager gives
 * each of them. */
static int client_for(void *arg, const char *account, struct th_client **ret, struct th_err *err)
{
    static const char *const groups[] = {"system:serviceaccounts",
                                         "system:serviceaccounts:kube-system",
                                         "system:authenticated", NULL};
    if (!*account) {
        return th_client_new_local(arg, NULL, NULL, "kube-apiserver", ret, err);
    }
    th_autofree char *user = th_xasprintf("system:serviceaccount:kube-system:%s", account);
    return th_client_new_local(arg, user, groups, "kube-controller-manager", ret, err);
}
#endif

static int start_workers(const struct config *c, struct th_cluster *k,
                         const struct th_cp_identity *id, struct parts *p, struct th_err *err)
{
    (void)id;
    (void)k;
    (void)p;
    (void)err;
    bool none = th_streq(c->controllers, "none");
    static const char *const groups[] = {"system:authenticated", NULL};
#ifdef TH_WITH_CONTROLLERS
    if (!none) {
        TH_TRY(th_client_new_local(p->api, "system:kube-controller-manager", groups,
                                   "kube-controller-manager", &p->controllers_client, err));
        struct th_controllers_opts o = {.only = c->controllers,
                                        .pod_cidr = k->pod_cidr,
                                        .service_cidr = k->service_cidr,
                                        .cluster_domain = k->cluster_domain,
                                        .ca_cert_pem = k->ca_cert_pem,
                                        .ca_key_pem = id->ca_key,
                                        .volumes_dir = k->volumes_dir,
                                        .control_plane_ip = k->advertise_ip,
                                        .sa_key_pem = k->sa_key_pem,
                                        .client_for = client_for,
                                        .client_arg = p->api};
        TH_TRY(duration(c->node_monitor_period, &o.node_monitor_period_ms, err));
        TH_TRY(duration(c->node_monitor_grace, &o.node_monitor_grace_ms, err));
        o.terminated_pod_gc_threshold =
            c->pod_gc_threshold ? strtoll(c->pod_gc_threshold, NULL, 10) : 0;
        TH_TRY(th_controllers_start(p->controllers_client, &o, &p->controllers, err));
        k->runs_controllers = true;
    }
#endif
#ifdef TH_WITH_SCHEDULER
    if (!(none && !c->scheduler) && !th_streq(c->scheduler, "off")) {
        TH_TRY(th_client_new_local(p->api, "system:kube-scheduler", groups, "kube-scheduler",
                                   &p->scheduler_client, err));
        struct th_scheduler_opts o = {.name = NULL};
        TH_TRY(th_scheduler_start(p->scheduler_client, &o, &p->scheduler, err));
        k->runs_scheduler = true;
    }
#endif
    (void)none;
    return 0;
}

static void stop(struct parts *p)
{
    if (p->api) {
        th_api_set_ready(p->api, false);
    }
#ifdef TH_WITH_SCHEDULER
    th_scheduler_stop(p->scheduler);
#endif
#ifdef TH_WITH_CONTROLLERS
    th_controllers_stop(p->controllers);
#endif
    th_server_stop(p->server);
    if (p->scheduler_client) {
        th_client_free(p->scheduler_client);
    }
    if (p->controllers_client) {
        th_client_free(p->controllers_client);
    }
    th_api_free(p->api);
    if (p->store) {
        th_store_close(p->store);
    }
    free(p->advertise_ip);
    free(p->dns_ip);
}

static void say_ready(const struct config *c, const char *url)
{
    (void)printf("ready %s\n", url);
    (void)fflush(stdout);
    if (c->ready_fd >= 0) {
        if (th_io_write_all(c->ready_fd, "ready\n", 6, NULL) < 0) {
            th_warn("controlplane", "nobody reads --ready-fd", NULL);
        }
        (void)close(c->ready_fd);
    }
}

static int start(const struct config *c, struct th_cluster *k, struct th_cp_identity *id,
                 struct parts *p, struct th_err *err)
{
    th_autofree char *ip = NULL;
    th_autofree char *adv_ip = NULL;
    int port = 0;
    TH_TRY(split_address(c->listen, &ip, &port, err));
    k->advertise_port = port;
    if (c->advertise) {
        TH_TRY(split_address(c->advertise, &adv_ip, &k->advertise_port, err));
    }
    p->advertise_ip = th_xstrdup(adv_ip ? adv_ip : ip);
    k->advertise_ip = p->advertise_ip;
    char first[INET_ADDRSTRLEN];
    char tenth[INET_ADDRSTRLEN];
    TH_TRY(cidr_address(c->service_cidr, 1, first, sizeof(first), err));
    TH_TRY(cidr_address(c->service_cidr, 10, tenth, sizeof(tenth), err));
    /* A server alone has nobody who answers DNS, and no Service for it. */
    bool alone = th_streq(c->controllers, "none");
    p->dns_ip = th_xstrdup(c->dns_ip ? c->dns_ip : alone ? NULL : tenth);
    k->dns_ip = p->dns_ip;
    struct th_cp_names names = {.service_ip = first,
                                .cluster_domain = c->cluster_domain,
                                .listen_ip = ip,
                                .advertise_ip = k->advertise_ip};
    TH_TRY(read_pem(c->ca_cert, &id->ca_cert, err));
    TH_TRY(read_pem(c->ca_key, &id->ca_key, err));
    TH_TRY(read_pem(c->tls_cert, &id->server_cert, err));
    TH_TRY(read_pem(c->tls_key, &id->server_key, err));
    TH_TRY(read_pem(c->sa_key, &id->sa_key, err));
    TH_TRY(th_cp_identity_complete(id, c->data, &names, err));
    th_autofree char *client_ca = NULL;
    TH_TRY(read_pem(c->client_ca, &client_ca, err));
    k->ca_cert_pem = id->ca_cert;
    k->sa_key_pem = id->sa_key;
    TH_TRY(start_store(c, p, err));
    TH_TRY(start_allocator(c, k, p, err));
    th_autofree char *address = th_xasprintf("%s:%d", k->advertise_ip, k->advertise_port);
    struct th_api_opts ao = {.store = p->store,
                             .continue_expiry = c->continue_expiry,
                             .event_ttl = c->event_ttl,
                             .request_timeout = c->request_timeout,
                             .cluster = k,
                             .disable_admission = (const char *const *)c->disable_admission.v,
                             .node_socket = c->node_socket,
                             .token_file = c->token_file,
                             .authorization_mode = c->authorization_mode,
                             .audit_policy_file = c->audit_policy,
                             .audit_log = c->audit_log,
                             .audit_log_max_size_mb = small(c->audit_size),
                             .audit_log_max_backups = small(c->audit_backups),
                             .audit_log_max_age_days = small(c->audit_age),
                             .server_address = address,
                             .front_cert_pem = id->front_cert,
                             .front_key_pem = id->front_key,
                             .front_ca_pem = id->front_ca_cert,
                             .client_ca_pem = client_ca ? client_ca : id->ca_cert,
                             .metrics_api = !th_streq(c->controllers, "none")};
    TH_TRY(th_api_new(&ao, &p->api, err));
    struct th_server_opts so = {.api = p->api,
                                .listen_ip = ip,
                                .listen_port = port,
                                .cert_pem = id->server_cert,
                                .key_pem = id->server_key,
                                .client_ca_pem = client_ca ? client_ca : id->ca_cert,
                                .front_ca_pem = id->front_ca_cert,
                                .unix_socket = c->unix_socket};
    TH_TRY(th_server_start(&so, &p->server, err));
    int got = th_server_port(p->server);
    k->advertise_port = k->advertise_port ? k->advertise_port : got;
    TH_TRY(th_api_bootstrap(p->api, err));
    th_autofree char *url = th_xasprintf("https://%s:%d", th_streq(ip, "0.0.0.0") ? "127.0.0.1" : ip,
                                         got);
    th_autofree char *kubeconfig =
        c->kubeconfig ? th_xstrdup(c->kubeconfig)
                      : (c->data && id->admin_cert ? th_path_join(c->data, "admin.kubeconfig")
                                                   : NULL);
    if (kubeconfig) {
        TH_TRY(th_cp_kubeconfig_write(id, url, kubeconfig, err));
    }
    th_api_set_ready(p->api, true);
    say_ready(c, url);
    /* Those who wait for the API need not wait for its controllers, as upstream's, which are programs of
     * their own. */
    int64_t yield_ms = 0;
    TH_TRY(duration(c->workers_yield, &yield_ms, err));
    p->yielding_ms = yield_ms > 0 && th_yield_begin() ? yield_ms : 0;
    return start_workers(c, k, id, p, err);
}

/* Until SIGTERM or SIGINT comes. */
static int wait_for_signal(const sigset_t *wanted, struct parts *p)
{
    if (p->yielding_ms > 0) {
        struct timespec ts = {.tv_sec = p->yielding_ms / 1000, .tv_nsec = p->yielding_ms % 1000 * 1000000};
        int sig = 0;
        while ((sig = sigtimedwait(wanted, NULL, &ts)) < 0 && errno == EINTR) {
        }
        th_yield_end();
        if (sig > 0) {
            return sig;
        }
    }
    int sig = 0;
    (void)sigwait(wanted, &sig);
    return sig;
}

int th_controlplane_main(int argc, char **argv)
{
    struct config c = {
        .disable_admission = TH_STRV_INIT, .made = TH_STRV_INIT, .ready_fd = -1};
    th_log_configure(NULL);
    int r = parse_flags(argc, argv, &c);
    TH_AUTO_ERR struct th_err flags_err = TH_ERR_INIT;
    if (r == 0 && read_surroundings(&c, &flags_err) < 0) {
        th_error("controlplane", "cannot start", "error=%s", th_log_q(flags_err.msg));
        r = -1;
    }
    dflt(&c.listen, "127.0.0.1:6443");
    dflt(&c.service_cidr, "10.96.0.0/16");
    dflt(&c.pod_cidr, "10.244.0.0/16");
    dflt(&c.cluster_domain, "cluster.local");
    dflt(&c.node_socket, "/run/thimble/node.sock");
    if (c.data) {
        dflt(&c.volumes, keep(&c, th_path_join(c.data, "volumes")));
    }
    if (c.volumes && *c.volumes != '/') { /* volumes say it to nodes */
        th_autofree char *cwd = getcwd(NULL, 0);
        c.volumes = keep(&c, th_path_join(cwd ? cwd : "/", c.volumes));
    }
    if (r != 0) {
        th_strv_done(&c.made);
        th_strv_done(&c.disable_admission);
        return r > 0 ? 0 : 2;
    }
    sigset_t wanted;
    (void)sigemptyset(&wanted);
    (void)sigaddset(&wanted, SIGTERM);
    (void)sigaddset(&wanted, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &wanted, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    th_autofree char *issuer =
        c.sa_issuer ? th_xstrdup(c.sa_issuer)
                    : th_xasprintf("https://kubernetes.default.svc.%s", c.cluster_domain);
    struct th_cluster k = {.service_cidr = c.service_cidr,
                           .pod_cidr = c.pod_cidr,
                           .cluster_domain = c.cluster_domain,
                           .node_port_first = 30000,
                           .node_port_last = 32767,
                           .sa_issuer = issuer,
                           .volumes_dir = c.volumes};
    struct th_cp_identity id = {0};
    struct parts p = {0};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    int code = 0;
    if (start(&c, &k, &id, &p, &err) < 0) {
        th_error("controlplane", "cannot start", "error=%s", th_log_q(err.msg));
        code = th_reason_exit(err.reason);
    } else {
        int sig = wait_for_signal(&wanted, &p);
        th_info("controlplane", "stopping", "signal=%d", sig);
    }
    stop(&p);
    th_ipalloc_free(k.services);
    th_cp_identity_done(&id);
    th_strv_done(&c.made);
    th_strv_done(&c.disable_admission);
    return code;
}

/* `thimbled node`: options, start, loop, stop.
 *
 * Stopping (SIGTERM) ends the agent and nothing else: containers, links and mounts stay, and the
 * next agent finds them. What the pods of a node leave behind is removed by deleting the pods. */
#include "vm/node/node.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const char HELP[] =
    "Usage: thimbled node [options]\n"
    "The node agent: runs the pods that are bound to this node.\n\n"
    "  --name NAME           node name (default: thimble)\n"
    "  --data DIR            pods, volumes, addresses (default: /var/lib/thimble)\n"
    "  --images DIR          image store (default: <data>/images)\n"
    "  --run DIR             sockets and namespaces, on a tmpfs (default: /run/thimble)\n"
    "  --api-socket PATH     API server (default: <run>/api.sock)\n"
    "  --no-api              run without an API server (static pods only)\n"
    "  --node-socket PATH    where this agent serves logs, exec, images (default: <run>/node.sock)\n"
    "  --node-ip IP          this node's address (default: 10.0.2.15)\n"
    "  --pod-cidr CIDR       this node's pod addresses (default: 10.244.0.0/24)\n"
    "  --cluster-dns IP      (default: 10.96.0.10)\n"
    "  --cluster-domain NAME (default: cluster.local)\n"
    "  --log-dir DIR         container logs (default: /var/log/pods)\n"
    "  --ports-endpoint EP   where host ports are asked for: tcp:IP:PORT or unix:PATH\n"
    "  --manifest-dir DIR    static pods: one manifest per file\n"
    "  --cgroup-parent PATH  control group under which pods live (default: the root)\n"
    "  --max-pods N          (default: 110)\n"
    "  --pod-max-pids N      processes and threads of one pod, -1: no limit (default: 4096)\n"
    "  --etc DIR             cluster.json there gives defaults for the addresses and names above\n"
    "  --ready-fd N          \"ready\\n\" is written there when the agent works\n";

enum { OPT_NO_API = 'N', OPT_HELP = 'h' };

static const struct option OPTIONS[] = {{"name", 1, NULL, 1},
                                        {"data", 1, NULL, 2},
                                        {"images", 1, NULL, 3},
                                        {"run", 1, NULL, 4},
                                        {"api-socket", 1, NULL, 5},
                                        {"node-socket", 1, NULL, 6},
                                        {"node-ip", 1, NULL, 7},
                                        {"pod-cidr", 1, NULL, 8},
                                        {"cluster-dns", 1, NULL, 9},
                                        {"cluster-domain", 1, NULL, 10},
                                        {"log-dir", 1, NULL, 11},
                                        {"ports-endpoint", 1, NULL, 12},
                                        {"manifest-dir", 1, NULL, 13},
                                        {"cgroup-parent", 1, NULL, 14},
                                        {"max-pods", 1, NULL, 15},
                                        {"ready-fd", 1, NULL, 16},
                                        {"etc", 1, NULL, 17},
                                        {"pod-max-pids", 1, NULL, 18},
                                        {"no-api", 0, NULL, OPT_NO_API},
                                        {"help", 0, NULL, OPT_HELP},
                                        {NULL, 0, NULL, 0}};

static void set(char **field, const char *value)
{
    free(*field);
    *field = th_xstrdup(value);
}

static void default_to(char **field, char *value)
{
    if (*field) {
        free(value);
    } else {
        *field = value;
    }
}

static void take(char **field, const struct th_json *o, const char *name)
{
    const char *v = th_json_path_str(o, name);
    if (!*field && v && *v) {
        *field = th_xstrdup(v);
    }
}

/* The /24 of the first node out of the cluster's pod CIDR. */
static char *first_24(const char *cidr)
{
    int a, b, c, d, bits;
    if (sscanf(cidr, "%d.%d.%d.%d/%d", &a, &b, &c, &d, &bits) != 5 || bits >= 24) {
        return th_xstrdup(cidr);
    }
    return th_xasprintf("%d.%d.%d.0/24", a, b, c);
}

/* What the command line did not say, from cluster.json (vm/launcher/protocol.h). */
static void from_cluster(const char *etc, struct node_opts *o)
{
    th_autofree char *path = th_path_join(etc, "cluster.json");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *c = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, &err) < 0 ||
        th_json_parse(b.p, b.n, NULL, &c, &err) < 0) {
        th_warn(NODE_MOD, "cluster.json not read", "err=%s", th_log_q(err.msg));
        return;
    }
    take(&o->name, c, "node");
    take(&o->node_ip, c, "nodeIP");
    take(&o->cluster_dns, c, "dnsIP");
    take(&o->cluster_domain, c, "clusterDomain");
    take(&o->ports_endpoint, c, "portAgent");
    take(&o->service_cidr, c, "serviceCIDR");
    const char *cidr = th_json_path_str(c, "podCIDR");
    if (!o->pod_cidr && cidr) {
        o->pod_cidr = first_24(cidr);
    }
    o->profile_number = (int)th_json_path_int(c, "number", 0);
}

/* 0: go on; 1: help was printed; 2: usage error. */
static int parse(int argc, char **argv, struct node_opts *o, bool *ret_no_api)
{
    char **fields[] = {NULL,          &o->name,           &o->data,         &o->images_dir,
                       &o->run,       &o->api_socket,     &o->node_socket,  &o->node_ip,
                       &o->pod_cidr,  &o->cluster_dns,    &o->cluster_domain, &o->log_dir,
                       &o->ports_endpoint, &o->manifest_dir, &o->cgroup_parent};
    o->ready_fd = -1;
    o->max_pods = 110;
    o->pod_pids = 4096;
    const char *etc = NULL;
    int c;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1) {
        if (c >= 1 && c < (int)TH_ARRAY_LEN(fields)) {
            set(fields[c], optarg);
        } else if (c == 15) {
            o->max_pods = strtol(optarg, NULL, 10);
        } else if (c == 16) {
            o->ready_fd = (int)strtol(optarg, NULL, 10);
        } else if (c == 18) {
            o->pod_pids = strtol(optarg, NULL, 10);
        } else if (c == 17) {
            etc = optarg;
        } else if (c == OPT_NO_API) {
            *ret_no_api = true;
        } else if (c == OPT_HELP) {
            (void)fputs(HELP, stdout);
            return 1;
        } else {
            return 2;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "thimbled node: unexpected argument \"%s\"\n", argv[optind]);
        return 2;
    }
    if (etc) {
        from_cluster(etc, o);
    }
    default_to(&o->name, th_xstrdup("thimble"));
    default_to(&o->data, th_xstrdup("/var/lib/thimble"));
    default_to(&o->run, th_xstrdup("/run/thimble"));
    default_to(&o->images_dir, th_path_join(o->data, "images"));
    default_to(&o->api_socket, th_path_join(o->run, "api.sock"));
    default_to(&o->node_socket, th_path_join(o->run, "node.sock"));
    default_to(&o->node_ip, th_xstrdup("10.0.2.15"));
    default_to(&o->pod_cidr, th_xstrdup("10.244.0.0/24"));
    default_to(&o->cluster_dns, th_xstrdup("10.96.0.10"));
    default_to(&o->service_cidr, th_xstrdup("10.96.0.0/16"));
    default_to(&o->cluster_domain, th_xstrdup("cluster.local"));
    default_to(&o->log_dir, th_xstrdup("/var/log/pods"));
    return 0;
}

static int find_tools(struct agent *a, struct th_err *err)
{
    a->crun = th_proc_find("crun");
    a->conmon = th_proc_find("conmon");
    if (!a->crun || !a->conmon) {
        (void)th_fail(err, TH_R_NO_TOOL, "%s is not installed", a->crun ? "conmon" : "crun");
        return th_hint(err, "install the packages crun and conmon");
    }
    return 0;
}

static int connect_api(struct agent *a, struct th_err *err)
{
    th_autofree char *user = th_xasprintf("system:node:%s", a->o.name);
    const char *const groups[] = {"system:nodes", NULL};
    struct th_client_http_opts o = {.server = "http://localhost",
                                    .unix_socket = a->o.api_socket,
                                    .user_agent = "thimbled-node",
                                    .as_user = user,
                                    .as_groups = groups};
    TH_TRY(th_client_new_http(&o, &a->client, err));
    /* What a node agent may not do is done in the name of who does it upstream: rules and records read
     * the whole cluster's Services; Services' status is the cloud's to write, not a node's. */
    static const struct {
        const char *user, *agent;
    } others[] = {{"system:serviceaccount:kube-system:thimble-network", "thimbled-network"},
                  {"system:serviceaccount:kube-system:service-controller", "thimbled-service-controller"}};
    static const char *const accounts[] = {"system:serviceaccounts", "system:serviceaccounts:kube-system",
                                           "system:authenticated", NULL};
    struct th_client **clients[] = {&a->net_client, &a->lb_client};
    for (size_t i = 0; i < TH_ARRAY_LEN(clients); i++) {
        o.user_agent = others[i].agent;
        o.as_user = others[i].user;
        o.as_groups = accounts;
        TH_TRY(th_client_new_http(&o, clients[i], err));
    }
    a->recorder = th_recorder_new(a->client, "kubelet", a->o.name);
    return 0;
}

static int start(struct agent *a, bool no_api, struct th_err *err)
{
    TH_TRY(find_tools(a, err));
    TH_TRY(cg_detect(a, err));
    a->start_ms = th_now_ms();
    a->exit_dir = th_path_join(a->o.run, "exits");
    a->crun_root = th_path_join(a->o.run, "crun");
    a->attach_dir = th_path_join(a->o.run, "attach");
    a->ns_dir = th_path_join(a->o.run, "ns");
    TH_TRY(th_io_mkdir_p(a->o.data, 0711, err));
    TH_TRY(th_images_open(a->o.images_dir, 0, &a->images, err));
    if (!no_api) {
        TH_TRY(connect_api(a, err));
    }
    th_autofree char *net_dir = th_path_join(a->o.data, "net");
    struct th_net_opts no = {.node_name = a->o.name,
                             .node_ip = a->o.node_ip,
                             .pod_cidr = a->o.pod_cidr,
                             .data_dir = net_dir,
                             .service_cidr = a->o.service_cidr,
                             .profile_number = a->o.profile_number,
                             .cluster_dns = a->o.cluster_dns,
                             .cluster_domain = a->o.cluster_domain,
                             .ports_endpoint = a->o.ports_endpoint,
                             .client = a->net_client,
                             .lb_client = a->lb_client};
    TH_TRY(th_net_start(&no, &a->net, err));
    TH_TRY(agent_load(a, err));
    TH_TRY(server_start(a, err));
    TH_TRY(node_status_start(a, err));
    return agent_start(a, err);
}

static void on_signal(struct th_ev_src *src, int signo, void *arg)
{
    (void)src;
    th_info(NODE_MOD, "stopping", "signal=%d", signo);
    th_ev_stop(((struct agent *)arg)->ev, 0);
}

static void say_ready(struct agent *a)
{
    th_info(NODE_MOD, "node agent works", "name=%s cgroup=v%d pods=%zu start_ms=%lld", a->o.name,
            a->cg.version == CG_V2 ? 2 : 1, a->pods.n, (long long)(th_now_ms() - a->start_ms));
    if (a->o.ready_fd >= 0) {
        (void)!write(a->o.ready_fd, "ready\n", 6);
        close(a->o.ready_fd);
    }
}

static void free_opts(struct node_opts *o)
{
    char *all[] = {o->name, o->data, o->run, o->images_dir, o->api_socket, o->node_socket, o->node_ip,
                   o->pod_cidr, o->cluster_dns, o->cluster_domain, o->log_dir, o->ports_endpoint,
                   o->manifest_dir, o->cgroup_parent, o->service_cidr};
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        free(all[i]);
    }
}

int th_node_main(int argc, char **argv)
{
    if (argc > 1 && th_streq(argv[1], "pause")) { /* not for people: see pause.c */
        return pause_main(argc - 1, argv + 1, argc + 1, argv - 1);
    }
    th_log_configure(NULL);
    struct agent *a = TH_NEW(struct agent);
    bool no_api = false;
    int r = parse(argc, argv, &a->o, &no_api);
    if (r != 0) {
        free_opts(&a->o);
        free(a);
        return r == 1 ? 0 : 2;
    }
    static const int signals[] = {SIGTERM, SIGINT};
    sigset_t set_;
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    struct rlimit nofile = {65536, 65536};
    (void)setrlimit(RLIMIT_NOFILE, &nofile);
    (void)umask(022);
    a->ev = th_ev_new();
    for (size_t i = 0; i < 2; i++) {
        (void)th_ev_add_signal(a->ev, signals[i], on_signal, a);
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (start(a, no_api, &err) < 0) {
        th_error(NODE_MOD, "node agent does not start", "reason=%s err=%s hint=%s", th_reason_code(err.reason),
                 th_log_q(err.msg), th_log_q(err.hint ? err.hint : ""));
        return th_reason_exit(err.reason);
    }
    say_ready(a);
    r = th_ev_run(a->ev);
    server_stop(a);
    node_status_stop(a);
    agent_stop(a);
    if (a->recorder) {
        th_recorder_free(a->recorder);
    }
    th_ev_free(a->ev);
    th_net_stop(a->net);
    th_images_close(a->images);
    if (a->client) {
        th_client_free(a->lb_client);
        th_client_free(a->net_client);
        th_client_free(a->client);
    }
    free(a->crun);
    free(a->conmon);
    free(a->exit_dir);
    free(a->crun_root);
    free(a->attach_dir);
    free(a->ns_dir);
    free(a->cg.mount);
    free(a->cg.parent);
    free_opts(&a->o);
    free(a);
    return r;
}

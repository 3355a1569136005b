/*
 * thimble service: the addresses at which Services answer on this host.
 *
 * A LoadBalancer Service has a loopback address of its own; a NodePort is forwarded on 127.0.0.1.
 * Where a port could not be had as wished (low ports of an ordinary user, a port in use), another
 * one was taken, which the profile's list of forwards knows.
 */
#include "cli/cluster.h"
#include "cli/output.h"
#include "base/clock.h"
#include <stdio.h>

#define POLL_MS 100

static const char *scheme_of(const struct th_json *port)
{
    const char *app = th_json_path_str(port, "appProtocol");
    const char *name = th_json_path_str(port, "name");
    int64_t number = th_json_path_int(port, "port", 0);
    if (th_streq(app, "https") || th_streq(name, "https") || number == 443 || number == 8443) {
        return "https";
    }
    return th_streq(th_json_path_str(port, "protocol"), "UDP") ? "udp" : "http";
}

static const struct th_machine_port *find_forward(const struct th_machine_port *list, size_t n,
                                                  const char *host_ip, int64_t wanted)
{
    for (size_t i = 0; i < n; i++) {
        if (th_streq(list[i].host_ip, host_ip) &&
            (list[i].wanted_port == wanted || list[i].host_port == wanted)) {
            return &list[i];
        }
    }
    return NULL;
}

/* Adds {"name","port","url"} for every port that answers on the host; false when one is missing. */
static bool urls_of(const struct th_json *svc, const struct th_machine_port *forwards, size_t n,
                    struct th_json *ret)
{
    const char *type = th_json_path_str(svc, "spec.type");
    const char *ip = th_json_path_str(svc, "status.loadBalancer.ingress[0].ip");
    const struct th_json *ports = th_json_path(svc, "spec.ports");
    bool all = true;
    for (size_t i = 0; i < th_json_len(ports); i++) {
        const struct th_json *port = th_json_at(ports, i);
        int64_t number = th_json_path_int(port, "port", 0);
        bool lb = th_streq(type, "LoadBalancer");
        const char *host = lb ? ip : "127.0.0.1";
        int64_t wanted = lb ? number : th_json_path_int(port, "nodePort", 0);
        const struct th_machine_port *f = host ? find_forward(forwards, n, host, wanted) : NULL;
        if (!f) {
            all = false;
            continue;
        }
        const char *scheme = scheme_of(port);
        bool standard = (th_streq(scheme, "http") && f->host_port == 80) ||
                        (th_streq(scheme, "https") && f->host_port == 443);
        th_autofree char *url = standard ? th_xasprintf("%s://%s", scheme, host)
                                         : th_xasprintf("%s://%s:%d", scheme, host, f->host_port);
        th_json_append(ret, th_json_build("{'name':%s,'port':%d,'url':%s}",
                                          th_json_path_str(port, "name"), number, url));
    }
    return all;
}

static int read_service(struct th_cluster_conn *c, const char *ns, const char *name,
                        struct th_json **ret_svc, struct th_json **ret_urls, bool *ret_all,
                        struct th_err *err)
{
    struct th_machine_port *forwards = NULL;
    size_t n = 0;
    struct th_json *svc TH_AUTO(th_json) = NULL;
    TH_TRY(th_client_get(c->client, TH_GVR_SERVICES, ns, name, &svc, err));
    TH_TRY(th_machine_port_list(c->info.profile, &forwards, &n, err));
    *ret_urls = th_json_array();
    *ret_all = urls_of(svc, forwards, n, *ret_urls);
    free(forwards);
    *ret_svc = th_steal(&svc);
    return 0;
}

static int wait_urls(const struct th_cli *cli, struct th_cluster_conn *c, const char *ns,
                     const char *name, struct th_json **ret, struct th_err *err)
{
    int64_t wait_s = 30;
    TH_TRY(th_opt_int(cli, "wait", 0, 3600, &wait_s, err));
    int64_t deadline = th_mono_ms() + wait_s * 1000;
    for (;;) {
        struct th_json *svc TH_AUTO(th_json) = NULL;
        struct th_json *urls TH_AUTO(th_json) = NULL;
        bool all = false;
        TH_TRY(read_service(c, ns, name, &svc, &urls, &all, err));
        const char *type = th_json_path_str(svc, "spec.type");
        if (!th_streq(type, "LoadBalancer") && !th_streq(type, "NodePort")) {
            (void)th_fail(err, TH_R_UNSUPPORTED,
                          "service \"%s\" is of type %s, which has no address outside the cluster",
                          name, type);
            return th_hint(
                err,
                "make it a LoadBalancer, or use \"kubectl port-forward -n %s service/%s PORT\"", ns,
                name);
        }
        if (all && th_json_len(urls)) {
            *ret = th_steal(&urls);
            return 0;
        }
        if (th_mono_ms() >= deadline) {
            (void)th_fail(err, TH_R_TIMEOUT, "service \"%s\" has no address on this host yet",
                          name);
            return th_hint(err, "\"kubectl describe service -n %s %s\" may say why", ns, name);
        }
        th_sleep_ms(POLL_MS);
    }
}

static int show_all(const struct th_cli *cli, struct th_cluster_conn *c, struct th_err *err)
{
    struct th_json *list TH_AUTO(th_json) = NULL;
    struct th_machine_port *forwards = NULL;
    size_t n = 0;
    TH_TRY(th_client_list(c->client, TH_GVR_SERVICES, NULL, NULL, NULL, &list, err));
    TH_TRY(th_machine_port_list(cli->profile, &forwards, &n, err));
    struct th_json *out TH_AUTO(th_json) = th_json_array();
    struct th_table t = {0};
    th_table_row(&t, 4, "NAMESPACE", "NAME", "TYPE", "URL");
    const struct th_json *items = th_json_get(list, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *svc = th_json_at(items, i);
        const char *ns = th_json_path_str(svc, "metadata.namespace");
        const char *name = th_json_path_str(svc, "metadata.name");
        const char *type = th_json_path_str(svc, "spec.type");
        struct th_json *urls = th_json_array();
        if (th_streq(type, "LoadBalancer") || th_streq(type, "NodePort")) {
            (void)urls_of(svc, forwards, n, urls);
        }
        for (size_t k = 0; k < th_json_len(urls); k++) {
            th_table_row(&t, 4, ns, name, type, th_json_path_str(th_json_at(urls, k), "url"));
        }
        if (th_json_len(urls) == 0) {
            th_table_row(&t, 4, ns, name, type, "-");
        }
        th_json_append(out, th_json_build("{'namespace':%s,'name':%s,'type':%s,'urls':%o}", ns,
                                          name, type, urls));
    }
    free(forwards);
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) = th_json_build("{'services':%o}", th_json_ref(out));
        th_print_json(o);
        th_table_done(&t);
    } else {
        th_table_print(&t);
    }
    return 0;
}

static int run(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    TH_TRY(th_cluster_open(cli, &c, err));
    if (cli->n_args == 0) {
        return show_all(cli, &c, err);
    }
    const char *ns = th_opt_str(cli, "namespace");
    const char *name = cli->args[0];
    struct th_json *urls TH_AUTO(th_json) = NULL;
    TH_TRY(wait_urls(cli, &c, ns, name, &urls, err));
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) =
            th_json_build("{'namespace':%s,'name':%s,'urls':%o}", ns, name, th_json_ref(urls));
        th_print_json(o);
        return 0;
    }
    struct th_table t = {0};
    th_table_row(&t, 4, "NAMESPACE", "NAME", "PORT", "URL");
    for (size_t i = 0; i < th_json_len(urls); i++) {
        const struct th_json *u = th_json_at(urls, i);
        char port[24];
        (void)snprintf(port, sizeof(port), "%lld", (long long)th_json_path_int(u, "port", 0));
        if (th_opt_bool(cli, "url")) {
            printf("%s\n", th_json_path_str(u, "url"));
        }
        th_table_row(&t, 4, ns, name, port, th_json_path_str(u, "url"));
    }
    if (th_opt_bool(cli, "url")) {
        th_table_done(&t);
    } else {
        th_table_print(&t);
    }
    return 0;
}

static const struct th_cmd_opt opts[] = {
    {.name = "namespace", .short_name = 'n', .arg = "NAME", .dflt = "default", .help = "Namespace"},
    {.name = "url", .help = "Print the URLs only, one a line"},
    {.name = "wait", .arg = "SECONDS", .dflt = "30", .help = "How long to wait for an address"},
    {.name = NULL},
};
static const char *const examples[] = {"thimble service",
                                       "curl $(thimble service hello-service --url)", NULL};
const struct th_cmd th_cmd_service = {
    .name = "service",
    .group = "Working with it",
    .summary = "Show where Services answer on this host",
    .args = "[NAME]",
    .max_args = 1,
    .examples = examples,
    .opts = opts,
    .complete = "service",
    .run = run,
};

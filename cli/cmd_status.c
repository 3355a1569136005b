/* thimble status: one cluster in detail. thimble list: all of them, a line each. */
#include "cli/cluster.h"
#include "cli/kubeconfig.h"
#include "cli/output.h"
#include "base/clock.h"
#include <stdio.h>

struct health {
    bool api; /* answered /readyz */
    int nodes, nodes_ready, pods, pods_running;
    char *why; /* what was wrong, or NULL */
};

static void health_done(struct health *h)
{
    free(h->why);
}

static bool condition_true(const struct th_json *obj, const char *type)
{
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *c = th_json_at(list, i);
        if (th_streq(th_json_path_str(c, "type"), type)) {
            return th_streq(th_json_path_str(c, "status"), "True");
        }
    }
    return false;
}

/* Asks the running cluster how it is; what cannot be had stays zero, with the reason in why. */
static void ask(const struct th_cli *cli, struct health *h)
{
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    struct th_json *nodes TH_AUTO(th_json) = NULL;
    struct th_json *pods TH_AUTO(th_json) = NULL;
    if (th_cluster_open(cli, &c, &err) < 0 ||
        th_client_list(c.client, TH_GVR_NODES, NULL, NULL, NULL, &nodes, &err) < 0 ||
        th_client_list(c.client, TH_GVR_PODS, NULL, NULL, NULL, &pods, &err) < 0) {
        h->why = th_xstrdup(err.msg);
        return;
    }
    h->api = true;
    const struct th_json *items = th_json_get(nodes, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        h->nodes++;
        h->nodes_ready += condition_true(th_json_at(items, i), "Ready");
    }
    items = th_json_get(pods, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        h->pods++;
        h->pods_running +=
            th_streq(th_json_path_str(th_json_at(items, i), "status.phase"), "Running");
    }
}

static const char *state_of(const struct th_machine_info *info, const struct health *h)
{
    if (!info->driver) {
        return "Damaged";
    }
    if (!info->running) {
        return "Stopped";
    }
    return h && h->api && h->nodes > 0 && h->nodes == h->nodes_ready ? "Running" : "Starting";
}

static struct th_json *ports_json(const struct th_machine_info *info)
{
    struct th_json *a = th_json_array();
    for (size_t i = 0; i < info->n_ports; i++) {
        const struct th_machine_port *p = &info->ports[i];
        th_json_append(
            a, th_json_build("{'host':%s,'port':%d,'nodePort':%d,'protocol':%s,'origin':%s}",
                             p->host_ip, (int64_t)p->host_port, (int64_t)p->guest_port, p->proto,
                             p->origin));
    }
    return a;
}

static void print_text(const struct th_machine_info *info, const struct health *h,
                       const char *kubeconfig, bool stale)
{
    char text[TH_TIME_LEN + 64];
    printf("Profile:       %s\n", info->profile);
    printf("State:         %s\n", state_of(info, h));
    printf("Driver:        %s, %d CPU%s, %d MiB\n", info->driver, info->cpus,
           info->cpus == 1 ? "" : "s", info->memory_mb);
    if (info->accel) {
        printf("Acceleration:  %s%s%s%s\n", info->accel, info->accel_why ? " (" : "",
               info->accel_why ? info->accel_why : "", info->accel_why ? ")" : "");
    }
    if (info->api_url) {
        printf("API:           %s\n", info->api_url);
    }
    if (info->running) {
        printf("Uptime:        %s, process %lld, %lld MiB resident\n",
               th_duration_human(info->uptime_ms, text), (long long)info->pid,
               (long long)(info->rss_kb / 1024));
        if (h->api) {
            printf("Nodes:         %d of %d ready\n", h->nodes_ready, h->nodes);
            printf("Pods:          %d of %d running\n", h->pods_running, h->pods);
        } else {
            printf("Cluster:       does not answer: %s\n", h->why ? h->why : "unknown");
        }
    }
    printf("Data disk:     %s used of %d GiB\n", th_format_bytes((uint64_t)info->disk_used_b, text),
           info->disk_gb);
    printf("Kubeconfig:    context \"%s\" in %s%s\n", info->context, kubeconfig,
           stale ? " (stale: \"thimble kubeconfig\" renews it)" : "");
    for (size_t i = 0; i < info->n_ports; i++) {
        const struct th_machine_port *p = &info->ports[i];
        printf("%s%s:%d -> %d/%s (%s)\n", i ? "               " : "Ports:         ", p->host_ip,
               p->host_port, p->guest_port, p->proto, p->origin);
    }
}

static int run_status(struct th_cli *cli, struct th_err *err)
{
    struct th_machine_info info TH_CLEANUP(th_machine_info_done) = {.profile = NULL};
    struct health h TH_CLEANUP(health_done) = {.why = NULL};
    TH_TRY(th_profile_check_name(cli->profile, err));
    if (th_machine_status(cli->profile, &info, err) < 0) {
        return err->hint
                   ? -(int)err->reason
                   : th_hint(err,
                             "\"thimble start\" makes it; \"thimble list\" shows what there is");
    }
    if (info.running) {
        ask(cli, &h);
    }
    th_autofree char *kubeconfig = th_kubeconfig_path();
    th_autofree char *server = th_kubeconfig_server(kubeconfig, info.context);
    bool stale = info.running && !th_streq(server, info.api_url);
    if (!cli->json) {
        print_text(&info, &h, kubeconfig, stale);
    } else {
        struct th_json *o TH_AUTO(th_json) = th_json_build(
            "{'profile':%s,'state':%s,'running':%b,'driver':%s,'acceleration':%s,'kernel':%s,"
            "'version':%s,'cpus':%d,'memoryMiB':%d,'diskGiB':%d,'diskUsedBytes':%d,'server':%s,"
            "'context':%s,'kubeconfig':%s,'kubeconfigStale':%b,'pid':%d,'residentKiB':%d,"
            "'uptimeMs':%d,'apiAnswers':%b,'nodes':%d,'nodesReady':%d,'pods':%d,'podsRunning':%d,"
            "'ports':%o}",
            info.profile, state_of(&info, &h), info.running, info.driver, info.accel, info.kernel,
            info.version, (int64_t)info.cpus, (int64_t)info.memory_mb, (int64_t)info.disk_gb,
            info.disk_used_b, info.api_url, info.context, kubeconfig, stale, info.pid, info.rss_kb,
            info.uptime_ms, h.api, (int64_t)h.nodes, (int64_t)h.nodes_ready, (int64_t)h.pods,
            (int64_t)h.pods_running, ports_json(&info));
        th_print_json(o);
    }
    return 0;
}

const struct th_cmd th_cmd_status = {
    .name = "status",
    .group = "Cluster",
    .summary = "Show how the cluster is",
    .args = "",
    .run = run_status,
};

static int run_list(struct th_cli *cli, struct th_err *err)
{
    struct th_machine_info *list = NULL;
    size_t n = 0;
    TH_TRY(th_machine_list(&list, &n, err));
    if (cli->json) {
        struct th_json *a = th_json_array();
        for (size_t i = 0; i < n; i++) {
            const struct th_machine_info *m = &list[i];
            th_json_append(a, th_json_build("{'profile':%s,'running':%b,'damaged':%b,'driver':%s,"
                                            "'acceleration':%s,'server':%s,'context':%s}",
                                            m->profile, m->running, m->driver == NULL, m->driver,
                                            m->accel, m->api_url, m->context));
        }
        struct th_json *o TH_AUTO(th_json) = th_json_build("{'clusters':%o}", a);
        th_print_json(o);
    } else if (n == 0) {
        printf("There is no cluster yet. \"thimble start\" makes one.\n");
    } else {
        struct th_table t = {0};
        th_table_row(&t, 6, "PROFILE", "STATE", "DRIVER", "ACCEL", "SERVER", "UPTIME");
        for (size_t i = 0; i < n; i++) {
            const struct th_machine_info *m = &list[i];
            char up[TH_TIME_LEN] = "-";
            if (m->running) {
                th_duration_human(m->uptime_ms, up);
            }
            const char *state = !m->driver ? "Damaged" : m->running ? "Running" : "Stopped";
            th_table_row(&t, 6, m->profile, state, m->driver ? m->driver : "-",
                         m->accel ? m->accel : "-", m->api_url ? m->api_url : "-", up);
        }
        th_table_print(&t);
    }
    th_machine_info_list_free(list, n);
    return 0;
}

const struct th_cmd th_cmd_list = {
    .name = "list",
    .group = "Cluster",
    .summary = "List the clusters of all profiles",
    .args = "",
    .run = run_list,
};

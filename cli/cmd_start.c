/*
 * thimble start: boots the machine (vm/launcher), then puts the cluster into the user's kubeconfig
 * and makes it the current context. The context that was current is remembered beside the profile,
 * for delete.
 */
#include "cli/cluster.h"
#include "cli/kubeconfig.h"
#include "cli/output.h"
#include "cli/profile_note.h"
#include "base/clock.h"
#include "base/json/json.h"
#include <stdio.h>

#define NODE_WAIT_MS 60000
#define NODE_POLL_MS 50

/* "127.0.0.1:8080:30080", "8080:30080", "8080" (the same inside), each with "/udp" possible. */
static int parse_port(const char *text, struct th_machine_port *ret, struct th_err *err)
{
    struct th_machine_port p = {.host_ip = "127.0.0.1", .proto = "tcp", .origin = "user"};
    th_autofree char *copy = th_xstrdup(text);
    char *slash = strchr(copy, '/');
    bool ok = true;
    if (slash) {
        *slash = 0;
        ok = th_streq(slash + 1, "tcp") || th_streq(slash + 1, "udp");
        (void)snprintf(p.proto, sizeof(p.proto), "%s", ok ? slash + 1 : "tcp");
    }
    struct th_strv parts TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    th_strv_split(&parts, copy, ':');
    size_t first = 0;
    if (parts.n == 3) {
        ok = ok && strlen(parts.v[0]) < sizeof(p.host_ip) && th_startswith(parts.v[0], "127.");
        (void)snprintf(p.host_ip, sizeof(p.host_ip), "%.15s", parts.v[0]);
        first = 1;
    }
    ok = ok && parts.n >= 1 && parts.n <= 3;
    long numbers[2] = {0, 0};
    for (size_t i = first, k = 0; ok && i < parts.n; i++, k++) {
        char *end = NULL;
        numbers[k] = strtol(parts.v[i], &end, 10);
        ok = end != parts.v[i] && !*end && numbers[k] >= (k == 0 ? 0 : 1) && numbers[k] <= 65535;
    }
    if (!ok || numbers[0] + numbers[1] == 0) {
        (void)th_fail(err, TH_R_USAGE, "--port: \"%s\" is not a port mapping", text);
        return th_hint(err, "write HOSTPORT:PORT or 127.x.y.z:HOSTPORT:PORT, with /udp for UDP");
    }
    p.host_port = p.wanted_port = (int)numbers[0];
    p.guest_port = (int)(parts.n - first == 2 ? numbers[1] : numbers[0]);
    *ret = p;
    return 0;
}

static int read_options(const struct th_cli *cli, struct th_machine_opts *o,
                        struct th_machine_port *ports, size_t max_ports, struct th_err *err)
{
    int64_t cpus = 0, memory = 0, disk = 0, port = 0, timeout_s = 0;
    TH_TRY(th_opt_int(cli, "cpus", 1, 64, &cpus, err));
    TH_TRY(th_opt_int(cli, "memory", 256, 1 << 20, &memory, err));
    TH_TRY(th_opt_int(cli, "disk", 1, 4096, &disk, err));
    TH_TRY(th_opt_int(cli, "api-port", 1, 65535, &port, err));
    TH_TRY(th_opt_int(cli, "timeout", 1, 3600, &timeout_s, err));
    const char *texts[32];
    size_t n = th_opt_all(cli, "port", texts, max_ports < 32 ? max_ports : 32);
    for (size_t i = 0; i < n; i++) {
        TH_TRY(parse_port(texts[i], &ports[i], err));
    }
    o->profile = cli->profile;
    o->driver = th_opt_str(cli, "driver");
    o->accel = th_opt_str(cli, "accel");
    o->kernel = th_opt_str(cli, "kernel");
    o->tmpl = th_opt_str(cli, "template");
    o->cpus = (int)cpus;
    o->memory_mb = (int)memory;
    o->disk_gb = (int)disk;
    o->api_port = (int)port;
    o->timeout_ms = timeout_s * 1000;
    o->ports = ports;
    o->n_ports = n;
    return 0;
}

static bool node_is_ready(const struct th_json *nodes)
{
    const struct th_json *items = th_json_get(nodes, "items");
    for (size_t i = 0; i < th_json_len(items); i++) {
        const struct th_json *list = th_json_path(th_json_at(items, i), "status.conditions");
        for (size_t k = 0; k < th_json_len(list); k++) {
            const struct th_json *c = th_json_at(list, k);
            if (th_streq(th_json_path_str(c, "type"), "Ready") &&
                th_streq(th_json_path_str(c, "status"), "True")) {
                return true;
            }
        }
    }
    return false;
}

/* The machine is ready when its programs serve; the cluster when its node takes pods. */
static int wait_for_node(const struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    TH_TRY(th_cluster_open(cli, &c, err));
    int64_t deadline = th_mono_ms() + NODE_WAIT_MS;
    for (;;) {
        struct th_json *nodes TH_AUTO(th_json) = NULL;
        int r = th_client_list(c.client, TH_GVR_NODES, NULL, NULL, NULL, &nodes, err);
        if (r == 0 && node_is_ready(nodes)) {
            return 0;
        }
        if (th_mono_ms() > deadline) {
            (void)th_fail(err, TH_R_TIMEOUT, "the machine runs, but its node is not ready");
            return th_hint(err, "\"thimble console\" may say why; \"kubectl get nodes\" shows its state");
        }
        th_err_done(err);
        th_sleep_ms(NODE_POLL_MS);
    }
}

static int write_kubeconfig(const struct th_cli *cli, const struct th_machine_info *info,
                            char **ret_path, struct th_err *err)
{
    th_autofree char *path = th_kubeconfig_path();
    struct th_kube_entry entry = {
        .name = info->context,
        .server = info->api_url,
        .ca_pem = info->ca_pem,
        .cert_pem = info->admin_cert_pem,
        .key_pem = info->admin_key_pem,
    };
    th_autofree char *previous = NULL;
    TH_TRY(th_kubeconfig_merge(path, &entry, !th_opt_bool(cli, "keep-context"), &previous, err));
    if (previous) {
        TH_TRY(th_profile_note_set(cli->profile, "previous-context", previous, err));
    }
    TH_TRY(th_profile_note_set(cli->profile, "kubeconfig", path, err));
    *ret_path = th_steal(&path);
    return 0;
}

static void print_result(const struct th_cli *cli, const struct th_machine_info *info,
                         const char *kubeconfig, int64_t took_ms, bool already)
{
    if (cli->json) {
        struct th_json *timings = th_json_array();
        for (size_t i = 0; i < info->n_timings; i++) {
            th_json_append(timings, th_json_build("{'step':%s,'ms':%d}", info->timings[i].step,
                                                  info->timings[i].ms));
        }
        struct th_json *o TH_AUTO(th_json) = th_json_build(
            "{'profile':%s,'started':%b,'driver':%s,'acceleration':%s,'restored':%b,'server':%s,"
            "'context':%s,'kubeconfig':%s,'tookMs':%d,'timings':%o}",
            info->profile, !already, info->driver, info->accel, info->restored, info->api_url,
            info->context, kubeconfig, took_ms, timings);
        th_print_json(o);
        return;
    }
    if (cli->quiet) {
        return;
    }
    char took[32];
    th_format_ms(took_ms, took);
    if (already) {
        printf("The cluster \"%s\" is running already at %s.\n", info->profile, info->api_url);
    } else {
        printf("The cluster \"%s\" is ready at %s after %s.\n", info->profile, info->api_url, took);
    }
    printf("kubectl uses it now: context \"%s\" in %s.\n", info->context, kubeconfig);
}

/* What a machine that runs cannot be given any more. */
static void note_not_applied(const struct th_cli *cli, struct th_progress *progress)
{
    static const char *const names[] = {"cpus",   "memory",   "disk",     "accel",
                                        "kernel", "template", "api-port", "port"};
    struct th_buf list TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        if (th_opt_bool(cli, names[i])) {
            th_buf_printf(&list, "%s--%s", list.n ? ", " : "", names[i]);
        }
    }
    if (list.n) {
        th_progress_note(progress, "It was running, so not applied: %s (\"thimble stop\" first)",
                         th_buf_cstr(&list));
    }
}

static int run(struct th_cli *cli, struct th_err *err)
{
    struct th_machine_opts opts = TH_MACHINE_OPTS_INIT;
    struct th_machine_port ports[32];
    struct th_machine_info info TH_CLEANUP(th_machine_info_done) = {.profile = NULL};
    TH_TRY(th_profile_check_name(cli->profile, err));
    TH_TRY(read_options(cli, &opts, ports, TH_ARRAY_LEN(ports), err));
    int64_t began_ms = th_mono_ms();
    struct th_progress progress TH_CLEANUP(th_progress_failed);
    th_progress_init(&progress, cli);
    int r = th_machine_start(&opts, th_machine_step, &progress, &info, err);
    bool already = r == -TH_R_ALREADY_RUNNING;
    if (r < 0 && !already) {
        return r;
    }
    if (already) {
        th_err_done(err);
        note_not_applied(cli, &progress);
    }
    if (!already) {
        th_progress_step(&progress, "Waiting for the node");
        TH_TRY(wait_for_node(cli, err));
    }
    th_progress_done(&progress);
    if (info.accel_why && !already) {
        th_progress_note(&progress, "Acceleration: %s (%s)", info.accel, info.accel_why);
    }
    if (info.how && !already) {
        th_progress_note(&progress, "Machine: %s", info.how);
    }
    th_autofree char *kubeconfig = NULL;
    r = write_kubeconfig(cli, &info, &kubeconfig, err);
    if (r < 0) {
        return th_wrap(err, "the cluster runs at %s, but the kubeconfig was not written",
                       info.api_url);
    }
    print_result(cli, &info, kubeconfig, th_mono_ms() - began_ms, already);
    return 0;
}

static const char *const drivers[] = {"libvirt", "host", NULL};
static const char *const accels[] = {"auto", "kvm", "tcg", NULL};
static const char *const kernels[] = {"auto", "debian", "small", NULL};
static const char *const templates[] = {"auto", "off", "renew", NULL};
static const struct th_cmd_opt opts[] = {
    {.name = "driver",
     .arg = "NAME",
     .choices = drivers,
     .help = "In a VM, or on this host (root)"},
    {.name = "cpus", .arg = "N", .help = "Virtual CPUs (1 under TCG, else up to 4)"},
    {.name = "memory", .short_name = 'm', .arg = "MIB", .help = "Memory in MiB (1024)"},
    {.name = "disk",
     .arg = "GIB",
     .help = "Largest size of the data disk in GiB (20); can only grow"},
    {.name = "accel",
     .arg = "NAME",
     .choices = accels,
     .dflt = "auto",
     .help = "Acceleration; auto tries KVM first"},
    {.name = "kernel", .arg = "NAME", .choices = kernels, .dflt = "auto", .help = "Guest kernel"},
    {.name = "template",
     .arg = "USE",
     .choices = templates,
     .dflt = "auto",
     .help = "Templates of booted machines (TCG)"},
    {.name = "api-port", .arg = "PORT", .help = "Port of the API on 127.0.0.1 (6443 when free)"},
    {.name = "port",
     .arg = "[IP:]PORT:PORT",
     .repeat = true,
     .help = "Forward a port of 127.x.y.z to the node; kept for later starts"},
    {.name = "keep-context", .help = "Do not make this kubectl's current context"},
    {.name = "timeout", .arg = "SECONDS", .help = "Give up after this time (120, under TCG 300)"},
    {.name = NULL},
};
static const char *const examples[] = {
    "thimble start", "thimble start -p demo --memory 2048 --cpus 2", "thimble start --driver host",
    "thimble start --port 8080:30080", NULL};
const struct th_cmd th_cmd_start = {
    .name = "start",
    .group = "Cluster",
    .summary = "Start the cluster",
    .args = "",
    .details =
        "Boots the machine of the profile, waits until its node is ready, and adds a context to\n"
        "the kubeconfig. What was there at the last stop is there again: objects, images,\n"
        "volumes, addresses. A setting that is not given stays as it was.\n"
        "\n"
        "Where the processor is emulated (TCG), the first start keeps the booted machine as a\n"
        "template in the cache folder, and later starts begin there. --template off boots the\n"
        "kernel, --template renew does so and makes the template anew; \"thimble delete --all\"\n"
        "removes all templates.",
    .examples = examples,
    .opts = opts,
    .run = run,
};

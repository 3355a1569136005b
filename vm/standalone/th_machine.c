/* th-machine: the launcher without a cluster, for tests of the machine alone and for taking it
 * apart: start boots to ready with the children given by -c (none by default).
 *   th-machine start|stop|delete|status|list|ports|console|port-agent|port-add [-p PROFILE]
 *              [-d DRIVER] [-a ACCEL] [-k KERNEL] [-T auto|off|renew] [-m MB] [-c CHILD]...
 *              [-f HOSTPORT:GUESTPORT] */
#include "base/buf.h"
#include "base/log.h"
#include "vm/launcher/launcher.h"

static void on_progress(void *arg, const char *step, int64_t ms)
{
    (void)arg;
    if (ms >= 0) {
        (void)fprintf(stderr, "  %-20s %6lld ms\n", step, (long long)ms);
    }
}

static int report(int r, const struct th_err *err)
{
    if (r >= 0) {
        return 0;
    }
    (void)fprintf(stderr, "error [%s]: %s\n", th_reason_code(err->reason), err->msg);
    if (err->hint) {
        (void)fprintf(stderr, "hint: %s\n", err->hint);
    }
    return th_reason_exit(err->reason);
}

static void print_info(const struct th_machine_info *i)
{
    (void)printf("%s driver=%s running=%d ready=%d accel=%s why=\"%s\" kernel=%s pid=%lld "
                 "rss_kb=%lld uptime_ms=%lld api=%s cpus=%d memory_mb=%d number=%d restored=%d how=\"%s\"\n",
                 i->profile, i->driver ? i->driver : "?", i->running, i->ready,
                 i->accel ? i->accel : "-", i->accel_why ? i->accel_why : "",
                 i->kernel ? i->kernel : "-", (long long)i->pid, (long long)i->rss_kb,
                 (long long)i->uptime_ms, i->api_url ? i->api_url : "-", i->cpus, i->memory_mb,
                 i->number, i->restored, i->how ? i->how : "");
    for (size_t k = 0; k < i->n_ports; k++) {
        const struct th_machine_port *p = &i->ports[k];
        (void)printf("  %s %s:%d (%d) -> %s:%d %s\n", p->proto, p->host_ip, p->host_port,
                     p->wanted_port, p->guest_ip, p->guest_port, p->origin);
    }
}

int main(int argc, char **argv)
{
    th_guest_bundle_use(&th_guest_bundle_embedded);
    th_log_configure(NULL);
    struct th_machine_opts o = TH_MACHINE_OPTS_INIT;
    th_autostrv struct th_strv children = TH_STRV_INIT;
    struct th_machine_port port = {0};
    const char *verb = argc > 1 ? argv[1] : "";
    optind = 2;
    for (int c; (c = getopt(argc, argv, "p:d:a:k:m:c:f:t:T:")) != -1;) {
        switch (c) {
        case 'p': o.profile = optarg; break;
        case 'd': o.driver = optarg; break;
        case 'a': o.accel = optarg; break;
        case 'k': o.kernel = optarg; break;
        case 'T': o.tmpl = optarg; break;
        case 'm': o.memory_mb = (int)strtol(optarg, NULL, 10); break;
        case 't': o.timeout_ms = strtol(optarg, NULL, 10); break;
        case 'c': th_strv_add(&children, optarg); break;
        case 'f': {
            char *end = NULL;
            port.host_port = (int)strtol(optarg, &end, 10);
            port.guest_port = *end ? (int)strtol(end + 1, NULL, 10) : port.host_port;
            break;
        }
        default: return 2;
        }
    }
    static const char *const none[] = {NULL};
    o.children = children.n ? (const char *const *)children.v : none;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO_MACHINE_INFO struct th_machine_info info = {0};
    if (th_streq(verb, "port-agent")) {
        return th_port_agent_main(o.profile);
    }
    if (th_streq(verb, "start")) {
        int r = th_machine_start(&o, on_progress, NULL, &info, &err);
        if (info.profile) {
            print_info(&info);
        }
        return report(r, &err);
    }
    if (th_streq(verb, "stop")) {
        return report(th_machine_stop(o.profile, 0, on_progress, NULL, &err), &err);
    }
    if (th_streq(verb, "delete")) {
        return report(th_machine_delete(o.profile, &err), &err);
    }
    if (th_streq(verb, "status")) {
        int r = th_machine_status(o.profile, &info, &err);
        if (r == 0) {
            print_info(&info);
        }
        return report(r, &err);
    }
    if (th_streq(verb, "list")) {
        struct th_machine_info *list = NULL;
        size_t n = 0;
        int r = th_machine_list(&list, &n, &err);
        for (size_t i = 0; i < n; i++) {
            print_info(&list[i]);
        }
        th_machine_info_list_free(list, n);
        return report(r, &err);
    }
    if (th_streq(verb, "port-add")) {
        struct th_machine_port got;
        int r = th_machine_port_add(o.profile, &port, &got, &err);
        if (r == 0) {
            (void)printf("%s:%d\n", got.host_ip, got.host_port);
        }
        return report(r, &err);
    }
    if (th_streq(verb, "console")) {
        th_autobuf struct th_buf text = TH_BUF_INIT;
        int r = th_machine_console(o.profile, 0, &text, &err);
        (void)fputs(th_buf_cstr(&text), stdout);
        return report(r, &err);
    }
    (void)fprintf(stderr, "th-machine: unknown verb \"%s\"\n", verb);
    return 2;
}

/* Start, stop and delete, the same for every driver.
 *
 * A start is a transaction on the profile under its lock: settings, identity, disk, process, hello,
 * identity over the channel, ready. The process is written down (state.json) before anything waits
 * for it, so that a launcher that is killed leaves a machine that status, stop and delete find.
 * Whatever fails after the process exists ends in driver->kill: nothing is left running.
 *
 * What happens between the process and ready is in boot.c. */
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "vm/launcher/machine_priv.h"
#include "vm/launcher/protocol.h"
#include "vm/launcher/start.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#define TIMEOUT_KVM_MS 120000
#define TIMEOUT_TCG_MS 300000
#define STOP_GRACE_MS 30000
#define STOP_EXTRA_MS 20000
#define DEFAULT_MEMORY_MB 1024
#define DEFAULT_DISK_GB 20

static const struct th_driver *const drivers[] = {&th_driver_libvirt, &th_driver_host};

const struct th_driver *th_driver_find(const char *name)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(drivers); i++) {
        if (th_streq(drivers[i]->name, name)) {
            return drivers[i];
        }
    }
    return NULL;
}

static void start_done(struct th_start *s)
{
    th_json_unref(s->timings);
    th_accel_done(&s->accel);
    free(s->kernel_name);
    free(s->kernel);
    free(s->initramfs);
    free(s->rootfs);
    free(s->thimbled);
    free(s->disk);
    free(s->program);
    th_ports_done(&s->ports);
    (void)(th_template_end(&s->maker, NULL) < 0);
    free(s->how);
}

/* ---- settings ---- */

static int pick(int asked, int had, int def)
{
    return asked > 0 ? asked : had > 0 ? had : def;
}

static int check_driver(const struct th_profile *p, const char *want, struct th_err *err)
{
    if (want && p->driver && !th_streq(p->driver, want)) {
        (void)th_fail(err, TH_R_USAGE, "profile \"%s\" was made with the driver %s", p->name,
                      p->driver);
        return th_hint(err, "delete it first, or use another profile with -p");
    }
    return 0;
}

static int settle_driver(struct th_start *s, struct th_err *err)
{
    struct th_profile *p = s->p;
    const char *want = s->opts->driver ? s->opts->driver : p->driver ? p->driver : "libvirt";
    s->d = th_driver_find(want);
    if (!s->d) {
        (void)th_fail(err, TH_R_USAGE, "unknown driver \"%s\"", want);
        return th_hint(err, "use libvirt or host");
    }
    free(p->driver);
    p->driver = th_xstrdup(s->d->name);
    return s->d->check(err);
}

static int settle_sizes(struct th_start *s, struct th_err *err)
{
    struct th_profile *p = s->p;
    const struct th_machine_opts *o = s->opts;
    if (o->cpus < 0 || o->cpus > 64 || o->memory_mb < 0 || o->memory_mb > (1 << 20) ||
        (o->memory_mb > 0 && o->memory_mb < 256) || o->disk_gb < 0 || o->disk_gb > 65536 ||
        o->nodes < 0 || o->nodes > 100 || o->api_port < 0 || o->api_port > 65535) {
        (void)th_fail(err, TH_R_USAGE, "a size is out of range");
        return th_hint(err, "cpus 1 to 64, memory 256 MiB and more, disk 1 GiB and more, nodes 1 "
                            "to 100");
    }
    if (o->disk_gb > 0 && o->disk_gb < p->disk_gb) {
        (void)th_fail(err, TH_R_USAGE, "the disk has %d GiB and cannot shrink", p->disk_gb);
        return th_hint(err, "its unused space is given back to the host by itself");
    }
    if (o->tmpl && !th_streq(o->tmpl, "auto") && !th_streq(o->tmpl, "off") &&
        !th_streq(o->tmpl, "renew")) {
        (void)th_fail(err, TH_R_USAGE, "unknown use of templates \"%s\"", o->tmpl);
        return th_hint(err, "use auto, off or renew");
    }
    p->cpus = o->cpus > 0 ? o->cpus : p->cpus;
    p->memory_mb = pick(o->memory_mb, p->memory_mb, DEFAULT_MEMORY_MB);
    p->disk_gb = pick(o->disk_gb, p->disk_gb, DEFAULT_DISK_GB);
    p->nodes = pick(o->nodes, p->nodes, 1);
    p->simulated_nodes = o->simulated_nodes >= 0 ? o->simulated_nodes : p->simulated_nodes;
    return 0;
}

static int settle_api_port(struct th_start *s, struct th_err *err)
{
    struct th_machine_port api = {.host_ip = "127.0.0.1", .guest_port = TH_NET_API_PORT,
                                  .proto = "tcp", .origin = "api"};
    int asked = s->opts->api_port;
    api.host_port = asked ? asked : s->p->api_port ? s->p->api_port : TH_NET_API_PORT;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_port_probe(&api, &e);
    if (r < 0 && (asked || s->p->api_port)) {
        /* kubeconfigs name this port: another one behind the user's back would break them. */
        (void)th_wrap(&e, "the API's port");
        (void)th_hint(&e, "free the port, or choose another one with --api-port");
        th_err_move(err ? err : &e, &e);
        return r;
    }
    if (r < 0) {
        api.host_port = 0;
        TH_TRY(th_port_probe(&api, err));
    }
    api.wanted_port = api.host_port;
    s->p->api_port = api.host_port;

    struct th_ports old = TH_PORTS_INIT;
    TH_TRY(th_ports_load(s->p, false, &old, err));
    th_ports_put(&s->ports, &api);
    for (size_t i = 0; i < old.n; i++) {
        if (th_streq(old.v[i].origin, "user")) {
            old.v[i].host_port = old.v[i].wanted_port;
            th_ports_put(&s->ports, &old.v[i]);
        }
    }
    th_ports_done(&old);
    for (size_t i = 0; i < s->opts->n_ports; i++) {
        struct th_machine_port port = s->opts->ports[i];
        TH_TRY(th_port_check(&port, err));
        port.wanted_port = port.host_port;
        (void)snprintf(port.origin, sizeof(port.origin), "user");
        if (port.host_port == 0 || th_ports_find(&s->ports, port.host_ip, port.host_port,
                                                 port.proto) < 0) {
            th_ports_put(&s->ports, &port);
        }
    }
    for (size_t i = 1; i < s->ports.n; i++) {
        TH_TRY(th_port_probe(&s->ports.v[i], err));
        if (s->ports.v[i].wanted_port == 0) {
            s->ports.v[i].wanted_port = s->ports.v[i].host_port;
        }
    }
    return th_ports_save(s->p, &s->ports, err);
}

static int settle_kernel(struct th_start *s, struct th_err *err)
{
    const char *want = s->opts->kernel ? s->opts->kernel : "auto";
    const char *name = want;
    if (th_streq(want, "auto")) {
        name = th_guest_part_have("kernel-small") ? "small" : "debian";
    }
    if (!th_streq(name, "small") && !th_streq(name, "debian")) {
        (void)th_fail(err, TH_R_USAGE, "unknown kernel \"%s\"", want);
        return th_hint(err, "use auto, debian or small");
    }
    th_autofree char *part = th_xasprintf("kernel-%s", name);
    if (!th_guest_part_have(part)) {
        (void)th_fail(err, TH_R_NOT_FOUND, "this thimble has no %s kernel", name);
        return th_hint(err, "build it in with the CMake target guest-kernel-small, then build "
                            "again; or use --kernel debian");
    }
    s->kernel_name = th_xstrdup(name);
    TH_TRY(th_guest_part_path(s->p->cache, part, &s->kernel, err));
    if (th_streq(name, "debian")) {
        TH_TRY(th_guest_part_path(s->p->cache, "initramfs", &s->initramfs, err));
    }
    return th_guest_part_path(s->p->cache, "rootfs", &s->rootfs, err);
}

static int settle_disk(struct th_start *s, struct th_err *err)
{
    struct th_profile *p = s->p;
    if (!s->d->is_vm) {
        s->disk = th_path_join(p->data, "data");
        return th_io_mkdir_p(s->disk, 0700, err);
    }
    s->disk = th_path_join(p->data, "disk.qcow2");
    th_autofree char *size = th_xasprintf("%dG", p->disk_gb);
    if (!th_io_exists(s->disk)) {
        th_autofree char *part = th_xasprintf("%s.part", s->disk);
        TH_TRY(th_proc_runl(NULL, 30000, err, "qemu-img", "create", "-q", "-f", "qcow2", "-o",
                            "lazy_refcounts=on,compat=1.1", part, size, NULL));
        if (chmod(part, 0600) < 0 || rename(part, s->disk) < 0) {
            return th_fail_errno(err, errno, TH_R_IO, "%s", s->disk);
        }
        return 0;
    }
    int had = (int)th_json_path_int(p->run, "disk_gb", p->disk_gb);
    if (p->disk_gb > had) {
        TH_TRY(th_proc_runl(NULL, 30000, err, "qemu-img", "resize", "-q", s->disk, size, NULL));
    }
    return 0;
}

static char *own_program(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    return n > 0 ? th_xstrndup(path, (size_t)n) : th_xstrdup("thimble");
}

/* ---- start ---- */

static int prepare(struct th_start *s, bool is_new, struct th_err *err)
{
    struct th_profile *p = s->p;
    TH_TRY(settle_driver(s, err));
    int had_disk_gb = p->disk_gb;
    TH_TRY(settle_sizes(s, err));
    if (s->d->is_vm) {
        TH_TRY(th_accel_choose(s->opts->accel, p->cache, &s->accel, err));
    }
    if (is_new) {
        TH_TRY(th_profile_create(p, err));
    }
    if (had_disk_gb > 0) {
        th_json_set_int(p->run, "disk_gb", had_disk_gb);
    }
    int64_t t = th_step_begin(s, "prepare");
    TH_TRY(th_identity_ensure(p, err));
    if (s->d->is_vm) {
        TH_TRY(settle_kernel(s, err));
    } else {
        s->kernel_name = th_xstrdup("host");
        TH_TRY(th_guest_part_path(p->cache, "thimbled", &s->thimbled, err));
    }
    TH_TRY(settle_api_port(s, err));
    th_step_end(s, "prepare", th_mono_ms() - t);
    t = th_step_begin(s, "disk");
    TH_TRY(settle_disk(s, err));
    TH_TRY(th_profile_save(p, err));
    th_step_end(s, "disk", th_mono_ms() - t);
    s->program = s->opts->program ? th_xstrdup(s->opts->program) : own_program();
    return 0;
}

/* The line that says most: the last error that is not init's own (which the message has already),
 * else the last line of all. Borrowed from lines; NULL when there is none. */
static const char *telling_line(const struct th_strv *lines)
{
    const char *last = NULL;
    for (size_t i = lines->n; i > 0; i--) {
        const char *line = lines->v[i - 1];
        const char *level = strstr(line, "Z E ");
        if (level && !th_startswith(level + 4, "init ")) {
            return level + 4;
        }
        last = last || !*line ? last : line;
    }
    return last;
}

static void note_console_line(const struct th_profile *p, struct th_err *err)
{
    th_autobuf struct th_buf tail = TH_BUF_INIT;
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    if (!err || th_console_tail(p, 20, &tail) < 0) {
        return;
    }
    th_strv_split(&lines, th_buf_cstr(&tail), '\n');
    const char *line = telling_line(&lines);
    if (!line) {
        return;
    }
    th_autofree char *msg = th_xstrdup(err->msg);
    th_autofree char *hint = th_xstrdup(err->hint);
    (void)th_fail(err, err->reason, "%s; the console says: %s", msg, line);
    if (hint) {
        (void)th_hint(err, "%s", hint);
    } else {
        (void)th_hint(err, "see the console with: thimble console -p %s", p->name);
    }
}

static int run_start(struct th_start *s, struct th_err *err)
{
    struct th_profile *p = s->p;
    TH_AUTO_CHANNEL struct th_channel c = TH_CHANNEL_INIT;
    th_json_set_bool(p->run, "ready", false);
    th_json_set_str(p->run, "version", TH_VERSION);
    th_json_set_str(p->run, "kernel", s->kernel_name);
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    th_json_del(p->run, "how");
    int r = th_boot(s, &c, &e);
    th_json_set_bool(p->run, "restored", s->restored);
    if (s->how) {
        th_json_set_str(p->run, "how", s->how);
    }
    th_json_set_int(p->run, "disk_gb", p->disk_gb);
    if (s->accel.why) {
        th_json_set_str(p->run, "accel_why", s->accel.why);
    }
    if (r < 0) {
        th_channel_done(&c);
        bool from_guest = r == -TH_R_BOOT_FAILED || r == -TH_R_BOOT_TIMEOUT;
        if (from_guest) {
            note_console_line(p, &e);
        }
        (void)s->d->kill(p, NULL);
        th_profile_set_process(p, 0);
        (void)(th_profile_save_run(p, NULL) < 0);
        if (err) {
            th_err_move(err, &e);
        }
        return r;
    }
    if (s->d->settled) {
        s->d->settled(th_profile_alive(p));
    }
    th_json_set(p->run, "timings", th_json_ref(s->timings));
    th_json_set_bool(p->run, "ready", true);
    return th_profile_save_run(p, err);
}

/* Keys and a disk without settings: half of a delete, or a lost file. Neither is a new profile. */
static int check_no_leftovers(const struct th_profile *p, struct th_err *err)
{
    static const char *const names[] = {"identity", "disk.qcow2", "data"};
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        th_autofree char *path = th_path_join(p->data, names[i]);
        if (th_io_exists(path)) {
            (void)th_fail(err, TH_R_STATE_CORRUPT,
                          "%s of profile \"%s\" is there, but its profile.json is missing", path,
                          p->name);
            return th_hint(err, "put the file back, or remove the rest with: thimble delete -p %s",
                           p->name);
        }
    }
    return 0;
}

int th_machine_start(const struct th_machine_opts *opts, th_machine_progress_fn *progress, void *arg,
                     struct th_machine_info *ret_info, struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(th_profile_paths(opts->profile, &p, err));
    TH_TRY(th_profile_lock(&p, err));
    bool is_new = !th_profile_exists(&p);
    if (!is_new) {
        TH_TRY(th_profile_load(&p, err));
        TH_TRY(check_driver(&p, opts->driver, err));
    } else {
        TH_TRY(check_no_leftovers(&p, err));
        p.run = th_json_object();
    }
    if (th_profile_alive(&p) && th_json_path_bool(p.run, "ready", false)) {
        TH_TRY(th_machine_info_fill(&p, ret_info, err));
        (void)th_fail(err, TH_R_ALREADY_RUNNING, "profile \"%s\" is running already", p.name);
        return th_hint(err, "see thimble status; to change its settings: thimble stop, then start");
    }
    struct th_start s = {.opts = opts, .p = &p, .progress = progress, .arg = arg,
                         .timings = th_json_array(), .ports = TH_PORTS_INIT,
                         .maker = TH_TEMPLATE_MAKER_INIT};
    int r = 0;
    if (th_profile_alive(&p)) { /* a launcher was killed half way through a start */
        const struct th_driver *d = th_driver_find(p.driver);
        r = d ? d->kill(&p, err) : 0;
    }
    r = r < 0 ? r : prepare(&s, is_new, err);
    if (r == 0) {
        bool slow = th_streq(s.accel.accel, "tcg") || !opts->accel;
        int64_t limit = opts->timeout_ms > 0 ? opts->timeout_ms
                                             : slow ? TIMEOUT_TCG_MS : TIMEOUT_KVM_MS;
        s.deadline_ms = th_mono_ms() + limit;
        r = run_start(&s, err);
    }
    start_done(&s);
    if (r < 0 && is_new && !th_profile_exists(&p)) {
        /* Nothing was made but empty folders: a typo in a flag must not leave a profile. */
        (void)th_io_rm_rf(p.state, NULL);
        (void)th_io_rm_rf(p.data, NULL);
    }
    return r < 0 ? r : th_machine_info_fill(&p, ret_info, err);
}

/* ---- stop and delete ---- */

static int ask_shutdown(struct th_profile *p, int64_t grace_ms, th_machine_progress_fn *progress,
                        void *arg, struct th_err *err)
{
    th_autofree char *path = th_profile_file(p, TH_HOST_CONTROL);
    int64_t deadline = th_mono_ms() + grace_ms + STOP_EXTRA_MS;
    TH_AUTO_CHANNEL struct th_channel c = TH_CHANNEL_INIT;
    TH_TRY(th_channel_connect(&c, path, TH_CTL_LINE_MAX, 0, deadline, err));
    TH_TRY(th_channel_send(&c, th_json_build("{'type':%s,'grace_ms':%d}", TH_CTL_SHUTDOWN, grace_ms),
                           err));
    for (;;) {
        TH_AUTO(th_json) struct th_json *msg = NULL;
        int r = th_channel_recv(&c, deadline, &msg, err);
        if (r == -TH_R_UNAVAILABLE) {
            return 0; /* gone: that is what was asked for */
        }
        TH_TRY(r);
        const char *type = th_json_path_str(msg, "type");
        if (th_streq(type, TH_CTL_BYE)) {
            return 0;
        }
        if (th_streq(type, TH_CTL_PROGRESS) && progress) {
            const char *step = th_json_path_str(msg, "step");
            progress(arg, step ? step : "?", th_json_path_int(msg, "ms", 0));
        }
    }
}

int th_machine_stop(const char *profile, int64_t timeout_ms, th_machine_progress_fn *progress,
                    void *arg, struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(th_profile_paths(profile, &p, err));
    if (!th_profile_exists(&p)) {
        (void)th_fail(err, TH_R_NOT_FOUND, "there is no profile \"%s\"", p.name);
        return th_hint(err, "see thimble list");
    }
    TH_TRY(th_profile_lock(&p, err));
    TH_TRY(th_profile_load(&p, err));
    const struct th_driver *d = th_driver_find(p.driver);
    if (!d) {
        return th_fail(err, TH_R_STATE_CORRUPT, "profile \"%s\" names an unknown driver", p.name);
    }
    bool was_running = th_profile_alive(&p) > 0;
    if (was_running) {
        /* A guest that does not answer any more is stopped all the same. */
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        (void)(ask_shutdown(&p, timeout_ms > 0 ? timeout_ms : STOP_GRACE_MS, progress, arg, &e) < 0);
    }
    TH_TRY(d->kill(&p, err));
    th_profile_set_process(&p, 0);
    th_json_set_bool(p.run, "ready", false);
    TH_TRY(th_profile_save_run(&p, err));
    if (!was_running) {
        (void)th_fail(err, TH_R_NOT_RUNNING, "profile \"%s\" is not running", p.name);
        return th_hint(err, "start it with: thimble start -p %s", p.name);
    }
    return 0;
}

int th_machine_delete(const char *profile, struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(th_profile_paths(profile, &p, err));
    if (!th_io_exists(p.data) && !th_io_exists(p.state)) {
        (void)th_fail(err, TH_R_NOT_FOUND, "there is no profile \"%s\"", p.name);
        return th_hint(err, "see thimble list");
    }
    TH_TRY(th_profile_lock(&p, err));
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    if (th_profile_load(&p, &e) < 0 && !p.run) {
        p.run = th_json_object(); /* damaged: each driver removes what it can find */
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(drivers); i++) {
        if (drivers[i]->kill && (!p.driver || th_streq(p.driver, drivers[i]->name))) {
            TH_TRY(drivers[i]->kill(&p, err));
        }
    }
    /* The settings go first: without them the profile does not exist, and a delete that is cut
     * short here can be repeated. */
    TH_TRY(th_io_rm_rf(p.data, err));
    return th_io_rm_rf(p.state, err);
}

int th_machine_templates_purge(struct th_err *err)
{
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1};
    TH_TRY(th_profile_paths(NULL, &p, err));
    return th_template_purge(p.cache, err);
}

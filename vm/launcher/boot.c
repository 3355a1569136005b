/* From a process to a cluster that is ready: hello, identity, ready; and templates.
 *
 * KVM is believed only after hello: without one within KVM_HELLO_MS the machine is thrown away and
 * started again under TCG, and the finding is remembered (accel.c). --accel kvm insists: then the
 * missing heartbeat is the error.
 *
 * Under TCG a machine that has booted is kept as a template (template.c), and one that fits is where the
 * next start begins: QEMU is made in the same way, but waits for its memory and devices, gets them from
 * the file, and goes on in the middle of init, which waits for `wake`. The machine that a template is
 * made of is woken in the same way, so there is one path through init. A start never fails for a
 * template's sake: one that is damaged, or whose machine does not wake, is thrown away and the kernel
 * boots; one that cannot be made is done without. What came of it is said in one sentence.
 *
 * Under KVM there are none: its kernels boot in a fraction of a second, less than libvirt takes to make
 * the machine, and a template would tie the guest to one model of the host's processor. */
#include "vm/launcher/start.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/rand.h"
#include "vm/launcher/freeze.h"
#include "vm/launcher/protocol.h"
#include <unistd.h>

#define KVM_HELLO_MS 5000
#define QUIET_MS 30000
#define FREEZE_MS 60000
#define WAKE_MS 20000
#define SEED_B 64

int64_t th_step_begin(struct th_start *s, const char *step)
{
    if (s->progress) {
        s->progress(s->arg, step, -1);
    }
    return th_mono_ms();
}

void th_step_end(struct th_start *s, const char *step, int64_t ms)
{
    th_json_append(s->timings, th_json_build("{'step':%s,'ms':%d}", step, ms));
    if (s->progress) {
        s->progress(s->arg, step, ms);
    }
}

/* ---- the conversation with the guest ---- */

static struct th_json *child_names(const struct th_machine_opts *o)
{
    static const char *const defaults[] = {"controlplane", "node", NULL};
    struct th_json *list = th_json_array();
    for (const char *const *c = o->children ? o->children : defaults; *c; c++) {
        th_json_append_str(list, *c);
    }
    return list;
}

static int send_identity(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    struct th_profile *p = s->p;
    struct th_json *files = NULL;
    TH_TRY(th_identity_files(p, &files, err));
    th_autofree char *agent =
        s->d->is_vm ? th_xstrdup("tcp:" TH_NET_PORT_AGENT_IP ":1")
                    : th_xasprintf("unix:%s/" TH_HOST_RUN "/" TH_PORTS_SOCK, p->state);
    struct th_json *config = th_json_build(
        "{'profile':%s,'number':%d,'node':%s,'nodes':%d,'simulatedNodes':%d,"
        "'podCIDR':'10.244.0.0/16','serviceCIDR':'10.96.0.0/16','dnsIP':'10.96.0.10',"
        "'clusterDomain':'cluster.local','nodeIP':%s,'apiPort':%d,'driver':%s,'portAgent':%s,"
        "'children':%o}",
        p->name, (int64_t)p->number, TH_NODE_NAME, (int64_t)p->nodes, (int64_t)p->simulated_nodes,
        TH_NET_GUEST_IP, (int64_t)TH_NET_API_PORT, p->driver, agent, child_names(s->opts));
    char machine_id[33] = "";
    size_t n = 0;
    for (const char *u = p->uuid; *u && n < 32; u++) {
        if (*u != '-') {
            machine_id[n++] = *u;
            machine_id[n] = '\0';
        }
    }
    return th_channel_send(c,
                           th_json_build("{'type':%s,'hostname':%s,'machine_id':%s,'config':%o,"
                                         "'files':%o}",
                                         TH_CTL_IDENTITY, TH_NODE_NAME, machine_id, config, files),
                           err);
}

static int guest_failed(const struct th_json *msg, struct th_err *err)
{
    const char *text = th_json_path_str(msg, "msg"), *hint = th_json_path_str(msg, "hint");
    const char *code = th_json_path_str(msg, "reason");
    enum th_reason reason = th_reason_from_code(code, TH_R_BOOT_FAILED);
    (void)th_fail(err, reason, "%s", text ? text : "the guest failed");
    return hint ? th_hint(err, "%s", hint) : -(int)reason;
}

/* The next message that is not about progress. */
static int next_message(struct th_start *s, struct th_channel *c, int64_t deadline_ms,
                        struct th_json **ret, struct th_err *err)
{
    for (;;) {
        TH_AUTO(th_json) struct th_json *msg = NULL;
        TH_TRY(th_channel_recv(c, deadline_ms, &msg, err));
        const char *type = th_json_path_str(msg, "type");
        if (th_streq(type, TH_CTL_FAILED)) {
            return guest_failed(msg, err);
        }
        if (!th_streq(type, TH_CTL_PROGRESS)) {
            *ret = th_steal(&msg);
            return 0;
        }
        const char *step = th_json_path_str(msg, "step");
        th_step_end(s, step ? step : "?", th_json_path_int(msg, "ms", 0));
        /* Not with the identity, which lies waiting while the guest prepares itself. */
        if (th_streq(step, TH_STEP_IDENTITY)) {
            TH_TRY(th_channel_send(c, th_json_build("{'type':%s,'unix_ms':%d}", TH_CTL_CLOCK,
                                                    th_now_ms()),
                                   err));
        }
    }
}

static int wait_ready(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    for (;;) {
        TH_AUTO(th_json) struct th_json *msg = NULL;
        int r = next_message(s, c, s->deadline_ms, &msg, err);
        if (r == -TH_R_TIMEOUT) {
            return th_fail(err, TH_R_BOOT_TIMEOUT, "the cluster did not become ready in time");
        }
        if (r == -TH_R_UNAVAILABLE) {
            return th_fail(err, TH_R_BOOT_FAILED, "the machine went away while it started");
        }
        TH_TRY(r);
        if (th_streq(th_json_path_str(msg, "type"), TH_CTL_READY)) {
            return 0;
        }
    }
}

static int wait_hello(struct th_start *s, struct th_channel *c, pid_t pid, int64_t deadline_ms,
                      struct th_err *err)
{
    th_autofree char *path = th_profile_file(s->p, TH_HOST_CONTROL);
    TH_TRY(th_channel_connect(c, path, TH_CTL_LINE_MAX, pid, deadline_ms, err));
    for (;;) {
        TH_AUTO(th_json) struct th_json *msg = NULL;
        int r = th_channel_recv(c, deadline_ms, &msg, err);
        if (r == -TH_R_TIMEOUT) {
            return th_fail(err, TH_R_BOOT_TIMEOUT, "no heartbeat from the guest");
        }
        if (r == -TH_R_UNAVAILABLE) {
            return th_fail(err, TH_R_BOOT_FAILED, "the machine went away before its heartbeat");
        }
        TH_TRY(r);
        if (th_streq(th_json_path_str(msg, "type"), TH_CTL_HELLO)) {
            return 0;
        }
    }
}

static int effective_cpus(const struct th_start *s)
{
    if (s->p->cpus > 0) {
        return s->p->cpus;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    /* Emulated processors disturb each other more than they help. */
    return th_streq(s->accel.accel, "kvm") ? (int)(n < 1 ? 1 : n > 4 ? 4 : n) : 1;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- the machine ---- */

/* Paths that live as long as a spec. */
struct paths {
    char *control, *qmp, *console;
};

static void paths_done(struct paths *p)
{
    free(p->control);
    free(p->qmp);
    free(p->console);
}

static struct th_machine_spec make_spec(const struct th_start *s, struct paths *paths)
{
    paths->control = th_profile_file(s->p, TH_HOST_CONTROL);
    paths->qmp = th_profile_file(s->p, TH_HOST_QMP);
    paths->console = th_profile_file(s->p, TH_HOST_CONSOLE);
    return (struct th_machine_spec){
        .profile = s->p, .accel = s->accel.accel, .cpus = effective_cpus(s), .kernel = s->kernel,
        .initramfs = s->initramfs, .rootfs = s->rootfs, .thimbled = s->thimbled, .disk = s->disk,
        .control = paths->control, .qmp = paths->qmp, .console = paths->console,
        .program = s->program, .ports = s->ports.v, .n_ports = s->ports.n};
}

static int make_machine(struct th_start *s, const struct th_machine_spec *spec, pid_t *ret_pid,
                        struct th_err *err)
{
    struct th_profile *p = s->p;
    int64_t t = th_step_begin(s, "machine");
    pid_t pid = 0;
    TH_TRY(s->d->start(spec, &pid, err));
    th_profile_set_process(p, pid);
    th_json_set_int(p->run, "started_ms", th_now_ms());
    th_json_set_int(p->run, "cpus", spec->cpus);
    th_json_set_str(p->run, "accel", s->accel.accel ? s->accel.accel : "none");
    TH_TRY(th_profile_save_run(p, err));
    th_step_end(s, "machine", th_mono_ms() - t);
    *ret_pid = pid;
    return 0;
}

/* ---- templates ---- */

static bool use_templates(const struct th_start *s)
{
    return s->d->is_vm && th_streq(s->accel.accel, "tcg") && !th_streq(s->opts->tmpl, "off");
}

static char *template_key(const struct th_machine_spec *spec)
{
    struct th_machine_spec s = *spec;
    s.tsc_khz = th_tsc_is_even();
    th_autofree char *emulator = th_proc_find(TH_QEMU);
    return th_template_key(&s, emulator ? emulator : TH_QEMU);
}

static void say_how(struct th_start *s, char *sentence)
{
    free(s->how);
    s->how = sentence;
}

/* A guest that was stopped learns what time it is, and gets randomness that no other guest has had. It
 * may say hello once more first, if it has seen the channel close in between. */
static int wake(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    int64_t deadline = earlier(th_mono_ms() + WAKE_MS, s->deadline_ms);
    for (;;) {
        unsigned char seed[SEED_B];
        th_rand_bytes(seed, sizeof(seed));
        th_autobuf struct th_buf text = TH_BUF_INIT;
        th_b64_encode(seed, sizeof(seed), &text);
        TH_TRY(th_channel_send(c, th_json_build("{'type':%s,'unix_ms':%d,'seed':%s}", TH_CTL_WAKE,
                                                th_now_ms(), th_buf_cstr(&text)),
                               err));
        for (bool again = false; !again;) {
            TH_AUTO(th_json) struct th_json *msg = NULL;
            TH_TRY(next_message(s, c, deadline, &msg, err));
            if (th_streq(th_json_path_str(msg, "type"), TH_CTL_AWAKE)) {
                return 0;
            }
            again = th_streq(th_json_path_str(msg, "type"), TH_CTL_HELLO);
        }
    }
}

static int restore_once(struct th_start *s, const struct th_machine_spec *spec, struct th_template *t,
                        struct th_channel *c, struct th_err *err)
{
    pid_t pid = 0;
    TH_TRY(make_machine(s, spec, &pid, err));
    int64_t began = th_step_begin(s, "restore");
    /* Before the guest goes on, which then sees no change: the launcher that it talked to is there. */
    TH_TRY(th_channel_connect(c, spec->control, TH_CTL_LINE_MAX, pid, s->deadline_ms, err));
    TH_TRY(th_template_checked(t, err));
    int64_t deadline = earlier(th_mono_ms() + FREEZE_MS, s->deadline_ms);
    TH_TRY(th_unfreeze(spec->qmp, t->fd, deadline, err));
    TH_TRY(th_thaw(spec->qmp, deadline, err));
    TH_TRY(wake(s, c, err));
    th_step_end(s, "restore", th_mono_ms() - began);
    return 0;
}

/* 1: the machine runs and waits for its identity. 0: it is to be booted, and nothing runs. */
static int restore(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    TH_CLEANUP(paths_done) struct paths paths = {NULL, NULL, NULL};
    struct th_machine_spec spec = make_spec(s, &paths);
    th_autofree char *key = template_key(&spec);
    TH_AUTO_TEMPLATE struct th_template t = TH_TEMPLATE_INIT;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int64_t began = th_mono_ms();
    int r = th_template_open(s->p->cache, key, &t, &e);
    if (r == 0) {
        return 0;
    }
    if (r > 0) {
        spec.incoming = true;
        spec.tsc_khz = t.tsc_khz;
        r = restore_once(s, &spec, &t, c, &e);
    }
    if (r == 0) {
        char when[TH_TIME_LEN];
        s->restored = true;
        say_how(s, th_xasprintf("restored in %.1f s from the template made %s",
                                (double)(th_mono_ms() - began) / 1e3, th_time_format(t.made_ms, when)));
        return 1;
    }
    if (r == -TH_R_PORT_IN_USE) { /* nothing to do with the template, and the boot would say so too */
        th_err_move(err ? err : &e, &e);
        return r;
    }
    th_channel_done(c);
    TH_TRY(s->d->kill(s->p, err));
    th_template_drop(s->p->cache, key);
    say_how(s, th_xasprintf("the template did not do and was thrown away (%s)", e.msg));
    return 0;
}

/* Makes a template of a machine that has said hello. Negative only when the machine cannot go on. */
static int make_template(struct th_start *s, const struct th_machine_spec *spec, struct th_channel *c,
                         struct th_err *err)
{
    th_autofree char *key = template_key(spec);
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_template_begin(s->p->cache, key, spec->tsc_khz, &s->maker, &e);
    if (r == -TH_R_LOCKED) {
        return 0; /* another start is at it */
    }
    if (r < 0) {
        say_how(s, th_xasprintf("no template was made: %s", e.msg));
        return 0;
    }
    int64_t began = th_step_begin(s, "template");
    TH_TRY(th_channel_send(c, th_json_build("{'type':%s}", TH_CTL_QUIET), err));
    for (bool quiet = false; !quiet;) {
        TH_AUTO(th_json) struct th_json *msg = NULL;
        TH_TRY(next_message(s, c, earlier(th_mono_ms() + QUIET_MS, s->deadline_ms), &msg, err));
        quiet = th_streq(th_json_path_str(msg, "type"), TH_CTL_QUIET);
    }
    int64_t deadline = earlier(th_mono_ms() + FREEZE_MS, s->deadline_ms);
    r = th_freeze(spec->qmp, s->maker.fd, deadline, &e);
    TH_TRY(th_thaw(spec->qmp, deadline, err));
    if (r == 0) {
        th_template_finish(&s->maker);
    } else {
        say_how(s, th_xasprintf("no template was made: %s", e.msg));
        (void)th_template_end(&s->maker, NULL);
    }
    TH_TRY(wake(s, c, err));
    th_step_end(s, "template", th_mono_ms() - began);
    return 0;
}

/* ---- all together ---- */

static int boot_once(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    TH_CLEANUP(paths_done) struct paths paths = {NULL, NULL, NULL};
    struct th_machine_spec spec = make_spec(s, &paths);
    if (th_streq(spec.accel, "tcg")) {
        spec.tsc_khz = th_tsc_khz();
    }
    pid_t pid = 0;
    TH_TRY(make_machine(s, &spec, &pid, err));
    int64_t t = th_step_begin(s, "kernel");
    bool try_kvm = th_streq(s->accel.accel, "kvm");
    int64_t limit = try_kvm ? th_mono_ms() + KVM_HELLO_MS : s->deadline_ms;
    TH_TRY(wait_hello(s, c, pid, earlier(limit, s->deadline_ms), err));
    th_step_end(s, "kernel", th_mono_ms() - t);
    return use_templates(s) ? make_template(s, &spec, c, err) : 0;
}

static int restore_or_boot(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    if (use_templates(s) && !th_streq(s->opts->tmpl, "renew")) {
        int r = restore(s, c, err);
        if (r != 0) {
            return r < 0 ? r : 0;
        }
    }
    return boot_once(s, c, err);
}

static void replace(char **to, char *value)
{
    free(*to);
    *to = value;
}

static int start_machine(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = restore_or_boot(s, c, &e);
    bool insist = th_streq(s->opts->accel, "kvm");
    if (r < 0 && s->d->is_vm && th_streq(s->accel.accel, "kvm") && !insist &&
        (r == -TH_R_BOOT_FAILED || r == -TH_R_BOOT_TIMEOUT)) {
        th_channel_done(c);
        TH_TRY(s->d->kill(s->p, err));
        replace(&s->accel.why, th_xasprintf("KVM was tried: %s", e.msg));
        replace(&s->accel.accel, th_xstrdup("tcg"));
        th_err_done(&e);
        r = restore_or_boot(s, c, &e);
    }
    if (r < 0) {
        if (insist && r == -TH_R_BOOT_TIMEOUT) {
            (void)th_wrap(&e, "KVM");
            (void)th_hint(&e, "this host's /dev/kvm does not run guests; use --accel tcg");
        }
        if (err) {
            th_err_move(err, &e);
        }
        return r;
    }
    if (s->d->is_vm && !(s->opts->accel && !th_streq(s->opts->accel, "auto")) && !s->accel.proven) {
        th_accel_remember(s->p->cache, s->accel.accel, s->accel.why);
    }
    return 0;
}

int th_boot(struct th_start *s, struct th_channel *c, struct th_err *err)
{
    TH_TRY(start_machine(s, c, err));
    TH_TRY(send_identity(s, c, err));
    TH_TRY(wait_ready(s, c, err));
    if (s->maker.key) {
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        bool made = th_template_end(&s->maker, &e) == 0;
        say_how(s, made ? th_xasprintf("%s%sa template was made for the next start", s->how ? s->how : "",
                                       s->how ? "; " : "")
                        : th_xasprintf("no template was made: %s", e.msg));
    }
    return 0;
}

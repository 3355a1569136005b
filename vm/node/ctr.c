/* One container: its image, its start, its end.
 *
 * ctr_start runs in a pod worker and may take as long as unpacking an image does. It leaves the
 * container running, or a reason in wait_reason (ErrImagePull, CreateContainerConfigError, ...) and
 * a time to try again. What crun refuses (no such program, bad working folder) becomes an instance
 * that ended with code 128 and reason StartError, as with containerd, so that restart policy and
 * back-off apply to it like to any other end.
 *
 * Stopping is a small state machine, stepped by the worker: preStop hook (in a thread of its own),
 * stop signal, SIGKILL when the grace period is over; the grace period counts the hook in. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/encode.h"
#include "images/reference.h"
#include "images/registry.h"
#include "vm/node/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define RETRY_MS 10000
#define PULL_BACKOFF_MS 10000
#define PULL_BACKOFF_MAX_MS 300000
#define OFFLINE_MEMORY_MS 60000
#define MIN_GRACE_MS 2000
#define CREATE_MS 120000     /* after which nobody waits for a conmon to make its container */
#define CONMON_START_MS 2000 /* after which a conmon that is alive has written its pid file */

static void wait_set(struct ctr *c, const char *reason, const char *fmt, ...) TH_PRINTF(3, 4);
static void wait_set(struct ctr *c, const char *reason, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    free(c->wait_reason);
    free(c->wait_message);
    c->wait_reason = th_xstrdup(reason);
    c->wait_message = fmt ? th_xvasprintf(fmt, ap) : NULL;
    va_end(ap);
}

static void wait_clear(struct ctr *c)
{
    free(c->wait_reason);
    free(c->wait_message);
    c->wait_reason = c->wait_message = NULL;
    c->retry_at = 0;
}

static void retry_in(struct pod *p, struct ctr *c, int64_t ms)
{
    c->retry_at = th_mono_ms() + ms;
    agent_kick_after(p->a, p->uid, ms);
}

/* ---- the image ---- */

/* imagePullSecrets. One that cannot be had is told of and passed over: the image may be public. */
static struct th_keyring *pull_secrets(struct pod *p)
{
    static const char *const keys[] = {".dockerconfigjson", ".dockercfg"};
    struct th_keyring *k = th_keyring_new();
    th_autostrv struct th_strv missing = TH_STRV_INIT;
    const struct th_json *refs = th_json_path(p->obj, "spec.imagePullSecrets");
    for (size_t i = 0; i < th_json_len(refs); i++) {
        const char *name = th_json_path_str(th_json_at(refs, i), "name");
        TH_AUTO(th_json) struct th_json *s = NULL;
        if (!name || !*name) {
            continue;
        }
        if (node_get_object(p->a, TH_GVR_SECRETS, p->ns, name, &s, NULL) < 0) {
            th_strv_add(&missing, name);
            continue;
        }
        for (size_t j = 0; j < TH_ARRAY_LEN(keys); j++) {
            const char *text = th_json_str(th_json_get(th_json_get(s, "data"), keys[j]));
            th_autobuf struct th_buf b = TH_BUF_INIT;
            if (text && (th_b64_decode(text, strlen(text), &b, NULL) < 0 ||
                         th_keyring_add_config(k, (struct th_str){b.p, b.n}, NULL) < 0)) {
                th_strv_add(&missing, name);
            }
        }
    }
    if (missing.n > 0) {
        th_autofree char *names = th_strv_join(&missing, ", ");
        pod_event(p, "Warning", "FailedToRetrieveImagePullSecret", NULL,
                  "Unable to retrieve some image pull secrets (%s); attempting to pull the image may "
                  "not succeed.",
                  names);
    }
    return k;
}

static int pull(struct pod *p, struct ctr *c, const char *image, struct th_image **ret,
                struct th_err *err)
{
    pod_event(p, "Normal", "Pulling", c->name, "Pulling image \"%s\"", image);
    int64_t t0 = th_mono_us();
    TH_AUTO(th_keyring) struct th_keyring *keyring = pull_secrets(p);
    struct th_pull_opts o = {.keyring = keyring, .timeout_ms = 15000};
    int r = th_images_pull(p->a->images, image, &o, ret, err);
    if (r == -TH_R_OFFLINE) {
        atomic_store(&p->a->offline_until, th_mono_ms() + OFFLINE_MEMORY_MS);
    }
    if (r >= 0) {
        char d[TH_TIME_LEN];
        th_duration_format((th_mono_us() - t0) / 1000 * 1000, d);
        pod_event(p, "Normal", "Pulled", c->name,
                  "Successfully pulled image \"%s\" in %s (%s including waiting). Image size: %lld bytes.",
                  image, d, d, *ret ? (long long)(*ret)->size : 0LL);
    }
    return r;
}

static void pull_failed(struct pod *p, struct ctr *c, const char *image, const struct th_err *e)
{
    /* What to do about it belongs to what went wrong: describe and events show both. */
    free(c->pull_image);
    c->pull_image = th_xstrdup(image);
    free(c->pull_error);
    c->pull_error = e->hint ? th_xasprintf("%s (%s)", e->msg, e->hint) : th_xstrdup(e->msg);
    pod_event(p, "Warning", "Failed", c->name, "Failed to pull image \"%s\": %s", image, c->pull_error);
    pod_event(p, "Warning", "Failed", c->name, "Error: ErrImagePull");
    wait_set(c, "ErrImagePull", "%s", c->pull_error);
    c->pull_backoff_ms = c->pull_backoff_ms == 0 ? PULL_BACKOFF_MS
                         : c->pull_backoff_ms * 2 > PULL_BACKOFF_MAX_MS ? PULL_BACKOFF_MAX_MS
                                                                        : c->pull_backoff_ms * 2;
    c->pull_failed_at = th_mono_ms();
    retry_in(p, c, c->pull_backoff_ms);
    agent_kick_after(p->a, p->uid, 2000);
}

/* Between two attempts: the reason turns from ErrImagePull to ImagePullBackOff. */
static void pull_backing_off(struct pod *p, struct ctr *c)
{
    if (!th_streq(c->wait_reason, "ErrImagePull") || th_mono_ms() < c->pull_failed_at + 1500) {
        return;
    }
    const char *image = c->pull_image;
    int64_t at = c->retry_at;
    wait_set(c, "ImagePullBackOff", "Back-off pulling image \"%s\": ErrImagePull: %s", image,
             c->pull_error);
    c->retry_at = at;
    pod_event(p, "Normal", "BackOff", c->name, "Back-off pulling image \"%s\"", image);
    pod_event(p, "Warning", "Failed", c->name, "Error: ImagePullBackOff");
}

/* The image, from the store or by pulling; false: wait_reason says why not. */
static bool get_image(struct pod *p, struct ctr *c, const char *image, const char *policy,
                      struct th_image **ret)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO_REF struct th_ref ref = {0};
    if (!image || th_ref_parse(image, &ref, &err) < 0) {
        const char *why = "couldn't parse image name";
        wait_set(c, "InvalidImageName",
                 "Failed to apply default image tag \"%s\": %s \"%s\": invalid reference format",
                 image ? image : "", why, image ? image : "");
        pod_event(p, "Warning", "InspectFailed", c->name, "%s", c->wait_message);
        pod_event(p, "Warning", "Failed", c->name, "Error: InvalidImageName");
        retry_in(p, c, RETRY_MS);
        return false;
    }
    if (!policy || !*policy) {
        policy = !ref.digest && th_streq(ref.tag, "latest") ? "Always" : "IfNotPresent";
    }
    TH_AUTO(th_image) struct th_image *img = NULL;
    bool present = th_images_resolve(p->a->images, image, &img, &err) >= 0;
    if (!present && err.reason != TH_R_NO_IMAGE && err.reason != TH_R_NOT_FOUND) {
        wait_set(c, "ImageInspectError", "Failed to inspect image \"%s\": %s", image, err.msg);
        pod_event(p, "Warning", "InspectFailed", c->name, "%s", c->wait_message);
        pod_event(p, "Warning", "Failed", c->name, "Error: ImageInspectError");
        retry_in(p, c, RETRY_MS);
        return false;
    }
    if (th_streq(policy, "Never") && !present) {
        wait_set(c, "ErrImageNeverPull", "Container image \"%s\" is not present with pull policy of Never",
                 image);
        pod_event(p, "Warning", "ErrImageNeverPull", c->name, "%s", c->wait_message);
        pod_event(p, "Warning", "Failed", c->name, "Error: ErrImageNeverPull");
        retry_in(p, c, RETRY_MS);
        return false;
    }
    bool offline = th_mono_ms() < atomic_load(&p->a->offline_until);
    if (!present || (th_streq(policy, "Always") && !offline)) {
        TH_AUTO(th_image) struct th_image *pulled = NULL;
        th_err_done(&err);
        if (pull(p, c, image, &pulled, &err) >= 0) {
            c->pull_backoff_ms = 0;
            *ret = th_steal(&pulled);
            return *ret != NULL;
        }
        if (!present) {
            pull_failed(p, c, image, &err);
            return false;
        }
        offline = true;
    }
    if (th_streq(policy, "Always") && offline) {
        pod_event(p, "Normal", "Pulled", c->name,
                  "No registry can be reached: using the image \"%s\" already present on machine", image);
    } else {
        pod_event(p, "Normal", "Pulled", c->name,
                  "Container image \"%s\" already present on machine and can be accessed by the pod", image);
    }
    *ret = th_steal(&img);
    return true;
}

/* ---- the start ---- */

static int inst_prepare(struct pod *p, struct ctr *c, const struct th_image *img, struct inst *i,
                        struct th_err *err)
{
    unsigned char rnd[32];
    char id[65];
    th_rand_bytes(rnd, sizeof(rnd));
    th_hex(rnd, sizeof(rnd), id);
    i->id = th_xstrdup(id);
    i->attempt = c->restarts;
    i->dir = th_path_joinf(p->dir, "containers/%s/%d", c->name, i->attempt);
    i->image = th_xstrdup(th_json_path_str(c->spec, "image"));
    i->image_id = th_xstrdup(img->id);
    i->image_ref = th_xstrdup(img->digests.n ? img->digests.v[0] : img->id);
    if (img->config.stop_signal && *img->config.stop_signal) {
        i->stop_signal = th_xstrdup(img->config.stop_signal);
    }
    const struct th_json *resources = th_json_get(c->spec, "resources");
    i->resources = resources ? th_json_dup(resources) : th_json_object();
    i->created_ms = th_now_ms();
    th_autofree char *logs = th_path_joinf(p->a->o.log_dir, "%s_%s_%s/%s", p->ns, p->name, p->uid, c->name);
    i->log_path = th_path_joinf(logs, "%d.log", i->attempt);
    inst_scrap(i->dir); /* of an agent that was killed right here */
    TH_TRY(th_io_mkdir_p(i->dir, 0700, err));
    TH_TRY(th_io_mkdir_p(logs, 0755, err));
    static const char *const subs[] = {"rootfs", "upper", "work"};
    for (size_t k = 0; k < 3; k++) {
        th_autofree char *d = th_path_join(i->dir, subs[k]);
        TH_TRY(th_io_mkdir_p(d, 0755, err));
    }
    th_autofree char *tlog = th_path_join(i->dir, "termination-log");
    TH_TRY(th_io_write_file(tlog, "", 0, 0666, err));
    (void)chmod(tlog, 0666);
    TH_TRY(th_images_lease(p->a->images, i->id, img->id, err));
    th_autofree char *root = th_path_join(i->dir, "rootfs");
    th_autofree char *upper = th_path_join(i->dir, "upper");
    th_autofree char *work = th_path_join(i->dir, "work");
    return th_images_mount(p->a->images, img, upper, work, root, err);
}

static int write_config(struct pod *p, struct ctr *c, const struct th_image *img, struct inst *i,
                        struct th_json *env, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *mounts = NULL;
    TH_AUTO(th_json) struct th_json *cfg = NULL;
    TH_TRY(volumes_mounts(p, c, &mounts, err));
    th_autofree char *root = th_path_join(i->dir, "rootfs");
    th_autofree char *tlog = th_path_join(i->dir, "termination-log");
    th_autofree char *pod_cg = cg_pod_path(p);
    th_autofree char *cgroup = th_path_join(pod_cg, i->id);
    struct oci_in in = {.p = p, .c = c, .image = img, .rootfs = root, .env = env, .mounts = mounts,
                        .cgroup_path = cgroup, .termination_log = tlog};
    struct oci_user u = {0};
    TH_TRY(oci_build(&in, &cfg, &u, err));
    i->uid = u.uid;
    i->gid = u.gid;
    i->gids = u.gids;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(cfg, &b);
    th_autofree char *path = th_path_join(i->dir, "config.json");
    return th_io_write_file(path, b.p, b.n, 0600, err);
}

static void config_error(struct pod *p, struct ctr *c, const char *reason, const struct th_err *e)
{
    bool again = th_streq(c->wait_reason, reason) && th_streq(c->wait_message, e->msg);
    wait_set(c, reason, "%s", e->msg);
    if (!again) {
        pod_event(p, "Warning", "Failed", c->name, "Error: %s", e->msg);
    }
    retry_in(p, c, RETRY_MS);
}

static void start_failed(struct pod *p, struct ctr *c, struct inst *i, const struct th_err *e)
{
    i->state = I_EXITED;
    i->exit_code = 128;
    i->reason = th_xstrdup("StartError");
    i->message = th_xstrdup(e->msg);
    i->finished_ms = th_now_ms();
    (void)inst_save(i, NULL);
    wait_set(c, "RunContainerError", "%s", e->msg);
    pod_event(p, "Warning", "Failed", c->name, "Error: %s", e->msg);
    agent_kick(p->a, p->uid);
}

/* The images that the container mounts as volumes. */
static bool image_volumes(struct pod *p, struct ctr *c, struct th_err *err)
{
    for (size_t i = 0; i < th_json_len(th_json_path(p->obj, "spec.volumes")); i++) {
        const struct th_json *vol = vol_image_of(p, c, i);
        TH_AUTO(th_image) struct th_image *img = NULL;
        if (!vol || vol_image_mounted(p, vol)) {
            continue;
        }
        if (!get_image(p, c, th_json_path_str(vol, "image.reference"), th_json_path_str(vol, "image.pullPolicy"),
                       &img)) {
            return false;
        }
        if (vol_image_mount(p, i, img, err) < 0) {
            config_error(p, c, "CreateContainerError", err);
            return false;
        }
    }
    return true;
}

void ctr_start(struct pod *p, struct ctr *c)
{
    if (c->retry_at && th_mono_ms() < c->retry_at) {
        pull_backing_off(p, c);
        agent_kick_after(p->a, p->uid, c->retry_at - th_mono_ms());
        return;
    }
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (!get_image(p, c, th_json_path_str(c->spec, "image"), th_json_path_str(c->spec, "imagePullPolicy"),
                   &img) ||
        !image_volumes(p, c, &err)) {
        return;
    }
    TH_AUTO(th_json) struct th_json *env = NULL;
    if (env_build(p, c, &env, &err) < 0) {
        config_error(p, c, "CreateContainerConfigError", &err);
        return;
    }
    struct inst i = {0};
    if (inst_prepare(p, c, img, &i, &err) < 0 || write_config(p, c, img, &i, env, &err) < 0) {
        config_error(p, c, err.reason == TH_R_INVALID ? "CreateContainerConfigError"
                                                      : "CreateContainerError", &err);
        ctr_purge(p, &i);
        return;
    }
    i.state = I_CREATED;
    if (inst_save(&i, &err) < 0) { /* before it exists, so that it is never unknown */
        config_error(p, c, "CreateContainerError", &err);
        ctr_purge(p, &i);
        return;
    }
    wait_clear(c);
    c->started = c->ready = false;
    c->in_backoff = false;
    c->cur = i;
    agent_register_ctr(p->a, i.id, p->uid);
    struct rt_create o = {.id = i.id,
                          .bundle = i.dir,
                          .log_path = i.log_path,
                          .ctr_name = c->name,
                          .tty = th_json_path_bool(c->spec, "tty", false),
                          .stdin_open = th_json_path_bool(c->spec, "stdin", false),
                          .stdin_once = th_json_path_bool(c->spec, "stdinOnce", false)};
    pid_t pid = 0;
    int64_t started = 0;
    int r = rt_create(p->a, &o, &pid, &err);
    pod_event(p, "Normal", "Created", c->name, "Container created");
    if (r >= 0) {
        inst_set_pid(&c->cur, pid);
        (void)inst_save(&c->cur, NULL);
        started = th_now_ms(); /* before: a short-lived one has ended by the time crun returns */
        r = rt_start(p->a, c->cur.id, &err);
    }
    if (r < 0) {
        start_failed(p, c, &c->cur, &err);
        return;
    }
    c->cur.state = I_RUNNING;
    c->cur.started_ms = started;
    if (inst_save(&c->cur, &err) < 0) {
        th_warn(NODE_MOD, "start of a container not recorded", "err=%s", th_log_q(err.msg));
    }
    pod_event(p, "Normal", "Started", c->name, "Container started");
    th_info(NODE_MOD, "container started", "pod=%s/%s container=%s pid=%d", p->ns, p->name, c->name,
            (int)c->cur.pid);
    ctr_post_start(p, c);
}

void ctr_post_start(struct pod *p, struct ctr *c)
{
    if (!th_json_path(c->spec, "lifecycle.postStart")) {
        c->cur.hook_started = c->cur.hook_done = true;
        return;
    }
    if (!c->cur.hook_started) {
        c->cur.hook_started = true;
        (void)inst_save(&c->cur, NULL);
        hook_run(p, c, true);
    }
}

enum inst_state ctr_settle(struct pod *p, struct ctr *c)
{
    char state[16];
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct inst *i = &c->cur;
    pid_t pid = 0;
    if (rt_state(p->a, i->id, state, &pid, &err) < 0) {
        state[0] = 0; /* half made */
    }
    inst_set_pid(i, pid);
    bool watched = rt_conmon_alive(i->dir, i->id);
    if (th_streq(state, "running")) {
        i->state = I_RUNNING;
        i->started_ms = th_now_ms();
        (void)inst_save(i, NULL);
        return I_RUNNING;
    }
    if (watched && th_streq(state, "created")) {
        return I_CREATED;
    }
    int64_t age = th_now_ms() - i->created_ms;
    if ((watched && age < CREATE_MS) || age < CONMON_START_MS) {
        agent_kick_after(p->a, p->uid, 300); /* the last agent's conmon is at it */
        return I_NONE;
    }
    th_info(NODE_MOD, "container half made by the last agent removed", "pod=%s/%s container=%s", p->ns,
            p->name, c->name);
    ctr_purge(p, i);
    agent_kick(p->a, p->uid);
    return I_NONE;
}

/* ---- the end ---- */

void ctr_delete(struct pod *p, struct inst *i)
{
    if (!i->id) {
        return;
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (rt_delete(p->a, i->id, &err) < 0) {
        th_warn(NODE_MOD, "crun delete failed", "id=%s err=%s", i->id, th_log_q(err.msg));
    }
    th_autofree char *root = th_path_join(i->dir, "rootfs");
    while (umount2(root, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
    }
    static const char *const subs[] = {"upper", "work", "rootfs", "config.json", "ctl", "attach", "winsz"};
    for (size_t k = 0; k < TH_ARRAY_LEN(subs); k++) {
        th_autofree char *d = th_path_join(i->dir, subs[k]);
        (void)th_io_rm_rf(d, NULL);
    }
    (void)th_images_unlease(p->a->images, i->id, NULL);
    th_autofree char *exit_file = th_path_join(p->a->exit_dir, i->id);
    (void)unlink(exit_file);
    th_autofree char *sock = th_path_join(p->a->attach_dir, i->id);
    (void)th_io_rm_rf(sock, NULL);
    agent_register_ctr(p->a, i->id, NULL);
}

void ctr_purge(struct pod *p, struct inst *i)
{
    if (i->dir) {
        ctr_delete(p, i);
        (void)th_io_rm_rf(i->dir, NULL);
    }
    if (i->log_path && i->state != I_NONE) {
        th_autofree char *dir = th_xstrndup(i->log_path, (size_t)(th_path_base(i->log_path) - i->log_path));
        th_autostrv struct th_strv names = TH_STRV_INIT;
        if (th_io_list(dir, &names, NULL) >= 0) {
            for (size_t k = 0; k < names.n; k++) { /* the log and its rotated parts */
                if (th_startswith(names.v[k], th_path_base(i->log_path))) {
                    th_autofree char *f = th_path_join(dir, names.v[k]);
                    (void)unlink(f);
                }
            }
        }
    }
    inst_done(i);
}

void ctr_stop_begin(struct pod *p, struct ctr *c, int64_t grace_s, const char *message)
{
    if (c->cur.state == I_CREATED && ctr_settle(p, c) == I_CREATED) {
        ctr_purge(p, &c->cur); /* it has never run */
        agent_kick(p->a, p->uid);
    }
    if (c->cur.state != I_RUNNING) {
        return;
    }
    int64_t now = th_mono_ms();
    int64_t kill_at = now + grace_s * 1000;
    if (c->stop != STOP_NONE) { /* a shorter grace period may come later */
        if (kill_at < c->stop_kill_at) {
            c->stop_kill_at = kill_at;
            c->stop_deadline = kill_at < c->stop_deadline ? kill_at : c->stop_deadline;
        }
        return;
    }
    if (message) {
        pod_event(p, "Normal", "Killing", c->name, "%s", message);
    } else {
        pod_event(p, "Normal", "Killing", c->name, "Stopping container %s", c->name);
    }
    c->stop_kill_at = kill_at;
    if (grace_s > 0 && c->cur.hook_done && th_json_path(c->spec, "lifecycle.preStop")) {
        c->stop = STOP_PRESTOP;
        c->stop_deadline = kill_at;
        c->prestop_running = true;
        hook_run(p, c, false);
    } else {
        c->stop = STOP_PRESTOP;
        c->stop_deadline = now;
    }
    ctr_stop_step(p, c);
}

static const char *stop_signal(const struct ctr *c)
{
    const char *s = th_json_path_str(c->spec, "lifecycle.stopSignal");
    return s && *s ? s : c->cur.stop_signal ? c->cur.stop_signal : "SIGTERM";
}

void ctr_stop_step(struct pod *p, struct ctr *c)
{
    if (c->stop == STOP_NONE || c->cur.state != I_RUNNING) {
        return;
    }
    int64_t now = th_mono_ms();
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    bool host_pid = th_json_path_bool(p->obj, "spec.hostPID", false) || pod_shares_pids(p);
    if (c->stop == STOP_PRESTOP && (!c->prestop_running || now >= c->stop_deadline)) {
        bool late = c->prestop_running;
        c->prestop_running = false;
        c->stop = STOP_TERM;
        if (late || (th_json_path(c->spec, "lifecycle.preStop") && c->stop_kill_at < now + MIN_GRACE_MS &&
                     c->stop_deadline != now)) {
            c->stop_kill_at = now + MIN_GRACE_MS; /* as upstream: 2 s even after a slow hook */
        }
        c->stop_deadline = c->stop_kill_at;
        if (rt_kill(p->a, c->cur.id, stop_signal(c), false, &err) < 0) {
            th_debug(NODE_MOD, "stop signal not sent", "id=%s err=%s", c->cur.id, th_log_q(err.msg));
        }
    } else if ((c->stop == STOP_TERM || c->stop == STOP_KILL) && now >= c->stop_deadline) {
        c->stop = STOP_KILL;
        c->stop_deadline = now + 2000; /* again, should it still be there */
        if (rt_kill(p->a, c->cur.id, "SIGKILL", host_pid, &err) < 0) {
            th_debug(NODE_MOD, "SIGKILL not sent", "id=%s err=%s", c->cur.id, th_log_q(err.msg));
        }
    }
    int64_t in = c->stop_deadline - th_mono_ms();
    agent_kick_after(p->a, p->uid, in > 0 ? in : 1);
}

/* What the agent keeps on disk about a pod, so that kill -9 costs nothing:
 *
 *   <data>/pods/<uid>/pod.json                        the desired object, as last seen
 *   <data>/pods/<uid>/state.json                      address, start time, restart counts, how it ended
 *   <data>/pods/<uid>/status.json                     what was said last (status.c)
 *   <data>/pods/<uid>/containers/<name>/<n>/          one folder per start of a container: the OCI
 *        inst.json                                    bundle and what is known about that start
 *
 * inst.json is written before the container is created, so a container that exists is always known
 * here; whether it runs is never written down but asked (exit file, then crun). All writes are
 * atomic. The folders of the two newest starts are kept: the current and the one `lastState` and
 * `logs --previous` speak of. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/node/agent.h"

#include <sys/mount.h>

static int write_json(const char *path, const struct th_json *o, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    return th_io_write_atomic(path, b.p, b.n, 0600, err);
}

static int read_json(const char *path, struct th_json **ret, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, err));
    int r = th_json_parse(b.p, b.n, NULL, ret, err);
    if (r < 0) {
        return th_wrap(err, "%s", path);
    }
    return 0;
}

int inst_save(const struct inst *i, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    th_json_set_str(o, "id", i->id);
    th_json_set_int(o, "attempt", i->attempt);
    th_json_set_str(o, "logPath", i->log_path);
    th_json_set_str(o, "image", i->image);
    th_json_set_str(o, "imageID", i->image_id);
    th_json_set_str(o, "imageRef", i->image_ref);
    th_json_set_int(o, "created", i->created_ms);
    th_json_set_int(o, "started", i->started_ms);
    th_json_set_int(o, "finished", i->finished_ms);
    th_json_set_int(o, "exitCode", i->exit_code);
    th_json_set_str(o, "reason", i->reason);
    th_json_set_str(o, "message", i->message);
    th_json_set_int(o, "pid", i->pid);
    th_json_set_int(o, "pidTicks", (int64_t)i->pid_ticks);
    th_json_set_int(o, "uid", i->uid);
    th_json_set_int(o, "gid", i->gid);
    th_json_set(o, "gids", th_json_dup(i->gids));
    th_json_set_str(o, "stopSignal", i->stop_signal);
    if (i->resources) {
        th_json_set(o, "resources", th_json_dup(i->resources));
    }
    th_json_set_bool(o, "exited", i->state == I_EXITED);
    th_json_set_bool(o, "hookStarted", i->hook_started);
    th_json_set_bool(o, "hookDone", i->hook_done);
    th_autofree char *path = th_path_join(i->dir, "inst.json");
    return write_json(path, o, err);
}

static char *dup_str(const struct th_json *o, const char *name)
{
    return th_xstrdup(th_json_path_str(o, name));
}

int inst_load(const char *dir, struct inst *ret, struct th_err *err)
{
    th_autofree char *path = th_path_join(dir, "inst.json");
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(read_json(path, &o, err));
    *ret = (struct inst){
        .dir = th_xstrdup(dir),
        .id = dup_str(o, "id"),
        .attempt = (int)th_json_path_int(o, "attempt", 0),
        .log_path = dup_str(o, "logPath"),
        .image = dup_str(o, "image"),
        .image_id = dup_str(o, "imageID"),
        .image_ref = dup_str(o, "imageRef"),
        .created_ms = th_json_path_int(o, "created", 0),
        .started_ms = th_json_path_int(o, "started", 0),
        .finished_ms = th_json_path_int(o, "finished", 0),
        .exit_code = (int)th_json_path_int(o, "exitCode", 0),
        .reason = dup_str(o, "reason"),
        .message = dup_str(o, "message"),
        .pid = (pid_t)th_json_path_int(o, "pid", 0),
        .pid_ticks = (uint64_t)th_json_path_int(o, "pidTicks", 0),
        .uid = th_json_path_int(o, "uid", 0),
        .gid = th_json_path_int(o, "gid", 0),
        .gids = th_json_dup(th_json_get(o, "gids")),
        .stop_signal = dup_str(o, "stopSignal"),
        .resources = th_json_dup(th_json_get(o, "resources")),
        .hook_started = th_json_path_bool(o, "hookStarted", false),
        /* a hook that was under way when the agent ended is not run again */
        .hook_done = th_json_path_bool(o, "hookDone", false) || th_json_path_bool(o, "hookStarted", false),
    };
    ret->state = th_json_path_bool(o, "exited", false) ? I_EXITED
                 : ret->started_ms                     ? I_RUNNING
                                                       : I_CREATED;
    return 0;
}

void inst_done(struct inst *i)
{
    free(i->id);
    free(i->dir);
    free(i->log_path);
    free(i->image);
    free(i->image_id);
    free(i->image_ref);
    free(i->reason);
    free(i->message);
    free(i->stop_signal);
    th_json_unref(i->gids);
    th_json_unref(i->resources);
    memset(i, 0, sizeof(*i));
}

/* Upstream's default: /dev/termination-log, 4096 bytes of it; or the log's last 2048 bytes. */
static char *termination_message(struct pod *p, const struct ctr *c, const struct inst *i)
{
    (void)p;
    th_autofree char *path = th_path_join(i->dir, "termination-log");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_io_read_file(path, 1 << 20, &b, NULL) >= 0 && b.n > 0) {
        th_buf_truncate(&b, b.n > 4096 ? 4096 : b.n);
        return th_buf_steal(&b, NULL);
    }
    const char *policy = th_json_path_str(c->spec, "terminationMessagePolicy");
    if (!th_streq(policy, "FallbackToLogsOnError") || i->exit_code == 0 || !i->log_path) {
        return NULL;
    }
    th_buf_clear(&b);
    if (th_io_read_file(i->log_path, TH_LIMIT_CONTAINER_LOG_B * 2, &b, NULL) < 0) {
        return NULL;
    }
    /* "<time> stdout F text": the text of at most the last 80 lines and 2048 bytes. */
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(&b), '\n');
    th_autobuf struct th_buf out = TH_BUF_INIT;
    for (size_t k = lines.n > 81 ? lines.n - 81 : 0; k < lines.n; k++) {
        const char *l = lines.v[k], *tag = NULL;
        for (int sp = 0; sp < 3 && l; sp++) {
            tag = l;
            l = strchr(l, ' ');
            l = l ? l + 1 : NULL;
        }
        if (l) {
            th_buf_puts(&out, l);
            th_buf_puts(&out, *tag == 'P' ? "" : "\n"); /* P: a line that goes on, or never ended */
        }
    }
    if (out.n > 2048) {
        th_buf_consume(&out, out.n - 2048);
    }
    return out.n ? th_buf_steal(&out, NULL) : NULL;
}

static void inst_ended(struct pod *p, struct ctr *c, struct inst *i, int code, int64_t when_ms)
{
    i->state = I_EXITED;
    i->exit_code = code;
    i->finished_ms = when_ms;
    i->oom = cg_oom_killed(p, i->id);
    th_autofree char *oom_file = th_path_join(i->dir, "oom");
    i->oom = i->oom || th_io_exists(oom_file);
    free(i->reason);
    i->reason = th_xstrdup(i->oom && code != 0 ? "OOMKilled" : code == 0 ? "Completed" : "Error");
    free(i->message);
    i->message = termination_message(p, c, i);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (inst_save(i, &err) < 0) {
        th_warn(NODE_MOD, "end of a container not recorded", "id=%s err=%s", i->id, th_log_q(err.msg));
    }
    th_info(NODE_MOD, "container exited", "pod=%s/%s container=%s exit=%d oom=%d", p->ns, p->name,
            c->name, code, i->oom);
}

void inst_set_pid(struct inst *i, pid_t pid)
{
    i->pid = pid;
    i->pid_ticks = pid > 0 ? th_proc_start_ticks(pid) : 0;
}

void inst_poll(struct pod *p, struct ctr *c, struct inst *i)
{
    if (i->state != I_RUNNING && i->state != I_CREATED) {
        return;
    }
    int code = 0;
    int64_t when = 0;
    if (rt_exit_read(p->a, i->id, &code, &when)) {
        inst_ended(p, c, i, code, when);
        return;
    }
    if (i->state == I_CREATED) {
        return; /* being made, perhaps for an agent that is gone: resume_created looks after it */
    }
    /* No exit file: alive, or the machine went down with it (exit files do not outlive a boot), or
     * conmon was killed. The process itself is the cheap answer for the common case. */
    if (i->pid > 0 && i->pid_ticks && th_proc_start_ticks(i->pid) == i->pid_ticks) {
        return;
    }
    char state[16];
    pid_t pid = 0;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (rt_state(p->a, i->id, state, &pid, &err) < 0) {
        th_warn(NODE_MOD, "crun state failed", "id=%s err=%s", i->id, th_log_q(err.msg));
        return;
    }
    if (th_streq(state, "running") || th_streq(state, "created") || th_streq(state, "paused")) {
        inst_set_pid(i, pid);
        return;
    }
    if (rt_exit_read(p->a, i->id, &code, &when)) {
        inst_ended(p, c, i, code, when);
        return;
    }
    if (state[0] == 0 || th_now_ms() - i->created_ms > 10000) {
        /* Nobody saw how it ended: upstream's code for that. */
        inst_ended(p, c, i, 255, th_now_ms());
        free(i->reason);
        i->reason = th_xstrdup("Unknown");
        (void)inst_save(i, NULL);
    } else {
        agent_kick_after(p->a, p->uid, 300); /* conmon is about to write the exit file */
    }
}

int pod_save(struct pod *p, struct th_err *err)
{
    th_autofree char *obj = th_path_join(p->dir, "pod.json");
    th_autofree char *state = th_path_join(p->dir, "state.json");
    TH_TRY(th_io_mkdir_p(p->dir, 0750, err));
    TH_TRY(write_json(obj, p->obj, err));
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    th_json_set_str(o, "ip", p->ip);
    th_json_set_int(o, "start", p->start_ms);
    th_json_set_bool(o, "static", p->is_static);
    th_json_set_bool(o, "rejected", p->rejected);
    th_json_set_str(o, "endReason", p->end_reason);
    th_json_set_str(o, "endMessage", p->end_message);
    th_json_set_bool(o, "initDone", p->init_done);
    if (p->allocated) {
        th_json_set(o, "allocated", th_json_dup(p->allocated));
    }
    if (p->resize_progress) {
        th_json_set(o, "resizeProgress", th_json_dup(p->resize_progress));
    }
    struct th_json *cs = th_json_path_object(o, "containers");
    for (size_t k = 0; k < p->n_ctrs; k++) {
        struct th_json *c = th_json_object();
        th_json_set_int(c, "restarts", p->ctrs[k].restarts);
        th_json_set_int(c, "backoff", p->ctrs[k].backoff_ms);
        th_json_set_int(c, "backoffLast", p->ctrs[k].backoff_last);
        th_json_set(cs, p->ctrs[k].name, c);
    }
    return write_json(state, o, err);
}

static void load_instances(struct pod *p, struct ctr *c)
{
    th_autofree char *dir = th_path_joinf(p->dir, "containers/%s", c->name);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    if (!th_io_exists(dir) || th_io_list(dir, &names, NULL) < 0) {
        return;
    }
    for (size_t k = 0; k < names.n; k++) {
        th_autofree char *one = th_path_join(dir, names.v[k]);
        struct inst i = {0};
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (inst_load(one, &i, &err) < 0) {
            /* its record comes before the container: there is none */
            th_info(NODE_MOD, "half made instance removed", "dir=%s err=%s", one, th_log_q(err.msg));
            inst_scrap(one);
            continue;
        }
        if (c->cur.state == I_NONE || i.attempt > c->cur.attempt) {
            inst_done(&c->last);
            c->last = c->cur;
            c->cur = i;
        } else if (c->last.state == I_NONE || i.attempt > c->last.attempt) {
            inst_done(&c->last);
            c->last = i;
        } else {
            inst_done(&i);
        }
    }
    if (c->cur.state != I_NONE) {
        agent_register_ctr(p->a, c->cur.id, p->uid);
    }
}

void inst_scrap(const char *dir)
{
    th_autofree char *root = th_path_join(dir, "rootfs");
    while (umount2(root, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
    }
    (void)th_io_rm_rf(dir, NULL);
}

int pod_load(struct pod *p, struct th_err *err)
{
    th_autofree char *state = th_path_join(p->dir, "state.json");
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (!th_io_exists(state)) {
        return 0;
    }
    TH_TRY(read_json(state, &o, err));
    th_autofree char *status = th_path_join(p->dir, "status.json");
    (void)!read_json(status, &p->status, NULL);
    p->ip = dup_str(o, "ip");
    p->start_ms = th_json_path_int(o, "start", 0);
    p->rejected = th_json_path_bool(o, "rejected", false);
    p->end_reason = dup_str(o, "endReason");
    p->end_message = dup_str(o, "endMessage");
    p->init_done = th_json_path_bool(o, "initDone", false);
    p->allocated = th_json_dup(th_json_get(o, "allocated"));
    p->resize_progress = th_json_dup(th_json_get(o, "resizeProgress"));
    struct th_json *cs = th_json_get(o, "containers");
    for (size_t k = 0; k < p->n_ctrs; k++) {
        struct ctr *c = &p->ctrs[k];
        struct th_json *s = th_json_get(cs, c->name);
        c->restarts = (int)th_json_path_int(s, "restarts", 0);
        c->backoff_ms = th_json_path_int(s, "backoff", 0);
        c->backoff_last = th_json_path_int(s, "backoffLast", 0);
        load_instances(p, c);
    }
    return 0;
}

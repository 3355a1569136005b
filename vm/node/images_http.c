/* images/...: the image store over HTTP, for the CLI (docs/architecture.md, "Images").
 *
 *   GET    images                          {"images":[{"id","refs","digests","size","created"}]}
 *   DELETE images?ref=&force=              {"untagged":[],"deleted":[]}
 *   POST   images/tag?source=&target=      {"id"}
 *   GET    images/save?ref=&ref=           a tar
 *   POST   images/load                     body: an archive; lines: {"text"}, {"loaded":{"ref","id"}}
 *   POST   images/pull?ref=                body: nothing, or credentials as {"auths":{...}}; lines:
 *                                          {"text"}
 *   POST   images/build?tag=&buildArg=&label=&dockerfile=&target=&platform=&noCache=
 *                                          body: the context as tar; lines: {"event",...}
 *   GET    images/du; POST images/prune?cache=
 *
 * The long ones answer with JSON lines; the last one has "done":true, or "error" with reason,
 * message, hint and the name it is about. The body goes through a pipe to the thread that works, the
 * lines come back through a queue, so neither is ever in memory as a whole. A client that goes away
 * cancels a build. */
#include "base/clock.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/log.h"
#include "images/archive.h"
#include "images/builder.h"
#include "images/reference.h"
#include "images/registry.h"
#include "vm/node/server.h"

#include <errno.h>
#include <fcntl.h>

#define BODY_PIPE_B (1 << 20)

struct upload {
    struct agent *a;
    char *what; /* "load", "build", "pull" */
    int rd, wr; /* the body */
    struct th_strv tags, args, labels;
    char *dockerfile, *target, *platform, *ref;
    bool no_cache;
    pthread_t thread;
    bool joined;
    atomic_bool cancel;
    atomic_int refs; /* the worker's thread and the connection */
    pthread_mutex_t mu;
    struct th_buf lines;
    bool finished;
    int64_t last_progress_ms;
};

static void upload_unref(struct upload *u)
{
    if (atomic_fetch_sub(&u->refs, 1) != 1) {
        return;
    }
    if (u->rd >= 0) {
        close(u->rd);
    }
    if (u->wr >= 0) {
        close(u->wr);
    }
    th_strv_done(&u->tags);
    th_strv_done(&u->args);
    th_strv_done(&u->labels);
    free(u->what);
    free(u->dockerfile);
    free(u->target);
    free(u->platform);
    free(u->ref);
    th_buf_done(&u->lines);
    pthread_mutex_destroy(&u->mu);
    free(u);
}

static void say(struct upload *u, struct th_json *o)
{
    pthread_mutex_lock(&u->mu);
    th_json_dump(o, &u->lines);
    th_buf_putc(&u->lines, '\n');
    pthread_mutex_unlock(&u->mu);
    th_json_unref(o);
}

static void say_end(struct upload *u, struct th_json *done, const struct th_err *err)
{
    if (done) {
        say(u, done);
    } else {
        say(u, th_json_build("{'error':{'reason':%s,'message':%s,'msg':%s,'hint':%s,'ref':%s}}",
                             th_reason_code(err->reason), err->msg, err->msg, err->hint, err->name));
    }
    pthread_mutex_lock(&u->mu);
    u->finished = true;
    pthread_mutex_unlock(&u->mu);
}

static void on_progress(void *arg, const struct th_image_progress *p)
{
    struct upload *u = arg;
    int64_t now = th_mono_ms();
    if (now - u->last_progress_ms < 200) {
        return;
    }
    u->last_progress_ms = now;
    th_autofree char *text = th_xasprintf("%s %s", p->stage, p->what ? p->what : "");
    say(u, th_json_build("{'event':'progress','stage':%s,'what':%s,'bytes':%d,'total':%d,'text':%s}",
                         p->stage, p->what, (int64_t)p->done_b, (int64_t)p->total_b, text));
}

static void do_load(struct upload *u)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    struct th_image_load_opts o = {.progress = on_progress, .progress_arg = u};
    if (th_images_load(u->a->images, th_reader_fd(u->rd), &o, &names, &err) < 0) {
        say_end(u, NULL, &err);
        return;
    }
    for (size_t i = 0; i < names.n; i++) {
        TH_AUTO(th_image) struct th_image *img = NULL;
        const char *id = th_images_resolve(u->a->images, names.v[i], &img, NULL) >= 0 ? img->id : NULL;
        say(u, th_json_build("{'loaded':{'ref':%s,'id':%s}}", names.v[i], id));
    }
    say_end(u, th_json_build("{'done':%b}", 1), NULL);
}

static void do_pull(struct upload *u)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_image) struct th_image *img = NULL;
    TH_AUTO(th_keyring) struct th_keyring *keyring = th_keyring_new();
    th_autobuf struct th_buf auths = TH_BUF_INIT;
    if (th_io_read_fd(u->rd, TH_LIMIT_CREDENTIALS_B, &auths, &err) < 0 ||
        (auths.n > 0 &&
         th_keyring_add_config(keyring, (struct th_str){auths.p, auths.n}, &err) < 0)) {
        say_end(u, NULL, &err);
        return;
    }
    struct th_pull_opts o = {.keyring = keyring, .progress = on_progress, .progress_arg = u};
    if (th_images_pull(u->a->images, u->ref, &o, &img, &err) < 0) {
        say_end(u, NULL, &err);
        return;
    }
    say_end(u, th_json_build("{'done':%b,'ref':%s,'id':%s,'size':%d}", 1, u->ref, img ? img->id : NULL,
                             img ? img->size : (int64_t)0), NULL);
}

static void on_build_event(void *arg, const struct th_build_event *e)
{
    static const char *const words[] = {"start", "output", "done", "note"};
    say(arg, th_json_build("{'event':%s,'step':%d,'total':%d,'stage':%s,'text':%s,'cached':%b,'ms':%d}",
                           words[e->kind], (int64_t)e->step, (int64_t)e->total, e->stage, e->text,
                           (int)e->cached, e->ms));
}

static int missing_base(void *arg, const char *ref, struct th_err *err)
{
    (void)arg;
    (void)th_fail(err, TH_R_NO_IMAGE, "the base image \"%s\" is not in the cluster", ref);
    if (err) { /* the CLI makes a stand-in for golang images and calls again */
        free(err->name);
        err->name = th_xstrdup(ref);
    }
    return th_hint(err, "load it with \"thimble image load\", or pull it with \"thimble image pull\"");
}

static void do_build(struct upload *u)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autofree char *state = th_path_join(u->a->o.run, "build");
    struct th_build_runner runner = {0};
    struct th_runner_crun_opts ro = {.crun = u->a->crun, .state_dir = state};
    struct th_build_result res = {0};
    int r = th_io_mkdir_p(state, 0700, &err);
    r = r < 0 ? r : th_runner_crun_new(&ro, &runner, &err);
    if (r >= 0) {
        struct th_build_opts o = {.dockerfile = u->dockerfile,
                                  .target = u->target,
                                  .tags = (const char *const *)u->tags.v,
                                  .build_args = (const char *const *)u->args.v,
                                  .labels = (const char *const *)u->labels.v,
                                  .platform = u->platform,
                                  .no_cache = u->no_cache,
                                  .runner = &runner,
                                  .missing_base = missing_base,
                                  .event = on_build_event,
                                  .event_arg = u,
                                  .cancel = &u->cancel};
        r = th_build_tar(u->a->images, th_reader_fd(u->rd), &o, &res, &err);
        th_runner_crun_free(&runner);
    }
    if (r < 0) {
        say_end(u, NULL, &err);
        return;
    }
    say_end(u, th_json_build("{'done':%b,'id':%s,'digest':%s,'size':%d,'steps':%d,'cached':%d}", 1, res.id,
                             res.manifest_digest, res.size, (int64_t)res.steps,
                             (int64_t)res.cached_steps), NULL);
}

static void *upload_thread(void *arg)
{
    struct upload *u = arg;
    if (th_streq(u->what, "load")) {
        do_load(u);
    } else if (th_streq(u->what, "pull")) {
        do_pull(u);
    } else {
        do_build(u);
    }
    /* whoever still writes the body must not wait for us: read it to its end */
    char drop[16384];
    while (u->rd >= 0 && read(u->rd, drop, sizeof(drop)) > 0) {
    }
    upload_unref(u);
    return NULL;
}

bool images_wants_body(const struct req *r)
{
    return th_streq(r->method, "POST") && r->path.n == 2 && th_streq(r->path.v[0], "images") &&
           (th_streq(r->path.v[1], "load") || th_streq(r->path.v[1], "build") ||
            th_streq(r->path.v[1], "pull"));
}

struct upload *images_upload_begin(struct req *r)
{
    struct upload *u = TH_NEW(struct upload);
    int p[2] = {-1, -1};
    if (pipe2(p, O_CLOEXEC) < 0) {
        free(u);
        return NULL;
    }
    (void)fcntl(p[1], F_SETPIPE_SZ, BODY_PIPE_B); /* fewer switches; the default will do, too */
    u->a = r->a;
    u->what = th_xstrdup(r->path.v[1]);
    u->rd = p[0];
    u->wr = p[1];
    atomic_init(&u->refs, 2);
    pthread_mutex_init(&u->mu, NULL);
    req_query_all(r, "tag", &u->tags);
    req_query_all(r, "buildArg", &u->args);
    req_query_all(r, "label", &u->labels);
    u->dockerfile = th_xstrdup(req_query(r, "dockerfile"));
    u->target = th_xstrdup(req_query(r, "target"));
    u->platform = th_xstrdup(req_query(r, "platform"));
    u->ref = th_xstrdup(req_query(r, "ref") ? req_query(r, "ref") : "");
    u->no_cache = req_query_bool(r, "noCache", false);
    if (pthread_create(&u->thread, NULL, upload_thread, u) != 0) {
        atomic_store(&u->refs, 1);
        upload_unref(u);
        return NULL;
    }
    pthread_detach(u->thread);
    return u;
}

bool images_upload_data(struct upload *u, const char *p, size_t n)
{
    return th_io_write_all(u->wr, p, n, NULL) >= 0;
}

static void body_end(struct upload *u)
{
    if (u->wr >= 0) {
        close(th_steal_fd(&u->wr));
    }
}

void images_upload_drop(struct upload *u)
{
    atomic_store(&u->cancel, true);
    body_end(u);
    upload_unref(u);
}

static ssize_t lines_read(void *arg, char *buf, size_t max)
{
    struct upload *u = arg;
    pthread_mutex_lock(&u->mu);
    size_t n = u->lines.n < max ? u->lines.n : max;
    bool end = u->finished;
    if (n > 0) {
        memcpy(buf, u->lines.p, n);
        th_buf_consume(&u->lines, n);
    }
    pthread_mutex_unlock(&u->mu);
    return n > 0 ? (ssize_t)n : end ? -1 : 0;
}

static void lines_done(void *arg)
{
    images_upload_drop(arg);
}

/* ---- the short ones ---- */

static struct th_json *strv_json(const struct th_strv *l)
{
    struct th_json *a = th_json_array();
    for (size_t i = 0; i < l->n; i++) {
        th_json_append_str(a, l->v[i]);
    }
    return a;
}

static enum MHD_Result list_images(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_image **list = NULL;
    size_t n = 0;
    if (th_images_list(r->a->images, &list, &n, &err) < 0) {
        return reply_status(r, &err);
    }
    struct th_json *items = th_json_array();
    for (size_t i = 0; i < n; i++) {
        char t[TH_TIME_LEN] = "";
        if (list[i]->created_ms > 0) {
            (void)th_time_format(list[i]->created_ms, t);
        }
        th_json_append(items, th_json_build("{'id':%s,'refs':%o,'digests':%o,'digest':%s,'size':%d,"
                                            "'created':%s,'architecture':%s,'os':%s}",
                                            list[i]->id, strv_json(&list[i]->names),
                                            strv_json(&list[i]->digests), list[i]->manifest_digest,
                                            list[i]->size, *t ? t : NULL, list[i]->architecture,
                                            list[i]->os));
    }
    th_image_list_free(list, n);
    TH_AUTO(th_json) struct th_json *o = th_json_build("{'images':%o}", items);
    return reply_json(r, 200, o);
}

static enum MHD_Result remove_image(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    const char *ref = req_query(r, "ref");
    th_autostrv struct th_strv untagged = TH_STRV_INIT, deleted = TH_STRV_INIT;
    if (!ref) {
        (void)th_fail(&err, TH_R_BAD_REQUEST, "ref is missing");
        return reply_status(r, &err);
    }
    if (th_images_remove(r->a->images, ref, req_query_bool(r, "force", false), &untagged, &deleted, &err) < 0) {
        return reply_status(r, &err);
    }
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'untagged':%o,'deleted':%o}", strv_json(&untagged), strv_json(&deleted));
    return reply_json(r, 200, o);
}

static enum MHD_Result tag_image(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    const char *src = req_query(r, "source"), *dst = req_query(r, "target");
    if (!src || !dst) {
        (void)th_fail(&err, TH_R_BAD_REQUEST, "source and target are needed");
        return reply_status(r, &err);
    }
    TH_AUTO(th_image) struct th_image *img = NULL;
    if (th_images_tag(r->a->images, src, dst, &err) < 0 ||
        th_images_resolve(r->a->images, dst, &img, &err) < 0) {
        return reply_status(r, &err);
    }
    TH_AUTO(th_json) struct th_json *o = th_json_build("{'id':%s,'refs':%o}", img->id,
                                                       strv_json(&img->names));
    return reply_json(r, 200, o);
}

struct save_job {
    struct agent *a;
    struct th_strv refs;
    int rd, wr;
};

static void *save_thread(void *arg)
{
    struct save_job *j = arg;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_images_save(j->a->images, (const char *const *)j->refs.v, j->refs.n, th_writer_fd(j->wr), &err) < 0) {
        th_warn(NODE_MOD, "image not saved", "err=%s", th_log_q(err.msg));
    }
    close(j->wr);
    th_strv_done(&j->refs);
    free(j);
    return NULL;
}

static ssize_t pipe_read(void *arg, char *buf, size_t max)
{
    ssize_t n = read((int)(intptr_t)arg, buf, max);
    return n > 0 ? n : -1;
}

static void pipe_done(void *arg)
{
    close((int)(intptr_t)arg);
}

static enum MHD_Result save_images(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autostrv struct th_strv refs = TH_STRV_INIT;
    req_query_all(r, "ref", &refs);
    for (size_t i = 0; i < refs.n; i++) { /* errors while there can still be a status */
        TH_AUTO(th_image) struct th_image *img = NULL;
        if (th_images_resolve(r->a->images, refs.v[i], &img, &err) < 0) {
            return reply_status(r, &err);
        }
    }
    int p[2];
    if (refs.n == 0 || pipe2(p, O_CLOEXEC) < 0) {
        (void)th_fail(&err, TH_R_BAD_REQUEST, "ref is missing");
        return reply_status(r, &err);
    }
    struct save_job *j = TH_NEW(struct save_job);
    *j = (struct save_job){.a = r->a, .refs = refs, .rd = p[0], .wr = p[1]};
    refs = (struct th_strv)TH_STRV_INIT;
    pthread_t t;
    if (pthread_create(&t, NULL, save_thread, j) != 0) {
        close(p[0]);
        close(p[1]);
        th_strv_done(&j->refs);
        free(j);
        (void)th_fail(&err, TH_R_INTERNAL, "no thread");
        return reply_status(r, &err);
    }
    pthread_detach(t);
    return reply_stream(r, "application/x-tar", pipe_read, pipe_done, (void *)(intptr_t)p[0]);
}

static enum MHD_Result disk_usage(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_images_usage u;
    if (th_images_du(r->a->images, &u, &err) < 0) {
        return reply_status(r, &err);
    }
    TH_AUTO(th_json) struct th_json *o = th_json_build(
        "{'blobsBytes':%d,'layersBytes':%d,'images':%d,'blobs':%d,'layers':%d,'cacheEntries':%d}",
        (int64_t)u.blobs_b, (int64_t)u.layers_b, (int64_t)u.images, (int64_t)u.blobs, (int64_t)u.layers,
        (int64_t)u.cache_entries);
    return reply_json(r, 200, o);
}

static enum MHD_Result prune(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_images_gc_opts o = {.drop_untagged = true, .drop_cache = req_query_bool(r, "cache", false)};
    uint64_t freed = 0;
    if (th_images_gc(r->a->images, &o, &freed, &err) < 0) {
        return reply_status(r, &err);
    }
    TH_AUTO(th_json) struct th_json *a = th_json_build("{'freedBytes':%d}", (int64_t)freed);
    return reply_json(r, 200, a);
}

enum MHD_Result images_request(struct req *r)
{
    const char *what = r->path.n > 1 ? r->path.v[1] : "";
    bool get = th_streq(r->method, "GET"), post = th_streq(r->method, "POST");
    if (r->up) {
        struct upload *u = r->up;
        r->up = NULL; /* the answer's stream owns it now */
        body_end(u);
        return reply_stream(r, "application/x-ndjson", lines_read, lines_done, u);
    }
    if (!*what && get) {
        return list_images(r);
    }
    if (!*what && th_streq(r->method, "DELETE")) {
        return remove_image(r);
    }
    if (th_streq(what, "tag") && post) {
        return tag_image(r);
    }
    if (th_streq(what, "save") && get) {
        return save_images(r);
    }
    if (th_streq(what, "du") && get) {
        return disk_usage(r);
    }
    if (th_streq(what, "prune") && post) {
        return prune(r);
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)th_fail(&err, TH_R_NOT_FOUND, "no such request: %s %s", r->method, r->url);
    return reply_status(r, &err);
}

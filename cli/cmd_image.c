/*
 * thimble image ...: images in the cluster's store. Every call goes through the API server to the
 * node agent (docs/architecture.md, "Images") with the admin's certificate; long ones stream bytes
 * in and progress lines out. Building sends the context as a tar that a thread writes into a pipe,
 * so that nothing is kept in memory or on disk.
 *
 * golang base images that the cluster lacks are made from the host's Go toolchain (images/gobase.h)
 * before the build, and again when the build reports one missing, since a name may only be known
 * after ARGs are expanded.
 */
#include "cli/cluster.h"
#include "cli/output.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "images/dockerfile.h"
#include "images/dockerignore.h"
#include "images/gobase.h"
#include "cli/registry_login.h"
#include "images/reference.h"
#include "images/stream.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAX_REPEAT 64

/* ---- Calls ---- */

static char *images_path(const struct th_cluster_conn *c, const char *what, const char *query)
{
    return th_xasprintf("/api/v1/nodes/%s/proxy/images%s%s%s%s", c->info.node_name,
                        *what ? "/" : "", what, *query ? "?" : "", query);
}

static void query_add(struct th_buf *q, const char *name, const char *value)
{
    if (value) {
        th_buf_printf(q, "%s%s=", q->n ? "&" : "", name);
        th_url_escape(q, value);
    }
}

static int call_json(struct th_cluster_conn *c, const char *method, const char *what,
                     const char *query, struct th_json **ret, struct th_err *err)
{
    th_autofree char *path = images_path(c, what, query);
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_raw_req req = {.method = method, .path = path};
    TH_TRY(th_client_raw(c->client, &req, NULL, &body, err));
    return th_json_parse(th_buf_cstr(&body), body.n, NULL, ret, err);
}

struct stream {
    int fd;              /* body */
    uint64_t sent, size; /* size 0: not known */
    struct th_ndjson lines;
    struct th_progress *progress;
};

static long stream_in(void *arg, char *buf, size_t n)
{
    struct stream *s = arg;
    ssize_t r = read(s->fd, buf, n);
    if (r > 0) {
        char a[32], b[32];
        s->sent += (uint64_t)r;
        if (s->size) {
            th_progress_detail(s->progress, "%s of %s", th_format_bytes(s->sent, a),
                               th_format_bytes(s->size, b));
        }
    }
    return (long)r;
}

static bool stream_out(void *arg, const char *p, size_t n)
{
    struct stream *s = arg;
    th_ndjson_feed(&s->lines, p, n);
    return true;
}

/* A POST whose body comes from s->fd and whose answer is JSON lines. */
static int call_stream(struct th_cluster_conn *c, const char *what, const char *query,
                       struct stream *s, struct th_err *err)
{
    th_autofree char *path = images_path(c, what, query);
    struct th_raw_req req = {
        .method = "POST",
        .path = path,
        .content_type = "application/x-tar",
        .in_fn = s->fd >= 0 ? stream_in : NULL,
        .on_data = stream_out,
        .arg = s,
    };
    struct th_err call_err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    int r = th_client_raw(c->client, &req, NULL, NULL, &call_err);
    if (r < 0 && s->lines.err.reason == TH_R_OK && !s->lines.last) {
        th_err_move(err, &call_err);
        return r;
    }
    return th_ndjson_finish(&s->lines, err);
}

/* ---- load ---- */

static void loaded_line(void *arg, const struct th_json *o)
{
    const struct th_json *image = th_json_get(o, "loaded");
    if (image) {
        th_json_append(arg, th_json_dup(image));
    }
}

static int load_file(struct th_cluster_conn *c, const char *path, struct th_progress *progress,
                     struct th_json *ret_images, struct th_err *err)
{
    th_autoclose int fd = -1;
    struct stream s = {.progress = progress};
    if (th_streq(path, "-")) {
        fd = dup(0);
    } else {
        struct stat st;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0) {
            return th_fail_errno(err, errno, errno == ENOENT ? TH_R_NOT_FOUND : TH_R_IO,
                                 "cannot open %s", path);
        }
        if (S_ISDIR(st.st_mode)) {
            return -TH_R_USAGE;
        }
        s.size = (uint64_t)st.st_size;
    }
    s.fd = fd;
    s.lines.line = loaded_line;
    s.lines.arg = ret_images;
    int r = call_stream(c, "load", "", &s, err);
    th_ndjson_done(&s.lines);
    return r;
}

struct context_job {
    const char *dir, *dockerfile; /* dockerfile NULL: the folder as it is, no .dockerignore */
    int fd;
    int result;
    struct th_err err;
};

static void *context_thread(void *arg)
{
    struct context_job *job = arg;
    struct th_writer out = th_writer_fd(job->fd);
    job->result = job->dockerfile
                      ? th_context_write(job->dir, job->dockerfile, &out, NULL, &job->err)
                      : th_folder_write(job->dir, &out, &job->err);
    (void)close(job->fd);
    return NULL;
}

/* Runs the call with dir as a tar stream for its body: a build context, or (dockerfile NULL) all of
 * it. */
static int call_with_context(struct th_cluster_conn *c, const char *what, const char *query,
                             const char *dir, const char *dockerfile, struct stream *s,
                             struct th_err *err)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "cannot make a pipe");
    }
    struct context_job job = {
        .dir = dir, .dockerfile = dockerfile, .fd = pipes[1], .err = TH_ERR_INIT};
    pthread_t thread;
    TH_ASSERT(pthread_create(&thread, NULL, context_thread, &job) == 0);
    s->fd = pipes[0];
    int r = call_stream(c, what, query, s, err);
    (void)close(pipes[0]); /* a writer that still writes gets EPIPE */
    (void)pthread_join(thread, NULL);
    if (job.result < 0 && job.err.sys_errno != EPIPE) {
        r = job.result;
        th_err_move(err, &job.err);
    }
    th_err_done(&job.err);
    return r;
}

static void print_images(const struct th_cli *cli, struct th_json *images, const char *verb)
{
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) = th_json_build("{'images':%o}", th_json_ref(images));
        th_print_json(o);
        return;
    }
    for (size_t i = 0; i < th_json_len(images) && !cli->quiet; i++) {
        const struct th_json *image = th_json_at(images, i);
        const char *ref = th_json_path_str(image, "ref");
        const char *id = th_json_path_str(image, "id");
        printf("%s %s\n", verb, ref && *ref ? ref : id ? id : "?");
    }
}

static int run_load(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    TH_TRY(th_cluster_open(cli, &c, err));
    struct th_json *images TH_AUTO(th_json) = th_json_array();
    struct th_progress progress TH_CLEANUP(th_progress_failed);
    th_progress_init(&progress, cli);
    for (int i = 0; i < cli->n_args; i++) {
        const char *path = cli->args[i];
        th_progress_step(&progress, "Loading %s", path);
        if (th_io_is_dir(path)) {
            struct stream s = {.fd = -1, .progress = &progress};
            s.lines.line = loaded_line;
            s.lines.arg = images;
            int r = call_with_context(&c, "load", "", path, NULL, &s, err);
            th_ndjson_done(&s.lines);
            TH_TRY(r);
        } else {
            TH_TRY(load_file(&c, path, &progress, images, err));
        }
        th_progress_done(&progress);
    }
    print_images(cli, images, "loaded");
    return 0;
}

/* ---- ls, rm, tag, save, pull ---- */

static void short_id(const char *id, char out[13])
{
    const char *colon = id ? strchr(id, ':') : NULL;
    (void)snprintf(out, 13, "%.12s", colon ? colon + 1 : id ? id : "");
}

static int run_ls(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    struct th_json *o TH_AUTO(th_json) = NULL;
    TH_TRY(th_cluster_open(cli, &c, err));
    TH_TRY(call_json(&c, "GET", "", "", &o, err));
    if (cli->json) {
        th_print_json(o);
        return 0;
    }
    struct th_table t = {0};
    th_table_row(&t, 4, "IMAGE", "ID", "CREATED", "SIZE");
    const struct th_json *images = th_json_get(o, "images");
    for (size_t i = 0; i < th_json_len(images); i++) {
        const struct th_json *image = th_json_at(images, i);
        char id[13], size[32], age[TH_TIME_LEN + 8] = "-";
        int64_t created_us = 0;
        short_id(th_json_path_str(image, "id"), id);
        th_format_bytes((uint64_t)th_json_path_int(image, "size", 0), size);
        const char *created = th_json_path_str(image, "created");
        if (created && th_time_parse(created, &created_us, NULL) == 0 && created_us > 0) {
            char human[TH_TIME_LEN];
            (void)snprintf(age, sizeof(age), "%s ago",
                           th_duration_human(th_now_ms() - created_us / 1000, human));
        }
        const struct th_json *refs = th_json_get(image, "refs");
        for (size_t k = 0; k < th_json_len(refs); k++) {
            th_autofree char *name = NULL;
            const char *ref = th_json_str(th_json_at(refs, k));
            name = th_xstrdup(ref);
            const char *shown = name;
            if (th_startswith(name, "docker.io/library/")) {
                shown = name + strlen("docker.io/library/");
            }
            th_table_row(&t, 4, shown, id, age, size);
        }
        if (th_json_len(refs) == 0) {
            th_table_row(&t, 4, "<none>", id, age, size);
        }
    }
    th_table_print(&t);
    return 0;
}

static int run_rm(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    TH_TRY(th_cluster_open(cli, &c, err));
    struct th_json *all TH_AUTO(th_json) = th_json_array();
    for (int i = 0; i < cli->n_args; i++) {
        struct th_buf query TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        struct th_json *o TH_AUTO(th_json) = NULL;
        query_add(&query, "ref", cli->args[i]);
        TH_TRY(call_json(&c, "DELETE", "", th_buf_cstr(&query), &o, err));
        if (!cli->json && !cli->quiet) {
            const char *const words[][2] = {{"untagged", "untagged"}, {"deleted", "deleted"}};
            for (size_t w = 0; w < 2; w++) {
                const struct th_json *list = th_json_get(o, words[w][0]);
                for (size_t k = 0; k < th_json_len(list); k++) {
                    printf("%s %s\n", words[w][1], th_json_str(th_json_at(list, k)));
                }
            }
        }
        th_json_set_str(o, "ref", cli->args[i]);
        th_json_append(all, th_json_ref(o));
    }
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) = th_json_build("{'images':%o}", th_json_ref(all));
        th_print_json(o);
    }
    return 0;
}

static int run_tag(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    struct th_json *o TH_AUTO(th_json) = NULL;
    struct th_buf query TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    query_add(&query, "source", cli->args[0]);
    query_add(&query, "target", cli->args[1]);
    TH_TRY(th_cluster_open(cli, &c, err));
    TH_TRY(call_json(&c, "POST", "tag", th_buf_cstr(&query), &o, err));
    if (cli->json) {
        th_json_set_str(o, "source", cli->args[0]);
        th_json_set_str(o, "target", cli->args[1]);
        th_print_json(o);
    } else if (!cli->quiet) {
        printf("tagged %s as %s\n", cli->args[0], cli->args[1]);
    }
    return 0;
}

struct save {
    int fd;
    int write_errno;
    uint64_t n;
};

static bool save_data(void *arg, const char *p, size_t n)
{
    struct save *s = arg;
    s->n += n;
    if (th_io_write_all(s->fd, p, n, NULL) < 0) {
        s->write_errno = errno ? errno : EIO;
        return false;
    }
    return true;
}

static int run_save(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    struct th_buf query TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    for (int i = 0; i < cli->n_args; i++) {
        query_add(&query, "ref", cli->args[i]);
    }
    const char *file = th_opt_str(cli, "file");
    if (!file && isatty(1)) {
        (void)th_fail(err, TH_R_USAGE, "an archive is not for a terminal");
        return th_hint(err, "give --file FILE or redirect standard output");
    }
    TH_TRY(th_cluster_open(cli, &c, err));
    th_autofree char *part = file ? th_xasprintf("%s.part", file) : NULL;
    th_autoclose int fd =
        part ? open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : dup(1);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "cannot write %s",
                             part ? part : "standard output");
    }
    struct save s = {.fd = fd};
    th_autofree char *path = images_path(&c, "save", th_buf_cstr(&query));
    struct th_raw_req req = {.method = "GET", .path = path, .on_data = save_data, .arg = &s};
    int r = th_client_raw(c.client, &req, NULL, NULL, err);
    if (s.write_errno) {
        r = th_fail_errno(err, s.write_errno, TH_R_IO, "cannot write %s",
                          part ? part : "standard output");
    }
    if (part && r == 0 && rename(part, file) < 0) {
        r = th_fail_errno(err, errno, TH_R_IO, "cannot write %s", file);
    }
    if (part && r < 0) {
        (void)unlink(part);
    }
    if (file && r == 0) {
        if (cli->json) {
            struct th_json *o TH_AUTO(th_json) =
                th_json_build("{'file':%s,'bytes':%d}", file, (int64_t)s.n);
            th_print_json(o);
        } else if (!cli->quiet) {
            char size[32];
            printf("wrote %s (%s)\n", file, th_format_bytes(s.n, size));
        }
    }
    return r;
}

static void note_line(void *arg, const struct th_json *o)
{
    const char *text = th_json_path_str(o, "text");
    if (text) {
        th_progress_detail(arg, "%s", text);
    }
}

/* A small body as a file to read from; -1 for none. */
static int body_of(const struct th_buf *b, int *ret, struct th_err *err)
{
    if (b->n == 0) {
        return 0;
    }
    th_autoclose int fd = memfd_create("thimble-body", MFD_CLOEXEC);
    if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "make a request's body");
    }
    TH_TRY(th_io_write_all(fd, b->p, b->n, err));
    (void)lseek(fd, 0, SEEK_SET);
    *ret = th_steal_fd(&fd);
    return 0;
}

static int run_pull(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    TH_TRY(th_cluster_open(cli, &c, err));
    struct th_progress progress TH_CLEANUP(th_progress_failed);
    th_progress_init(&progress, cli);
    struct th_json *images TH_AUTO(th_json) = th_json_array();
    struct th_buf password TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    TH_TRY(th_registry_password(cli, &password, err));
    for (int i = 0; i < cli->n_args; i++) {
        struct th_buf query TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        struct th_buf login TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        TH_TRY(th_registry_login(cli, cli->args[i],
                                 (struct th_str){th_buf_cstr(&password), password.n}, &login, err));
        th_autoclose int body = -1;
        TH_TRY(body_of(&login, &body, err));
        struct stream s = {.fd = body, .progress = &progress};
        query_add(&query, "ref", cli->args[i]);
        th_progress_step(&progress, "Pulling %s", cli->args[i]);
        s.lines.line = note_line;
        s.lines.arg = &progress;
        int r = call_stream(&c, "pull", th_buf_cstr(&query), &s, err);
        if (r == 0) {
            th_json_append(images,
                           th_json_build("{'ref':%s,'id':%s}", cli->args[i],
                                         th_json_path_str(s.lines.last, "id")));
        }
        th_ndjson_done(&s.lines);
        TH_TRY(r);
        th_progress_done(&progress);
    }
    print_images(cli, images, "pulled");
    return 0;
}

/* ---- base, build ---- */

static void go_note(void *arg, const char *line)
{
    th_progress_detail(arg, "%s", line);
}

/* Makes a golang stand-in and loads it into the cluster. */
static int bring_go_base(struct th_cluster_conn *c, const char *ref, const char *context_dir,
                         struct th_progress *progress, struct th_json *ret_images,
                         struct th_err *err)
{
    struct th_gobase_result made TH_CLEANUP(th_gobase_result_done) = {.archive = NULL};
    struct th_gobase_opts o = {.ref = ref, .context_dir = context_dir, .note = {go_note, progress}};
    th_progress_step(progress, "Making %s from the Go toolchain of this machine", ref);
    TH_TRY(th_gobase_make(&o, &made, err));
    th_progress_done(progress);
    th_progress_note(progress, "%s", made.summary);
    struct th_json *images TH_AUTO(th_json) = th_json_array();
    th_progress_step(progress, "Loading %s into the cluster", ref);
    TH_TRY(load_file(c, made.archive, progress, ret_images ? ret_images : images, err));
    th_progress_done(progress);
    return 0;
}

static int run_base(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    const char *ref = cli->args[0];
    if (!th_gobase_is_for(ref)) {
        (void)th_fail(err, TH_R_UNSUPPORTED, "there is no stand-in for %s", ref);
        return th_hint(
            err, "stand-ins are made for golang images; load others with \"thimble image load\"");
    }
    TH_TRY(th_cluster_open(cli, &c, err));
    struct th_progress progress TH_CLEANUP(th_progress_failed);
    th_progress_init(&progress, cli);
    struct th_json *images TH_AUTO(th_json) = th_json_array();
    TH_TRY(bring_go_base(&c, ref, th_opt_str(cli, "context"), &progress, images, err));
    print_images(cli, images, "made");
    return 0;
}

static bool have_image(const struct th_json *list, const char *ref)
{
    th_autofree char *full = NULL;
    if (th_ref_normalize(ref, &full, NULL) < 0) {
        return true; /* the build says what is wrong with it */
    }
    const struct th_json *images = th_json_get(list, "images");
    for (size_t i = 0; i < th_json_len(images); i++) {
        const struct th_json *refs = th_json_path(th_json_at(images, i), "refs");
        for (size_t k = 0; k < th_json_len(refs); k++) {
            if (th_streq(th_json_str(th_json_at(refs, k)), full)) {
                return true;
            }
        }
    }
    return false;
}

/* Brings the golang images that the Dockerfile names and the cluster lacks. A Dockerfile that does
 * not parse fails here, before anything is sent. */
static int bring_bases(struct th_cluster_conn *c, const char *dir, const char *dockerfile,
                       struct th_progress *progress, struct th_err *err)
{
    th_autofree char *path = th_path_join(dir, dockerfile);
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_dockerfile *parsed TH_AUTO(th_dockerfile) = NULL;
    struct th_json *list TH_AUTO(th_json) = NULL;
    if (th_io_read_file(path, TH_LIMIT_DOCKERFILE_B, &text, err) < 0) {
        return th_hint(err,
                       "run it in the folder with the Dockerfile, or give --file, or build a Go "
                       "package without one: \"thimble image build --go .\"");
    }
    TH_TRY(th_dockerfile_parse(dockerfile, th_buf_cstr(&text), text.n, &parsed, err));
    for (size_t i = 0; i < parsed->n_stages; i++) {
        const char *base = parsed->stages[i]->base;
        if (!th_gobase_is_for(base)) {
            continue;
        }
        if (!list) {
            TH_TRY(call_json(c, "GET", "", "", &list, err));
        }
        if (!have_image(list, base)) {
            TH_TRY(bring_go_base(c, base, dir, progress, NULL, err));
            th_json_unref(list);
            list = NULL;
        }
    }
    return 0;
}

struct build_view {
    struct th_progress *progress;
    const struct th_cli *cli;
    struct th_buf tail; /* the running step's last output, shown when it fails */
};

static void build_line(void *arg, const struct th_json *o)
{
    struct build_view *v = arg;
    const char *event = th_json_path_str(o, "event");
    const char *text = th_json_path_str(o, "text");
    text = text ? text : "";
    if (th_streq(event, "start")) {
        th_buf_clear(&v->tail);
        th_progress_step(v->progress, "[%d/%d] %s", (int)th_json_path_int(o, "step", 0),
                         (int)th_json_path_int(o, "total", 0), text);
    } else if (th_streq(event, "output")) {
        if (v->cli->verbose) {
            th_progress_note(v->progress, "  | %s", text);
        } else {
            th_buf_printf(&v->tail, "  | %s\n", text);
            th_progress_detail(v->progress, "%.60s", text);
        }
    } else if (th_streq(event, "done")) {
        if (th_json_path_bool(o, "cached", false)) {
            free(v->progress->step);
            v->progress->step =
                th_xasprintf("[%d/%d] %s (cached)", (int)th_json_path_int(o, "step", 0),
                             (int)th_json_path_int(o, "total", 0), text);
        }
        th_progress_done(v->progress);
        th_buf_clear(&v->tail);
    } else if (th_streq(event, "note")) {
        th_progress_note(v->progress, "%s", text);
    }
}

static int build_dockerfile(struct th_cli *cli, struct th_cluster_conn *c, const char *dir,
                            struct th_progress *progress, struct th_json **ret, struct th_err *err)
{
    const char *dockerfile = th_opt_str(cli, "file");
    TH_TRY(bring_bases(c, dir, dockerfile, progress, err));
    struct th_buf query TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    static const char *const repeated[][2] = {
        {"tag", "tag"}, {"build-arg", "buildArg"}, {"label", "label"}};
    for (size_t k = 0; k < TH_ARRAY_LEN(repeated); k++) {
        const char *values[MAX_REPEAT];
        size_t n = th_opt_all(cli, repeated[k][0], values, MAX_REPEAT);
        for (size_t i = 0; i < n; i++) {
            query_add(&query, repeated[k][1], values[i]);
        }
    }
    query_add(&query, "dockerfile", dockerfile);
    query_add(&query, "target", th_opt_str(cli, "target"));
    query_add(&query, "platform", th_opt_str(cli, "platform"));
    query_add(&query, "noCache", th_opt_bool(cli, "no-cache") ? "true" : NULL);
    for (int attempt = 0;; attempt++) {
        struct build_view view = {.progress = progress, .cli = cli, .tail = TH_BUF_INIT};
        struct stream s = {.fd = -1, .progress = progress};
        s.lines.line = build_line;
        s.lines.arg = &view;
        th_progress_step(progress, "Sending the build context");
        int r = call_with_context(c, "build", th_buf_cstr(&query), dir, dockerfile, &s, err);
        if (r == 0) {
            *ret = th_json_ref(s.lines.last);
        } else if (r != -TH_R_NO_IMAGE && view.tail.n && !cli->json) {
            th_progress_failed(progress);
            fputs(th_buf_cstr(&view.tail), stderr);
        }
        th_buf_done(&view.tail);
        th_ndjson_done(&s.lines);
        if (r != -TH_R_NO_IMAGE || attempt > 0 || !err || !err->name ||
            !th_gobase_is_for(err->name)) {
            return r;
        }
        th_autofree char *ref = th_xstrdup(err->name);
        th_err_done(err);
        TH_TRY(bring_go_base(c, ref, dir, progress, NULL, err));
    }
}

static int build_go(struct th_cli *cli, struct th_cluster_conn *c, const char *dir,
                    struct th_progress *progress, struct th_json **ret, struct th_err *err)
{
    const char *tags[MAX_REPEAT + 1] = {NULL};
    const char *labels[MAX_REPEAT + 1] = {NULL};
    tags[th_opt_all(cli, "tag", tags, MAX_REPEAT)] = NULL;
    labels[th_opt_all(cli, "label", labels, MAX_REPEAT)] = NULL;
    if (!tags[0]) {
        (void)th_fail(err, TH_R_USAGE, "--go needs a name for the image");
        return th_hint(err, "give -t NAME:TAG");
    }
    char out[] = "/tmp/thimble-go-XXXXXX";
    th_autoclose int fd = mkstemp(out);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "cannot make a temporary file");
    }
    struct th_gobuild_result made TH_CLEANUP(th_gobuild_result_done) = {.image_id = NULL};
    struct th_gobuild_opts o = {.dir = dir,
                                .package = th_opt_str(cli, "go"),
                                .tags = tags,
                                .labels = labels,
                                .out = out,
                                .note = {go_note, progress}};
    th_progress_step(progress, "Compiling %s", o.package);
    int r = th_gobuild(&o, &made, err);
    struct th_json *images TH_AUTO(th_json) = th_json_array();
    if (r == 0) {
        th_progress_step(progress, "Loading %s into the cluster", tags[0]);
        r = load_file(c, out, progress, images, err);
    }
    (void)unlink(out);
    TH_TRY(r);
    *ret =
        th_json_build("{'done':%b,'id':%s,'size':%d}", true, made.image_id, (int64_t)made.size_b);
    return 0;
}

static int run_build(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    struct th_json *result TH_AUTO(th_json) = NULL;
    const char *dir = cli->n_args ? cli->args[0] : ".";
    const char *tags[MAX_REPEAT];
    size_t n_tags = th_opt_all(cli, "tag", tags, MAX_REPEAT);
    for (size_t i = 0; i < n_tags; i++) {
        struct th_ref ref;
        TH_TRY(th_ref_parse(tags[i], &ref, err));
        th_ref_done(&ref);
    }
    if (!th_io_is_dir(dir)) {
        (void)th_fail(err, TH_R_NOT_FOUND, "the build context \"%s\" is not a folder", dir);
        return th_hint(err,
                       "give the folder with the sources: thimble image build -t NAME:TAG DIR");
    }
    TH_TRY(th_cluster_open(cli, &c, err));
    struct th_progress progress TH_CLEANUP(th_progress_failed);
    th_progress_init(&progress, cli);
    TH_TRY(th_opt_str(cli, "go") ? build_go(cli, &c, dir, &progress, &result, err)
                                 : build_dockerfile(cli, &c, dir, &progress, &result, err));
    th_progress_done(&progress);
    if (cli->json) {
        struct th_json *o TH_AUTO(th_json) = th_json_dup(result);
        struct th_json *names = th_json_array();
        for (size_t i = 0; i < n_tags; i++) {
            th_json_append_str(names, tags[i]);
        }
        (void)th_json_del(o, "done");
        th_json_set(o, "tags", names);
        th_print_json(o);
    } else if (!cli->quiet) {
        char took[32], id[13];
        short_id(th_json_path_str(result, "id"), id);
        printf("built %s (%s) in %s\n", n_tags ? tags[0] : "an image without a name", id,
               th_format_ms(th_mono_ms() - progress.began_ms, took));
    }
    return 0;
}

/* ---- Rows ---- */

static const struct th_cmd_opt build_opts[] = {
    {.name = "tag",
     .short_name = 't',
     .arg = "NAME:TAG",
     .repeat = true,
     .help = "Name of the image"},
    {.name = "file",
     .short_name = 'f',
     .arg = "FILE",
     .dflt = "Dockerfile",
     .complete = "file",
     .help = "The Dockerfile, relative to the context"},
    {.name = "target", .arg = "STAGE", .help = "Build up to this stage"},
    {.name = "build-arg", .arg = "K=V", .repeat = true, .help = "Value of an ARG"},
    {.name = "label", .arg = "K=V", .repeat = true, .help = "Label of the image"},
    {.name = "no-cache", .help = "Run every step again"},
    {.name = "platform", .arg = "OS/ARCH", .help = "Platform of the image"},
    {.name = "go", .arg = "PACKAGE", .help = "Compile this Go package on the host; no Dockerfile"},
    {.name = NULL},
};
static const char *const build_examples[] = {
    "thimble image build -t hello:1.0 .", "thimble image build -t hello:1.0 --go ./cmd/hello",
    "thimble image build -f deploy/Dockerfile -t api:dev .", NULL};
static const struct th_cmd cmd_build = {
    .name = "build",
    .summary = "Build an image in the cluster, without a network",
    .args = "[DIR]",
    .max_args = 1,
    .details =
        "Builds DIR's Dockerfile inside the cluster. Base images come from the cluster's store; a\n"
        "golang image that is missing is made from the Go toolchain of this machine. With --go no\n"
        "Dockerfile is needed: the package is compiled here and put into a minimal image.",
    .examples = build_examples,
    .opts = build_opts,
    .complete = "dir",
    .run = run_build,
};
static const struct th_cmd cmd_load = {
    .name = "load",
    .summary = "Load images from archives (docker save, OCI) or OCI folders",
    .args = "FILE...",
    .min_args = 1,
    .max_args = -1,
    .details = "FILE is an archive (\"-\" reads standard input), plain or compressed, or a folder.",
    .complete = "file",
    .run = run_load,
};
static const struct th_cmd cmd_ls = {
    .name = "ls", .summary = "List the images in the cluster", .args = "", .run = run_ls};
static const struct th_cmd cmd_rm = {
    .name = "rm",
    .summary = "Remove images",
    .args = "IMAGE...",
    .min_args = 1,
    .max_args = -1,
    .complete = "image",
    .run = run_rm,
};
static const struct th_cmd cmd_tag = {
    .name = "tag",
    .summary = "Give an image another name",
    .args = "IMAGE NAME",
    .min_args = 2,
    .max_args = 2,
    .complete = "image",
    .run = run_tag,
};
static const struct th_cmd_opt save_opts[] = {
    {.name = "file",
     .short_name = 'f',
     .arg = "FILE",
     .complete = "file",
     .help = "Where to write it (standard output)"},
    {.name = NULL},
};
static const struct th_cmd cmd_save = {
    .name = "save",
    .summary = "Write images to an archive",
    .args = "IMAGE...",
    .min_args = 1,
    .max_args = -1,
    .opts = save_opts,
    .complete = "image",
    .run = run_save,
};
static const struct th_cmd_opt pull_opts[] = {
    {.name = "username", .arg = "NAME", .help = "User name at the registry (your docker login)"},
    {.name = "password-stdin", .help = "Read the password from standard input"},
    {.name = NULL},
};
static const struct th_cmd cmd_pull = {
    .name = "pull",
    .summary = "Pull images from a registry into the cluster",
    .args = "IMAGE...",
    .min_args = 1,
    .max_args = -1,
    .details = "Private images: what docker login or podman login has stored on this machine for the\n"
               "image's registry goes along, credential helpers included. Pods have imagePullSecrets.\n",
    .opts = pull_opts,
    .run = run_pull,
};
static const struct th_cmd_opt base_opts[] = {
    {.name = "context",
     .arg = "DIR",
     .complete = "dir",
     .help = "Bring the modules that this folder's go.sum names"},
    {.name = NULL},
};
static const struct th_cmd cmd_base = {
    .name = "base",
    .summary = "Make a stand-in for a golang base image from this machine's Go",
    .args = "golang:VERSION",
    .min_args = 1,
    .max_args = 1,
    .opts = base_opts,
    .run = run_base,
};
static const struct th_cmd *const subs[] = {&cmd_build, &cmd_load, &cmd_ls,   &cmd_rm, &cmd_tag,
                                            &cmd_save,  &cmd_pull, &cmd_base, NULL};
const struct th_cmd th_cmd_image = {
    .name = "image",
    .group = "Working with it",
    .summary = "Build, load, list, tag, save and remove images",
    .args = "",
    .subs = subs,
};

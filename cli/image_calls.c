/* Calls of `thimble image`: bytes go in from a descriptor, progress comes out as JSON lines. A
 * folder is sent as a tar that a thread writes into a pipe, so that nothing is kept in memory or on
 * disk. */
#include "cli/image_calls.h"
#include "base/encode.h"
#include "images/dockerignore.h"
#include "images/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

char *th_image_path(const struct th_cluster_conn *c, const char *what, const char *query)
{
    return th_xasprintf("/api/v1/nodes/%s/proxy/images%s%s%s%s", c->info.node_name,
                        *what ? "/" : "", what, *query ? "?" : "", query);
}

void th_query_add(struct th_buf *q, const char *name, const char *value)
{
    if (value) {
        th_buf_printf(q, "%s%s=", q->n ? "&" : "", name);
        th_url_escape(q, value);
    }
}

int th_image_call(struct th_cluster_conn *c, const char *method, const char *what,
                  const char *query, struct th_json **ret, struct th_err *err)
{
    th_autofree char *path = th_image_path(c, what, query);
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_raw_req req = {.method = method, .path = path};
    TH_TRY(th_client_raw(c->client, &req, NULL, &body, err));
    return th_json_parse(th_buf_cstr(&body), body.n, NULL, ret, err);
}

static long stream_in(void *arg, char *buf, size_t n)
{
    struct th_image_stream *s = arg;
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
    struct th_image_stream *s = arg;
    th_ndjson_feed(&s->lines, p, n);
    return true;
}

/* A POST whose body comes from s->fd and whose answer is JSON lines. */
int th_image_call_stream(struct th_cluster_conn *c, const char *what, const char *query,
                         struct th_image_stream *s, struct th_err *err)
{
    th_autofree char *path = th_image_path(c, what, query);
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

void th_image_loaded_line(void *arg, const struct th_json *o)
{
    const struct th_json *image = th_json_get(o, "loaded");
    if (image) {
        th_json_append(arg, th_json_dup(image));
    }
}

int th_image_load_file(struct th_cluster_conn *c, const char *path, struct th_progress *progress,
                       struct th_json *ret_images, struct th_err *err)
{
    th_autoclose int fd = -1;
    struct th_image_stream s = {.progress = progress};
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
    s.lines.line = th_image_loaded_line;
    s.lines.arg = ret_images;
    int r = th_image_call_stream(c, "load", "", &s, err);
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
int th_image_call_with_folder(struct th_cluster_conn *c, const char *what, const char *query,
                              const char *dir, const char *dockerfile, struct th_image_stream *s,
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
    int r = th_image_call_stream(c, what, query, s, err);
    (void)close(pipes[0]); /* a writer that still writes gets EPIPE */
    (void)pthread_join(thread, NULL);
    if (job.result < 0 && job.err.sys_errno != EPIPE) {
        r = job.result;
        th_err_move(err, &job.err);
    }
    th_err_done(&job.err);
    return r;
}

void th_image_print(const struct th_cli *cli, struct th_json *images, const char *verb)
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

void th_image_short_id(const char *id, char out[13])
{
    const char *colon = id ? strchr(id, ':') : NULL;
    (void)snprintf(out, 13, "%.12s", colon ? colon + 1 : id ? id : "");
}

/* thimble image build, thimble image base: images made from a Dockerfile, from Go sources, or from
 * the host's Go.
 *
 * golang base images that the cluster lacks are made from the host's Go toolchain (images/gobase.h)
 * before the build, and again when the build reports one missing, since a name may only be known
 * after ARGs are expanded.
 */
#include "cli/image_calls.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "images/dockerfile.h"
#include "images/gobase.h"
#include "images/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define MAX_REPEAT 64

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
    TH_TRY(th_image_load_file(c, made.archive, progress, ret_images ? ret_images : images, err));
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
    th_image_print(cli, images, "made");
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
            TH_TRY(th_image_call(c, "GET", "", "", &list, err));
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
            th_query_add(&query, repeated[k][1], values[i]);
        }
    }
    th_query_add(&query, "dockerfile", dockerfile);
    th_query_add(&query, "target", th_opt_str(cli, "target"));
    th_query_add(&query, "platform", th_opt_str(cli, "platform"));
    th_query_add(&query, "noCache", th_opt_bool(cli, "no-cache") ? "true" : NULL);
    for (int attempt = 0;; attempt++) {
        struct build_view view = {.progress = progress, .cli = cli, .tail = TH_BUF_INIT};
        struct th_image_stream s = {.fd = -1, .progress = progress};
        s.lines.line = build_line;
        s.lines.arg = &view;
        th_progress_step(progress, "Sending the build context");
        int r =
            th_image_call_with_folder(c, "build", th_buf_cstr(&query), dir, dockerfile, &s, err);
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
        r = th_image_load_file(c, out, progress, images, err);
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
        th_image_short_id(th_json_path_str(result, "id"), id);
        printf("built %s (%s) in %s\n", n_tags ? tags[0] : "an image without a name", id,
               th_format_ms(th_mono_ms() - progress.began_ms, took));
    }
    return 0;
}

/* ---- Rows ---- */

static const struct th_cmd_opt base_opts[] = {
    {.name = "context",
     .arg = "DIR",
     .complete = "dir",
     .help = "Bring the modules that this folder's go.sum names"},
    {.name = NULL},
};
const struct th_cmd th_cmd_image_base = {
    .name = "base",
    .summary = "Make a stand-in for a golang base image from this machine's Go",
    .args = "golang:VERSION",
    .min_args = 1,
    .max_args = 1,
    .opts = base_opts,
    .run = run_base,
};
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
const struct th_cmd th_cmd_image_build = {
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

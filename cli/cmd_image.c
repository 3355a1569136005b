/* thimble image ...: what is in the cluster's store: load, list, remove, tag, save, pull. Building
 * is cmd_image_build.c. */
#include "cli/image_calls.h"
#include "cli/registry_login.h"
#include "base/clock.h"
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

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
            struct th_image_stream s = {.fd = -1, .progress = &progress};
            s.lines.line = th_image_loaded_line;
            s.lines.arg = images;
            int r = th_image_call_with_folder(&c, "load", "", path, NULL, &s, err);
            th_ndjson_done(&s.lines);
            TH_TRY(r);
        } else {
            TH_TRY(th_image_load_file(&c, path, &progress, images, err));
        }
        th_progress_done(&progress);
    }
    th_image_print(cli, images, "loaded");
    return 0;
}

static int run_ls(struct th_cli *cli, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    struct th_json *o TH_AUTO(th_json) = NULL;
    TH_TRY(th_cluster_open(cli, &c, err));
    TH_TRY(th_image_call(&c, "GET", "", "", &o, err));
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
        th_image_short_id(th_json_path_str(image, "id"), id);
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
        th_query_add(&query, "ref", cli->args[i]);
        TH_TRY(th_image_call(&c, "DELETE", "", th_buf_cstr(&query), &o, err));
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
    th_query_add(&query, "source", cli->args[0]);
    th_query_add(&query, "target", cli->args[1]);
    TH_TRY(th_cluster_open(cli, &c, err));
    TH_TRY(th_image_call(&c, "POST", "tag", th_buf_cstr(&query), &o, err));
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
        th_query_add(&query, "ref", cli->args[i]);
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
    th_autofree char *path = th_image_path(&c, "save", th_buf_cstr(&query));
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
        struct th_image_stream s = {.fd = body, .progress = &progress};
        th_query_add(&query, "ref", cli->args[i]);
        th_progress_step(&progress, "Pulling %s", cli->args[i]);
        s.lines.line = note_line;
        s.lines.arg = &progress;
        int r = th_image_call_stream(&c, "pull", th_buf_cstr(&query), &s, err);
        if (r == 0) {
            th_json_append(images, th_json_build("{'ref':%s,'id':%s}", cli->args[i],
                                                 th_json_path_str(s.lines.last, "id")));
        }
        th_ndjson_done(&s.lines);
        TH_TRY(r);
        th_progress_done(&progress);
    }
    th_image_print(cli, images, "pulled");
    return 0;
}

/* ---- Rows ---- */

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
    .details =
        "Private images: what docker login or podman login has stored on this machine for the\n"
        "image's registry goes along, credential helpers included. Pods have imagePullSecrets.\n",
    .opts = pull_opts,
    .run = run_pull,
};
static const struct th_cmd *const subs[] = {
    &th_cmd_image_build, &cmd_load,          &cmd_ls, &cmd_rm, &cmd_tag, &cmd_save,
    &cmd_pull,           &th_cmd_image_base, NULL};
const struct th_cmd th_cmd_image = {
    .name = "image",
    .group = "Working with it",
    .summary = "Build, load, list, tag, save and remove images",
    .args = "",
    .subs = subs,
};

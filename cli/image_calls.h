#ifndef TH_CLI_IMAGE_CALLS_H
#define TH_CLI_IMAGE_CALLS_H
/* What the commands of `thimble image` share: calls to the node agent's image store, through the
 * API server with the admin's certificate (docs/architecture.md, "Images"). */
#include "cli/cluster.h"
#include "cli/output.h"

/* A call whose body is read from fd and whose answer is JSON lines. */
struct th_image_stream {
    int fd;              /* body; -1: none */
    uint64_t sent, size; /* size 0: not known */
    struct th_ndjson lines;
    struct th_progress *progress;
};

/* Appends name=value, escaped, to a query; nothing when value is NULL. */
void th_query_add(struct th_buf *q, const char *name, const char *value);
/* Where such a call goes; caller frees. */
char *th_image_path(const struct th_cluster_conn *c, const char *what, const char *query);
/* One call with a JSON answer; what: "" for the images themselves, "tag", ... */
int th_image_call(struct th_cluster_conn *c, const char *method, const char *what,
                  const char *query, struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* A POST whose body comes from s->fd; s->lines.line is called for each line of the answer. The
 * caller ends s->lines. */
int th_image_call_stream(struct th_cluster_conn *c, const char *what, const char *query,
                         struct th_image_stream *s, struct th_err *err) TH_MUST_USE;
/* The same with dir as a tar stream for its body: a build context, or (dockerfile NULL) all of it.
 */
int th_image_call_with_folder(struct th_cluster_conn *c, const char *what, const char *query,
                              const char *dir, const char *dockerfile, struct th_image_stream *s,
                              struct th_err *err) TH_MUST_USE;
/* Loads an archive ("-": standard input) and appends {"ref","id"} of each image to ret_images. */
int th_image_load_file(struct th_cluster_conn *c, const char *path, struct th_progress *progress,
                       struct th_json *ret_images, struct th_err *err) TH_MUST_USE;
/* A line of a load's answer, for th_ndjson.line; arg: the array of images. */
void th_image_loaded_line(void *arg, const struct th_json *o);
/* The images of a command's end: "loaded NAME" each, or {"images":[...]} with -o json. */
void th_image_print(const struct th_cli *cli, struct th_json *images, const char *verb);

/* The twelve digits that people know an image by. */
void th_image_short_id(const char *id, char out[13]);

/* cmd_image_build.c */
extern const struct th_cmd th_cmd_image_build, th_cmd_image_base;
#endif

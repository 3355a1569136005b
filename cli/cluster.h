#ifndef TH_CLI_CLUSTER_H
#define TH_CLI_CLUSTER_H
/* A running cluster as commands use it. */
#include "cli/cmd.h"
#include "controlplane/client/client.h"
#include "vm/launcher/launcher.h"

struct th_cluster_conn {
    struct th_machine_info info;
    struct th_client *client; /* the admin's */
};
/* Opens the profile's running cluster. TH_R_NOT_RUNNING and TH_R_NOT_FOUND say what to type. */
int th_cluster_open(const struct th_cli *cli, struct th_cluster_conn *ret,
                    struct th_err *err) TH_MUST_USE;
void th_cluster_done(struct th_cluster_conn *c);
#define TH_AUTO_CLUSTER TH_CLEANUP(th_cluster_done)

/* A th_machine_progress_fn that shows the launcher's steps; arg is a struct th_progress. */
void th_machine_step(void *arg, const char *step, int64_t ms);

/* Reads a stream of JSON lines (the node agent's long calls): collects bytes, hands over each whole
 * line as a tree. The line with "error" becomes the stream's error, "done" ends it well. */
struct th_ndjson {
    void (*line)(void *arg, const struct th_json *o);
    void *arg;
    struct th_buf pending;
    struct th_json *last; /* the line with "done", or NULL */
    struct th_err err;    /* from the line with "error" */
};
void th_ndjson_feed(struct th_ndjson *s, const char *p, size_t n);
/* After the call: 0 when "done" came; else the error that came, or that the stream broke off. */
int th_ndjson_finish(struct th_ndjson *s, struct th_err *err) TH_MUST_USE;
void th_ndjson_done(struct th_ndjson *s);
#endif

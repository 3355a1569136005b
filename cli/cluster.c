/*
 * Reaching a running cluster from a command: the profile says where the API is and holds the
 * admin's certificate, so commands work without a kubeconfig and whatever its current context is.
 */
#include "cli/cluster.h"
#include "cli/output.h"
#include "base/limits.h"
#include <stdio.h>

static void show_warning(void *arg, const char *text)
{
    (void)arg;
    fprintf(stderr, "Warning: %s\n", text); /* the words that kubectl uses */
}

int th_cluster_open(const struct th_cli *cli, struct th_cluster_conn *ret, struct th_err *err)
{
    struct th_cluster_conn c TH_CLEANUP(th_cluster_done) = {.client = NULL};
    bool is_default = th_streq(cli->profile, TH_PROFILE_DEFAULT);
    int r = th_machine_status(cli->profile, &c.info, err);
    if (r == -TH_R_NOT_FOUND || (r == 0 && !c.info.running)) {
        (void)th_fail(err, TH_R_NOT_RUNNING, "the cluster \"%s\" is not running", cli->profile);
        return is_default ? th_hint(err, "start it with \"thimble start\"")
                          : th_hint(err, "start it with \"thimble start -p %s\"", cli->profile);
    }
    TH_TRY(r);
    struct th_client_http_opts o = {
        .server = c.info.api_url,
        .ca_pem = c.info.ca_pem,
        .cert_pem = c.info.admin_cert_pem,
        .key_pem = c.info.admin_key_pem,
        .user_agent = "thimble/" TH_VERSION,
        .on_warning = show_warning,
    };
    TH_TRY(th_client_new_http(&o, &c.client, err));
    *ret = c;
    c = (struct th_cluster_conn){.client = NULL};
    return 0;
}

void th_cluster_done(struct th_cluster_conn *c)
{
    th_client_free(c->client);
    th_machine_info_done(&c->info);
    *c = (struct th_cluster_conn){.client = NULL};
}

static const struct {
    const char *step;
    const char *text;
} step_texts[] = {
    {"prepare", "Preparing the profile"},    {"disk", "Preparing the disk"},
    {"machine", "Starting the machine"},     {"kernel", "Booting the kernel"},
    {"restore", "Restoring the machine"},    {"template", "Making a template"},
    {"data-disk", "Mounting the data disk"}, {"controlplane", "Starting the control plane"},
    {"node", "Starting the node"},           {"stop-pods", "Stopping pods"},
    {"shutdown", "Shutting down"},
};

void th_machine_step(void *arg, const char *step, int64_t ms)
{
    if (ms >= 0) {
        th_progress_done(arg);
        return;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(step_texts); i++) {
        if (th_streq(step_texts[i].step, step)) {
            th_progress_step(arg, "%s", step_texts[i].text);
            return;
        }
    }
    th_progress_step(arg, "%s", step);
}

static void one_line(struct th_ndjson *s, const char *p, size_t n)
{
    struct th_json *o TH_AUTO(th_json) = NULL;
    if (n == 0 || th_json_parse(p, n, NULL, &o, NULL) < 0) {
        return;
    }
    const struct th_json *e = th_json_get(o, "error");
    if (e) {
        const char *msg = th_json_path_str(e, "message");
        (void)th_fail(&s->err, th_reason_from_code(th_json_path_str(e, "reason"), TH_R_INTERNAL), "%s",
                      msg ? msg : "the node failed without saying why");
        if (th_json_path_str(e, "hint")) {
            (void)th_hint(&s->err, "%s", th_json_path_str(e, "hint"));
        }
        if (th_json_path_str(e, "ref")) {
            free(s->err.name);
            s->err.name = th_xstrdup(th_json_path_str(e, "ref"));
        }
    } else if (th_json_path_bool(o, "done", false)) {
        th_json_unref(s->last);
        s->last = th_json_ref(o);
    } else if (s->line) {
        s->line(s->arg, o);
    }
}

void th_ndjson_feed(struct th_ndjson *s, const char *p, size_t n)
{
    th_buf_add(&s->pending, p, n);
    for (;;) {
        const char *nl = s->pending.n ? memchr(s->pending.p, '\n', s->pending.n) : NULL;
        if (!nl) {
            break;
        }
        size_t len = (size_t)(nl - s->pending.p);
        one_line(s, s->pending.p, len);
        th_buf_consume(&s->pending, len + 1);
    }
}

int th_ndjson_finish(struct th_ndjson *s, struct th_err *err)
{
    if (s->pending.n) {
        one_line(s, s->pending.p, s->pending.n);
        th_buf_clear(&s->pending);
    }
    if (s->err.reason != TH_R_OK) {
        int r = -(int)s->err.reason;
        if (err) {
            th_err_move(err, &s->err);
        }
        return r;
    }
    if (!s->last) {
        (void)th_fail(err, TH_R_UNAVAILABLE, "the answer of the cluster broke off");
        return th_hint(err, "look at \"thimble status\" and \"thimble console\", then try again");
    }
    return 0;
}

void th_ndjson_done(struct th_ndjson *s)
{
    th_buf_done(&s->pending);
    th_json_unref(s->last);
    th_err_done(&s->err);
    *s = (struct th_ndjson){.line = NULL};
}

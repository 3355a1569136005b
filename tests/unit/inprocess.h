#ifndef TH_TEST_INPROCESS_H
#define TH_TEST_INPROCESS_H
/* A control plane in this process, in memory, on a simulated clock: for controllers and scheduler,
 * whose timers of minutes are tests of milliseconds here. Nothing but the tests moves the time;
 * conditions are waited for in real time. */
#include "api_fixture.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/json/json.h"
#include "base/log.h"
#include "controlplane/api/local.h"
#include "controlplane/controllers/controllers.h"
#include "controlplane/scheduler/scheduler.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define T0_MS 1767225600000 /* 2026-01-01T00:00:00Z */
#define WAIT_MS 20000

struct inproc {
    struct api_fixture f;
    struct th_client *client;
    struct th_controllers *controllers;
    struct th_scheduler *scheduler;
    char volumes_dir[32]; /* of the class `standard`, with controllers; removed at the end */
};

/* only: as th_controllers_opts.only, NULL: no controllers. */
static inline struct inproc *inproc_new(const char *only, bool scheduler)
{
    struct inproc *p = TH_NEW(struct inproc);
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    th_clock_simulate(T0_MS);
    if (only) {
        (void)snprintf(p->volumes_dir, sizeof(p->volumes_dir), "/tmp/th-volumes-XXXXXX");
        assert_non_null(mkdtemp(p->volumes_dir));
        p->f.volumes_dir = p->volumes_dir;
    }
    static const char *const no_plugins[] = {"ServiceAccount", "TaintNodesByCondition", NULL};
    api_fixture_start(&p->f, NULL, &(struct th_api_opts){.disable_admission = no_plugins});
    assert_int_equal(th_client_new_local(p->f.api, NULL, NULL, "test", &p->client, &err), 0);
    if (only) {
        struct th_controllers_opts co = {.only = only,
                                         .pod_cidr = p->f.cluster.pod_cidr,
                                         .volumes_dir = p->volumes_dir};
        assert_int_equal(th_controllers_start(p->client, &co, &p->controllers, &err), 0);
    }
    if (scheduler) {
        struct th_scheduler_opts o = {.name = NULL};
        assert_int_equal(th_scheduler_start(p->client, &o, &p->scheduler, &err), 0);
    }
    return p;
}

static inline void inproc_free(struct inproc *p)
{
    th_scheduler_stop(p->scheduler);
    th_controllers_stop(p->controllers);
    th_client_free(p->client);
    api_fixture_stop(&p->f);
    th_clock_real();
    if (*p->volumes_dir) {
        (void)th_io_rm_rf(p->volumes_dir, NULL);
    }
    free(p);
}

static inline void pause_ms(long ms)
{
    struct timespec ts = {ms / 1000, (ms % 1000) * 1000000};
    (void)nanosleep(&ts, NULL);
}

/* The object at path ("/api/v1/nodes/n"), or NULL; the caller unrefs. */
static inline struct th_json *api_get(struct inproc *p, const char *path)
{
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_json *o = NULL;
    struct th_raw_req req = {.method = "GET", .path = path};
    if (th_client_raw(p->client, &req, NULL, &body, &err) < 0) {
        return NULL;
    }
    assert_int_equal(th_json_parse(th_buf_cstr(&body), body.n, NULL, &o, &err), 0);
    return o;
}

/* Sends text (single quotes stand for double ones); fails the test when it is refused. */
static inline void api_send(struct inproc *p, const char *method, const char *path, const char *type,
                            const char *text)
{
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_autofree char *quoted = th_xstrdup(text);
    for (char *c = quoted; *c; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    struct th_raw_req req = {.method = method,
                             .path = path,
                             .content_type = type,
                             .body = {quoted, strlen(quoted)}};
    if (th_client_raw(p->client, &req, NULL, &body, &err) < 0) {
        fail_msg("%s %s: %s", method, path, err.msg);
    }
}

static inline void api_make(struct inproc *p, const char *path, const char *text)
{
    api_send(p, "POST", path, "application/json", text);
}

static inline void api_patch(struct inproc *p, const char *path, const char *text)
{
    api_send(p, "PATCH", path, "application/merge-patch+json", text);
}

static inline void api_delete(struct inproc *p, const char *path)
{
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    struct th_buf body TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_raw_req req = {.method = "DELETE", .path = path};
    assert_int_equal(th_client_raw(p->client, &req, NULL, &body, &err), 0);
}

/* Waits until check(object at path, which may be NULL) is true. The clock creeps on meanwhile, for
 * what is tried again after a conflict. */
static inline void await(struct inproc *p, const char *what, const char *path,
                         bool (*check)(const struct th_json *o))
{
    int64_t until = th_mono_real_ms() + WAIT_MS;
    for (;;) {
        struct th_json *o TH_AUTO(th_json) = api_get(p, path);
        if (check(o)) {
            return;
        }
        if (th_mono_real_ms() > until) {
            th_autofree char *text = th_json_to_string(o);
            fail_msg("waited for: %s\n%s", what, text);
        }
        pause_ms(5);
        th_clock_advance_ms(5);
    }
}
#endif

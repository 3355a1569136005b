/* The service proxy: keeps the node's nftables in step with Services and EndpointSlices.
 *
 * Two informers only raise a flag. One thread takes what has come in within a few milliseconds
 * together, makes the whole ruleset (ruleset.c) and loads it in one transaction when its text is
 * another than last time; then host ports and DNS get the same state. A transaction that the kernel
 * refuses leaves the old rules in place and is tried again with back-off.
 *
 * libnftables is not thread-safe within a context: each transaction has its own. Its messages go
 * to a buffer and into our log. */
#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "controlplane/client/client.h"
#include "vm/node/net/net_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <nftables/libnftables.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define DEBOUNCE_MS 15
#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 30000
#define SYNC_WAIT_MS 100

struct th_services {
    struct th_net *n;
    struct th_informer *svc, *slices;
    pthread_t thread;
    pthread_mutex_t mu; /* guards dirty, stop */
    pthread_cond_t cond;
    bool dirty, stop;
    char *loaded; /* of the thread */
};

int th_nft_run(const char *text, struct th_err *err)
{
    struct nft_ctx *c = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!c) {
        return th_fail(err, TH_R_IO, "nftables cannot be reached");
    }
    (void)nft_ctx_buffer_output(c);
    (void)nft_ctx_buffer_error(c);
    int r = nft_run_cmd_from_buffer(c, text);
    if (r != 0) {
        const char *msg = nft_ctx_get_error_buffer(c);
        const char *end = msg ? strchr(msg, '\n') : NULL;
        (void)th_fail(err, TH_R_IO, "nftables: %.*s", end ? (int)(end - msg) : 200, msg ? msg : "failed");
    }
    nft_ctx_free(c);
    return r == 0 ? 0 : -TH_R_IO;
}

/* ---- a pod's own rules ---- */

struct pod_job {
    int ns_fd;
    const char *text;
    int r;
    struct th_err *err;
};

static void *pod_thread(void *arg)
{
    struct pod_job *j = arg;
    /* /proc/sys/net shows the namespace of the thread that opens it */
    if (setns(j->ns_fd, CLONE_NEWNET) < 0) {
        j->r = th_fail_errno(j->err, errno, TH_R_IO, "entering the pod's network namespace");
        return NULL;
    }
    j->r = th_io_write_file("/proc/sys/net/ipv4/conf/all/route_localnet", "1", 1, 0644, j->err);
    j->r = j->r < 0 ? j->r : th_nft_run(j->text, j->err);
    return NULL;
}

int th_nft_pod(const char *netns_path, const struct th_net_opts *o, struct th_err *err)
{
    th_autoclose int fd = open(netns_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "open %s", netns_path);
    }
    th_autofree char *lb = th_xasprintf("127.%d.0.0/16", 96 + o->profile_number);
    th_autofree char *text = th_xasprintf(
        "add table ip thimble\ndelete table ip thimble\ntable ip thimble {\n"
        "\tchain output {\n\t\ttype nat hook output priority -100\n"
        "\t\tdnat ip prefix to ip daddr map { %s : %s }\n\t}\n"
        "\tchain postrouting {\n\t\ttype nat hook postrouting priority 100\n"
        "\t\toifname \"eth0\" ip saddr 127.0.0.0/8 masquerade\n\t}\n}\n",
        lb, o->service_cidr);
    struct pod_job j = {.ns_fd = fd, .text = text, .err = err};
    pthread_t t;
    int e = pthread_create(&t, NULL, pod_thread, &j);
    if (e != 0) {
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    pthread_join(t, NULL);
    return j.r;
}

/* ---- the thread ---- */

static void on_event(void *arg, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    (void)now;
    struct th_services *s = arg;
    pthread_mutex_lock(&s->mu);
    s->dirty = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mu);
}

static void on_synced(void *arg)
{
    on_event(arg, NULL, NULL);
}

static bool keep(void *arg, struct th_json *obj)
{
    th_json_append(arg, th_json_ref(obj));
    return true;
}

static int by_name(const struct th_json *a, const struct th_json *b)
{
    const char *const paths[] = {"metadata.namespace", "metadata.name"};
    for (size_t i = 0; i < TH_ARRAY_LEN(paths); i++) {
        const char *x = th_json_path_str(a, paths[i]), *y = th_json_path_str(b, paths[i]);
        int c = strcmp(x ? x : "", y ? y : "");
        if (c) {
            return c;
        }
    }
    return 0;
}

/* 0, or negative when it has to be tried again. */
static int rebuild(struct th_services *s)
{
    TH_AUTO(th_json) struct th_json *svcs = th_json_array(), *slices = th_json_array();
    th_informer_each(s->svc, NULL, keep, svcs);
    th_informer_each(s->slices, NULL, keep, slices);
    th_json_sort(svcs, by_name);
    th_json_sort(slices, by_name);
    if (s->n->dns) {
        th_dns_update(s->n->dns, svcs, slices);
    }
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_ruleset_build(&s->n->o, svcs, slices, &text);
    int r = 0;
    if (!th_streq(s->loaded, th_buf_cstr(&text))) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int64_t at = th_mono_ms();
        r = th_nft_run(th_buf_cstr(&text), &err);
        if (r < 0) {
            th_warn("net", "service rules not loaded", "err=%s", th_log_q(err.msg));
        } else {
            free(s->loaded);
            s->loaded = th_buf_steal(&text, NULL);
            th_debug("net", "service rules loaded", "services=%zu ms=%lld", th_json_len(svcs),
                     (long long)(th_mono_ms() - at));
        }
    }
    if (s->n->hostports) {
        th_hostports_update(s->n->hostports, th_steal(&svcs));
    }
    return r;
}

/* Waits for a change, or until wait_ms have gone by when that is not 0. false: stop. */
static bool wait_change(struct th_services *s, int wait_ms)
{
    struct timespec end;
    (void)clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += wait_ms / 1000;
    end.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->mu);
    while (!s->dirty && !s->stop) {
        if (wait_ms == 0) {
            pthread_cond_wait(&s->cond, &s->mu);
        } else if (pthread_cond_timedwait(&s->cond, &s->mu, &end) == ETIMEDOUT) {
            break;
        }
    }
    bool stop = s->stop;
    pthread_mutex_unlock(&s->mu);
    return !stop;
}

static void *services_thread(void *arg)
{
    struct th_services *s = arg;
    int wait = 0;
    while (wait_change(s, wait)) {
        th_sleep_ms(DEBOUNCE_MS);
        pthread_mutex_lock(&s->mu);
        s->dirty = false;
        pthread_mutex_unlock(&s->mu);
        if (!th_informer_synced(s->svc) || !th_informer_synced(s->slices)) {
            wait = SYNC_WAIT_MS; /* half a picture would take working rules away */
            continue;
        }
        if (rebuild(s) < 0) {
            wait = wait < RETRY_MIN_MS ? RETRY_MIN_MS : wait * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : wait * 2;
        } else {
            wait = 0;
        }
    }
    return NULL;
}

int th_services_start(struct th_net *n, struct th_services **ret, struct th_err *err)
{
    struct th_services *s = TH_NEW(struct th_services);
    s->n = n;
    pthread_mutex_init(&s->mu, NULL);
    pthread_cond_init(&s->cond, NULL);
    struct th_informer_opts a = {
        .gvr = TH_GVR_SERVICES, .on_event = on_event, .on_synced = on_synced, .arg = s};
    struct th_informer_opts b = a;
    b.gvr = TH_GVR_ENDPOINTSLICES;
    int r = th_informer_start(n->o.client, &a, &s->svc, err);
    r = r < 0 ? r : th_informer_start(n->o.client, &b, &s->slices, err);
    int e = r < 0 ? 0 : pthread_create(&s->thread, NULL, services_thread, s);
    if (r < 0 || e != 0) {
        if (s->svc) {
            th_informer_stop(s->svc);
        }
        if (s->slices) {
            th_informer_stop(s->slices);
        }
        free(s);
        return r < 0 ? r : th_fail_errno(err, e, TH_R_INTERNAL, "starting a thread");
    }
    *ret = s;
    return 0;
}

void th_services_stop(struct th_services *s)
{
    if (!s) {
        return;
    }
    pthread_mutex_lock(&s->mu);
    s->stop = true;
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mu);
    pthread_join(s->thread, NULL);
    th_informer_stop(s->svc);
    th_informer_stop(s->slices);
    pthread_cond_destroy(&s->cond);
    pthread_mutex_destroy(&s->mu);
    free(s->loaded);
    free(s);
}

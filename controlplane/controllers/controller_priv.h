#ifndef TH_CONTROLLER_PRIV_H
#define TH_CONTROLLER_PRIV_H
/* Between the files of the controller runtime: controller.c (rows, queue, workers, start and stop),
 * caches.c (informers, what is awaited from them) and controller_help.c (what rows share). */
#include "base/hmap.h"
#include "base/workqueue.h"
#include "controlplane/controllers/controller.h"
#include <pthread.h>

struct th_ctrl_cache {
    struct th_controllers *set;
    struct th_rl_item r; /* strings are owned */
    struct th_informer *informer;
    bool declared;   /* a row watches it: lives as long as the set, whole objects */
    int64_t seen_rv; /* set->lock */
};

struct th_ctrl {
    const struct th_controller *row;
    struct th_controllers *set;
    size_t index;
    struct th_client *client;    /* its own, or the set's */
    struct th_recorder *recorder;
    void *state;
};

struct th_controllers {
    struct th_client *client;
    struct th_controllers_opts opts;
    char *only, *pod_cidr, *service_cidr, *cluster_domain, *ca_cert_pem, *volumes_dir,
        *control_plane_ip;
    struct th_ctrl *controllers; /* do not change between start and stop */
    size_t n;
    struct th_ctrl_cache **declared; /* do not change either */
    size_t n_declared;
    struct th_ctrl_cache **others; /* lock; come and go with what the API serves (one worker) */
    size_t n_others;               /* lock */
    struct th_rl served; /* lock */
    struct th_wq *queue;
    pthread_t *workers;
    size_t n_workers;
    pthread_mutex_t lock;
    struct th_hmap expectations; /* lock; full key -> struct th_ctrl_await */
    pthread_cond_t started_cond;
    bool started;  /* lock; all declared informers exist */
    bool stopping; /* atomic */
    bool any;      /* some row has on_any */
};

/* caches.c */
void th_ctrl_caches_init(struct th_controllers *set);
void th_ctrl_caches_done(struct th_controllers *set);
struct th_ctrl_cache *th_ctrl_cache_find(struct th_controllers *set, struct th_gvr gvr);
void th_ctrl_cache_declare(struct th_controllers *set, const struct th_rl_item *r);
/* Starts the informers of the declared ones. */
int th_ctrl_caches_start(struct th_controllers *set, struct th_err *err) TH_MUST_USE;
/* Looks at what is served and starts and stops the informers of what nobody declared. One thread at
 * a time. */
int th_ctrl_caches_follow(struct th_controllers *set, struct th_err *err) TH_MUST_USE;
/* Whether something written for this full key ("<index>|<key>") has not come through yet. */
bool th_ctrl_awaits(struct th_controllers *set, const char *full);

/* controller.c */
#define TH_CTRL_FOLLOW_KEY "follow" /* a queue key of the runtime's own */
char *th_ctrl_full_key(const struct th_ctrl *c, const char *key); /* the caller frees */
#endif

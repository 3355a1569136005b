/* The trigger times; see trigger_time.h. As k8s.io/endpointslice/trigger_time_tracker.go: a pod's
 * time is the last change of its Ready condition (its creation while it has none), a Service's is
 * its creation; only times that moved since the last look count, the least of them is the answer. */
#include "controlplane/controllers/trigger_time.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/hmap.h"
#include <pthread.h>

struct seen {
    int64_t svc_ms;
    struct th_hmap pods; /* name -> time as a pointer-sized number (seconds) */
};
struct th_triggers {
    pthread_mutex_t lock;
    struct th_hmap services; /* lock; key -> struct seen */
};

static void seen_free(void *p)
{
    struct seen *s = p;
    if (s) {
        th_hmap_done(&s->pods);
        free(s);
    }
}

void *th_triggers_new(struct th_ctrl *c)
{
    (void)c;
    struct th_triggers *t = TH_NEW(struct th_triggers);
    pthread_mutex_init(&t->lock, NULL);
    th_hmap_init(&t->services, seen_free);
    return t;
}

void th_triggers_free(void *p)
{
    struct th_triggers *t = p;
    th_hmap_done(&t->services);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static int64_t pod_time(const struct th_json *pod)
{
    int64_t ms = th_obj_time_ms(th_cond_get(pod, "Ready"), "lastTransitionTime");
    return ms ? ms : th_obj_time_ms(pod, "metadata.creationTimestamp");
}

static void least(int64_t *min, int64_t ms)
{
    *min = *min == 0 || ms < *min ? ms : *min;
}

int64_t th_triggers_step(struct th_triggers *t, const char *key, const struct th_json *svc,
                         const struct th_pods *pods)
{
    int64_t min = 0;
    pthread_mutex_lock(&t->lock);
    struct seen *before = th_hmap_remove(&t->services, key);
    struct seen *now = TH_NEW(struct seen);
    th_hmap_init(&now->pods, NULL);
    now->svc_ms = th_obj_time_ms(svc, "metadata.creationTimestamp");
    for (size_t i = 0; i < pods->n; i++) {
        const char *name = th_json_path_str(pods->v[i], "metadata.name");
        int64_t ms = pod_time(pods->v[i]);
        uintptr_t s = (uintptr_t)(ms / 1000);
        th_hmap_set(&now->pods, name, (void *)s);
        if (ms && s > (before ? (uintptr_t)th_hmap_get(&before->pods, name) : 0)) {
            least(&min, ms);
        }
    }
    if (now->svc_ms > (before ? before->svc_ms : 0)) {
        least(&min, now->svc_ms);
    }
    th_hmap_set(&t->services, key, now);
    pthread_mutex_unlock(&t->lock);
    seen_free(before);
    return min;
}

void th_triggers_forget(struct th_triggers *t, const char *key)
{
    pthread_mutex_lock(&t->lock);
    struct seen *s = th_hmap_remove(&t->services, key);
    pthread_mutex_unlock(&t->lock);
    seen_free(s);
}

void th_trigger_annotate(struct th_json *obj, int64_t ms)
{
    if (ms) {
        char text[TH_TIME_LEN];
        struct th_json *a = th_json_path_object(obj, "metadata.annotations");
        th_json_set_str(a, TH_TRIGGER_ANNOTATION, th_time_format(ms, text));
    } else {
        (void)th_json_del(th_json_path(obj, "metadata.annotations"), TH_TRIGGER_ANNOTATION);
    }
}

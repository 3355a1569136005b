#ifndef TH_TRIGGER_TIME_H
#define TH_TRIGGER_TIME_H
/* When the change happened that a slice or an Endpoints object is written for: clients measure the
 * delay of the network's programming with it. One tracker per controller; thread-safe. */
#include "controlplane/controllers/pod_control.h"

#define TH_TRIGGER_ANNOTATION "endpoints.kubernetes.io/last-change-trigger-time"

struct th_triggers;
void *th_triggers_new(struct th_ctrl *c); /* fits th_controller.state_new */
void th_triggers_free(void *t);
/* The earliest change of the service or its pods since the last call for key, in milliseconds; 0
 * when there is none that has a time. */
int64_t th_triggers_step(struct th_triggers *t, const char *key, const struct th_json *svc,
                         const struct th_pods *pods);
void th_triggers_forget(struct th_triggers *t, const char *key);
/* Sets or removes the annotation. */
void th_trigger_annotate(struct th_json *obj, int64_t ms);
#endif

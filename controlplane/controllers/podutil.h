#ifndef TH_CONTROLLERS_PODUTIL_H
#define TH_CONTROLLERS_PODUTIL_H
/* What several controllers ask of pods, templates and conditions. */
#include "base/json/json.h"

/* The condition of that type in obj.status.conditions, borrowed, or NULL. */
struct th_json *th_cond_get(const struct th_json *obj, const char *type);
bool th_cond_is_true(const struct th_json *obj, const char *type);
/* Sets {type,status,reason,message} in a conditions array. When status and reason are as before
 * nothing changes and false is returned; lastTransitionTime moves only with status. with_update
 * adds lastUpdateTime (Deployments). */
bool th_cond_set(struct th_json *conditions, const char *type, const char *status,
                 const char *reason, const char *message, bool with_update);
/* The same for lists that keep their order (Namespaces, Jobs, Nodes): changed in place or added at
 * the end; a new message alone counts as a change too. */
bool th_cond_put(struct th_json *conditions, const char *type, const char *status,
                 const char *reason, const char *message);
bool th_cond_remove(struct th_json *conditions, const char *type);

bool th_pod_is_active(const struct th_json *pod); /* not ended and not being deleted */
bool th_pod_is_terminating(const struct th_json *pod); /* being deleted, not ended */
/* A count in a status: 0 is not shown, as Go's omitempty leaves it out. */
void th_status_count(struct th_json *status, const char *name, int64_t value);
bool th_pod_is_ready(const struct th_json *pod);
/* Ready for at least min_ready_s. *ret_wait_ms (may be NULL) says when it will be, 0 if not by
 * itself. */
bool th_pod_is_available(const struct th_json *pod, int64_t min_ready_s, int64_t *ret_wait_ms);
/* A pod object from a PodTemplateSpec: generateName "<owner>-", labels, annotations, finalizers,
 * spec, and a controlling owner reference. The caller unrefs. */
struct th_json *th_pod_from_template(const struct th_json *tmpl, const struct th_json *owner);
/* What names and labels of ReplicaSets and ControllerRevisions end with: FNV-1a over the template's
 * JSON in canonical order and the collision count, in the letters of SafeEncodeString. Upstream
 * hashes a dump of Go structs: clients never compute it, any stable hash will do. */
void th_template_hash(const struct th_json *tmpl, int64_t collisions, char out[16]);
/* metav1.Time of a path in milliseconds; 0 when missing. */
int64_t th_obj_time_ms(const struct th_json *obj, const char *path);
/* The current time as a metav1.Time string node. */
struct th_json *th_time_now_json(void);
#endif

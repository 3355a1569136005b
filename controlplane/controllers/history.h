#ifndef TH_CTRL_HISTORY_H
#define TH_CTRL_HISTORY_H
/* ControllerRevisions: the past templates of a DaemonSet or StatefulSet, for undo. */
#include "controlplane/controllers/pod_control.h"

#define TH_GVR_REVISIONS ((struct th_gvr){"apps", "v1", "controllerrevisions"})
#define TH_REVISION_HASH_LABEL "controller-revision-hash"

/* The revision of owner's template now, made or brought to the front when it is not the newest.
 * *ret_all: array of all of them, oldest first, the current one last. ret_collisions is raised when
 * a name was taken by something else. Borrowed result: the last element. */
int th_history_current(struct th_ctrl *c, const char *key, const struct th_json *owner,
                       int64_t *ret_collisions, struct th_json **ret_all,
                       struct th_err *err) TH_MUST_USE;
/* Deletes the oldest ones that are not in `live` (names) beyond spec.revisionHistoryLimit. */
int th_history_trim(struct th_ctrl *c, const char *key, const struct th_json *owner,
                    const struct th_json *all, const struct th_strv *live,
                    struct th_err *err) TH_MUST_USE;
/* The template that a revision holds applied to owner: the whole PodTemplateSpec, borrowed. */
const struct th_json *th_history_template(const struct th_json *revision);
#endif

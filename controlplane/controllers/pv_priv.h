#ifndef TH_PV_PRIV_H
#define TH_PV_PRIV_H
/* Between the files of the persistent volume binder: pv_binder.c (claims, events) and pv_volume.c
 * (volumes). Keys are "namespace/claim" and "volume". */
#include "controlplane/controllers/controller.h"
#include "controlplane/schema/storage.h"

#define GVR_CLAIMS ((struct th_gvr){"", "v1", "persistentvolumeclaims"})
#define GVR_VOLUMES ((struct th_gvr){"", "v1", "persistentvolumes"})
#define GVR_CLASSES ((struct th_gvr){"storage.k8s.io", "v1", "storageclasses"})
#define PV_RESYNC_MS 15000

/* PUT of *obj (to the subresource); *obj becomes the answer, which key awaits. */
int pv_put(struct th_ctrl *c, const char *key, struct th_gvr gvr, const char *subresource,
           struct th_json **obj, struct th_err *err) TH_MUST_USE;
/* Sets status.phase and message where the phase differs; 1: it did. */
int pv_set_phase(struct th_ctrl *c, const char *key, struct th_json **volume, const char *phase,
                 const char *message, struct th_err *err) TH_MUST_USE;
/* From the cache, or from the server when the cache has none; NULL: there is none. */
int pv_get(struct th_ctrl *c, struct th_gvr gvr, const char *ns, const char *name,
           struct th_json **ret, struct th_err *err) TH_MUST_USE;
int pv_sync_volume(struct th_ctrl *c, const char *key, int64_t *ret_after_ms,
                   struct th_err *err) TH_MUST_USE;
#endif

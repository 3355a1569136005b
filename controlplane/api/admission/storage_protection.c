/* StorageObjectInUseProtection: claims, volumes and VolumeAttributesClasses begin with the finalizer
 * that keeps them while they are in use; controllers/storage_protection.c takes it away. */
#include "controlplane/api/admission/admission.h"

#include "controlplane/schema/storage.h"

static int mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    (void)err;
    static const struct {
        const char *group, *plural, *finalizer;
    } kinds[] = {{"", "persistentvolumeclaims", TH_PVC_FINALIZER},
                 {"", "persistentvolumes", TH_PV_FINALIZER},
                 {"storage.k8s.io", "volumeattributesclasses", TH_VAC_FINALIZER}};
    for (size_t i = 0; i < TH_ARRAY_LEN(kinds); i++) {
        if (th_admission_creates(c, kinds[i].group, kinds[i].plural, old)) {
            th_add_finalizer(obj, kinds[i].finalizer);
        }
    }
    return 0;
}

const struct th_admission_plugin th_admission_storage_protection = {
    .name = "StorageObjectInUseProtection", .mutate = mutate};

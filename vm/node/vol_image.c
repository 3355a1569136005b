/* Image volumes: the files of an image, read-only, in the containers that mount it.
 *
 * As upstream, such a volume is made ready when a container that mounts it starts, with that container's
 * pull policy rules and words (ErrImagePull, ImagePullBackOff): the worker gets the image (ctr.c) and gives
 * it to vol_image_mount. The mount is an overlay of the image's layers without an upper folder, once for
 * the pod; a lease keeps the image as long as the volume stands. After a boot the mount is gone and is made
 * again with the next start of a container. */
#include "base/io.h"
#include "base/log.h"
#include "vm/node/agent.h"

#include <sys/statfs.h>

#define OVERLAY_MAGIC 0x794c7630

static char *lease_name(const struct pod *p, size_t index)
{
    return th_xasprintf("volume-%s-%zu", p->uid, index);
}

/* The index-th volume of the pod if it is an image that this container mounts. */
const struct th_json *vol_image_of(const struct pod *p, const struct ctr *c, size_t index)
{
    const struct th_json *vol = th_json_at(th_json_path(p->obj, "spec.volumes"), index);
    const struct th_json *mounts = th_json_get(c->spec, "volumeMounts");
    for (size_t i = 0; th_json_get(vol, "image") && i < th_json_len(mounts); i++) {
        if (th_streq(th_json_path_str(th_json_at(mounts, i), "name"), th_json_path_str(vol, "name"))) {
            return vol;
        }
    }
    return NULL;
}

bool vol_image_mounted(const struct pod *p, const struct th_json *vol)
{
    struct statfs s;
    th_autofree char *dir = volume_dir(p, vol);
    return statfs(dir, &s) == 0 && s.f_type == OVERLAY_MAGIC;
}

int vol_image_mount(struct pod *p, size_t index, const struct th_image *img, struct th_err *err)
{
    const struct th_json *vol = th_json_at(th_json_path(p->obj, "spec.volumes"), index);
    th_autofree char *lease = lease_name(p, index);
    th_autofree char *dir = volume_dir(p, vol);
    TH_TRY(th_images_lease(p->a->images, lease, img->id, err));
    TH_TRY(th_io_mkdir_p(dir, 0755, err));
    return th_images_mount(p->a->images, img, NULL, NULL, dir, err);
}

void vol_image_teardown(struct pod *p)
{
    const struct th_json *vols = th_json_path(p->obj, "spec.volumes");
    for (size_t i = 0; i < th_json_len(vols); i++) {
        if (th_json_get(th_json_at(vols, i), "image")) {
            th_autofree char *lease = lease_name(p, i);
            (void)th_images_unlease(p->a->images, lease, NULL); /* none: it was never mounted */
        }
    }
}

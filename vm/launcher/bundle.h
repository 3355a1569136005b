#ifndef TH_LAUNCHER_BUNDLE_H
#define TH_LAUNCHER_BUNDLE_H
/* The guest inside the `thimble` file: kernels, initramfs, root image and the thimbled ELF, each
 * compressed with zstd and named by the hash of its plain bytes. A part is unpacked into the cache
 * (one folder per hash) when QEMU needs it as a file. CMake's thimble_guest_blob defines
 * th_guest_bundle_embedded; programs that carry the guest link it and call th_guest_bundle_use. */
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

struct th_guest_part {
    const char *name;   /* "kernel-debian", "kernel-small", "initramfs", "rootfs", "thimbled" */
    const char *sha256; /* of the plain bytes, hex */
    uint64_t size_b;    /* plain */
    const unsigned char *start, *end; /* zstd frame */
};
struct th_guest_bundle {
    const struct th_guest_part *parts;
    size_t n_parts;
};
extern const struct th_guest_bundle th_guest_bundle_embedded; /* in thimble_guest_blob */

/* Which bundle th_guest_part_path looks into; the environment's THIMBLE_GUEST_DIR (a folder with
 * files named as the parts, plain) goes before it. Call once, early, from one thread. */
void th_guest_bundle_use(const struct th_guest_bundle *b);
bool th_guest_part_have(const char *name);
/* Path of the plain file, unpacked below cache_dir when it is not there yet (atomically; two
 * commands at once are fine). TH_R_NOT_FOUND when this build has no such part. Caller frees. */
int th_guest_part_path(const char *cache_dir, const char *name, char **ret_path,
                       struct th_err *err) TH_MUST_USE;
#endif

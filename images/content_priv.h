#ifndef TH_IMAGES_CONTENT_PRIV_H
#define TH_IMAGES_CONTENT_PRIV_H
/* The inside of the content store, for content.c, image.c and gc.c. */
#include "base/hmap.h"
#include "base/json/json.h"
#include "images/content.h"
#include <pthread.h>
#include <stdatomic.h>

/* Folder layout:
 *   oci-layout, index.json   the OCI layout's head: names and manifests
 *   blobs/sha256/<hex>       content
 *   layers/<hex>/fs          unpacked layers, by diff id; layers/<hex>/bytes holds their size
 *   leases/<name>            one line: manifest digest, blank, image id
 *   cache/<key>              one build cache entry (JSON)
 *   tmp/<random>             sessions at work
 *   lock                     shared by sessions, exclusive for collection
 *   index.lock               held while index.json or leases change */
struct th_images {
    char *dir;
    unsigned flags;
    atomic_bool gc_wanted; /* a collection was skipped while sessions were open */
    atomic_uint tmp_seq;
};
struct th_images_session {
    struct th_images *s;
    int lock_fd;
    char *tmp;
    atomic_uint seq;
};

char *th_images_path(struct th_images *s, const char *sub);
/* index.json as a tree (an empty index when there is none). Callers that change it hold the index
 * lock from before the read until after the write. */
int th_images_index_lock(struct th_images *s, int *ret_fd, struct th_err *err);
int th_images_index_read(struct th_images *s, struct th_json **ret, struct th_err *err);
int th_images_index_write(struct th_images *s, const struct th_json *index, struct th_err *err);
const char *th_images_desc_name(const struct th_json *desc); /* full name or NULL */
/* Reads manifest and config. */
int th_images_read_image(struct th_images *s, const char *manifest_digest, struct th_image **ret,
                         struct th_err *err);
/* name and content of every lease: fn(name, manifest digest, image id). */
int th_images_each_lease(struct th_images *s,
                         void (*fn)(void *arg, const char *name, const char *manifest,
                                    const char *id),
                         void *arg, struct th_err *err);
/* A name for a new file in session tmp; caller frees. */
char *th_images_session_file(struct th_images_session *ss, const char *what);
#endif

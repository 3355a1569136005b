/*
 * ImageLocality: nodes that have the images already score, by their size; an image that few nodes
 * have counts less, so that one node does not draw all pods of it.
 */
#include "controlplane/scheduler/plugin.h"

#define LEAST_B (23ll << 20)
#define MOST_B (1000ll << 20) /* per container */

struct locality {
    struct th_hmap spread; /* image -> number of nodes that have it, as a pointer-sized number */
};

/* "name" is "name:latest" to the node. */
static char *tagged(const char *image)
{
    const char *slash = strrchr(image, '/');
    return strchr(slash ? slash : image, ':') || strchr(image, '@')
               ? th_xstrdup(image)
               : th_xasprintf("%s:latest", image);
}

static int64_t size_on(const struct th_node_info *n, const char *image)
{
    const struct th_json *images = th_json_path(n->obj, "status.images");
    for (size_t i = 0; i < th_json_len(images); i++) {
        const struct th_json *names = th_json_get(th_json_at(images, i), "names");
        for (size_t k = 0; k < th_json_len(names); k++) {
            if (th_streq(th_json_str(th_json_at(names, k)), image)) {
                return th_json_path_int(th_json_at(images, i), "sizeBytes", 0);
            }
        }
    }
    return 0;
}

static void *prepare(const struct th_sched_ctx *c)
{
    struct locality *l = TH_NEW(struct locality);
    th_hmap_init(&l->spread, NULL);
    const struct th_json *list = th_json_path(c->pod, "spec.containers");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *name = th_json_path_str(th_json_at(list, i), "image");
        th_autofree char *image = tagged(name ? name : "");
        uintptr_t have = 0;
        for (size_t k = 0; k < c->n_nodes; k++) {
            have += size_on(c->nodes[k], image) > 0;
        }
        th_hmap_set(&l->spread, image, (void *)have);
    }
    return l;
}

static void release(void *state)
{
    struct locality *l = state;
    th_hmap_done(&l->spread);
    free(l);
}

static int64_t score(const struct th_sched_ctx *c, const void *state, const struct th_node_info *n)
{
    const struct locality *l = state;
    const struct th_json *list = th_json_path(c->pod, "spec.containers");
    int64_t sum = 0, containers = (int64_t)th_json_len(list);
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *name = th_json_path_str(th_json_at(list, i), "image");
        th_autofree char *image = tagged(name ? name : "");
        int64_t have = (int64_t)(uintptr_t)th_hmap_get(&l->spread, image);
        sum += size_on(n, image) * have / (int64_t)c->n_nodes;
    }
    int64_t most = MOST_B * containers;
    sum = sum < LEAST_B ? LEAST_B : sum > most ? most : sum;
    return most > LEAST_B ? 100 * (sum - LEAST_B) / (most - LEAST_B) : 0;
}

const struct th_sched_plugin th_sched_image_locality = {
    .name = "ImageLocality",
    .prepare = prepare,
    .release = release,
    .score = score,
    .weight = 1,
};

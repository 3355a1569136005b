#ifndef TH_BASE_HMAP_H
#define TH_BASE_HMAP_H
/* String-keyed maps. th_hmap hashes (SipHash, seeded per process), th_omap keeps byte order.
 * Keys are copied; values are the caller's pointers, released through free_fn when one is given.
 * Not thread-safe: the owner's lock guards them. */
#include "base/buf.h"

struct th_hmap_entry {
    char *key;
    size_t key_n;
    uint64_t hash;
    void *value;
};
struct th_hmap {
    struct th_hmap_entry *slots; /* open addressing, power of two */
    size_t n, cap;
    void (*free_fn)(void *);
};
void th_hmap_init(struct th_hmap *m, void (*free_fn)(void *));
void th_hmap_done(struct th_hmap *m);
void *th_hmap_get(const struct th_hmap *m, const char *key);
void *th_hmap_get_n(const struct th_hmap *m, const char *key, size_t key_n);
bool th_hmap_has(const struct th_hmap *m, const char *key);
/* Replaces: the old value goes through free_fn. value may be NULL (a set). */
void th_hmap_set(struct th_hmap *m, const char *key, void *value);
/* Removes and returns the value without freeing it; NULL when absent. */
void *th_hmap_remove(struct th_hmap *m, const char *key);
void th_hmap_clear(struct th_hmap *m);
/* for (size_t it = 0; (e = th_hmap_next(m, &it));) ... ; the map must not change meanwhile. */
struct th_hmap_entry *th_hmap_next(const struct th_hmap *m, size_t *it);

/* An ordered map (a B-tree behind the scenes): cheap ordered ranges over 100,000s of keys. */
struct th_omap;
struct th_omap_entry {
    const char *key;
    size_t key_n;
    void *value;
};
struct th_omap *th_omap_new(void (*free_fn)(void *));
void th_omap_free(struct th_omap *m);
TH_DEFINE_AUTO(th_omap, th_omap_free)
size_t th_omap_count(const struct th_omap *m);
void *th_omap_get(const struct th_omap *m, const char *key);
void th_omap_set(struct th_omap *m, const char *key, void *value);
void *th_omap_remove(struct th_omap *m, const char *key); /* not freed */
/* First entry with key >= from ("" = the first of all). false at the end. Continue with
 * th_omap_after(m, e.key, &e), which finds the first key > e.key. */
bool th_omap_seek(const struct th_omap *m, const char *from, struct th_omap_entry *ret);
bool th_omap_after(const struct th_omap *m, const char *key, struct th_omap_entry *ret);
/* Calls fn for each key that starts with prefix, in order; fn returns false to stop. */
void th_omap_each(const struct th_omap *m, const char *prefix,
                  bool (*fn)(const struct th_omap_entry *e, void *arg), void *arg);
/* Counts keys that start with prefix. */
size_t th_omap_count_prefix(const struct th_omap *m, const char *prefix);
#endif

/* A hash map from strings to pointers.
 *
 * Problem: indexes by name and UID are read far more often than they change, and their keys come
 * from users, who may try to make them collide. Design: open addressing with linear probing in a
 * power-of-two table, SipHash under a key drawn once per process, the full hash kept beside each
 * entry so that probing compares numbers and growing does not hash again.
 *
 * Removal shifts the rest of the run back instead of leaving a mark, so a map that lives for months
 * of adding and removing never degrades and lookups need no case for dead slots. The table is at
 * most three quarters full, and halves when it is less than an eighth full.
 *
 * Invariants: cap is 0 or a power of two >= 8; a slot is free when its key is NULL; from the home
 * slot of every entry to the entry itself there is no free slot.
 */
#include "base/hmap.h"

#include "base/rand.h"

#include <pthread.h>

static uint64_t seed[2];

static void draw_seed(void)
{
    th_rand_bytes(seed, sizeof(seed));
}

static uint64_t hash_of(const char *key, size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, draw_seed);
    return th_siphash(key, n, seed);
}

void th_hmap_init(struct th_hmap *m, void (*free_fn)(void *))
{
    *m = (struct th_hmap){.free_fn = free_fn};
}

void th_hmap_clear(struct th_hmap *m)
{
    for (size_t i = 0; i < m->cap && m->n > 0; i++) {
        struct th_hmap_entry *e = &m->slots[i];
        if (e->key) {
            free(e->key);
            if (m->free_fn && e->value) {
                m->free_fn(e->value);
            }
            *e = (struct th_hmap_entry){0};
            m->n--;
        }
    }
}

void th_hmap_done(struct th_hmap *m)
{
    th_hmap_clear(m);
    free(m->slots);
    *m = (struct th_hmap){.free_fn = m->free_fn};
}

/* The entry with this key, or the free slot where it would go. The table is never full. */
static struct th_hmap_entry *probe(const struct th_hmap *m, const char *key, size_t n, uint64_t h)
{
    size_t mask = m->cap - 1;
    for (size_t i = h & mask;; i = (i + 1) & mask) {
        struct th_hmap_entry *e = &m->slots[i];
        if (!e->key || (e->hash == h && e->key_n == n && (n == 0 || memcmp(e->key, key, n) == 0))) {
            return e;
        }
    }
}

static struct th_hmap_entry *find(const struct th_hmap *m, const char *key, size_t n)
{
    if (m->n == 0) {
        return NULL;
    }
    struct th_hmap_entry *e = probe(m, key, n, hash_of(key, n));
    return e->key ? e : NULL;
}

static void resize(struct th_hmap *m, size_t cap)
{
    struct th_hmap_entry *old = m->slots;
    size_t old_cap = m->cap;
    m->slots = th_xcalloc(cap, sizeof(*m->slots));
    m->cap = cap;
    for (size_t i = 0; i < old_cap; i++) {
        if (old[i].key) {
            size_t at = old[i].hash & (cap - 1);
            while (m->slots[at].key) {
                at = (at + 1) & (cap - 1);
            }
            m->slots[at] = old[i];
        }
    }
    free(old);
}

void *th_hmap_get_n(const struct th_hmap *m, const char *key, size_t key_n)
{
    struct th_hmap_entry *e = find(m, key, key_n);
    return e ? e->value : NULL;
}

void *th_hmap_get(const struct th_hmap *m, const char *key)
{
    return th_hmap_get_n(m, key, strlen(key));
}

bool th_hmap_has(const struct th_hmap *m, const char *key)
{
    return find(m, key, strlen(key)) != NULL;
}

void th_hmap_set(struct th_hmap *m, const char *key, void *value)
{
    size_t n = strlen(key);
    if (m->n + 1 > m->cap - m->cap / 4) {
        resize(m, m->cap ? m->cap * 2 : 8);
    }
    uint64_t h = hash_of(key, n);
    struct th_hmap_entry *e = probe(m, key, n, h);
    if (e->key) {
        void *old = e->value;
        e->value = value;
        if (m->free_fn && old && old != value) {
            m->free_fn(old);
        }
        return;
    }
    *e = (struct th_hmap_entry){
        .key = th_xmemdup(key, n + 1), .key_n = n, .hash = h, .value = value};
    m->n++;
}

void *th_hmap_remove(struct th_hmap *m, const char *key)
{
    struct th_hmap_entry *e = find(m, key, strlen(key));
    if (!e) {
        return NULL;
    }
    void *value = e->value;
    free(e->key);
    size_t mask = m->cap - 1;
    size_t hole = (size_t)(e - m->slots);
    for (size_t i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
        /* An entry may move back into the hole unless its home lies after the hole. */
        size_t home = m->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct th_hmap_entry){0};
    m->n--;
    if (m->cap > 64 && m->n < m->cap / 8) {
        resize(m, m->cap / 2);
    }
    return value;
}

struct th_hmap_entry *th_hmap_next(const struct th_hmap *m, size_t *it)
{
    while (*it < m->cap) {
        struct th_hmap_entry *e = &m->slots[(*it)++];
        if (e->key) {
            return e;
        }
    }
    return NULL;
}

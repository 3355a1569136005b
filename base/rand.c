/* Randomness and hashes.
 *
 * Problem: names, UIDs, keys and hash seeds need randomness that nobody can guess; tests and
 * simulations need the same "random" run twice. Design: every draw comes from getrandom(2) unless
 * a seed was given, in which case a xoshiro256** stream under a lock is used. Keys for TLS and
 * tokens do not come from here but from GnuTLS, so seeding can never weaken them.
 *
 * th_siphash is SipHash with one compression and three finalization rounds, the variant meant for
 * hash tables: an attacker who chooses the keys of a map (label names, say) cannot make them
 * collide without the map's key. th_hash64 is the same function under a fixed key. FNV-1a is kept
 * for the places where Kubernetes' own values depend on it (pod template hashes).
 */
#include "base/rand.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/random.h>

static struct {
    _Atomic bool seeded;
    pthread_mutex_t lock; /* guards s */
    uint64_t s[4];
} gen = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t rotl(uint64_t v, int by)
{
    return v << by | v >> (64 - by);
}

void th_rand_seed(uint64_t seed)
{
    (void)pthread_mutex_lock(&gen.lock);
    for (size_t i = 0; i < 4; i++) {
        /* splitmix64, so that neighbouring seeds give unrelated states */
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        gen.s[i] = z ^ z >> 31;
    }
    gen.seeded = true;
    (void)pthread_mutex_unlock(&gen.lock);
}

static uint64_t seeded_next(void)
{
    uint64_t *s = gen.s;
    uint64_t r = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return r;
}

void th_rand_bytes(void *p, size_t n)
{
    unsigned char *at = p;
    if (gen.seeded) {
        (void)pthread_mutex_lock(&gen.lock);
        while (n > 0) {
            uint64_t v = seeded_next();
            size_t k = n < sizeof(v) ? n : sizeof(v);
            memcpy(at, &v, k);
            at += k;
            n -= k;
        }
        (void)pthread_mutex_unlock(&gen.lock);
        return;
    }
    while (n > 0) {
        ssize_t r = getrandom(at, n, 0);
        if (r < 0) {
            TH_ASSERT(errno == EINTR); /* ENOSYS would mean a kernel before 3.17 */
            continue;
        }
        at += r;
        n -= (size_t)r;
    }
}

uint64_t th_rand_u64(void)
{
    uint64_t v;
    th_rand_bytes(&v, sizeof(v));
    return v;
}

uint64_t th_rand_below(uint64_t bound)
{
    TH_ASSERT(bound > 0);
    /* The lowest 2^64 mod bound values are drawn again: without them each result has equal odds. */
    uint64_t reject = -bound % bound;
    uint64_t v;
    do {
        v = th_rand_u64();
    } while (v < reject);
    return v % bound;
}

char *th_rand_uuid(char *buf)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char b[16];
    th_rand_bytes(b, sizeof(b));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    char *at = buf;
    for (size_t i = 0; i < sizeof(b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *at++ = '-';
        }
        *at++ = hex[b[i] >> 4];
        *at++ = hex[b[i] & 15];
    }
    *at = '\0';
    return buf;
}

char *th_rand_suffix(char *buf, size_t n)
{
    static const char safe[] = "bcdfghjklmnpqrstvwxz2456789";
    for (size_t i = 0; i < n; i++) {
        buf[i] = safe[th_rand_below(sizeof(safe) - 1)];
    }
    buf[n] = '\0';
    return buf;
}

uint32_t th_fnv32a(const void *p, size_t n, uint32_t h)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ b[i]) * 16777619u;
    }
    return h;
}

struct sip {
    uint64_t a, b, c, d;
};

static inline void sip_round(struct sip *v)
{
    v->a += v->b;
    v->c += v->d;
    v->b = rotl(v->b, 13) ^ v->a;
    v->d = rotl(v->d, 16) ^ v->c;
    v->a = rotl(v->a, 32);
    v->c += v->b;
    v->a += v->d;
    v->b = rotl(v->b, 17) ^ v->c;
    v->d = rotl(v->d, 21) ^ v->a;
    v->c = rotl(v->c, 32);
}

uint64_t th_siphash(const void *p, size_t n, const uint64_t key[2])
{
    struct sip v = {
        key[0] ^ 0x736f6d6570736575u,
        key[1] ^ 0x646f72616e646f6du,
        key[0] ^ 0x6c7967656e657261u,
        key[1] ^ 0x7465646279746573u,
    };
    const unsigned char *at = p;
    uint64_t w;
    for (size_t left = n; left >= 8; left -= 8, at += 8) {
        memcpy(&w, at, 8);
        v.d ^= w;
        sip_round(&v);
        v.a ^= w;
    }
    w = (uint64_t)n << 56;
    for (size_t i = 0; i < n % 8; i++) {
        w |= (uint64_t)at[i] << (8 * i);
    }
    v.d ^= w;
    sip_round(&v);
    v.a ^= w;
    v.c ^= 0xff;
    sip_round(&v);
    sip_round(&v);
    sip_round(&v);
    return v.a ^ v.b ^ v.c ^ v.d;
}

uint64_t th_hash64(const void *p, size_t n)
{
    static const uint64_t key[2] = {0x5468696d626c6521u, 0x9e3779b97f4a7c15u};
    return th_siphash(p, n, key);
}

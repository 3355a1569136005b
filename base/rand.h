#ifndef TH_BASE_RAND_H
#define TH_BASE_RAND_H
/* Randomness. th_rand_bytes is the kernel's; tests may seed a repeatable stream instead. */
#include <stddef.h>
#include <stdint.h>
void th_rand_bytes(void *p, size_t n);
uint64_t th_rand_u64(void);
uint64_t th_rand_below(uint64_t bound);
void th_rand_seed(uint64_t seed); /* tests only: repeatable from here on */
#define TH_UUID_LEN 37
char *th_rand_uuid(char *buf); /* version 4, lower case; buf has TH_UUID_LEN bytes */
/* n characters of Kubernetes' safe alphabet "bcdfghjklmnpqrstvwxz2456789", NUL-terminated. */
char *th_rand_suffix(char *buf, size_t n);
uint32_t th_fnv32a(const void *p, size_t n, uint32_t h); /* h = TH_FNV32A_INIT to begin */
#define TH_FNV32A_INIT 2166136261u
uint64_t th_hash64(const void *p, size_t n); /* for ETags: the same in every process */
/* SipHash-1-3: not to be predicted by those who do not know the key. */
uint64_t th_siphash(const void *p, size_t n, const uint64_t key[2]);
#endif

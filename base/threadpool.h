#ifndef TH_BASE_THREADPOOL_H
#define TH_BASE_THREADPOOL_H
/* Threads for blocking jobs (pull, unpack, commit), as many as given at most. FIFO. Thread-safe. */
#include <stddef.h>
struct th_pool;
struct th_pool *th_pool_new(const char *name, size_t threads);
void th_pool_submit(struct th_pool *p, void (*fn)(void *arg), void *arg);
void th_pool_free(struct th_pool *p); /* runs what is queued, then joins */
#endif

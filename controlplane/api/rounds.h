#ifndef TH_API_ROUNDS_H
#define TH_API_ROUNDS_H
/* For those who look at the present state when something has changed: watches as bells, and a thread
 * that makes rounds: at start, whenever it is woken, and when a round asked for another. */
#include "controlplane/store/store.h"

#include <pthread.h>

/* True when something under prefix may have changed since the last call with this bell, whose events
 * are thrown away; a bell that is NULL, or was cut off, is opened. wake(arg) when it rings the next
 * time; NULL: the caller asks. The caller closes it. One caller at a time. */
bool th_bell_rang(struct th_store *s, const char *prefix, th_watch_wake_fn *wake, void *arg,
                  struct th_watch **bell);

/* One round, in the thread. woken: something has happened since the last one began; false: its time
 * had come. Gives when the next one is due with nothing happening, as th_mono_real_ms counts;
 * INT64_MAX: never. */
typedef int64_t th_rounds_fn(void *arg, bool woken);

struct th_rounds { /* private to rounds.c */
    th_rounds_fn *fn;
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the two below */
    pthread_cond_t cond;
    bool woken, stop;
};
/* arg is borrowed and must outlive the thread, as r must. */
void th_rounds_start(struct th_rounds *r, th_rounds_fn *fn, void *arg);
/* From any thread; never blocks for longer than a moment. r: a struct th_rounds. */
void th_rounds_wake(void *r);
/* Waits for the round under way, then closes the watches that wake r (any may be NULL). */
void th_rounds_stop(struct th_rounds *r, struct th_watch **watches, size_t n);
/* Has a bell under prefix wake r: to be called in each round, before the state is looked at. */
void th_rounds_follow(struct th_rounds *r, struct th_store *s, const char *prefix,
                      struct th_watch **watch);
#endif

#ifndef TH_API_TICKER_H
#define TH_API_TICKER_H
/* Wakes watches whose moment has come. Times are th_mono_ms(). */
#include "controlplane/api/watch.h"

struct th_tick { /* embedded; fields belong to the ticker's lock */
    struct th_tick *prev, *next;
    int64_t due_ms;
    th_apiwatch_wake_fn *fn;
    void *arg;
};
void th_tick_add(struct th_ticker *t, struct th_tick *k, int64_t due_ms, th_apiwatch_wake_fn *fn,
                 void *arg);
void th_tick_set(struct th_ticker *t, struct th_tick *k, int64_t due_ms);
/* After it returns fn is not running and will not run. */
void th_tick_del(struct th_ticker *t, struct th_tick *k);
#endif

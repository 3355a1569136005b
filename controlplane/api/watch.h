#ifndef TH_API_WATCH_H
#define TH_API_WATCH_H
/* One client's watch: the store's events filtered, transformed and framed. Used by one thread at a
 * time; wake may come from any. */
#include "controlplane/api/api.h"

/* Events, a bookmark or the deadline may wait: call th_apiwatch_next soon. Must only signal. */
typedef void th_apiwatch_wake_fn(void *arg);
/* Before the first next: who is woken. Wakes at once if something waits already. */
void th_apiwatch_attach(struct th_apiwatch *w, th_apiwatch_wake_fn *fn, void *arg);
/* 1: *ret is the next frame (one line of JSON with its newline), valid until the next call;
 * 0: nothing now, a wake will come; -1: the stream has ended. */
int th_apiwatch_next(struct th_apiwatch *w, struct th_str *ret);
/* It was cut off for being slow; what next would give is not waited for. */
bool th_apiwatch_cut(struct th_apiwatch *w);
/* After it returns no wake runs any more. NULL-safe. */
void th_apiwatch_close(struct th_apiwatch *w);

/* The clock behind all watches of one API: bookmarks and deadlines. One thread. */
struct th_ticker;
struct th_ticker *th_ticker_new(void);
void th_ticker_free(struct th_ticker *t);
#endif

#ifndef TH_LAUNCHER_ACCEL_H
#define TH_LAUNCHER_ACCEL_H
/* What is known about acceleration on this host. Internal. */
#include "base/buf.h"
#include "base/err.h"
struct th_accel {
    char *accel; /* "kvm" or "tcg" */
    char *why;   /* one sentence */
    bool proven; /* by a heartbeat (or its absence), so that it may be remembered */
};
void th_accel_done(struct th_accel *a);
#define TH_AUTO_ACCEL TH_CLEANUP(th_accel_done)
/* What to try first: the user's word, else the remembered finding, else kvm when /dev/kvm can be
 * opened, else tcg. want: NULL, "auto", "kvm", "tcg"; others are TH_R_USAGE. */
int th_accel_choose(const char *want, const char *cache_dir, struct th_accel *ret, struct th_err *err)
    TH_MUST_USE;
/* Remembers a finding for this CPU, kernel and QEMU; failures are of no consequence. */
void th_accel_remember(const char *cache_dir, const char *accel, const char *why);
/* Hash of what the finding depends on. Caller frees. */
char *th_accel_key(void);
/* tsc.c: kHz of this host's time stamp counter as a guest under TCG reads it, measured (20 ms); 0 when
 * it has none that runs evenly. */
int64_t th_tsc_khz(void);
bool th_tsc_is_even(void); /* whether it has */
#endif

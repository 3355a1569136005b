#ifndef TH_LAUNCHER_TEMPLATE_H
#define TH_LAUNCHER_TEMPLATE_H
/* Templates: machines that have booted and wait for an identity, kept as files (template.c). Internal
 * to the launcher; one thread each. */
#include "base/encode.h"
#include "vm/launcher/driver.h"
#include <pthread.h>

/* What must be equal for a template to fit, as the name of its folder: the machine as QEMU is told to
 * make it, without what belongs to a profile; the files that it boots from; QEMU, host, and this
 * program's version. Caller frees. */
char *th_template_key(const struct th_machine_spec *spec, const char *emulator);

/* One that is there, being checked in a thread of its own. */
struct th_template {
    char *dir;
    int fd;             /* QEMU's stream, at its beginning; -1 */
    int64_t made_ms, size_b, tsc_khz;
    char sha256[TH_SHA256_HEX_LEN];
    pthread_t thread;
    bool checking;
    struct th_err check_err;
};
#define TH_TEMPLATE_INIT                                                                           \
    {                                                                                              \
        .fd = -1                                                                                   \
    }
/* 1: there is one, and its check has begun. 0: there is none. Negative: it is damaged. */
int th_template_open(const char *cache, const char *key, struct th_template *ret, struct th_err *err)
    TH_MUST_USE;
/* Waits for the check: TH_R_DIGEST_MISMATCH when the stream is not what was written, TH_R_UNSUPPORTED
 * when the host's time stamp counter runs at another rate than the one it was made with. */
int th_template_checked(struct th_template *t, struct th_err *err) TH_MUST_USE;
void th_template_done(struct th_template *t);
#define TH_AUTO_TEMPLATE TH_CLEANUP(th_template_done)
void th_template_drop(const char *cache, const char *key);

/* One that is being made. */
struct th_template_maker {
    char *cache, *key, *part; /* part: the folder before it has its name */
    int fd;                   /* where QEMU's stream goes; -1 */
    int lock_fd;
    int64_t tsc_khz;
    pthread_t thread;
    bool finishing;
    struct th_err err;
};
#define TH_TEMPLATE_MAKER_INIT                                                                     \
    {                                                                                              \
        .fd = -1, .lock_fd = -1                                                                    \
    }
/* TH_R_LOCKED when another start makes one just now, TH_R_NO_SPACE without room for one. */
int th_template_begin(const char *cache, const char *key, int64_t tsc_khz,
                      struct th_template_maker *ret, struct th_err *err) TH_MUST_USE;
/* The stream is complete: in a thread of its own it is hashed, written out and put in its place, and
 * old templates go. */
void th_template_finish(struct th_template_maker *m);
/* Waits for that, or removes what is not finished. The result of the whole. */
int th_template_end(struct th_template_maker *m, struct th_err *err);

/* Removes all templates. */
int th_template_purge(const char *cache, struct th_err *err) TH_MUST_USE;
#endif

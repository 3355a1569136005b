#ifndef TH_LAUNCHER_START_H
#define TH_LAUNCHER_START_H
/* A start under way: machine.c settles what is to run, boot.c gets it to ready. */
#include "vm/launcher/accel.h"
#include "vm/launcher/channel.h"
#include "vm/launcher/driver.h"
#include "vm/launcher/ports.h"
#include "vm/launcher/template.h"

struct th_start {
    const struct th_machine_opts *opts;
    struct th_profile *p;
    const struct th_driver *d;
    th_machine_progress_fn *progress;
    void *arg;
    struct th_json *timings;
    int64_t deadline_ms;
    struct th_accel accel;
    char *kernel_name, *kernel, *initramfs, *rootfs, *thimbled, *disk, *program;
    struct th_ports ports;
    /* What came of templates. */
    bool restored;
    char *how; /* a sentence, or NULL when there is nothing to say */
    struct th_template_maker maker;
};

/* Tells the user's callback; th_step_end also notes the time. */
int64_t th_step_begin(struct th_start *s, const char *step);
void th_step_end(struct th_start *s, const char *step, int64_t ms);
/* Starts the machine (from a template where one fits), and waits until the cluster is ready. On failure
 * the machine may be left running. c is the channel, for the caller to close. */
int th_boot(struct th_start *s, struct th_channel *c, struct th_err *err) TH_MUST_USE;
#endif

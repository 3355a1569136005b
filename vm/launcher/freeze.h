#ifndef TH_LAUNCHER_FREEZE_H
#define TH_LAUNCHER_FREEZE_H
/* The memory and devices of a machine to a file and back, through QEMU's monitor (freeze.c). */
#include "base/err.h"
#include <stdint.h>

/* Stops the machine whose monitor listens on the socket `qmp`, and writes its memory and device state
 * to fd, from where that stands. The machine stays stopped, whatever is returned: th_thaw goes on. */
int th_freeze(const char *qmp, int fd, int64_t deadline_ms, struct th_err *err) TH_MUST_USE;
/* Into a machine that waits for it (struct th_machine_spec, `incoming`): reads fd from where it stands,
 * and leaves the machine stopped. A stream that QEMU cannot read ends QEMU. */
int th_unfreeze(const char *qmp, int fd, int64_t deadline_ms, struct th_err *err) TH_MUST_USE;
/* Lets a stopped machine run. */
int th_thaw(const char *qmp, int64_t deadline_ms, struct th_err *err) TH_MUST_USE;
#endif

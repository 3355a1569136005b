/* A machine to a file and back.
 *
 * It is QEMU's own migration, with a file in place of the other host. QEMU gets the open file over its
 * monitor socket, so nothing is copied through this process, no program is started for it (libvirt's
 * save starts one to get around the page cache, which is where a template should be), and a sandbox
 * around QEMU has nothing against it.
 *
 * The machine is stopped before, so that one pass is all. QEMU tells a migration's end by an event that
 * must be asked for, or when asked; asking every POLL_MS is simpler and as quick.
 *
 * libvirt is not told. It has closed its monitor by then (driver_libvirt.c), and when it opens it again
 * it asks QEMU how things are. */
#include "vm/launcher/freeze.h"
#include "base/clock.h"
#include "vm/launcher/qmp.h"

#define POLL_MS 2
#define FD_NAME "template"
/* Of bytes a second: QEMU's default, 128 MiB/s, is meant to spare a network. */
#define BANDWIDTH (int64_t)(16ll << 30)

/* Until the migration has ended. */
static int wait_done(struct th_qmp *q, struct th_err *err)
{
    for (;;) {
        TH_AUTO(th_json) struct th_json *info = NULL;
        TH_TRY(th_qmp_call(q, "query-migrate", NULL, &info, err));
        const char *status = th_json_path_str(info, "status");
        if (th_streq(status, "completed")) {
            return 0;
        }
        if (th_streq(status, "failed") || th_streq(status, "cancelled")) {
            const char *why = th_json_path_str(info, "error-desc");
            return th_fail(err, TH_R_IO, "QEMU: the transfer of the machine's state %s%s%s", status,
                           why ? ": " : "", why ? why : "");
        }
        if (th_mono_ms() >= q->deadline_ms) {
            return th_fail(err, TH_R_TIMEOUT, "QEMU: the transfer of the machine's state takes too long");
        }
        th_sleep_ms(POLL_MS);
    }
}

int th_freeze(const char *qmp, int fd, int64_t deadline_ms, struct th_err *err)
{
    TH_AUTO_QMP struct th_qmp q = TH_QMP_INIT;
    TH_TRY(th_qmp_open(qmp, deadline_ms, &q, err));
    TH_TRY(th_qmp_call(&q, "stop", NULL, NULL, err));
    TH_TRY(th_qmp_call(&q, "migrate-set-parameters", th_json_build("{'max-bandwidth':%d}", BANDWIDTH),
                       NULL, err));
    TH_TRY(th_qmp_give_fd(&q, FD_NAME, fd, err));
    TH_TRY(th_qmp_call(&q, "migrate", th_json_build("{'uri':'fd:" FD_NAME "'}"), NULL, err));
    return wait_done(&q, err);
}

int th_unfreeze(const char *qmp, int fd, int64_t deadline_ms, struct th_err *err)
{
    TH_AUTO_QMP struct th_qmp q = TH_QMP_INIT;
    TH_TRY(th_qmp_open(qmp, deadline_ms, &q, err));
    TH_TRY(th_qmp_give_fd(&q, FD_NAME, fd, err));
    int r = th_qmp_call(&q, "migrate-incoming", th_json_build("{'uri':'fd:" FD_NAME "'}"), NULL, err);
    r = r < 0 ? r : wait_done(&q, err);
    return r == -TH_R_UNAVAILABLE ? th_fail(err, TH_R_BOOT_FAILED, "QEMU cannot read it") : r;
}

int th_thaw(const char *qmp, int64_t deadline_ms, struct th_err *err)
{
    TH_AUTO_QMP struct th_qmp q = TH_QMP_INIT;
    TH_TRY(th_qmp_open(qmp, deadline_ms, &q, err));
    /* A migration says that it has completed a moment before the machine may go on. */
    for (bool busy = true; busy;) {
        TH_AUTO(th_json) struct th_json *info = NULL;
        TH_TRY(th_qmp_call(&q, "query-status", NULL, &info, err));
        const char *status = th_json_path_str(info, "status");
        busy = (th_streq(status, "finish-migrate") || th_streq(status, "inmigrate")) &&
               th_mono_ms() < deadline_ms;
        if (busy) {
            th_sleep_ms(POLL_MS);
        }
    }
    return th_qmp_call(&q, "cont", NULL, NULL, err);
}

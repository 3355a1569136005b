#ifndef TH_LAUNCHER_QMP_H
#define TH_LAUNCHER_QMP_H
/* A client of QEMU's monitor protocol, for what libvirt has no call for. QEMU's socket serves one
 * client at a time, others wait: connections are kept short. */
#include "base/json/json.h"
#include "vm/launcher/channel.h"

/* One connection, for commands that belong together (a descriptor that was handed over is forgotten
 * with the connection). All that is done on it must end before the deadline. */
struct th_qmp {
    struct th_channel c;
    int64_t deadline_ms; /* th_mono_ms */
};
#define TH_QMP_INIT                                                                                \
    {                                                                                              \
        .c = TH_CHANNEL_INIT                                                                       \
    }
int th_qmp_open(const char *path, int64_t deadline_ms, struct th_qmp *ret, struct th_err *err) TH_MUST_USE;
void th_qmp_done(struct th_qmp *q);
#define TH_AUTO_QMP TH_CLEANUP(th_qmp_done)
/* args may be NULL and is taken; *ret (may be NULL) is the "return" member. */
int th_qmp_call(struct th_qmp *q, const char *command, struct th_json *args, struct th_json **ret,
                struct th_err *err) TH_MUST_USE;
/* Gives QEMU a copy of fd under a name ("getfd"). */
int th_qmp_give_fd(struct th_qmp *q, const char *name, int fd, struct th_err *err) TH_MUST_USE;

/* A connection for one command. */
int th_qmp_run(const char *path, const char *command, struct th_json *args, struct th_json **ret,
               struct th_err *err) TH_MUST_USE;
/* A command of the human monitor; its text is appended to out. */
int th_qmp_hmp(const char *path, const char *line, struct th_buf *out, struct th_err *err) TH_MUST_USE;
#endif

#ifndef TH_LAUNCHER_CHANNEL_H
#define TH_LAUNCHER_CHANNEL_H
/* JSON lines over a Unix stream socket, with deadlines: the control channel and QMP. One thread. */
#include "base/json/json.h"
struct th_channel {
    int fd;
    size_t line_max;
    struct th_buf in;
};
#define TH_CHANNEL_INIT                                                                            \
    {                                                                                              \
        .fd = -1                                                                                   \
    }
/* Tries until deadline_ms (th_mono_ms) while the process `pid` lives (0: tries once). */
int th_channel_connect(struct th_channel *c, const char *path, size_t line_max, pid_t pid,
                       int64_t deadline_ms, struct th_err *err) TH_MUST_USE;
void th_channel_done(struct th_channel *c);
#define TH_AUTO_CHANNEL TH_CLEANUP(th_channel_done)
/* Takes msg. */
int th_channel_send(struct th_channel *c, struct th_json *msg, struct th_err *err);
/* The next line as JSON. TH_R_TIMEOUT at the deadline, TH_R_UNAVAILABLE when the peer has gone. */
int th_channel_recv(struct th_channel *c, int64_t deadline_ms, struct th_json **ret,
                    struct th_err *err) TH_MUST_USE;
#endif

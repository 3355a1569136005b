#ifndef TH_LAUNCHER_QMP_H
#define TH_LAUNCHER_QMP_H
/* A client of QEMU's monitor protocol, for what libvirt has no call for. Each call connects, runs
 * one command and disconnects: QEMU's socket serves one client at a time, others wait. */
#include "base/json/json.h"
/* args may be NULL and is taken; *ret (may be NULL) is the "return" member. */
int th_qmp_run(const char *path, const char *command, struct th_json *args, struct th_json **ret,
               struct th_err *err) TH_MUST_USE;
/* A command of the human monitor; its text is appended to out. */
int th_qmp_hmp(const char *path, const char *line, struct th_buf *out, struct th_err *err) TH_MUST_USE;
#endif

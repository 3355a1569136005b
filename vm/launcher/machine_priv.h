#ifndef TH_LAUNCHER_MACHINE_PRIV_H
#define TH_LAUNCHER_MACHINE_PRIV_H
/* Between machine.c and info.c. */
#include "vm/launcher/profile.h"
int th_machine_info_fill(struct th_profile *p, struct th_machine_info *ret, struct th_err *err);
int th_console_tail(const struct th_profile *p, size_t lines, struct th_buf *ret);
#endif

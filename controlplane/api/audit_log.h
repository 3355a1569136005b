#ifndef TH_API_AUDIT_LOG_H
#define TH_API_AUDIT_LOG_H
/* Where audit events are written: a file of lines that is put aside when it has grown. Thread-safe. */
#include "base/err.h"

struct th_audit_log;
/* path "-" is standard output, which is never rotated. A file is rotated before it would grow over
 * max_size_mb (0: never); of what was put aside the newest max_backups stay (0: all), and none older
 * than max_age_days (0: any). */
int th_audit_log_open(const char *path, int max_size_mb, int max_backups, int max_age_days,
                      struct th_audit_log **ret, struct th_err *err) TH_MUST_USE;
/* One whole line, its end included. A failure is logged; the line is lost. */
void th_audit_log_put(struct th_audit_log *l, const char *line, size_t n);
void th_audit_log_close(struct th_audit_log *l); /* NULL-safe */
#endif

#ifndef TH_BASE_LOG_H
#define TH_BASE_LOG_H
/* One structured line per event on standard error:
 *   2026-01-02T03:04:05.678Z I store "committed" rows=12 took_us=340
 * Levels per module: THIMBLE_LOG="info,store=debug,node=warn" or th_log_configure(). A line is one
 * write(2). Secret values never go into a log. */
#include "base/cleanup.h"
#include <stdbool.h>
#include <stdint.h>

enum th_log_level { TH_LOG_ERROR, TH_LOG_WARN, TH_LOG_INFO, TH_LOG_DEBUG, TH_LOG_TRACE };
/* spec as THIMBLE_LOG; unknown words are ignored with a warning line. NULL reads the environment.
 */
void th_log_configure(const char *spec);
void th_log_set_fd(int fd); /* default 2 */
bool th_log_enabled(enum th_log_level level, const char *module);
/* msg is a constant sentence; kv are "key", value pairs rendered by a printf format:
 * th_log(TH_LOG_INFO, "store", "committed", "rows=%d took_us=%ld", n, us). kv_fmt may be NULL.
 * %s values with spaces are to be quoted by the caller with th_log_q. */
void th_log(enum th_log_level level, const char *module, const char *msg, const char *kv_fmt, ...)
    TH_PRINTF(4, 5);
/* A quoted, escaped copy in one of eight per-thread static buffers, for use inside th_log. */
const char *th_log_q(const char *s);
#define th_error(mod, msg, ...) th_log(TH_LOG_ERROR, mod, msg, __VA_ARGS__)
#define th_warn(mod, msg, ...) th_log(TH_LOG_WARN, mod, msg, __VA_ARGS__)
#define th_info(mod, msg, ...) th_log(TH_LOG_INFO, mod, msg, __VA_ARGS__)
#define th_debug(mod, msg, ...) th_log(TH_LOG_DEBUG, mod, msg, __VA_ARGS__)
#endif

#ifndef TH_LAUNCHER_THIN_H
#define TH_LAUNCHER_THIN_H
/* Empty pages out of a machine's stream (thin.c). */
#include "base/buf.h"
#include "base/err.h"

/* Appends the stream of n bytes to a file without the pages of its memory that are zero. 1: done. 0: it is
 * not built as expected; what was written is of no use. Negative: it could not be written. */
int th_thin_stream(const void *stream, size_t n, int out_fd, struct th_err *err) TH_MUST_USE;
#endif

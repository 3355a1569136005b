#ifndef TH_NODE_LOGS_H
#define TH_NODE_LOGS_H
/* Reading container logs (CRI format) the way `kubectl logs` asks for them. */
#include "base/buf.h"
#include "base/err.h"
#include <stdint.h>

struct log_opts {
    bool follow, timestamps;
    int64_t tail;        /* lines; -1: all */
    int64_t since_us;    /* wall clock; lines before it are left out; 0: none */
    int64_t limit_b;     /* bytes given out at most; -1: no limit */
    const char *stream;  /* "Stdout", "Stderr", or NULL for all */
};
struct log_reader;
/* Opens <path> and its rotated parts (<path>.<timestamp>), oldest first, positioned for tail. */
int log_reader_new(const char *path, const struct log_opts *o, struct log_reader **ret, struct th_err *err);
void log_reader_free(struct log_reader *r);
/* Appends what is there now, at most about max bytes, to out. 1: something; 0: nothing now (with
 * follow more may come); -1: the end (limit reached). */
int log_reader_read(struct log_reader *r, struct th_buf *out, size_t max);
/* One line of a CRI log: "<time> <stream> <tags> <text>"; false when it is not one. */
struct log_line {
    struct th_str time, stream, text;
    bool partial;
};
bool log_line_parse(const char *p, size_t n, struct log_line *ret);
#endif

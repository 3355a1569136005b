/* Errors as values.
 *
 * Problem: a failure has three readers. The calling code wants to know which of a few dozen cases
 * it is, the API's client wants a metav1.Status with reason, code and causes, and a person at a
 * terminal wants one sentence and the next step.
 * Design: functions return -reason, everything else travels in a struct th_err that lives on the
 * caller's stack. base/reasons.def is the only list of reasons; the tables below are generated
 * from it, so a reason without HTTP code or exit status cannot exist.
 *
 * Invariants: reason TH_R_OK means "no failure recorded"; causes may be gathered before that (a
 * validator goes through all fields first and fails once at the end). Recording a failure over
 * an older failure drops the older one whole, but keeps causes that were gathered since it was
 * clean. Every function accepts err == NULL.
 */
#include "base/err.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *code;
    int http;
    const char *status;
    int exit_code;
    const char *next;
} rows[TH_R_COUNT_] = {
    [TH_R_OK] = {"ok", 200, "", 0, ""},
#define TH_REASON(id, code_, http_, status_, exit_, next_)                                         \
    [TH_R_##id] = {code_, http_, status_, exit_, next_},
#include "base/reasons.def"
#undef TH_REASON
};

static size_t row_of(enum th_reason r)
{
    return (unsigned)r < TH_R_COUNT_ ? (size_t)r : (size_t)TH_R_INTERNAL;
}

const char *th_reason_code(enum th_reason r)
{
    return rows[row_of(r)].code;
}

const char *th_reason_status(enum th_reason r)
{
    return rows[row_of(r)].status;
}

int th_reason_http(enum th_reason r)
{
    return rows[row_of(r)].http;
}

int th_reason_exit(enum th_reason r)
{
    return rows[row_of(r)].exit_code;
}

const char *th_reason_next(enum th_reason r)
{
    return rows[row_of(r)].next;
}

enum th_reason th_reason_from_code(const char *code, enum th_reason dflt)
{
    for (size_t i = 1; code && i < TH_R_COUNT_; i++) {
        if (strcmp(rows[i].code, code) == 0) {
            return (enum th_reason)i;
        }
    }
    return dflt;
}

enum th_reason th_reason_from_status(const char *status_reason, int http_code)
{
    /* Several rows may share a status reason; the API's own rows come first in the list. */
    if (status_reason && *status_reason) {
        for (size_t i = 1; i < TH_R_COUNT_; i++) {
            if (strcmp(rows[i].status, status_reason) == 0) {
                return (enum th_reason)i;
            }
        }
    }
    for (size_t i = 1; i < TH_R_COUNT_; i++) {
        if (rows[i].http == http_code) {
            return (enum th_reason)i;
        }
    }
    return TH_R_INTERNAL;
}

void th_err_done(struct th_err *err)
{
    if (!err) {
        return;
    }
    free(err->msg);
    free(err->hint);
    free(err->kind);
    free(err->group);
    free(err->name);
    free(err->uid);
    free(err->cont);
    free(err->status_reason);
    for (size_t i = 0; i < err->n_causes; i++) {
        free(err->causes[i].reason);
        free(err->causes[i].field);
        free(err->causes[i].msg);
    }
    free(err->causes);
    *err = (struct th_err)TH_ERR_INIT;
}

/* Takes msg. */
static int set(struct th_err *err, enum th_reason reason, int sys_errno, char *msg)
{
    TH_ASSERT(reason > TH_R_OK && reason < TH_R_COUNT_);
    if (err->reason != TH_R_OK) {
        th_err_done(err); /* msg was formatted before this, so it may quote the old message */
    }
    free(err->msg);
    err->reason = reason;
    err->sys_errno = sys_errno;
    err->msg = msg;
    return -(int)reason;
}

/* What th_fail said last in this thread to a caller who did not want to know why: th_wrap and th_hint
 * after it must hand on the same code. */
static _Thread_local enum th_reason unheard = TH_R_INTERNAL;

int th_fail(struct th_err *err, enum th_reason reason, const char *fmt, ...)
{
    if (!err) {
        unheard = reason;
        return -(int)reason;
    }
    va_list ap;
    va_start(ap, fmt);
    char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    return set(err, reason, 0, msg);
}

int th_fail_errno(struct th_err *err, int errno_value, enum th_reason reason, const char *fmt, ...)
{
    if (errno_value == ENOSPC || errno_value == EDQUOT) {
        reason = reason == TH_R_IO ? TH_R_NO_SPACE : reason;
    } else if (errno_value == EACCES || errno_value == EPERM) {
        reason = reason == TH_R_IO ? TH_R_NO_PERMISSION : reason;
    }
    if (!err) {
        unheard = reason;
        return -(int)reason;
    }
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *context = th_xvasprintf(fmt, ap);
    va_end(ap);
    char text[128];
    const char *why = strerror_r(errno_value, text, sizeof(text));
    return set(err, reason, errno_value, th_xasprintf("%s: %s", context, why));
}

int th_wrap(struct th_err *err, const char *fmt, ...)
{
    if (!err) {
        return -(int)unheard;
    }
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *context = th_xvasprintf(fmt, ap);
    va_end(ap);
    char *msg = th_xasprintf("%s: %s", context, err->msg ? err->msg : "");
    free(err->msg);
    err->msg = msg;
    if (err->reason == TH_R_OK) {
        err->reason =
            TH_R_INTERNAL; /* a wrap without a failure below it must not look like success */
    }
    return -(int)err->reason;
}

int th_hint(struct th_err *err, const char *fmt, ...)
{
    if (!err) {
        return -(int)unheard;
    }
    va_list ap;
    va_start(ap, fmt);
    char *hint = th_xvasprintf(fmt, ap);
    va_end(ap);
    free(err->hint);
    err->hint = hint;
    return -(int)err->reason;
}

void th_err_add_cause(struct th_err *err, const char *reason, const char *field, const char *fmt,
                      ...)
{
    if (!err) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    /* No spare capacity is kept beside the count: sizes are powers of two. */
    size_t n = err->n_causes;
    if ((n & (n - 1)) == 0) {
        err->causes = th_xrealloc(err->causes, (n ? 2 * n : 1) * sizeof(*err->causes));
    }
    err->causes[n] = (struct th_cause){
        .reason = th_xstrdup(reason),
        .field = th_xstrdup(field),
        .msg = msg,
    };
    err->n_causes = n + 1;
}

void th_err_set_object(struct th_err *err, const char *group, const char *kind, const char *name)
{
    if (err) {
        free(err->group);
        free(err->kind);
        free(err->name);
        err->group = th_xstrdup(group);
        err->kind = th_xstrdup(kind);
        err->name = th_xstrdup(name);
    }
}

void th_err_move(struct th_err *dst, struct th_err *src)
{
    if (dst == src) {
        return;
    }
    if (!dst) {
        th_err_done(src);
        return;
    }
    th_err_done(dst);
    if (src) {
        *dst = *src;
        *src = (struct th_err)TH_ERR_INIT;
    }
}

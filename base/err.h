#ifndef TH_BASE_ERR_H
#define TH_BASE_ERR_H
/* Errors: an int for control flow and a struct for people.
 *
 * Every fallible function is `int f(in..., T *ret_x, struct th_err *err)`: 0 (or positive) on
 * success, -TH_R_<reason> on failure. On success *err is untouched; on failure it is set. ret_*
 * is written only on success. `err` may be NULL where the caller does not care.
 *
 *   TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
 *   if (th_io_read_file(path, max, &buf, &err) < 0) { ... err.msg ... }
 */
#include "base/cleanup.h"
#include <stdbool.h>

enum th_reason {
    TH_R_OK = 0,
#define TH_REASON(id, code, http, status_reason, exit_code, next) TH_R_##id,
#include "base/reasons.def"
#undef TH_REASON
    TH_R_COUNT_
};

/* One field's fault: metav1.StatusCause. reason as upstream's CauseType, such as
 * "FieldValueRequired", "FieldValueInvalid", "FieldValueNotSupported", "FieldValueDuplicate",
 * "FieldValueForbidden", "FieldValueNotFound", "FieldValueTooLong", "FieldManagerConflict". */
struct th_cause {
    char *reason;
    char *field; /* "spec.containers[0].image" */
    char *msg;   /* "Required value" */
};

struct th_err {
    enum th_reason reason;           /* TH_R_OK while unset */
    int sys_errno;                   /* 0 when no system call was behind it */
    int http_code;                   /* overrides the table's when not 0 */
    int retry_after_s;               /* 0 when not said */
    char *msg;                       /* one line, no trailing newline or full stop */
    char *hint;                      /* next step for the user, or NULL */
    char *kind, *group, *name, *uid; /* metav1.StatusDetails, each may be NULL */
    char *cont; /* metadata.continue of the Status, or NULL */
    char *status_reason; /* Status.reason in place of the table's ("": none), or NULL */
    struct th_cause *causes;
    size_t n_causes;
};

#define TH_ERR_INIT                                                                                \
    {                                                                                              \
        .reason = TH_R_OK                                                                          \
    }
/* Frees what the error holds and makes it TH_ERR_INIT again. NULL-safe. */
void th_err_done(struct th_err *err);
#define TH_AUTO_ERR TH_CLEANUP(th_err_done)

/* Sets reason and message (replacing what was there) and returns -reason. err may be NULL. */
int th_fail(struct th_err *err, enum th_reason reason, const char *fmt, ...) TH_PRINTF(3, 4);
/* The same with ": strerror(errno_value)" appended; ENOSPC and EDQUOT turn TH_R_IO into
 * TH_R_NO_SPACE, EACCES and EPERM into TH_R_NO_PERMISSION. */
int th_fail_errno(struct th_err *err, int errno_value, enum th_reason reason, const char *fmt, ...)
    TH_PRINTF(4, 5);
/* Puts "context: " in front of the message; returns the same code. */
int th_wrap(struct th_err *err, const char *fmt, ...) TH_PRINTF(2, 3);
/* Sets the next step that is shown to the user; returns the code. */
int th_hint(struct th_err *err, const char *fmt, ...) TH_PRINTF(2, 3);
/* Appends one cause; does not set reason or message. */
void th_err_add_cause(struct th_err *err, const char *reason, const char *field, const char *fmt,
                      ...) TH_PRINTF(4, 5);
/* Says which object it is about (metav1.StatusDetails); copies, replacing what was there. err may be
 * NULL. */
void th_err_set_object(struct th_err *err, const char *group, const char *kind, const char *name);
/* Moves src into dst (dst's old content is freed), src becomes TH_ERR_INIT. */
void th_err_move(struct th_err *dst, struct th_err *src);

/* The columns of reasons.def. */
const char *th_reason_code(enum th_reason r);   /* "not-found" */
const char *th_reason_status(enum th_reason r); /* "NotFound" */
int th_reason_http(enum th_reason r);
int th_reason_exit(enum th_reason r);
const char *th_reason_next(enum th_reason r); /* the user's next step, when err.hint has none */
/* TH_R_<x> for a code of the table ("no-image"); dflt for NULL and unknown ones. */
enum th_reason th_reason_from_code(const char *code, enum th_reason dflt);
/* TH_R_<x> for a metav1 Status.reason and code; TH_R_INTERNAL when unknown. */
enum th_reason th_reason_from_status(const char *status_reason, int http_code);

/* Returns from the calling function when expr is negative; the value is handed on. */
#define TH_TRY(expr)                                                                               \
    do {                                                                                           \
        int th_try_r_ = (expr);                                                                    \
        if (th_try_r_ < 0) {                                                                       \
            return th_try_r_;                                                                      \
        }                                                                                          \
    } while (0)
#endif

#ifndef TH_SCHEMA_REGEX_SYNTAX_H
#define TH_SCHEMA_REGEX_SYNTAX_H
/* Between regex.c and regex_syntax.c. */
#include "base/buf.h"
#include "base/err.h"

/* Reads Go's syntax and appends what PCRE2 must be given for the same meaning; names gets one entry
 * per group ("" when it has no name), in order. TH_R_INVALID with Go's words. */
int th_regex_translate(const char *p, size_t n, struct th_buf *out, struct th_strv *names,
                       struct th_err *err) TH_MUST_USE;
#endif

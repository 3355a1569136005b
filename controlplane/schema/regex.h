#ifndef TH_SCHEMA_REGEX_H
#define TH_SCHEMA_REGEX_H
/* Regular expressions as Go's regexp package (RE2) reads them: CRD patterns, CEL's matches() and
 * find(). A compiled expression is immutable and may be used by many threads at once. */
#include "base/buf.h"
#include "base/err.h"

struct th_regex;
/* TH_R_INVALID with regexp.Compile's words: "error parsing regexp: missing closing ): `(a`". */
int th_regex_new(const char *pattern, size_t n, struct th_regex **ret, struct th_err *err) TH_MUST_USE;
void th_regex_free(struct th_regex *r);
TH_DEFINE_AUTO(th_regex, th_regex_free)
/* Whether it matches anywhere in s (UTF-8): 1, 0, or -TH_R_TOO_LARGE when it would cost too much.
 * Time is linear in n for a given expression. */
int th_regex_match(const struct th_regex *r, const char *s, size_t n, struct th_err *err) TH_MUST_USE;
/* The first match, leftmost-first, at or after `from`: 1 with *ret_at and *ret_n, 0 when there is
 * none; the work is bounded as above. */
int th_regex_find(const struct th_regex *r, const char *s, size_t n, size_t from, size_t *ret_at,
                  size_t *ret_n, struct th_err *err) TH_MUST_USE;
/* The same with groups: ret has 2 * groups entries (start, end; SIZE_MAX when unset), group 0
 * first. */
size_t th_regex_groups(const struct th_regex *r); /* capturing groups + 1 */
int th_regex_find_groups(const struct th_regex *r, const char *s, size_t n, size_t from,
                         size_t *ret, struct th_err *err) TH_MUST_USE;
/* Name of a group or NULL. */
const char *th_regex_group_name(const struct th_regex *r, size_t i);
#endif

#ifndef TH_SCHEMA_GOTEXT_H
#define TH_SCHEMA_GOTEXT_H
/* Scalars read and written the way Go's standard library does, error words included, since clients
 * and tests see those words. Pure functions. */
#include "base/buf.h"
#include "base/err.h"
#include "base/json/json.h"

/* strconv.Quote: appends s in double quotes. */
void th_go_quote(struct th_buf *b, const char *s);
/* time.Parse(time.RFC3339) with micro false, metav1.RFC3339Micro with it true; errors are
 * TH_R_BAD_REQUEST with time.ParseError's words. *ret_sec counts from 1970, before it is negative. */
int th_go_time_parse(const char *s, bool micro, int64_t *ret_sec, int32_t *ret_nsec,
                     struct th_err *err) TH_MUST_USE;
/* "2026-01-02T03:04:05Z", with micro "…05.000000Z". buf has TH_GO_TIME_LEN bytes. */
#define TH_GO_TIME_LEN 48
char *th_go_time_format(int64_t sec, int32_t nsec, bool micro, char *buf);
/* 0001-01-01T00:00:00Z, Go's zero time, which is written as null. */
#define TH_GO_ZERO_TIME_S (-62135596800ll)
/* encoding/base64.StdEncoding: line breaks are ignored; appends the bytes to b. Errors say
 * "illegal base64 data at input byte 3". */
int th_go_base64_decode(const char *s, size_t n, struct th_buf *b, struct th_err *err) TH_MUST_USE;
/* time.ParseDuration and Duration.String, in nanoseconds. */
int th_go_duration_parse(const char *s, int64_t *ret_ns, struct th_err *err) TH_MUST_USE;
char *th_go_duration_format(int64_t ns, char *buf);
/* strings.TrimSpace, of ASCII's white space. Caller frees. */
char *th_go_trim_space(const char *s);
/* fmt's %v of what JSON becomes in Go: map[a:1 b:[x y]], keys sorted. Caller frees. */
char *th_go_print(const struct th_json *o);
#endif

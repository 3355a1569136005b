/* The query string, decoded once per request.
 *
 * Order is kept and names may repeat ("command=ls&command=-l" of exec). "+" is a space, as in Go's
 * url.ParseQuery; a bad escape is an error of the client. The number of parameters is bounded by
 * the size of the request line (TH_LIMIT_REQUEST_HEAD_B).
 */
#include "controlplane/api/priv.h"

#include "base/encode.h"

#include <errno.h>
#include <strings.h>

static int unescape(const char *p, size_t n, struct th_strv *to, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_url_unescape(p, n, true, &b, err) < 0) {
        return th_fail(err, TH_R_BAD_REQUEST, "invalid URL escape in the query string");
    }
    th_strv_add(to, th_buf_cstr(&b));
    return 0;
}

int th_query_parse(const char *text, struct th_query *ret, struct th_err *err)
{
    struct th_query q = {.keys = TH_STRV_INIT, .values = TH_STRV_INIT};
    while (text && *text) {
        size_t n = strcspn(text, "&");
        if (n > 0) {
            size_t k = 0;
            while (k < n && text[k] != '=') {
                k++;
            }
            int r = unescape(text, k, &q.keys, err);
            if (r >= 0) {
                r = k < n ? unescape(text + k + 1, n - k - 1, &q.values, err)
                          : unescape("", 0, &q.values, err);
            }
            if (r < 0) {
                th_query_done(&q);
                return r;
            }
        }
        text += n + (text[n] == '&');
    }
    *ret = q;
    return 0;
}

void th_query_done(struct th_query *q)
{
    th_strv_done(&q->keys);
    th_strv_done(&q->values);
    *q = (struct th_query){0};
}

const char *th_query_get(const struct th_query *q, const char *key)
{
    for (size_t i = 0; i < q->keys.n; i++) {
        if (strcmp(q->keys.v[i], key) == 0) {
            return q->values.v[i];
        }
    }
    return NULL;
}

bool th_query_bool(const struct th_query *q, const char *key)
{
    const char *v = th_query_get(q, key);
    return v && strcasecmp(v, "false") != 0 && strcmp(v, "0") != 0;
}

int th_query_int(const struct th_query *q, const char *key, int64_t dflt, int64_t *ret,
                 struct th_err *err)
{
    const char *v = th_query_get(q, key);
    if (!v || !*v) {
        *ret = dflt;
        return 0;
    }
    char *end = NULL;
    errno = 0;
    long long n = strtoll(v, &end, 10);
    if (errno != 0 || *end != '\0') {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "strconv.ParseInt: parsing \"%s\": invalid syntax", v);
    }
    *ret = n;
    return 0;
}

/* ListOptions from the query, validated as upstream validates them. */
#include "controlplane/api/priv.h"

#include <errno.h>

static void forbid(struct th_err *err, const char *field, const char *why)
{
    th_err_add_cause(err, "FieldValueForbidden", field, "Forbidden: %s", why);
}

static int parse_rv(const char *text, int64_t *ret, struct th_err *err)
{
    if (!text || !*text) {
        *ret = -1;
        return 0;
    }
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || *text < '0' || *text > '9' || v > INT64_MAX) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "invalid resource version: resourceVersion: Invalid value: \"%s\": "
                       "strconv.ParseUint: parsing \"%s\": invalid syntax",
                       text, text);
    }
    *ret = (int64_t)v;
    return 0;
}

#define WITH_CONTINUE "resourceVersionMatch is forbidden when continue is provided"

static void check_match(const struct th_listopts *o, const char *match, struct th_err *err)
{
    if (o->rv < 0) {
        forbid(err, "resourceVersionMatch",
               "resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if (o->cont) {
        forbid(err, "resourceVersionMatch", WITH_CONTINUE);
    }
    if (o->match == TH_RVM_NONE) {
        th_err_add_cause(err, "FieldValueNotSupported", "resourceVersionMatch",
                         "Unsupported value: \"%s\": supported values: \"Exact\", "
                         "\"NotOlderThan\", \"\"",
                         match);
    }
    if (o->match == TH_RVM_EXACT && o->rv == 0) {
        forbid(err, "resourceVersionMatch",
               "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
}

static void check_watch(const struct th_listopts *o, const char *match, struct th_err *err)
{
    bool newer = o->match == TH_RVM_NOT_OLDER;
    if (o->initial_events_set && !newer) {
        forbid(err, "resourceVersionMatch",
               "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if (!match) {
        return;
    }
    if (!o->initial_events_set) {
        forbid(err, "resourceVersionMatch",
               "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    }
    if (!newer) {
        th_err_add_cause(err, "FieldValueNotSupported", "resourceVersionMatch",
                         "Unsupported value: \"%s\": supported values: \"NotOlderThan\"", match);
    }
    if (o->cont) {
        forbid(err, "resourceVersionMatch", WITH_CONTINUE);
    }
}

static void check(const struct th_query *q, const struct th_listopts *o, struct th_err *err)
{
    const char *match = th_query_get(q, "resourceVersionMatch");
    bool has = match && *match;
    if (o->watch) {
        check_watch(o, has ? match : NULL, err);
        return;
    }
    if (has) {
        check_match(o, match, err);
    }
    if (o->initial_events_set) {
        forbid(err, "sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
}

int th_listopts_parse(const struct th_query *q, bool watch, struct th_listopts *ret,
                      struct th_err *err)
{
    struct th_listopts o = {.watch = watch};
    TH_TRY(parse_rv(th_query_get(q, "resourceVersion"), &o.rv, err));
    TH_TRY(th_query_int(q, "limit", 0, &o.limit, err));
    TH_TRY(th_query_int(q, "timeoutSeconds", 0, &o.timeout_s, err));
    if (o.limit < 0) {
        o.limit = 0;
    }
    const char *match = th_query_get(q, "resourceVersionMatch");
    o.match = th_streq(match, "Exact")          ? TH_RVM_EXACT
              : th_streq(match, "NotOlderThan") ? TH_RVM_NOT_OLDER
                                                : TH_RVM_NONE;
    const char *cont = th_query_get(q, "continue");
    o.cont = cont && *cont ? cont : NULL;
    o.bookmarks = th_query_bool(q, "allowWatchBookmarks");
    o.initial_events_set = th_query_get(q, "sendInitialEvents") != NULL;
    o.initial_events = th_query_bool(q, "sendInitialEvents");
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    check(q, &o, &local);
    int r = th_fail_invalid(&local, "meta.k8s.io", "ListOptions", "");
    if (r < 0) {
        if (err) {
            th_err_move(err, &local);
        }
        return r;
    }
    if (o.cont && o.rv > 0) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "specifying resource version is not allowed when using continue");
    }
    *ret = o;
    return 0;
}

int th_listopts_check_rv(const struct th_call *c, int64_t rv, struct th_err *err)
{
    int64_t now = th_store_rv(c->api->store);
    if (rv <= now) {
        return 0;
    }
    (void)th_fail(err, TH_R_TIMEOUT, "Timeout: Too large resource version: %lld, current: %lld",
                  (long long)rv, (long long)now);
    if (err) {
        th_err_add_cause(err, "ResourceVersionTooLarge", NULL, "Too large resource version");
        err->retry_after_s = 1;
    }
    return -TH_R_TIMEOUT;
}

/* The head scanner.
 *
 * Problem: every write must carry its own resourceVersion, which is known only in the writer's
 * thread, and every watcher with a label selector wants the labels; parsing the tree for that
 * would cost fifty times what is needed (and seventeen times the memory of the text).
 *
 * Design: one pass over the text that knows strings and brackets. It stops at depth two: the
 * members of the object and those of its metadata. It runs once per write in the caller's thread;
 * the writer only copies three pieces together. Strings are skipped by memchr, so the speed is
 * that of memory.
 *
 * Limits: names are compared as they stand; "metadata" written with \u escapes would not be found,
 * which is no loss since the text comes from th_json_dump, which writes no such escape. Of
 * duplicate members, the first counts; th_json has none.
 */
#include "controlplane/store/head.h"

#include "base/json/slice.h"

static int malformed(struct th_err *err)
{
    return th_fail(err, TH_R_BAD_REQUEST, "the value is not one JSON object");
}

static bool only_ws(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) {
        p++;
    }
    return p == end;
}

static int scan_metadata(const char *text, struct th_str meta, struct th_head *h,
                         struct th_err *err)
{
    size_t at = (size_t)(meta.p - text);
    if (meta.p[0] != '{') {
        h->cut_from = at;
        h->cut_to = at + meta.n;
        h->pre = "{\"resourceVersion\":\"";
        h->post = "\"}";
        return 0;
    }
    struct th_json_slice m = TH_JSON_SLICE(meta);
    struct th_str name, value;
    bool any = false, have_rv = false, have_uid = false, have_labels = false;
    h->cut_from = h->cut_to = at + 1;
    while (th_json_slice_member(&m, &name, &value)) {
        size_t value_at = (size_t)(value.p - text);
        any = true;
        if (!have_rv && th_str_eq(name, TH_STR("resourceVersion"))) {
            have_rv = true;
            h->cut_from = value_at;
            h->cut_to = value_at + value.n;
        } else if (!have_rv && !have_uid && th_str_eq(name, TH_STR("uid"))) {
            have_uid = true;
            h->cut_from = h->cut_to = value_at + value.n;
        } else if (!have_labels && value.p[0] == '{' && th_str_eq(name, TH_STR("labels"))) {
            have_labels = true;
            h->labels_at = value_at;
            h->labels_n = value.n;
        }
    }
    if (!th_json_slice_ended(&m)) {
        return malformed(err);
    }
    if (have_rv) {
        h->pre = "\"";
        h->post = "\"";
    } else if (have_uid) {
        h->pre = ",\"resourceVersion\":\"";
        h->post = "\"";
    } else {
        h->pre = "\"resourceVersion\":\"";
        h->post = any ? "\"," : "\"";
    }
    return 0;
}

int th_head_scan(const char *p, size_t n, struct th_head *ret, struct th_err *err)
{
    struct th_head h = {.labels_n = 0};
    const struct th_str text = {p, n};
    struct th_json_slice m = TH_JSON_SLICE(text);
    struct th_str name, value;
    struct th_str meta = {NULL, 0};
    bool any = false;
    while (th_json_slice_member(&m, &name, &value)) {
        any = true;
        if (!meta.p && th_str_eq(name, TH_STR("metadata"))) {
            meta = value;
        }
    }
    if (!th_json_slice_ended(&m) || !only_ws(m.p + 1, m.end)) {
        return malformed(err);
    }
    if (meta.p) {
        TH_TRY(scan_metadata(p, meta, &h, err));
    } else {
        h.cut_from = h.cut_to = (size_t)((const char *)memchr(p, '{', n) - p) + 1;
        h.pre = "\"metadata\":{\"resourceVersion\":\"";
        h.post = any ? "\"}," : "\"}";
    }
    *ret = h;
    return 0;
}

/* The head scanner.
 *
 * Problem: every write must carry its own resourceVersion, which is known only in the writer's
 * thread, and every watcher with a label selector wants the labels; parsing the tree for that would
 * cost fifty times what is needed (and seventeen times the memory of the text).
 * Design: one pass over the text that knows strings and brackets. It stops at depth two: the members
 * of the object and those of its metadata. It runs once per write in the caller's thread; the writer
 * only copies three pieces together. Strings are skipped by memchr, so the speed is that of memory.
 *
 * Limits: names are compared as they stand; "metadata" written with \u escapes would not be found,
 * which is no loss since the text comes from th_json_dump, which writes no such escape. Of duplicate
 * members, the first counts; th_json has none.
 */
#include "controlplane/store/head.h"

static bool is_ws(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *skip_ws(const char *p, const char *end)
{
    while (p < end && is_ws(*p)) {
        p++;
    }
    return p;
}

/* p is behind the opening quote; returns the closing quote, or NULL. */
static const char *string_end(const char *p, const char *end)
{
    const char *from = p;
    while (p < end) {
        const char *q = memchr(p, '"', (size_t)(end - p));
        if (!q) {
            return NULL;
        }
        size_t slashes = 0;
        while (q - slashes > from && q[-(ptrdiff_t)slashes - 1] == '\\') {
            slashes++;
        }
        if (slashes % 2 == 0) {
            return q;
        }
        p = q + 1;
    }
    return NULL;
}

/* Returns the byte behind the value that starts at p, or NULL when it does not end. */
static const char *value_end(const char *p, const char *end)
{
    size_t depth = 0;
    while (p < end) {
        switch (*p) {
        case '"':
            p = string_end(p + 1, end);
            if (!p) {
                return NULL;
            }
            p++;
            break;
        case '{':
        case '[':
            depth++;
            p++;
            break;
        case '}':
        case ']':
            if (depth == 0) {
                return NULL;
            }
            depth--;
            p++;
            break;
        default:
            if (depth == 0) {
                const char *from = p;
                while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_ws(*p)) {
                    p++;
                }
                return p > from ? p : NULL;
            }
            p++;
            continue;
        }
        if (depth == 0) {
            return p;
        }
    }
    return NULL;
}

bool th_head_member(struct th_head_members *m, struct th_str *ret_name, struct th_str *ret_value)
{
    const char *p = skip_ws(m->p, m->end);
    const char *end = m->end;
    if (p >= end) {
        return false;
    }
    if (*p == '}') {
        m->p = p;
        return false;
    }
    if (*p != (m->started ? ',' : '{')) {
        m->p = end; /* malformed: the caller sees that no '}' was reached */
        return false;
    }
    p = skip_ws(p + 1, end);
    if (!m->started && p < end && *p == '}') {
        m->started = true;
        m->p = p;
        return false;
    }
    m->started = true;
    m->p = end;
    if (p >= end || *p != '"') {
        return false;
    }
    const char *name = p + 1;
    const char *q = string_end(name, end);
    if (!q) {
        return false;
    }
    p = skip_ws(q + 1, end);
    if (p >= end || *p != ':') {
        return false;
    }
    p = skip_ws(p + 1, end);
    const char *after = value_end(p, end);
    if (!after) {
        return false;
    }
    *ret_name = (struct th_str){name, (size_t)(q - name)};
    *ret_value = (struct th_str){p, (size_t)(after - p)};
    m->p = after;
    return true;
}

static int malformed(struct th_err *err)
{
    return th_fail(err, TH_R_BAD_REQUEST, "the value is not one JSON object");
}

/* The walk ended: was it at the closing brace? */
static bool at_close(const struct th_head_members *m)
{
    return m->p < m->end && *m->p == '}';
}

static int scan_metadata(const char *text, struct th_str meta, struct th_head *h, struct th_err *err)
{
    size_t at = (size_t)(meta.p - text);
    if (meta.p[0] != '{') {
        h->cut_from = at;
        h->cut_to = at + meta.n;
        h->pre = "{\"resourceVersion\":\"";
        h->post = "\"}";
        return 0;
    }
    struct th_head_members m = {.p = meta.p, .end = meta.p + meta.n};
    struct th_str name, value;
    bool any = false, have_rv = false, have_uid = false, have_labels = false;
    h->cut_from = h->cut_to = at + 1;
    while (th_head_member(&m, &name, &value)) {
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
    if (!at_close(&m)) {
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
    struct th_head_members m = {.p = p, .end = p + n};
    struct th_str name, value;
    struct th_str meta = {NULL, 0};
    bool any = false;
    const char *open = skip_ws(p, p + n);
    if (open == p + n || *open != '{') {
        return malformed(err);
    }
    while (th_head_member(&m, &name, &value)) {
        any = true;
        if (!meta.p && th_str_eq(name, TH_STR("metadata"))) {
            meta = value;
        }
    }
    if (!at_close(&m) || skip_ws(m.p + 1, m.end) != m.end) {
        return malformed(err);
    }
    if (meta.p) {
        TH_TRY(scan_metadata(p, meta, &h, err));
    } else {
        h.cut_from = h.cut_to = (size_t)(open - p) + 1;
        h.pre = "\"metadata\":{\"resourceVersion\":\"";
        h.post = any ? "\"}," : "\"}";
    }
    *ret = h;
    return 0;
}

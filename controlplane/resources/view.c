/* Views: what rules of validation read and where they complain (view.h).
 *
 * Paths are assembled from the chain of views only when a cause is added, so that validating a
 * correct object makes no strings at all. */
#include "controlplane/resources/view.h"

#include "base/buf.h"
#include "base/limits.h"
#include "controlplane/schema/quantity.h"
#include "controlplane/schema/validate.h"

struct th_view th_view_at(const struct th_view *v, const char *member)
{
    return (struct th_view){.obj = th_json_path(v->obj, member),
                            .up = v,
                            .member = member,
                            .index = TH_NO_INDEX,
                            .err = v->err};
}

struct th_view th_view_item(const struct th_view *v, const char *member, size_t i)
{
    struct th_view c = th_view_at(v, member);
    c.obj = th_json_at(c.obj, i);
    c.index = i;
    return c;
}

struct th_view th_view_key(const struct th_view *v, const char *member, const char *key)
{
    struct th_view c = th_view_at(v, member);
    c.obj = th_json_get(c.obj, key);
    c.key = key;
    return c;
}

const struct th_view *th_view_top(const struct th_view *v)
{
    while (v->up) {
        v = v->up;
    }
    return v;
}

static void add_member(struct th_buf *b, const char *member)
{
    if (member && *member) {
        th_buf_printf(b, "%s%s", b->n && *member != '[' ? "." : "", member);
    }
}

static void add_path(const struct th_view *v, struct th_buf *b)
{
    if (v->up) {
        add_path(v->up, b);
    }
    add_member(b, v->member);
    if (v->index != TH_NO_INDEX) {
        th_buf_printf(b, "[%zu]", v->index);
    }
    if (v->key) {
        th_buf_printf(b, "[%s]", v->key);
    }
}

char *th_view_path(const struct th_view *v, const char *member)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    add_path(v, &b);
    add_member(&b, member);
    return th_xstrdup(th_buf_cstr(&b));
}

/* ---- Values ---- */

const struct th_json *th_view_get(const struct th_view *v, const char *member)
{
    return member ? th_json_path(v->obj, member) : v->obj;
}

const char *th_view_str(const struct th_view *v, const char *member)
{
    const char *s = th_json_str(th_view_get(v, member));
    return s ? s : "";
}

int64_t th_view_int(const struct th_view *v, const char *member, int64_t dflt)
{
    return th_json_as_int(th_view_get(v, member), dflt);
}

bool th_view_bool(const struct th_view *v, const char *member)
{
    return th_json_as_bool(th_view_get(v, member), false);
}

bool th_view_has(const struct th_view *v, const char *member)
{
    return th_view_get(v, member) != NULL;
}

size_t th_view_len(const struct th_view *v, const char *member)
{
    return th_json_len(th_view_get(v, member));
}

bool th_view_is(const struct th_view *v, const char *member, const char *text)
{
    return th_streq(th_view_str(v, member), text);
}

/* ---- Causes ---- */

void th_bad_required(const struct th_view *v, const char *member, const char *detail)
{
    th_autofree char *path = th_view_path(v, member);
    th_invalid_required(v->err, path, detail);
}

void th_bad_str(const struct th_view *v, const char *member, const char *bad, const char *detail)
{
    th_autofree char *path = th_view_path(v, member);
    th_invalid_str(v->err, path, bad, detail);
}

void th_bad_int(const struct th_view *v, const char *member, int64_t bad, const char *detail)
{
    th_autofree char *path = th_view_path(v, member);
    th_invalid_int(v->err, path, bad, detail);
}

void th_bad_json(const struct th_view *v, const char *member, const struct th_json *bad,
                 const char *detail)
{
    th_autofree char *path = th_view_path(v, member);
    th_invalid_value(v->err, path, bad, detail);
}

void th_bad_value(const struct th_view *v, const char *member, const char *detail)
{
    th_bad_json(v, member, th_view_get(v, member), detail);
}

void th_bad_unsupported(const struct th_view *v, const char *member, const char *bad,
                        const char *values)
{
    th_autofree char *path = th_view_path(v, member);
    th_autostrv struct th_strv list = TH_STRV_INIT;
    th_strv_split(&list, values, '|');
    th_invalid_not_supported(v->err, path, bad, (const char *const *)list.v);
}

void th_bad_forbidden(const struct th_view *v, const char *member, const char *detail)
{
    th_autofree char *path = th_view_path(v, member);
    th_invalid_forbidden(v->err, path, detail);
}

void th_bad_duplicate(const struct th_view *v, const char *member, const char *bad)
{
    th_autofree char *path = th_view_path(v, member);
    TH_AUTO(th_json) struct th_json *value = th_json_string(bad);
    th_invalid_duplicate(v->err, path, value);
}

void th_bad_not_found(const struct th_view *v, const char *member, const char *bad)
{
    th_autofree char *path = th_view_path(v, member);
    TH_AUTO(th_json) struct th_json *value = th_json_string(bad);
    th_invalid_not_found(v->err, path, value);
}

void th_bad_too_long(const struct th_view *v, const char *member, int max)
{
    th_autofree char *path = th_view_path(v, member);
    th_invalid_too_long(v->err, path, max);
}

void th_bad_too_many(const struct th_view *v, const char *member, size_t n, size_t max)
{
    th_autofree char *path = th_view_path(v, member);
    th_invalid_too_many(v->err, path, n, max);
}

/* ---- Checks ---- */

bool th_check_format(const struct th_view *v, const char *member, const char *value,
                     enum th_name_format f)
{
    const char *msgs[TH_NAME_MSGS];
    size_t n = th_name_messages(f, value, msgs);
    for (size_t i = 0; i < n; i++) {
        th_bad_str(v, member, value, msgs[i]);
    }
    return n == 0;
}

bool th_word_in(const char *word, const char *values)
{
    size_t n = strlen(word);
    for (const char *p = values; *p;) {
        size_t len = strcspn(p, "|");
        if (len == n && memcmp(p, word, n) == 0) {
            return true;
        }
        p += len + (p[len] == '|');
    }
    return false;
}

bool th_check_one_of(const struct th_view *v, const char *member, const char *value,
                     const char *values)
{
    if (th_word_in(value, values)) {
        return true;
    }
    th_bad_unsupported(v, member, value, values);
    return false;
}

void th_check_labels(const struct th_view *v, const char *member)
{
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, member));
    while (th_json_next(&it)) {
        (void)th_check_format(v, member, it.name, TH_NAME_QUALIFIED);
        const char *value = th_json_str(it.value);
        (void)th_check_format(v, member, value ? value : "", TH_NAME_LABEL_VALUE);
    }
}

void th_check_annotations(const struct th_view *v, const char *member)
{
    size_t total = 0;
    struct th_json_iter it = TH_JSON_ITER(th_view_get(v, member));
    while (th_json_next(&it)) {
        th_autofree char *lower = th_xstrdup(it.name);
        for (char *p = lower; *p; p++) {
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
        }
        const char *msgs[TH_NAME_MSGS];
        size_t n = th_name_messages(TH_NAME_QUALIFIED, lower, msgs);
        for (size_t i = 0; i < n; i++) {
            th_bad_str(v, member, it.name, msgs[i]);
        }
        total += strlen(it.name) + th_json_str_len(it.value);
    }
    if (total > TH_LIMIT_ANNOTATIONS_B) {
        th_bad_too_long(v, member, (int)TH_LIMIT_ANNOTATIONS_B);
    }
}

void th_check_port_and_protocol(const struct th_view *port)
{
    int64_t number = th_view_int(port, "port", 0);
    const char *protocol = th_view_str(port, "protocol");
    if (number < 1 || number > 65535) {
        th_bad_int(port, "port", number, "must be between 1 and 65535, inclusive");
    }
    if (!*protocol) {
        th_bad_required(port, "protocol", "");
    } else {
        (void)th_check_one_of(port, "protocol", protocol, "SCTP|TCP|UDP");
    }
}

void th_check_port_or_name(const struct th_view *v, const char *member)
{
    const struct th_json *p = th_view_get(v, member);
    if (th_json_is(p, TH_JSON_STRING)) {
        (void)th_check_format(v, member, th_json_str(p), TH_NAME_PORT);
        return;
    }
    int64_t n = th_json_as_int(p, 0);
    if (n < 1 || n > 65535) {
        th_bad_int(v, member, n, "must be between 1 and 65535, inclusive");
    }
}

void th_check_no_backsteps(const struct th_view *v, const char *member, const char *path)
{
    for (const char *p = path; p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            th_bad_str(v, member, path, "must not contain '..'");
            return;
        }
        p = p[n] ? p + n + 1 : NULL;
    }
}

void th_check_descending(const struct th_view *v, const char *member, const char *path)
{
    if (*path == '/') {
        th_bad_str(v, member, path, "must be a relative path");
    }
    th_check_no_backsteps(v, member, path);
}

void th_check_non_reserved(const struct th_view *v, const char *member, const char *path)
{
    th_check_descending(v, member, path);
    if (th_startswith(path, "..") && !th_startswith(path, "../") && !th_streq(path, "..")) {
        th_bad_str(v, member, path, "must not start with '..'");
    }
}

void th_check_non_negative(const struct th_view *v, const char *member)
{
    int64_t n = th_view_int(v, member, 0);
    if (n < 0) {
        th_bad_int(v, member, n, "must be greater than or equal to 0");
    }
}

bool th_check_quantity(const struct th_view *v, const char *member)
{
    struct th_quantity q;
    const char *text = th_json_str(th_view_get(v, member));
    if (text && th_quantity_parse(text, &q, NULL) == 0 && q.nano < 0) {
        th_bad_str(v, member, text, "must be greater than or equal to 0");
        return false;
    }
    return true;
}

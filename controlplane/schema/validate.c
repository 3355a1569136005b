/* The words of validation: see validate.h.
 *
 * Clients, scripts and tests match on these sentences, so they are made in one place. A rule may be
 * checked twice (by the tables and by hand); equal causes are therefore kept once. */
#include "controlplane/schema/validate.h"

#include "controlplane/schema/gotext.h"

static void add(struct th_err *err, const char *reason, const char *path, const char *text)
{
    for (size_t i = 0; err && i < err->n_causes; i++) {
        const struct th_cause *c = &err->causes[i];
        if (th_streq(c->reason, reason) && th_streq(c->field, path) && th_streq(c->msg, text)) {
            return;
        }
    }
    th_err_add_cause(err, reason, path, "%s", text);
}

/* "<what>: <value>: <detail>", each part after the first only when it is there. */
static void add_parts(struct th_err *err, const char *reason, const char *path, const char *what,
                      const struct th_buf *value, const char *detail)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, what);
    if (value) {
        th_buf_printf(&b, ": %s", th_buf_cstr(value));
    }
    if (detail && *detail) {
        th_buf_printf(&b, ": %s", detail);
    }
    add(err, reason, path, th_buf_cstr(&b));
}

static void render(const struct th_json *v, struct th_buf *b)
{
    if (th_json_is(v, TH_JSON_STRING)) {
        th_go_quote(b, th_json_str(v));
    } else {
        th_json_dump(v, b);
    }
}

void th_invalid_required(struct th_err *err, const char *path, const char *detail)
{
    add_parts(err, "FieldValueRequired", path, "Required value", NULL, detail);
}

void th_invalid_value(struct th_err *err, const char *path, const struct th_json *bad,
                      const char *detail)
{
    th_autobuf struct th_buf v = TH_BUF_INIT;
    render(bad, &v);
    add_parts(err, "FieldValueInvalid", path, "Invalid value", &v, detail);
}

void th_invalid_str(struct th_err *err, const char *path, const char *bad, const char *detail)
{
    th_autobuf struct th_buf v = TH_BUF_INIT;
    th_go_quote(&v, bad ? bad : "");
    add_parts(err, "FieldValueInvalid", path, "Invalid value", &v, detail);
}

void th_invalid_int(struct th_err *err, const char *path, int64_t bad, const char *detail)
{
    th_autobuf struct th_buf v = TH_BUF_INIT;
    th_buf_printf(&v, "%lld", (long long)bad);
    add_parts(err, "FieldValueInvalid", path, "Invalid value", &v, detail);
}

void th_invalid_not_supported(struct th_err *err, const char *path, const char *bad,
                              const char *const *values)
{
    th_autobuf struct th_buf v = TH_BUF_INIT, detail = TH_BUF_INIT;
    th_go_quote(&v, bad ? bad : "");
    for (size_t i = 0; values && values[i]; i++) {
        th_buf_puts(&detail, i ? ", " : "supported values: ");
        th_go_quote(&detail, values[i]);
    }
    add_parts(err, "FieldValueNotSupported", path, "Unsupported value", &v, th_buf_cstr(&detail));
}

void th_invalid_duplicate(struct th_err *err, const char *path, const struct th_json *bad)
{
    th_autobuf struct th_buf v = TH_BUF_INIT;
    render(bad, &v);
    add_parts(err, "FieldValueDuplicate", path, "Duplicate value", &v, NULL);
}

void th_invalid_not_found(struct th_err *err, const char *path, const struct th_json *bad)
{
    th_autobuf struct th_buf v = TH_BUF_INIT;
    render(bad, &v);
    add_parts(err, "FieldValueNotFound", path, "Not found", &v, NULL);
}

void th_invalid_forbidden(struct th_err *err, const char *path, const char *detail)
{
    add_parts(err, "FieldValueForbidden", path, "Forbidden", NULL, detail);
}

void th_invalid_too_long(struct th_err *err, const char *path, int max)
{
    th_autofree char *detail =
        th_xasprintf("may not be more than %d byte%s", max, max == 1 ? "" : "s");
    add_parts(err, "FieldValueTooLong", path, "Too long", NULL, detail);
}

void th_invalid_too_many(struct th_err *err, const char *path, size_t actual, size_t max)
{
    th_autobuf struct th_buf v = TH_BUF_INIT;
    th_buf_printf(&v, "%zu", actual);
    th_autofree char *detail =
        th_xasprintf("must have at most %zu item%s", max, max == 1 ? "" : "s");
    add_parts(err, "FieldValueTooMany", path, "Too many", &v, detail);
}

void th_invalid_internal(struct th_err *err, const char *path, const char *detail)
{
    add_parts(err, "InternalError", path, "Internal error", NULL, detail);
}

int th_invalid_finish(struct th_err *err, const char *group, const char *kind, const char *name)
{
    if (!err || err->n_causes == 0) {
        return 0;
    }
    th_autostrv struct th_strv texts = TH_STRV_INIT;
    for (size_t i = 0; i < err->n_causes; i++) {
        const struct th_cause *c = &err->causes[i];
        th_autofree char *text = th_xasprintf("%s: %s", c->field ? c->field : "",
                                              c->msg ? c->msg : "");
        if (!th_strv_has(&texts, text)) {
            th_strv_add(&texts, text);
        }
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, kind);
    if (group && *group) {
        th_buf_printf(&b, ".%s", group);
    }
    th_buf_putc(&b, ' ');
    th_go_quote(&b, name ? name : "");
    th_autofree char *joined = th_strv_join(&texts, ", ");
    bool several = texts.n > 1;
    th_buf_printf(&b, " is invalid: %s%s%s", several ? "[" : "", joined, several ? "]" : "");
    free(err->msg);
    err->msg = th_buf_steal(&b, NULL);
    err->reason = TH_R_INVALID;
    th_err_set_object(err, group ? group : "", kind, name ? name : "");
    return -TH_R_INVALID;
}

char *th_field_path(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *s = th_xvasprintf(fmt, ap);
    va_end(ap);
    return s;
}

char *th_field_child(const char *parent, const char *member)
{
    return parent && *parent ? th_xasprintf("%s.%s", parent, member) : th_xstrdup(member);
}

char *th_field_index(const char *parent, size_t i)
{
    return th_xasprintf("%s[%zu]", parent, i);
}

char *th_field_key(const char *parent, const char *key)
{
    return th_xasprintf("%s[%s]", parent, key);
}

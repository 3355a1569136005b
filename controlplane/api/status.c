/* Failures as metav1.Status, with upstream's words.
 *
 * kubectl, Helm and client-go match on reason, code and details; people read the message. Both are
 * part of the API, so the constructors here are the only places that compose them. The kind in
 * details is the plural resource ("pods"), except for Invalid, where upstream gives the Kind.
 */
#include "controlplane/api/priv.h"

struct th_json *th_status_json(const struct th_err *err)
{
    int code = err->http_code ? err->http_code : th_reason_http(err->reason);
    struct th_json *s = th_json_build("{'kind':'Status','apiVersion':'v1','metadata':{},"
                                      "'status':'Failure','message':%s}",
                                      err->msg ? err->msg : th_reason_code(err->reason));
    if (err->cont) {
        th_json_path_set_str(s, "metadata.continue", err->cont);
    }
    const char *reason = err->status_reason ? err->status_reason : th_reason_status(err->reason);
    if (*reason) {
        th_json_set_str(s, "reason", reason);
    }
    struct th_json *d = th_json_object();
    if (err->name) {
        th_json_set_str(d, "name", err->name);
    }
    if (err->group && *err->group) {
        th_json_set_str(d, "group", err->group);
    }
    if (err->kind) {
        th_json_set_str(d, "kind", err->kind);
    }
    if (err->uid) {
        th_json_set_str(d, "uid", err->uid);
    }
    if (err->n_causes > 0) {
        struct th_json *causes = th_json_array();
        for (size_t i = 0; i < err->n_causes; i++) {
            struct th_json *c = th_json_object();
            if (err->causes[i].reason && *err->causes[i].reason) {
                th_json_set_str(c, "reason", err->causes[i].reason);
            }
            if (*err->causes[i].msg) {
                th_json_set_str(c, "message", err->causes[i].msg);
            }
            if (err->causes[i].field && *err->causes[i].field) {
                th_json_set_str(c, "field", err->causes[i].field);
            }
            th_json_append(causes, c);
        }
        th_json_set(d, "causes", causes);
    }
    if (err->retry_after_s > 0) {
        th_json_set_int(d, "retryAfterSeconds", err->retry_after_s);
    }
    if (th_json_len(d) > 0 || err->reason == TH_R_NOT_FOUND || err->reason == TH_R_FORBIDDEN) {
        th_json_set(s, "details", d);
    } else {
        th_json_unref(d);
    }
    th_json_set_int(s, "code", code);
    return s;
}

char *th_gr_name(const char *group, const char *plural)
{
    return group && *group ? th_xasprintf("%s.%s", plural, group) : th_xstrdup(plural);
}

int th_fail_obj(struct th_err *err, enum th_reason reason, const char *group, const char *kind,
                const char *name, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *msg = th_xvasprintf(fmt, ap);
    va_end(ap);
    int r = th_fail(err, reason, "%s", msg);
    th_err_set_object(err, group, kind, name);
    return r;
}

int th_fail_not_found(struct th_err *err, const struct th_resource *r, const char *name)
{
    th_autofree char *gr = th_gr_name(r->group, r->plural);
    return th_fail_obj(err, TH_R_NOT_FOUND, r->group, r->plural, name, "%s \"%s\" not found", gr,
                       name);
}

int th_fail_exists(struct th_err *err, const struct th_resource *r, const char *name)
{
    th_autofree char *gr = th_gr_name(r->group, r->plural);
    return th_fail_obj(err, TH_R_ALREADY_EXISTS, r->group, r->plural, name,
                       "%s \"%s\" already exists", gr, name);
}

int th_fail_conflict(struct th_err *err, const struct th_resource *r, const char *name,
                     const char *why)
{
    th_autofree char *gr = th_gr_name(r->group, r->plural);
    return th_fail_obj(err, TH_R_CONFLICT, r->group, r->plural, name,
                       "Operation cannot be fulfilled on %s \"%s\": %s", gr, name,
                       why ? why
                           : "the object has been modified; please apply your changes to the "
                             "latest version and try again");
}

int th_fail_forbidden(struct th_err *err, const struct th_resource *r, const char *name,
                      const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *why = th_xvasprintf(fmt, ap);
    va_end(ap);
    th_autofree char *gr = th_gr_name(r->group, r->plural);
    if (!name || !*name) {
        return th_fail_obj(err, TH_R_FORBIDDEN, r->group, r->plural, NULL, "%s is forbidden: %s",
                           gr, why);
    }
    return th_fail_obj(err, TH_R_FORBIDDEN, r->group, r->plural, name, "%s \"%s\" is forbidden: %s",
                       gr, name, why);
}

int th_fail_invalid(struct th_err *err, const char *group, const char *kind, const char *name)
{
    if (!err || err->n_causes == 0) {
        return 0;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < err->n_causes; i++) {
        const struct th_cause *c = &err->causes[i];
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++) {
            seen = th_streq(err->causes[j].field, c->field) && th_streq(err->causes[j].msg, c->msg);
        }
        if (!seen) {
            th_buf_printf(&b, "%s%s: %s", b.n ? ", " : "",
                          c->field && *c->field ? c->field : "<nil>", c->msg);
        }
    }
    th_autofree char *gk = th_gr_name(group, kind);
    bool several = err->n_causes > 1;
    return th_fail_obj(err, TH_R_INVALID, group, kind, name, "%s \"%s\" is invalid: %s%s%s", gk,
                       name ? name : "", several ? "[" : "", th_buf_cstr(&b), several ? "]" : "");
}

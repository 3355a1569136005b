/* Request bodies into trees.
 *
 * JSON, YAML and protobuf come in; what goes on is a tree of the kind that the route names, with
 * unknown members pruned and reported as fieldValidation asks (Warn is the server's default), and
 * with defaults filled. A body without apiVersion and kind is taken for what the route says, as
 * upstream's decoder does when it is given a default kind; one that says something else is refused.
 */
#include "controlplane/api/priv.h"

#include "base/json/yaml.h"

#include <strings.h>

enum media { MEDIA_JSON, MEDIA_YAML, MEDIA_PROTOBUF, MEDIA_UNKNOWN };

static enum media media_of(const char *content_type)
{
    if (!content_type || !*content_type) {
        return MEDIA_JSON;
    }
    size_t n = strcspn(content_type, "; \t");
    struct th_str t = {content_type, n};
    if (th_str_eq(t, TH_STR("application/json"))) {
        return MEDIA_JSON;
    }
    if (th_str_eq(t, TH_STR("application/yaml"))) {
        return MEDIA_YAML;
    }
    return th_str_eq(t, TH_STR("application/vnd.kubernetes.protobuf")) ? MEDIA_PROTOBUF
                                                                       : MEDIA_UNKNOWN;
}

int th_decode_wrap(struct th_err *err, const char *kind, const char *version, const char *want)
{
    th_autofree char *msg = th_xstrdup(err->msg);
    return th_fail(err, TH_R_BAD_REQUEST, "%s in version \"%s\" cannot be handled as a %s: %s",
                   kind, version, want, msg);
}

static int fail_unrecognized(struct th_err *err, const char *want, struct th_str body)
{
    th_autofree char *msg = th_xstrdup(err && err->msg ? err->msg : "unexpected end of JSON input");
    if (body.n == 0) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the object provided is unrecognized (must be of type %s): couldn't get "
                       "version/kind; json parse error: %s (<empty>)",
                       want, msg);
    }
    int show = body.n > 30 ? 30 : (int)body.n;
    return th_fail(err, TH_R_BAD_REQUEST,
                   "the object provided is unrecognized (must be of type %s): couldn't get "
                   "version/kind; json parse error: %s (%.*s%s)",
                   want, msg, show, body.p, body.n > 30 ? " ..." : "");
}

/* Bytes or the caller's tree into a new tree. */
static int parse(struct th_call *c, const struct th_kind *k, const char *want, struct th_strv *dups,
                 struct th_json **ret, struct th_err *err)
{
    const struct th_areq *q = c->req;
    if (q->body_tree) {
        *ret = th_json_dup(q->body_tree);
        return 0;
    }
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    struct th_json *o = NULL;
    int r = 0;
    switch (media_of(q->content_type)) {
    case MEDIA_JSON:
        r = q->body.n == 0 ? -TH_R_PARSE : th_json_parse(q->body.p, q->body.n, dups, &o, &local);
        break;
    case MEDIA_YAML:
        r = q->body.n == 0 ? -TH_R_PARSE
                           : th_yaml_parse_one(q->body.p, q->body.n, dups, &o, &local);
        break;
    case MEDIA_PROTOBUF: {
        if (k && (k->type->flags & TH_TF_CUSTOM)) {
            return th_fail(err, TH_R_UNSUPPORTED_MEDIA,
                           "the body of the request was in an unknown format - accepted media "
                           "types include: application/json, application/yaml");
        }
        const struct th_kind *found = NULL;
        r = th_pb_decode(q->body.p, q->body.n, k, &found, &o, &local);
        break;
    }
    default:
        return th_fail(err, TH_R_UNSUPPORTED_MEDIA,
                       "the body of the request was in an unknown format - accepted media types "
                       "include: application/json, application/yaml, "
                       "application/vnd.kubernetes.protobuf");
    }
    if (r >= 0 && !th_json_is(o, TH_JSON_OBJECT)) {
        th_json_unref(o);
        r = th_fail(&local, TH_R_PARSE, "cannot unmarshal a value that is not an object");
    }
    if (r < 0) {
        r = fail_unrecognized(&local, want, q->body);
        if (err) {
            th_err_move(err, &local);
        }
        return r;
    }
    *ret = o;
    return 0;
}

/* The name that upstream's Go packages have for a group. */
static const char *internal_group(const char *group, char *buf, size_t n)
{
    if (!*group) {
        return "core";
    }
    (void)snprintf(buf, n, "%.*s", (int)strcspn(group, "."), group);
    return buf;
}

static int check_kind(struct th_json *o, const char *group, const char *version, const char *kind,
                      struct th_err *err)
{
    th_autofree char *gv = *group ? th_xasprintf("%s/%s", group, version) : th_xstrdup(version);
    const char *have_gv = th_json_str(th_json_get(o, "apiVersion"));
    const char *have_kind = th_json_str(th_json_get(o, "kind"));
    if (have_kind && *have_kind && !th_streq(have_kind, kind)) {
        th_autofree char *g = NULL;
        th_autofree char *v = NULL;
        if (!have_gv || th_gv_split(have_gv, &g, &v, NULL) < 0) {
            g = th_xstrdup(group);
            v = th_xstrdup(version);
        }
        char into[64];
        return th_fail(err, TH_R_BAD_REQUEST,
                       "%s in version \"%s\" cannot be handled as a %s: converting (%s.%s) to "
                       "(%s.%s): unknown conversion",
                       have_kind, v, kind, v, have_kind, internal_group(group, into, sizeof(into)),
                       kind);
    }
    if (have_gv && *have_gv && !th_streq(have_gv, gv)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "the API version in the data (%s) does not match the expected API version "
                       "(%s)",
                       have_gv, gv);
    }
    th_json_set_str(o, "apiVersion", gv);
    th_json_set_str(o, "kind", kind);
    return 0;
}

int th_decode_tree(struct th_call *c, const struct th_kind *k, struct th_json *obj,
                   const struct th_strv *dups, bool from_map, struct th_err *err)
{
    if (!k) {
        return 0;
    }
    th_autostrv struct th_strv unknown = TH_STRV_INIT;
    TH_TRY((from_map ? th_schema_decode_map : th_schema_decode)(k->type, obj, &unknown, err));
    return th_schema_field_validation(c->fv, &unknown, dups, &c->warnings, err);
}

const struct th_kind *th_call_kind(const struct th_call *c, const char *group, const char *version,
                                   const char *kind)
{
    const struct th_kind *own = c->res ? c->res->kind_row : NULL;
    return own && th_streq(own->group, group) && th_streq(own->version, version) &&
                   th_streq(own->kind, kind)
               ? own
               : th_kind_find(group, version, kind);
}

int th_decode_body(struct th_call *c, const char *group, const char *version, const char *kind,
                   bool dflt, struct th_json **ret, struct th_err *err)
{
    const struct th_kind *k = th_call_kind(c, group, version, kind);
    th_autostrv struct th_strv dups = TH_STRV_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(parse(c, k, kind, &dups, &o, err));
    TH_TRY(check_kind(o, group, version, kind, err));
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    if (th_decode_tree(c, k, o, &dups, false, &local) < 0) {
        int r = th_decode_wrap(&local, kind, version, kind);
        if (err) {
            th_err_move(err, &local);
        }
        return r;
    }
    if (k && dflt) {
        th_schema_default(k, o);
    }
    *ret = th_steal(&o);
    return 0;
}

int th_decode_options(struct th_call *c, const char *kind, struct th_json **ret,
                      struct th_err *err)
{
    if (!c->req->body_tree && c->req->body.n == 0) {
        *ret = NULL;
        return 0;
    }
    /* DeleteOptions belongs to every group version, so it is in no list of kinds. */
    struct th_kind options = {.group = "", .version = "v1", .kind = kind};
    th_autofree char *type = th_xasprintf("meta.%s", kind);
    options.type = th_type_find(type);
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_TRY(parse(c, options.type ? &options : NULL, kind, NULL, &o, err));
    const char *have = th_json_str(th_json_get(o, "kind"));
    if (have && *have && !th_streq(have, kind)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "decoded object cannot be converted to %s: the kind is %s", kind, have);
    }
    *ret = th_steal(&o);
    return 0;
}

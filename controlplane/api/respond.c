/* Answers: an object in the form that was negotiated.
 *
 * The usual case costs nothing: the stored bytes are the body, shared with the store. Only another
 * form (Table, metadata only, YAML, indented, converted) parses.
 */
#include "controlplane/api/priv.h"

#include "base/json/slice.h"
#include "base/json/yaml.h"

void th_respond_text(struct th_aresp *r, int status, const char *content_type, const char *text)
{
    r->status = status;
    r->content_type = content_type;
    th_buf_clear(&r->body);
    th_buf_puts(&r->body, text);
}

void th_respond_json(struct th_aresp *r, int status, const struct th_json *o, bool pretty)
{
    r->status = status;
    r->content_type = "application/json";
    th_buf_clear(&r->body);
    if (pretty) {
        th_json_dump_pretty(o, &r->body);
    } else {
        th_json_dump(o, &r->body);
    }
    th_buf_putc(&r->body, '\n');
}

bool th_kind_has_protobuf(const struct th_kind *k)
{
    return k && !(k->type->flags & TH_TF_CUSTOM);
}

int th_protobuf_of(const struct th_call *c, struct th_str json, struct th_buf *b,
                   struct th_err *err)
{
    if (c->accept.form != TH_FORM_PARTIAL) {
        return th_pb_encode_text(c->kind, json, b, err);
    }
    size_t raw = th_pb_envelope(b, c->accept.gv, "PartialObjectMetadata");
    struct th_str meta = th_json_slice_get(json, "metadata");
    size_t at = th_pb_begin(b, 1);
    if (meta.p) {
        TH_TRY(th_pb_message(th_type_find("meta.ObjectMeta"), meta, b, err));
    }
    th_pb_end(b, at);
    return th_pb_envelope_end(b, raw, err);
}

int th_respond_obj(struct th_call *c, int status, struct th_obj *o, struct th_err *err)
{
    const struct th_accept *a = &c->accept;
    bool asis = c->res == c->storage && !c->req->want_tree;
    if (asis && a->media == TH_MEDIA_PROTOBUF) {
        c->resp->status = status;
        c->resp->content_type = TH_TYPE_PROTOBUF;
        return th_protobuf_of(c, (struct th_str){o->bytes, o->n}, &c->resp->body, err);
    }
    if (asis && a->form == TH_FORM_OBJECT && a->media == TH_MEDIA_JSON && !a->pretty) {
        c->resp->status = status;
        c->resp->content_type = "application/json";
        c->resp->body_obj = th_obj_ref(o);
        return 0;
    }
    struct th_json *tree = NULL;
    TH_TRY(th_object_load(c->res, o, &tree, err));
    return th_respond_tree(c, status, tree, err);
}

/* What has apiVersion and kind in the tables, in protobuf; false for all else. */
static bool respond_protobuf(struct th_call *c, int status, const struct th_json *o,
                             struct th_err *err, int *ret)
{
    th_autofree char *group = NULL;
    th_autofree char *version = NULL;
    const char *gv = th_json_path_str(o, "apiVersion");
    const char *kind = th_json_path_str(o, "kind");
    if (!gv || !kind || th_gv_split(gv, &group, &version, NULL) < 0) {
        return false;
    }
    const struct th_kind *k = th_kind_find(group, version, kind);
    if (!k) {
        return false;
    }
    c->resp->status = status;
    c->resp->content_type = TH_TYPE_PROTOBUF;
    *ret = th_pb_encode(k, o, &c->resp->body, err);
    return true;
}

static int respond_table(struct th_call *c, int status, const struct th_json *obj,
                         struct th_err *err)
{
    const char *include = NULL;
    TH_TRY(th_table_include(c, &include, err));
    struct th_aresp *r = c->resp;
    r->status = status;
    r->content_type = "application/json";
    th_table_head(c, th_json_path_str(obj, "metadata.resourceVersion"), NULL, 0, true, &r->body);
    TH_TRY(th_table_row(c, obj, include, &r->body, err));
    th_buf_puts(&r->body, "]}\n");
    return 0;
}

int th_respond_tree(struct th_call *c, int status, struct th_json *obj, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = obj;
    if (c->req->want_tree) {
        c->resp->status = status;
        c->resp->tree = th_steal(&o);
        return 0;
    }
    bool is_status = th_streq(th_json_path_str(o, "kind"), "Status");
    if (c->accept.form == TH_FORM_TABLE && !is_status) {
        return respond_table(c, status, o, err);
    }
    if (c->accept.form == TH_FORM_PARTIAL && !is_status) {
        struct th_json *partial =
            th_json_build("{'kind':'PartialObjectMetadata','apiVersion':%s}", c->accept.gv);
        struct th_json *meta = th_json_get(o, "metadata");
        th_json_set(partial, "metadata", meta ? th_json_ref(meta) : th_json_object());
        th_json_unref(o);
        o = partial;
    }
    int r = 0;
    if (c->accept.media == TH_MEDIA_PROTOBUF && respond_protobuf(c, status, o, err, &r)) {
        return r;
    }
    if (c->accept.media == TH_MEDIA_YAML) {
        c->resp->status = status;
        c->resp->content_type = "application/yaml";
        th_yaml_dump(o, &c->resp->body);
        return 0;
    }
    th_respond_json(c->resp, status, o, c->accept.pretty);
    return 0;
}

int th_respond_made(struct th_call *c, int status, struct th_json *obj, struct th_err *err)
{
    const struct th_accept *a = &c->accept;
    bool bytes = a->media == TH_MEDIA_PROTOBUF ||
                 (a->form == TH_FORM_OBJECT && a->media == TH_MEDIA_JSON && !a->pretty);
    if (c->made && bytes && c->res == c->storage && !c->req->want_tree) {
        th_json_unref(obj);
        return th_respond_obj(c, status, c->made, err);
    }
    return th_respond_tree(c, status, obj, err);
}

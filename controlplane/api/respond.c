/* Answers: an object in the form that was negotiated.
 *
 * The usual case costs nothing: the stored bytes are the body, shared with the store. Only another
 * form (Table, metadata only, YAML, indented, converted) parses.
 */
#include "controlplane/api/priv.h"

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

int th_respond_obj(struct th_call *c, int status, struct th_obj *o, struct th_err *err)
{
    bool bytes = c->accept.form == TH_FORM_OBJECT && !c->accept.yaml && !c->accept.pretty &&
                 c->res == c->storage && !c->req->want_tree;
    if (bytes) {
        c->resp->status = status;
        c->resp->content_type = "application/json";
        c->resp->body_obj = th_obj_ref(o);
        return 0;
    }
    struct th_json *tree = NULL;
    TH_TRY(th_object_load(c->res, o, &tree, err));
    return th_respond_tree(c, status, tree, err);
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
        c->resp->status = status;
        c->resp->content_type = "application/json";
        th_partial_meta(o, c->accept.gv, &c->resp->body);
        th_buf_putc(&c->resp->body, '\n');
        return 0;
    }
    if (c->accept.yaml) {
        c->resp->status = status;
        c->resp->content_type = "application/yaml";
        th_yaml_dump(o, &c->resp->body);
        return 0;
    }
    th_respond_json(c->resp, status, o, c->accept.pretty);
    return 0;
}

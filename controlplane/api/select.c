/* Label and field selectors of lists and watches.
 *
 * Labels are matched on the head of the stored bytes, metadata.name and metadata.namespace on the
 * key, other fields in the text; only values that a resource's row computes make us parse an object.
 */
#include "controlplane/api/priv.h"

#include "base/json/slice.h"

static int check_field(const struct th_resource *r, const char *field, bool *ret_parse,
                       struct th_err *err)
{
    if (th_streq(field, "metadata.name") ||
        (r->namespaced && th_streq(field, "metadata.namespace"))) {
        return 0;
    }
    for (size_t i = 0; r->selectable && r->selectable[i]; i++) {
        if (th_streq(r->selectable[i], field)) {
            /* What lies in the store may have another form. */
            *ret_parse = *ret_parse || r->selectable_value || r->storage_gv_plural ||
                         (r->custom && r->storage_row != r);
            return 0;
        }
    }
    if (r->selectable) {
        return th_fail(err, TH_R_BAD_REQUEST, "field label not supported: %s", field);
    }
    return th_fail(err, TH_R_BAD_REQUEST,
                   "\"%s\" is not a known field selector: only \"metadata.name\", "
                   "\"metadata.namespace\"",
                   field);
}

int th_select_parse(const struct th_call *c, struct th_select *ret, struct th_err *err)
{
    const char *labels = th_query_get(&c->query, "labelSelector");
    const char *asked = th_query_get(&c->query, "fieldSelector");
    th_autofree char *one = c->route.watch && c->route.name
                                ? th_xasprintf("%s%smetadata.name=%s", asked ? asked : "",
                                               asked && *asked ? "," : "", c->route.name)
                                : NULL; /* .../watch/.../<name> */
    const char *fields = one ? one : asked;
    if ((labels && strlen(labels) > TH_LIMIT_SELECTOR_B) ||
        (fields && strlen(fields) > TH_LIMIT_SELECTOR_B)) {
        return th_fail(err, TH_R_BAD_REQUEST, "selector is longer than %u bytes",
                       TH_LIMIT_SELECTOR_B);
    }
    struct th_select s = {.res = c->res};
    if (labels && *labels) {
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        if (th_selector_parse(labels, &s.labels, &local) < 0) {
            return th_fail(err, TH_R_BAD_REQUEST, "%s", local.msg);
        }
    }
    if (fields && *fields) {
        TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
        int r = th_fieldsel_parse(fields, &s.fields, &local);
        if (r < 0) {
            r = th_fail(err, TH_R_BAD_REQUEST, "%s", local.msg);
        }
        for (size_t i = 0; r >= 0 && i < s.fields.n; i++) {
            r = check_field(c->res, s.fields.terms[i].field, &s.parse, err);
            if (!s.fields.terms[i].negate && th_streq(s.fields.terms[i].field, "metadata.name")) {
                s.name = s.fields.terms[i].value;
            }
            if (!s.fields.terms[i].negate &&
                th_streq(s.fields.terms[i].field, "metadata.namespace")) {
                s.ns = s.fields.terms[i].value;
            }
        }
        if (r < 0) {
            th_select_done(&s);
            return r;
        }
    }
    *ret = s;
    return 0;
}

void th_select_done(struct th_select *s)
{
    th_selector_free(s->labels);
    th_fieldsel_done(&s->fields);
    *s = (struct th_select){0};
}

bool th_select_all(const struct th_select *s)
{
    return (!s->labels || th_selector_empty(s->labels)) && s->fields.n == 0;
}

struct head {
    const struct th_obj *o;
    char *value; /* the last one handed out */
};

static const char *head_label(void *arg, const char *key)
{
    struct head *h = arg;
    struct th_str v;
    if (!th_obj_label(h->o, key, &v)) {
        return NULL;
    }
    free(h->value);
    h->value = th_xstrndup(v.p, v.n);
    return h->value;
}

/* Part i of "group/plural/namespace/name". */
static struct th_str key_part(const char *key, int i)
{
    for (; i > 0; i--) {
        const char *slash = strchr(key, '/');
        if (!slash) {
            return (struct th_str){"", 0};
        }
        key = slash + 1;
    }
    return (struct th_str){key, strcspn(key, "/")};
}

static bool escaped_is(struct th_str quoted, const char *value)
{
    TH_AUTO(th_json) struct th_json *v = NULL;
    return th_json_parse(quoted.p, quoted.n, NULL, &v, NULL) >= 0 && th_streq(th_json_str(v), value);
}

static bool field_is(const struct th_select *s, const struct th_obj *o, const struct th_json *tree,
                     const struct th_fieldsel_term *t)
{
    if (th_streq(t->field, "metadata.name")) {
        return th_str_eq(key_part(o->key, 3), th_str_of(t->value));
    }
    if (th_streq(t->field, "metadata.namespace")) {
        return th_str_eq(key_part(o->key, 2), th_str_of(t->value));
    }
    char buf[64];
    if (s->res->selectable_value) {
        const char *v = s->res->selectable_value(tree, t->field, buf);
        return th_streq(v ? v : "", t->value);
    }
    if (!tree) {
        struct th_str v = th_json_slice_path((struct th_str){o->bytes, o->n}, t->field);
        bool quoted = v.n >= 2 && v.p[0] == '"';
        struct th_str inside = quoted ? (struct th_str){v.p + 1, v.n - 2} : v;
        return !quoted || !memchr(inside.p, '\\', inside.n)
                   ? th_str_eq(inside, th_str_of(t->value))
                   : escaped_is(v, t->value);
    }
    const struct th_json *v = th_json_path(tree, t->field);
    if (!v) {
        return *t->value == '\0';
    }
    if (th_json_is(v, TH_JSON_STRING)) {
        return th_streq(th_json_str(v), t->value);
    }
    th_autofree char *text = th_json_to_string(v);
    return th_streq(text, t->value);
}

int th_select_test(const struct th_select *s, const struct th_obj *o, bool *ret, struct th_err *err)
{
    *ret = false;
    if (s->labels && !th_selector_empty(s->labels)) {
        struct head h = {.o = o};
        bool ok = th_selector_matches_fn(s->labels, head_label, &h);
        free(h.value);
        if (!ok) {
            return 0;
        }
    }
    TH_AUTO(th_json) struct th_json *tree = NULL;
    if (s->fields.n && s->parse) {
        TH_TRY(th_object_load(s->res, o, &tree, err));
    }
    for (size_t i = 0; i < s->fields.n; i++) {
        if (field_is(s, o, tree, &s->fields.terms[i]) == s->fields.terms[i].negate) {
            return 0;
        }
    }
    *ret = true;
    return 0;
}

bool th_select_matches(const struct th_select *s, const struct th_obj *o)
{
    bool is = false;
    return th_select_test(s, o, &is, NULL) >= 0 && is;
}

/* LIST: a consistent set at one revision, in pages when the client asks for them.
 *
 * The store gives references to immutable revisions; plain JSON answers join their bytes without
 * parsing. A continue token names the revision of the first page and the last key given, so that
 * all pages show one moment; when that revision has been compacted, or after some minutes even where
 * history is kept longer (clients must not come to rely on more than upstream gives), the answer is
 * 410 Expired with a token that goes on at the newest state. Objects as they are stored are sent
 * without a copy of the whole (pieces.c).
 */
#include "controlplane/api/priv.h"

#include "base/encode.h"
#include "base/json/yaml.h"

#define SHORT_BODY_B (32u << 10) /* up to here one copy costs less than being clever */

struct token {
    int64_t rv;      /* < 0: inconsistent, whatever is newest */
    int64_t made_ms; /* when its revision was the newest */
    char *start;     /* last key given, without the resource's prefix */
};

static void token_done(struct token *t)
{
    free(t->start);
}

static char *token_encode(int64_t rv, int64_t made_ms, const char *start)
{
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'v':'meta.k8s.io/v1','rv':%d,'start':%s,'made':%d}", rv, start, made_ms);
    th_autofree char *text = th_json_to_string(o);
    struct th_buf b = TH_BUF_INIT;
    th_b64url_encode(text, strlen(text), &b);
    return th_buf_steal(&b, NULL);
}

static int bad_token(struct th_err *err, const char *why)
{
    return th_fail(err, TH_R_BAD_REQUEST, "invalid continue token: continue key is not valid%s%s",
                   why ? ": " : "", why ? why : "");
}

static int token_decode(const char *text, struct token *ret, struct th_err *err)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (strlen(text) > TH_LIMIT_CONTINUE_B || th_b64url_decode(text, strlen(text), &b, NULL) < 0 ||
        th_json_parse(th_buf_cstr(&b), b.n, NULL, &o, NULL) < 0) {
        return bad_token(err, NULL);
    }
    const char *start = th_json_str(th_json_get(o, "start"));
    if (!th_streq(th_json_str(th_json_get(o, "v")), "meta.k8s.io/v1")) {
        return bad_token(err, "server does not recognize this encoded version");
    }
    ret->rv = th_json_as_int(th_json_get(o, "rv"), 0);
    ret->made_ms = th_json_as_int(th_json_get(o, "made"), 0);
    if (ret->rv == 0) {
        return bad_token(err, "incorrect encoded start resourceVersion (version meta.k8s.io/v1)");
    }
    if (!start || !*start) {
        return bad_token(err, "encoded start key empty (version meta.k8s.io/v1)");
    }
    if (*start == '/' || strstr(start, "../") || strstr(start, "//")) {
        return bad_token(err, start);
    }
    ret->start = th_xstrdup(start);
    return 0;
}

static int fail_expired(const char *start, struct th_err *err)
{
    int r = th_fail(err, TH_R_EXPIRED,
                    "The provided continue parameter is too old to display a consistent list "
                    "result. You can start a new list without the continue parameter, or use the "
                    "continue token in this response to retrieve the remainder of the results. "
                    "Continuing with the provided token results in an inconsistent list - objects "
                    "that were created, modified, or deleted between the time the first chunk was "
                    "returned and now may show up in the list.");
    if (err) {
        free(err->cont);
        err->cont = token_encode(-1, 0, start);
    }
    return r;
}

/* Drops what the selector refuses, and what comes after the first `wanted` (0: all). */
static int keep_selected(const struct th_select *sel, size_t wanted, struct th_store_list *l,
                         struct th_err *err)
{
    size_t n = 0;
    int r = 0;
    for (size_t i = 0; i < l->n; i++) {
        bool full = wanted > 0 && n == wanted;
        bool is = false;
        /* With the page full, one more match is what tells that there is another page. */
        if (r >= 0 && !(full && l->more)) {
            r = th_select_test(sel, l->objs[i], &is, err);
        }
        if (is && !full) {
            l->objs[n++] = l->objs[i];
            continue;
        }
        l->more = l->more || is;
        th_obj_unref(l->objs[i]);
    }
    l->n = n;
    l->remaining = 0;
    return r;
}

/* The revisions that the answer holds. Objects that the selector refuses are dropped. */
static int collect(struct th_call *c, const struct th_listopts *o, const struct th_select *sel,
                   struct th_store_list *ret, char **ret_continue, struct th_err *err)
{
    TH_CLEANUP(token_done) struct token t = {.rv = 0};
    th_autofree char *prefix = th_store_prefix(c->storage, c->res->namespaced ? c->route.ns : NULL);
    th_autofree char *after = NULL;
    int64_t at = 0;
    if (o->cont) {
        TH_TRY(token_decode(o->cont, &t, err));
        at = t.rv > 0 ? t.rv : 0;
        if (at > 0 && (th_store_rv(c->api->store) < at ||
                       c->ctx.now_ms - t.made_ms > c->api->continue_expiry_ms)) {
            return fail_expired(t.start, err);
        }
        after = th_xasprintf("%s%s", prefix, t.start);
    } else if (o->match == TH_RVM_EXACT || (o->limit > 0 && o->rv > 0 && o->match == TH_RVM_NONE)) {
        at = o->rv;
    }
    TH_TRY(th_listopts_check_rv(c, o->rv > at ? o->rv : at, err));
    bool all = th_select_all(sel);
    int64_t wanted = o->rv == 0 && !o->cont ? 0 : o->limit; /* "any version" comes whole */
    size_t limit = all && wanted > 0 ? (size_t)wanted : 0;
    TH_AUTO_ERR struct th_err local = TH_ERR_INIT;
    struct th_store_list l = {.n = 0};
    int r = c->res->s.list_virtual
                ? th_virtual_list(c, &l, &local)
                : th_store_range(c->api->store, prefix, after, limit, at, &l, &local);
    if (r == -TH_R_EXPIRED && o->cont) {
        return fail_expired(t.start, err);
    }
    if (r < 0) {
        if (err) {
            th_err_move(err, &local);
        }
        return r;
    }
    r = all ? 0 : keep_selected(sel, (size_t)wanted, &l, err);
    if (r < 0) {
        th_store_list_done(&l);
        return r;
    }
    if (l.more && l.n > 0) {
        int64_t made = at > 0 && o->cont ? t.made_ms : c->ctx.now_ms;
        *ret_continue = token_encode(l.rv, made, l.objs[l.n - 1]->key + strlen(prefix));
    } else {
        l.remaining = 0;
    }
    *ret = l;
    return 0;
}

static void put_meta(int64_t rv, const char *cont, size_t remaining, struct th_buf *b)
{
    th_buf_printf(b, "{\"resourceVersion\":\"%lld\"", (long long)rv);
    if (cont) {
        th_buf_printf(b, ",\"continue\":\"%s\"", cont);
    }
    if (remaining > 0) {
        th_buf_printf(b, ",\"remainingItemCount\":%zu", remaining);
    }
    th_buf_putc(b, '}');
}

static void head(const char *kind, const char *gv, int64_t rv, const char *cont, size_t remaining,
                 struct th_buf *b)
{
    th_buf_printf(b, "{\"kind\":\"%s\",\"apiVersion\":\"%s\",\"metadata\":", kind, gv);
    put_meta(rv, cont, remaining, b);
    th_buf_puts(b, ",\"items\":[");
}

/* The objects of a list as trees, some at a time: few enough that what a conversion webhook answers
 * stays below the limit of a body. */
#define LOAD_N 128
#define LOAD_B (TH_LIMIT_BODY_B / 3)
struct loaded {
    struct th_json *v[LOAD_N];
    size_t from, n;
};

static void loaded_done(struct loaded *x)
{
    for (size_t i = 0; i < x->n; i++) {
        th_json_unref(x->v[i]);
    }
    x->n = 0;
}

static int load_at(struct th_call *c, const struct th_store_list *l, size_t i, struct loaded *x,
                   struct th_json **ret, struct th_err *err)
{
    if (i >= x->from + x->n) {
        loaded_done(x);
        size_t n = 0, b = 0;
        while (n < LOAD_N && i + n < l->n && (n == 0 || b + l->objs[i + n]->n <= LOAD_B)) {
            b += l->objs[i + n++]->n;
        }
        TH_TRY(th_object_load_all(c->res, l->objs + i, n, x->v, err));
        x->from = i;
        x->n = n;
    }
    *ret = x->v[i - x->from];
    return 0;
}

static int write_table(struct th_call *c, const struct th_store_list *l, const char *cont,
                       struct th_buf *b, struct th_err *err)
{
    const char *include = NULL;
    TH_TRY(th_table_include(c, &include, err));
    char rv[24];
    (void)snprintf(rv, sizeof(rv), "%lld", (long long)l->rv);
    th_table_head(c, rv, cont, (int64_t)l->remaining, true, b);
    TH_CLEANUP(loaded_done) struct loaded x = {.n = 0};
    for (size_t i = 0; i < l->n; i++) {
        struct th_json *o = NULL;
        TH_TRY(load_at(c, l, i, &x, &o, err));
        if (i > 0) {
            th_buf_putc(b, ',');
        }
        TH_TRY(th_table_row(c, o, include, b, err));
    }
    return 0;
}

static int write_items(struct th_call *c, const struct th_store_list *l, struct th_buf *b,
                       struct th_err *err)
{
    TH_CLEANUP(loaded_done) struct loaded x = {.n = 0};
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0) {
            th_buf_putc(b, ',');
        }
        struct th_json *o = NULL;
        TH_TRY(load_at(c, l, i, &x, &o, err));
        if (c->accept.form == TH_FORM_PARTIAL) {
            th_partial_meta(o, c->accept.gv, b);
        } else {
            if (th_kind_has_protobuf(c->kind)) {
                th_json_del(o, "kind");
                th_json_del(o, "apiVersion");
            }
            th_json_dump(o, b);
        }
    }
    return 0;
}

/* In protobuf: the list's own type has metadata as field 1 and the items as field 2. */
static int write_protobuf(struct th_call *c, const char *gv, const char *kind,
                          const struct th_store_list *l, const char *cont, struct th_buf *b,
                          struct th_err *err)
{
    bool partial = c->accept.form == TH_FORM_PARTIAL;
    const struct th_type *type = c->kind->type;
    if (partial) {
        type = th_type_find("meta.PartialObjectMetadata");
    }
    size_t raw = th_pb_envelope(b, gv, kind);
    th_autobuf struct th_buf meta = TH_BUF_INIT;
    put_meta(l->rv, cont, l->remaining, &meta);
    size_t at = th_pb_begin(b, 1);
    TH_TRY(th_pb_message(th_type_find("meta.ListMeta"), th_buf_str(&meta), b, err));
    th_pb_end(b, at);
    for (size_t i = 0; i < l->n; i++) {
        struct th_str text = {l->objs[i]->bytes, l->objs[i]->n};
        th_autobuf struct th_buf made = TH_BUF_INIT;
        if (c->res != c->storage) {
            TH_AUTO(th_json) struct th_json *o = NULL;
            TH_TRY(th_object_load(c->res, l->objs[i], &o, err));
            th_json_dump(o, &made);
            text = th_buf_str(&made);
        }
        at = th_pb_begin(b, 2);
        TH_TRY(th_pb_message(type, text, b, err));
        th_pb_end(b, at);
    }
    return th_pb_envelope_end(b, raw, err);
}

/* The first bytes of each object that items of a list do not repeat: '{"kind":...,"apiVersion":...,'.
 * 0 when some object begins otherwise (a custom resource's keeps them, as upstream's do). */
static size_t item_head(const struct th_call *c, const char *gv, const struct th_store_list *l)
{
    if (!th_kind_has_protobuf(c->kind)) {
        return 0;
    }
    th_autofree char *text =
        th_xasprintf("{\"kind\":\"%s\",\"apiVersion\":\"%s\",", c->res->kind, gv);
    size_t n = strlen(text);
    for (size_t i = 0; i < l->n; i++) {
        if (l->objs[i]->n <= n || memcmp(l->objs[i]->bytes, text, n) != 0) {
            return 0;
        }
    }
    return n;
}

/* JSON of objects as they are stored: their bytes are the body. Takes what l holds. */
static int respond_stored(struct th_call *c, const char *gv, const char *kind,
                          struct th_store_list *l, const char *cont)
{
    th_autobuf struct th_buf first = TH_BUF_INIT;
    th_autobuf struct th_buf last = TH_BUF_INIT;
    head(kind, gv, l->rv, cont, l->remaining, &first);
    th_buf_puts(&last, "]}\n");
    struct th_aresp *r = c->resp;
    r->status = 200;
    r->content_type = "application/json";
    r->pieces = th_pieces_new(&first, &last, l, item_head(c, gv, l));
    size_t n = th_pieces_total(r->pieces);
    if (n <= SHORT_BODY_B) {
        th_buf_reserve(&r->body, n + 1);
        r->body.n = th_pieces_read(r->pieces, r->body.p, n);
        r->body.p[r->body.n] = '\0';
        th_pieces_free(th_steal(&r->pieces));
    }
    return 0;
}

/* What was written as JSON into the form that is wanted. */
static int finish(struct th_call *c, struct th_buf *b, struct th_err *err)
{
    TH_TRY(th_buf_check(b, err));
    struct th_aresp *r = c->resp;
    bool reparse = c->req->want_tree || c->accept.media == TH_MEDIA_YAML || c->accept.pretty;
    r->status = 200;
    r->content_type = "application/json";
    if (!reparse) {
        th_buf_putc(b, '\n');
        r->body = *b;
        *b = (struct th_buf)TH_BUF_INIT;
        return 0;
    }
    struct th_json *tree = NULL;
    TH_TRY(th_json_parse(b->p, b->n, NULL, &tree, err));
    if (c->req->want_tree) {
        r->tree = tree;
        return 0;
    }
    if (c->accept.media == TH_MEDIA_YAML) {
        r->content_type = "application/yaml";
        th_yaml_dump(tree, &r->body);
    } else {
        th_respond_json(r, 200, tree, true);
    }
    th_json_unref(tree);
    return 0;
}

static int respond_list(struct th_call *c, struct th_store_list *l, const char *cont,
                        struct th_err *err)
{
    const struct th_accept *a = &c->accept;
    bool partial = a->form == TH_FORM_PARTIAL;
    th_autofree char *own_gv = *c->res->group
                                   ? th_xasprintf("%s/%s", c->res->group, c->res->version)
                                   : th_xstrdup(c->res->version);
    th_autofree char *own_kind = c->res->list_kind ? th_xstrdup(c->res->list_kind)
                                                   : th_xasprintf("%sList", c->res->kind);
    const char *gv = partial ? a->gv : own_gv;
    const char *kind = partial ? "PartialObjectMetadataList" : own_kind;
    if (a->media == TH_MEDIA_PROTOBUF && !c->req->want_tree) {
        c->resp->status = 200;
        c->resp->content_type = TH_TYPE_PROTOBUF;
        return write_protobuf(c, gv, kind, l, cont, &c->resp->body, err);
    }
    bool stored = c->res == c->storage && a->form == TH_FORM_OBJECT && !c->req->want_tree;
    if (stored && a->media == TH_MEDIA_JSON && !a->pretty) {
        return respond_stored(c, gv, kind, l, cont);
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (a->form == TH_FORM_TABLE) {
        TH_TRY(write_table(c, l, cont, &b, err));
    } else {
        head(kind, gv, l->rv, cont, l->remaining, &b);
        TH_TRY(write_items(c, l, &b, err));
    }
    th_buf_puts(&b, "]}");
    return finish(c, &b, err);
}

int th_verb_list(struct th_call *c, struct th_err *err)
{
    struct th_listopts o;
    TH_TRY(th_listopts_parse(&c->query, false, &o, err));
    TH_CLEANUP(th_select_done) struct th_select sel = {0};
    TH_TRY(th_select_parse(c, &sel, err));
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    th_autofree char *cont = NULL;
    TH_TRY(collect(c, &o, &sel, &l, &cont, err));
    return respond_list(c, &l, cont, err);
}

/*
 * JSON patch (RFC 6902), in the reading of the library that upstream uses, which differs from the
 * standard in ways that clients have come to lean on:
 *
 *   - "replace" of an object member that is not there adds it; of an array element it fails;
 *   - "test" of a missing member against null, or with no value, holds;
 *   - "copy" of a missing member adds null, and an operation without a value means null;
 *   - array indexes may be negative (-1 is the last; for "add", the end);
 *   - the whole document can be replaced and tested, but not added, removed or moved.
 *
 * The operations work on one copy of the object; when one fails, nothing of the copy is seen. A
 * failed operation is always the same 422 to the client, as upstream keeps the cause to itself; here
 * the cause goes into the error's hint. Bodies that are not a patch are 400.
 *
 * Limits: TH_LIMIT_PATCH_OPS operations, and 3 MiB added in sum by "copy", which alone can make a
 * document grow exponentially.
 */
#include "controlplane/schema/patch.h"
#include "base/limits.h"
#include <errno.h>

#define COPY_LIMIT ((int64_t)3 << 20)

struct patcher {
    struct th_json *root; /* owned */
    int64_t copied;
    struct th_buf why; /* what went wrong, in the library's words */
};

/* Where a path ends: the container that holds its last step, and that step. */
struct spot {
    struct th_json *in; /* object or array; NULL when there is no such container */
    char *key;          /* unescaped, owned */
};

static void spot_done(struct spot *s)
{
    free(s->key);
}
#define AUTO_SPOT TH_CLEANUP(spot_done)

static int why(struct patcher *p, const char *fmt, ...) TH_PRINTF(2, 3);
static int why(struct patcher *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    th_buf_vprintf(&p->why, fmt, ap);
    va_end(ap);
    return -TH_R_INVALID;
}

/* One reference token: "~1" is '/', "~0" is '~'. */
static char *unescape(const char *s, size_t n)
{
    char *out = th_xstrndup(s, n);
    char *to = out;
    for (const char *from = out; *from; from++) {
        char c = *from;
        if (c == '~' && (from[1] == '0' || from[1] == '1')) {
            c = *++from == '1' ? '/' : '~';
        }
        *to++ = c;
    }
    *to = '\0';
    return out;
}

static bool parse_index(const char *s, int64_t *ret)
{
    const char *digits = s + (*s == '+' || *s == '-');
    if (*digits == '\0' || digits[strspn(digits, "0123456789")]) {
        return false;
    }
    errno = 0;
    *ret = strtoll(s, NULL, 10);
    return errno == 0;
}

static int bad_index(struct patcher *p, int64_t i)
{
    return why(p, "Unable to access invalid index: %lld: invalid index referenced", (long long)i);
}

/* Resolves an index against a length; negative ones count from the end. */
static int resolve_index(struct patcher *p, const char *key, size_t len, size_t *ret)
{
    int64_t i;
    if (!parse_index(key, &i)) {
        return why(p, "value was not a proper array index: '%s'", key);
    }
    if (i >= (int64_t)len || i < -(int64_t)len) {
        return bad_index(p, i);
    }
    *ret = (size_t)(i < 0 ? i + (int64_t)len : i);
    return 0;
}

static int get(struct patcher *p, const struct spot *s, struct th_json **ret)
{
    size_t i;
    if (th_json_is(s->in, TH_JSON_OBJECT)) {
        *ret = th_json_get(s->in, s->key);
        return 0;
    }
    TH_TRY(resolve_index(p, s->key, th_json_len(s->in), &i));
    *ret = th_json_at(s->in, i);
    return 0;
}

static bool is_container(const struct th_json *o)
{
    return th_json_is(o, TH_JSON_OBJECT) || th_json_is(o, TH_JSON_ARRAY);
}

static void find(struct patcher *p, const char *path, struct spot *ret)
{
    struct th_json *at = p->root;
    const char *step = strchr(path, '/');
    *ret = (struct spot){.in = NULL};
    if (!step) {
        return;
    }
    /* What stands before the first slash is dropped, as upstream does. */
    for (;;) {
        const char *end = strchr(++step, '/');
        if (!end) {
            break;
        }
        struct spot here = {.in = at, .key = unescape(step, (size_t)(end - step))};
        int rc = get(p, &here, &at);
        th_buf_clear(&p->why); /* a miss on the way is told by the caller */
        free(here.key);
        if (rc < 0 || !is_container(at)) {
            return;
        }
        step = end;
    }
    ret->in = at;
    ret->key = unescape(step, strlen(step));
}

/* Each takes value. */
static int put_new(struct patcher *p, const struct spot *s, struct th_json *value)
{
    if (th_json_is(s->in, TH_JSON_OBJECT)) {
        th_json_set(s->in, s->key, value);
        return 0;
    }
    size_t i, len = th_json_len(s->in);
    if (strcmp(s->key, "-") == 0) {
        i = len;
    } else {
        int rc = resolve_index(p, s->key, len + 1, &i);
        if (rc < 0) {
            th_json_unref(value);
            return rc;
        }
    }
    th_json_insert_at(s->in, i, value);
    return 0;
}

static int take_out(struct patcher *p, const struct spot *s)
{
    size_t i;
    if (th_json_is(s->in, TH_JSON_OBJECT)) {
        return th_json_del(s->in, s->key)
                   ? 0
                   : why(p, "Unable to remove nonexistent key: %s: missing value", s->key);
    }
    TH_TRY(resolve_index(p, s->key, th_json_len(s->in), &i));
    th_json_del_at(s->in, i);
    return 0;
}

static int need(struct patcher *p, const struct th_json *op, const char *member, const char **ret)
{
    *ret = th_json_str(th_json_get(op, member));
    if (*ret) {
        return 0;
    }
    return why(p, "operation missing %s field: missing value", member);
}

static int missing(struct patcher *p, const char *what, const char *path)
{
    return why(p, "%s operation does not apply: doc is missing path: \"%s\": missing value", what,
               path);
}

static int op_add(struct patcher *p, const struct th_json *op)
{
    const char *path;
    TH_TRY(need(p, op, "path", &path));
    AUTO_SPOT struct spot s;
    find(p, path, &s);
    if (!s.in) {
        return missing(p, "add", path);
    }
    return put_new(p, &s, th_json_dup(th_json_get(op, "value")));
}

static int op_remove(struct patcher *p, const struct th_json *op)
{
    const char *path;
    TH_TRY(need(p, op, "path", &path));
    AUTO_SPOT struct spot s;
    find(p, path, &s);
    return s.in ? take_out(p, &s) : missing(p, "remove", path);
}

static int op_replace(struct patcher *p, const struct th_json *op)
{
    const char *path;
    TH_TRY(need(p, op, "path", &path));
    struct th_json *value = th_json_get(op, "value");
    if (*path == '\0') {
        if (!is_container(value)) {
            return why(p, "replace operation value must be object or array");
        }
        th_json_unref(p->root);
        p->root = th_json_dup(value);
        return 0;
    }
    AUTO_SPOT struct spot s;
    find(p, path, &s);
    if (!s.in) {
        return missing(p, "replace", path);
    }
    if (th_json_is(s.in, TH_JSON_OBJECT)) {
        th_json_set(s.in, s.key, th_json_dup(value));
        return 0;
    }
    size_t i;
    TH_TRY(resolve_index(p, s.key, th_json_len(s.in), &i));
    th_json_set_at(s.in, i, th_json_dup(value));
    return 0;
}

static int op_move(struct patcher *p, const struct th_json *op)
{
    const char *from, *path;
    TH_TRY(need(p, op, "from", &from));
    AUTO_SPOT struct spot src;
    find(p, from, &src);
    if (!src.in) {
        return missing(p, "move", from);
    }
    struct th_json *value;
    TH_TRY(get(p, &src, &value));
    TH_AUTO(th_json) struct th_json *moved = th_json_ref(value);
    TH_TRY(take_out(p, &src));
    TH_TRY(need(p, op, "path", &path));
    AUTO_SPOT struct spot dst;
    find(p, path, &dst);
    if (!dst.in) {
        return missing(p, "move", path);
    }
    return put_new(p, &dst, th_steal(&moved));
}

static int op_copy(struct patcher *p, const struct th_json *op)
{
    const char *from, *path;
    TH_TRY(need(p, op, "from", &from));
    AUTO_SPOT struct spot src;
    find(p, from, &src);
    if (!src.in) {
        return missing(p, "copy", from);
    }
    struct th_json *value;
    TH_TRY(get(p, &src, &value));
    TH_TRY(need(p, op, "path", &path));
    AUTO_SPOT struct spot dst;
    find(p, path, &dst);
    if (!dst.in) {
        return missing(p, "copy", path);
    }
    th_autofree char *text = th_json_to_string(value);
    p->copied += (int64_t)strlen(text);
    if (p->copied > COPY_LIMIT) {
        return why(p,
                   "Unable to complete the copy, the accumulated size increase of copy is %lld, "
                   "exceeding the limit %lld",
                   (long long)p->copied, (long long)COPY_LIMIT);
    }
    return put_new(p, &dst, th_json_dup(value));
}

static int op_test(struct patcher *p, const struct th_json *op)
{
    const char *path;
    TH_TRY(need(p, op, "path", &path));
    struct th_json *value = th_json_get(op, "value"), *have = p->root;
    if (*path) {
        AUTO_SPOT struct spot s;
        find(p, path, &s);
        if (!s.in) {
            return missing(p, "test", path);
        }
        TH_TRY(get(p, &s, &have));
    }
    return th_json_equal(have, value) ? 0 : why(p, "testing value %s failed: test failed", path);
}

static int run(struct patcher *p, const struct th_json *op)
{
    static const struct {
        const char *name;
        int (*fn)(struct patcher *, const struct th_json *);
    } ops[] = {{"add", op_add},   {"remove", op_remove}, {"replace", op_replace},
               {"move", op_move}, {"copy", op_copy},     {"test", op_test}};
    const char *kind = th_json_str(th_json_get(op, "op"));
    kind = kind ? kind : "unknown";
    for (size_t i = 0; i < TH_ARRAY_LEN(ops); i++) {
        if (strcmp(kind, ops[i].name) == 0) {
            return ops[i].fn(p, op);
        }
    }
    return why(p, "Unexpected kind: %s", kind);
}

static const char *go_kind(const struct th_json *o)
{
    switch (th_json_type(o)) {
    case TH_JSON_BOOL:
        return "bool";
    case TH_JSON_INT:
    case TH_JSON_DOUBLE:
        return "number";
    case TH_JSON_STRING:
        return "string";
    case TH_JSON_ARRAY:
        return "array";
    default:
        return "object";
    }
}

static int check_shape(const struct th_json *ops, struct th_err *err)
{
    static const char *const members[] = {"op", "path", "from"};
    if (ops && !th_json_is(ops, TH_JSON_ARRAY)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "error decoding patch: json: cannot unmarshal %s into Go value of type "
                       "[]handlers.jsonPatchOp",
                       go_kind(ops));
    }
    size_t n = th_json_len(ops);
    if (n > TH_LIMIT_PATCH_OPS) {
        return th_fail(err, TH_R_TOO_LARGE,
                       "Request entity too large: The allowed maximum operations in a JSON patch is "
                       "%d, got %zu",
                       TH_LIMIT_PATCH_OPS, n);
    }
    for (size_t i = 0; i < n; i++) {
        const struct th_json *op = th_json_at(ops, i);
        if (op && !th_json_is(op, TH_JSON_OBJECT)) {
            return th_fail(err, TH_R_BAD_REQUEST,
                           "error decoding patch: json: cannot unmarshal %s into Go value of type "
                           "handlers.jsonPatchOp",
                           go_kind(op));
        }
        for (size_t k = 0; k < TH_ARRAY_LEN(members); k++) {
            const struct th_json *v = th_json_get(op, members[k]);
            if (v && !th_json_is(v, TH_JSON_STRING)) {
                return th_fail(err, TH_R_BAD_REQUEST,
                               "error decoding patch: json: cannot unmarshal %s into Go struct "
                               "field jsonPatchOp.%s of type string",
                               go_kind(v), members[k]);
            }
        }
    }
    return 0;
}

int th_json_patch(const struct th_json *obj, const struct th_json *ops, struct th_json **ret,
                  struct th_err *err)
{
    TH_TRY(check_shape(ops, err));
    struct patcher p = {.root = th_json_dup(obj)};
    th_buf_init(&p.why, 4096);
    int rc = 0;
    for (size_t i = 0; i < th_json_len(ops) && rc == 0; i++) {
        rc = run(&p, th_json_at(ops, i));
    }
    if (rc < 0) {
        (void)th_fail(err, TH_R_INVALID,
                      "the server rejected our request due to an error in our request");
        (void)th_hint(err, "%s", th_buf_cstr(&p.why));
        th_json_unref(p.root);
    } else {
        *ret = p.root;
    }
    th_buf_done(&p.why);
    return rc;
}

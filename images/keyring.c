/* Registry credentials and which image they are for.
 *
 * A place is a registry, or a part of one: "registry.example.com", "*.example.com:5000",
 * "quay.io/team". The rules are the kubelet's (Kubernetes documentation, "Images", interpretation of
 * config.json): the port has to be the same, host labels are matched one by one as globs, the path
 * is a prefix. Docker Hub goes by two names, docker.io in references and index.docker.io in what
 * `docker login` writes.
 *
 * Several entries may cover an image. They are sorted once, by place, backwards: so a longer path
 * comes before its own prefix, which is the order in which the kubelet tries them.
 */
#include "images/keyring.h"
#include "base/encode.h"
#include "base/limits.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <strings.h>

struct entry {
    char *place; /* host[:port][/path], no scheme */
    char *user, *password;
};

struct th_keyring {
    struct entry *v;
    size_t n, cap;
};

struct th_keyring *th_keyring_new(void)
{
    return TH_NEW(struct th_keyring);
}

static void secret_free(char *s)
{
    if (s) {
        explicit_bzero(s, strlen(s));
        free(s);
    }
}

void th_keyring_free(struct th_keyring *k)
{
    for (size_t i = 0; k && i < k->n; i++) {
        free(k->v[i].place);
        free(k->v[i].user);
        secret_free(k->v[i].password);
    }
    if (k) {
        free(k->v);
        free(k);
    }
}

/* "https://index.docker.io/v1/" names the host alone. */
static char *plain_place(const char *s)
{
    static const char *const schemes[] = {"https://", "http://"};
    for (size_t i = 0; i < TH_ARRAY_LEN(schemes); i++) {
        s += th_startswith(s, schemes[i]) ? strlen(schemes[i]) : 0;
    }
    size_t host = strcspn(s, "/");
    const char *path = s + host;
    if (th_startswith(path, "/v1/") || th_startswith(path, "/v2/")) {
        path += 3;
    }
    if (th_streq(path, "/") || th_streq(path, "/v1") || th_streq(path, "/v2")) {
        path = "";
    }
    return th_xasprintf("%.*s%s", (int)host, s, path);
}

static int backwards(const void *a, const void *b)
{
    return strcmp(((const struct entry *)b)->place, ((const struct entry *)a)->place);
}

void th_keyring_add(struct th_keyring *k, const char *place, const char *user, const char *password)
{
    if (k->n == TH_LIMIT_CREDENTIALS) {
        return;
    }
    if (k->n == k->cap) {
        k->cap = k->cap ? 2 * k->cap : 4;
        k->v = th_xrealloc(k->v, k->cap * sizeof(*k->v));
    }
    k->v[k->n++] = (struct entry){plain_place(place), th_xstrdup(user), th_xstrdup(password)};
    qsort(k->v, k->n, sizeof(*k->v), backwards);
}

static void add_entry(struct th_keyring *k, const char *place, const struct th_json *o)
{
    const char *user = th_json_path_str(o, "username"), *password = th_json_path_str(o, "password");
    const char *auth = th_json_path_str(o, "auth");
    if (user && *user && password) {
        th_keyring_add(k, place, user, password);
        return;
    }
    th_autobuf struct th_buf plain = TH_BUF_INIT;
    if (!auth || th_b64_decode(auth, strlen(auth), &plain, NULL) < 0) {
        return;
    }
    const char *text = th_buf_cstr(&plain), *colon = strchr(text, ':');
    if (colon && colon > text) {
        th_autofree char *name = th_xstrndup(text, (size_t)(colon - text));
        /* some tools of old padded it with zero bytes; a C string ends before them */
        th_keyring_add(k, place, name, colon + 1);
    }
    explicit_bzero(plain.p, plain.n);
}

int th_keyring_add_config(struct th_keyring *k, struct th_str text, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (text.n > TH_LIMIT_CREDENTIALS_B || th_json_parse(text.p, text.n, NULL, &o, NULL) < 0 ||
        !th_json_is(o, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_PARSE, "the registry credentials are not a JSON object");
    }
    const struct th_json *auths = th_json_get(o, "auths");
    struct th_json_iter it = TH_JSON_ITER(auths ? auths : o);
    while (th_json_next(&it)) {
        if (th_json_is(it.value, TH_JSON_OBJECT)) {
            add_entry(k, it.name, it.value);
        }
    }
    return 0;
}

static size_t labels(const char *host)
{
    size_t n = 1;
    for (; *host; host++) {
        n += *host == '.';
    }
    return n;
}

/* Globs of host labels do not span dots, so that *.io is not a.b.io. */
static bool host_matches(const char *glob, const char *host)
{
    if (labels(glob) != labels(host)) {
        return false;
    }
    for (;;) {
        size_t g = strcspn(glob, "."), h = strcspn(host, ".");
        th_autofree char *gl = th_xstrndup(glob, g), *hl = th_xstrndup(host, h);
        if (fnmatch(gl, hl, 0) != 0) {
            return false;
        }
        if (!glob[g]) {
            return true;
        }
        glob += g + 1;
        host += h + 1;
    }
}

static bool covers(const char *place, const char *domain, const char *path)
{
    size_t n = strcspn(place, "/");
    th_autofree char *glob = th_xstrndup(place, n), *host = th_xstrdup(domain);
    char *gp = strrchr(glob, ':'), *hp = strrchr(host, ':');
    if ((gp == NULL) != (hp == NULL) || (gp && !th_streq(gp, hp))) {
        return false;
    }
    if (gp) {
        *gp = *hp = 0;
    }
    return host_matches(glob, host) && (!place[n] || th_startswith(path, place + n + 1));
}

bool th_keyring_lookup(const struct th_keyring *k, const struct th_ref *ref, size_t i,
                       struct th_credential *ret)
{
    bool hub = th_streq(ref->domain, "docker.io");
    for (size_t e = 0; k && e < k->n; e++) {
        const struct entry *x = &k->v[e];
        if ((covers(x->place, ref->domain, ref->path) ||
             (hub && covers(x->place, "index.docker.io", ref->path))) &&
            i-- == 0) {
            *ret = (struct th_credential){x->user, x->password};
            return true;
        }
    }
    return false;
}

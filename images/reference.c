/* Image references.
 *
 * The grammar is distribution/reference's, which Docker, containerd and the kubelet share, written
 * as a hand scanner because the original is a set of regular expressions:
 *
 *   reference  = name [":" tag] ["@" digest]
 *   name       = [domain "/"] component *("/" component)
 *   domain     = host [":" port], host = dotted labels or a bracketed IPv6 address
 *   component  = lower-case alphanumerics, separated inside by ".", "_", "__" or dashes
 *   tag        = word character, then at most 127 of word characters, "." and "-"
 *
 * Normalizing decides whether the first component is a domain: it is when it holds a dot or a
 * colon, is "localhost", or has an upper-case letter. Otherwise the name belongs to docker.io, and
 * a single component there to "library/". 64 hex digits alone are an image ID and never a name.
 *
 * Digests: sha256, sha384 and sha512 are well-formed; the content store itself only keeps sha256.
 */
#include "images/reference.h"
#include "base/buf.h"

#include <ctype.h>

#define NAME_MAX_LEN 255
#define TAG_MAX_LEN 128

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool is_hex_lower(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f'))) {
            return false;
        }
    }
    return true;
}

static bool digest_ok(const char *s, size_t n)
{
    static const struct {
        const char *algo;
        size_t hex;
    } known[] = {{"sha256:", 64}, {"sha384:", 96}, {"sha512:", 128}};
    for (size_t i = 0; i < TH_ARRAY_LEN(known); i++) {
        size_t a = strlen(known[i].algo);
        if (n == a + known[i].hex && memcmp(s, known[i].algo, a) == 0) {
            return is_hex_lower(s + a, n - a);
        }
    }
    return false;
}

bool th_digest_valid(const char *s)
{
    return s && strlen(s) == 71 && memcmp(s, "sha256:", 7) == 0 && is_hex_lower(s + 7, 64);
}

static bool component_ok(const char *p, size_t n)
{
    size_t i = 0;
    if (n == 0 || !is_lower_alnum(p[0])) {
        return false;
    }
    while (i < n) {
        if (is_lower_alnum(p[i])) {
            i++;
            continue;
        }
        size_t from = i;
        if (p[i] == '-') {
            while (i < n && p[i] == '-') {
                i++;
            }
        } else if (p[i] == '_') {
            while (i < n && p[i] == '_' && i - from < 2) {
                i++;
            }
        } else if (p[i] == '.') {
            i++;
        } else {
            return false;
        }
        if (i >= n || !is_lower_alnum(p[i])) {
            return false; /* a separator stands between two alphanumerics */
        }
    }
    return true;
}

static bool path_ok(const char *p, size_t n)
{
    size_t start = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i == n || p[i] == '/') {
            if (!component_ok(p + start, i - start)) {
                return false;
            }
            start = i + 1;
        }
    }
    return true;
}

static bool domain_ok(const char *p, size_t n)
{
    size_t i = 0;
    if (n > 0 && p[0] == '[') {
        i = 1;
        while (i < n && (isxdigit((unsigned char)p[i]) || p[i] == ':')) {
            i++;
        }
        if (i < 2 || i >= n || p[i] != ']') {
            return false;
        }
        i++;
    } else {
        for (;;) {
            size_t from = i;
            while (i < n && (is_alnum(p[i]) || p[i] == '-')) {
                i++;
            }
            if (i == from || p[from] == '-' || p[i - 1] == '-') {
                return false;
            }
            if (i < n && p[i] == '.') {
                i++;
                continue;
            }
            break;
        }
    }
    if (i < n) {
        if (p[i] != ':' || i + 1 == n) {
            return false;
        }
        for (i++; i < n; i++) {
            if (p[i] < '0' || p[i] > '9') {
                return false;
            }
        }
    }
    return true;
}

static bool tag_ok(const char *p, size_t n)
{
    if (n == 0 || n > TAG_MAX_LEN || !(is_alnum(p[0]) || p[0] == '_')) {
        return false;
    }
    for (size_t i = 1; i < n; i++) {
        if (!is_alnum(p[i]) && p[i] != '_' && p[i] != '.' && p[i] != '-') {
            return false;
        }
    }
    return true;
}

static int bad(struct th_err *err, const char *s, const char *why)
{
    (void)th_fail(err, TH_R_BAD_REFERENCE, "couldn't parse image reference \"%.*s\": %s",
                  NAME_MAX_LEN, s, why);
    return th_hint(err, "write it as NAME:TAG, REGISTRY/PATH/NAME:TAG or NAME@sha256:DIGEST, in "
                        "lower case");
}

/* Whether the first component names a registry. */
static bool first_is_domain(const char *p, size_t n)
{
    bool upper = false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '.' || p[i] == ':') {
            return true;
        }
        upper = upper || (p[i] >= 'A' && p[i] <= 'Z');
    }
    return upper || (n == 9 && memcmp(p, "localhost", 9) == 0);
}

int th_ref_parse(const char *s, struct th_ref *ret, struct th_err *err)
{
    size_t len = s ? strlen(s) : 0;
    if (len == 0) {
        return bad(err, "", "invalid reference format");
    }
    if (len > NAME_MAX_LEN + TAG_MAX_LEN + 160) {
        return bad(err, s, "repository name must not be more than 255 characters");
    }
    if (len == 64 && is_hex_lower(s, 64)) {
        return bad(err, s,
                   "invalid repository name, cannot specify 64-byte hexadecimal strings");
    }
    const char *end = s + len;
    const char *slash = strchr(s, '/');
    const char *domain = "docker.io";
    size_t domain_n = strlen(domain);
    const char *rest = s;
    if (slash && first_is_domain(s, (size_t)(slash - s))) {
        domain = s;
        domain_n = (size_t)(slash - s);
        rest = slash + 1;
        if (domain_n == 15 && memcmp(domain, "index.docker.io", 15) == 0) {
            domain = "docker.io";
            domain_n = 9;
        }
    }
    const char *at = memchr(rest, '@', (size_t)(end - rest));
    const char *name_end = at ? at : end;
    const char *colon = memchr(rest, ':', (size_t)(name_end - rest));
    const char *path_end = colon ? colon : name_end;
    size_t path_n = (size_t)(path_end - rest);
    for (const char *p = rest; p < path_end; p++) {
        if (*p >= 'A' && *p <= 'Z') {
            return bad(err, s, "invalid reference format: repository name must be lowercase");
        }
    }
    if (!domain_ok(domain, domain_n) || !path_ok(rest, path_n)) {
        return bad(err, s, "invalid reference format");
    }
    if (colon && !tag_ok(colon + 1, (size_t)(name_end - colon - 1))) {
        return bad(err, s, "invalid reference format");
    }
    if (at && !digest_ok(at + 1, (size_t)(end - at - 1))) {
        return bad(err, s, "invalid checksum digest format");
    }
    bool library = domain_n == 9 && memcmp(domain, "docker.io", 9) == 0 &&
                   !memchr(rest, '/', path_n);
    if (domain_n + 1 + path_n + (library ? 8 : 0) > NAME_MAX_LEN) {
        return bad(err, s, "repository name must not be more than 255 characters");
    }
    *ret = (struct th_ref){
        .domain = th_xstrndup(domain, domain_n),
        .path = th_xasprintf("%s%.*s", library ? "library/" : "", (int)path_n, rest),
    };
    if (colon) {
        ret->tag = th_xstrndup(colon + 1, (size_t)(name_end - colon - 1));
    } else if (!at) {
        ret->tag = th_xstrdup("latest");
    }
    if (at) {
        ret->digest = th_xstrdup(at + 1);
    }
    return 0;
}

void th_ref_done(struct th_ref *r)
{
    free(r->domain);
    free(r->path);
    free(r->tag);
    free(r->digest);
    *r = (struct th_ref){0};
}

static char *with_suffix(const struct th_ref *r, const char *name)
{
    return th_xasprintf("%s%s%s%s%s", name, r->tag ? ":" : "", r->tag ? r->tag : "",
                        r->digest ? "@" : "", r->digest ? r->digest : "");
}

char *th_ref_name(const struct th_ref *r)
{
    return th_xasprintf("%s/%s", r->domain, r->path);
}

char *th_ref_string(const struct th_ref *r)
{
    th_autofree char *name = th_ref_name(r);
    return with_suffix(r, name);
}

char *th_ref_familiar(const struct th_ref *r)
{
    if (!th_streq(r->domain, "docker.io")) {
        return th_ref_string(r);
    }
    /* "library/" falls away only when one component follows: docker.io/library/a/b keeps it */
    bool library = th_startswith(r->path, "library/") && !strchr(r->path + 8, '/');
    const char *slash = strchr(r->path, '/');
    if (!library && slash && first_is_domain(r->path, (size_t)(slash - r->path))) {
        return th_ref_string(r); /* docker.io/a.b/c without its domain would be another image */
    }
    return with_suffix(r, library ? r->path + 8 : r->path);
}

int th_ref_normalize(const char *s, char **ret, struct th_err *err)
{
    TH_AUTO_REF struct th_ref r = {0};
    TH_TRY(th_ref_parse(s, &r, err));
    *ret = th_ref_string(&r);
    return 0;
}

const char *th_ref_registry_host(const struct th_ref *r)
{
    return th_streq(r->domain, "docker.io") ? "registry-1.docker.io" : r->domain;
}

/* Links in answers of proxied servers.
 *
 * A server behind services/x/proxy believes that it stands at "/". Its redirects and the links in its
 * pages would lead away from it, so absolute paths get the proxy's path in front, as upstream's proxy
 * does; relative links are right as they are, and links to other hosts are let alone.
 *
 * HTML is not parsed into a tree but scanned as it passes: text, comments, scripts and styles go
 * through, a tag is gathered whole and those attribute values that are URLs are exchanged in it. A tag
 * longer than TH_LIMIT_HTML_TAG_B goes through unread. Upstream also writes the tags anew in its own
 * spelling; here everything but the changed values stays as it came.
 */
#include "controlplane/api/streams/rewrite.h"

#include "base/limits.h"

#include <ctype.h>
#include <strings.h>

/* ---- URLs ---- */

/* As Go's path.Join(prefix, path): without empty parts, "." and "..". */
static void join_clean(const char *prefix, const char *path, size_t n, struct th_buf *out)
{
    th_autobuf struct th_buf whole = TH_BUF_INIT;
    th_buf_printf(&whole, "%s/%.*s", prefix, (int)n, path);
    th_autostrv struct th_strv parts = TH_STRV_INIT;
    th_autostrv struct th_strv kept = TH_STRV_INIT;
    th_strv_split(&parts, th_buf_cstr(&whole), '/');
    for (size_t i = 0; i < parts.n; i++) {
        if (th_streq(parts.v[i], "..")) {
            if (kept.n > 0) {
                free(kept.v[--kept.n]);
                kept.v[kept.n] = NULL;
            }
        } else if (*parts.v[i] && !th_streq(parts.v[i], ".")) {
            th_strv_add(&kept, parts.v[i]);
        }
    }
    for (size_t i = 0; i < kept.n; i++) {
        th_buf_printf(out, "/%s", kept.v[i]);
    }
    if (kept.n == 0 || (n > 0 && path[n - 1] == '/')) {
        th_buf_putc(out, '/');
    }
}

/* Where the authority begins and ends in url; false when there is none. *ret_path follows it. */
static bool authority(const char *url, const char **ret_at, size_t *ret_n, const char **ret_path)
{
    const char *p = url;
    while (isalnum((unsigned char)*p) || *p == '+' || *p == '-' || *p == '.') {
        p++;
    }
    p = p > url && *p == ':' ? p + 1 : url;
    *ret_path = p;
    if (p[0] != '/' || p[1] != '/') {
        return false;
    }
    *ret_at = p + 2;
    *ret_n = strcspn(p + 2, "/?#");
    *ret_path = p + 2 + *ret_n;
    return true;
}

char *th_rewrite_url(const struct th_rewrite *r, const char *url)
{
    const char *host = NULL, *path = url;
    size_t host_n = 0;
    bool has_host = authority(url, &host, &host_n, &path) && host_n > 0;
    struct th_str h = {host, host_n};
    bool is_asked = has_host && r->host && th_str_eq(h, th_str_of(r->host));
    if ((has_host && !is_asked && !th_str_eq(h, th_str_of(r->peer))) || *path != '/') {
        return th_xstrdup(url);
    }
    size_t n = strcspn(path, "?#");
    struct th_buf b = TH_BUF_INIT;
    if (is_asked) {
        th_buf_add(&b, url, (size_t)(path - url));
    }
    size_t prefix_n = strlen(r->prefix);
    if (n >= prefix_n && strncmp(path, r->prefix, prefix_n) == 0) {
        th_buf_add(&b, path, n);
    } else {
        join_clean(r->prefix, path, n, &b);
    }
    th_buf_puts(&b, path + n);
    return th_buf_steal(&b, NULL);
}

/* ---- HTML ---- */

static const struct {
    const char *tag;
    const char *attributes[4];
} url_attributes[] = {
    {"a", {"href"}},          {"applet", {"codebase"}},
    {"area", {"href"}},       {"audio", {"src"}},
    {"base", {"href"}},       {"blockquote", {"cite"}},
    {"body", {"background"}}, {"button", {"formaction"}},
    {"command", {"icon"}},    {"del", {"cite"}},
    {"embed", {"src"}},       {"form", {"action"}},
    {"frame", {"longdesc", "src"}},
    {"head", {"profile"}},    {"html", {"manifest"}},
    {"iframe", {"longdesc", "src"}},
    {"img", {"longdesc", "src", "usemap"}},
    {"input", {"src", "usemap", "formaction"}},
    {"ins", {"cite"}},        {"link", {"href"}},
    {"object", {"classid", "codebase", "data", "usemap"}},
    {"q", {"cite"}},          {"script", {"src"}},
    {"source", {"src"}},      {"video", {"poster", "src"}},
};

struct th_html {
    char *prefix, *peer, *host;
    enum { HTML_TEXT, HTML_TAG, HTML_COMMENT, HTML_RAW } state;
    char quote;         /* inside a tag: the quote that is open, or 0 */
    struct th_buf held; /* the tag that is gathered, or the last bytes that an end may begin with */
    char raw_end[12];   /* HTML_RAW: "</script" */
};

struct th_html *th_html_new(const struct th_rewrite *r)
{
    struct th_html *h = TH_NEW(struct th_html);
    h->prefix = th_xstrdup(r->prefix);
    h->peer = th_xstrdup(r->peer);
    h->host = th_xstrdup(r->host);
    return h;
}

void th_html_free(struct th_html *h)
{
    if (h) {
        th_buf_done(&h->held);
        free(h->prefix);
        free(h->peer);
        free(h->host);
        free(h);
    }
}

static bool holds_url(const char *tag, const char *name, size_t name_n)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(url_attributes); i++) {
        if (strcasecmp(url_attributes[i].tag, tag) != 0) {
            continue;
        }
        for (size_t k = 0; k < 4 && url_attributes[i].attributes[k]; k++) {
            const char *a = url_attributes[i].attributes[k];
            if (strlen(a) == name_n && strncasecmp(a, name, name_n) == 0) {
                return true;
            }
        }
    }
    return false;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

static void put_value(struct th_html *h, const char *p, size_t n, char quote, struct th_buf *out)
{
    th_autofree char *was = th_xstrndup(p, n);
    const struct th_rewrite r = {h->prefix, h->peer, h->host};
    bool entities = memchr(p, '&', n) && strstr(was, "&#"); /* a spelled-out letter: not read */
    th_autofree char *now = entities ? th_xstrdup(was) : th_rewrite_url(&r, was);
    if (quote) {
        th_buf_putc(out, quote);
    }
    th_buf_puts(out, now);
    if (quote) {
        th_buf_putc(out, quote);
    }
}

/* The whole tag t[0, n), "<" to ">", with its URLs exchanged. */
static void put_tag(struct th_html *h, const char *t, size_t n, struct th_buf *out)
{
    size_t i = 1;
    while (i < n && isalnum((unsigned char)t[i])) {
        i++;
    }
    th_autofree char *tag = th_xstrndup(t + 1, i - 1);
    th_buf_add(out, t, i);
    while (i < n) {
        size_t from = i;
        while (i < n && (is_space(t[i]) || t[i] == '/' || t[i] == '>')) {
            i++;
        }
        size_t name = i;
        while (i < n && !is_space(t[i]) && t[i] != '=' && t[i] != '>' && t[i] != '/') {
            i++;
        }
        size_t name_n = i - name;
        if (i == from) { /* a stray '=' */
            i++;
        }
        size_t look = i;
        while (look < n && is_space(t[look])) {
            look++;
        }
        if (look >= n || t[look] != '=' || name_n == 0) {
            th_buf_add(out, t + from, i - from);
            continue;
        }
        i = look + 1;
        while (i < n && is_space(t[i])) {
            i++;
        }
        char quote = i < n && (t[i] == '"' || t[i] == '\'') ? t[i] : 0;
        th_buf_add(out, t + from, i - from);
        size_t value = quote ? i + 1 : i;
        i = value;
        while (i < n && (quote ? t[i] != quote : !is_space(t[i]) && t[i] != '>')) {
            i++;
        }
        if (holds_url(tag, t + name, name_n)) {
            put_value(h, t + value, i - value, quote, out);
        } else {
            th_buf_add(out, t + value - (quote ? 1 : 0), i - value + (quote ? 1 : 0));
            if (quote && i < n) {
                th_buf_putc(out, quote);
            }
        }
        i += quote && i < n ? 1 : 0;
    }
}

static void tag_done(struct th_html *h, struct th_buf *out)
{
    const char *t = h->held.p;
    size_t n = h->held.n;
    h->state = HTML_TEXT;
    if (isalpha((unsigned char)t[1])) {
        put_tag(h, t, n, out);
        bool script = n > 8 && strncasecmp(t + 1, "script", 6) == 0 && !isalnum((unsigned char)t[7]);
        bool style = n > 7 && strncasecmp(t + 1, "style", 5) == 0 && !isalnum((unsigned char)t[6]);
        if (script || style) {
            h->state = HTML_RAW;
            (void)snprintf(h->raw_end, sizeof(h->raw_end), script ? "</script" : "</style");
        }
    } else {
        th_buf_add(out, t, n);
    }
    th_buf_clear(&h->held);
}

/* One byte of a script, style or comment: through, with an eye on its end. */
static void raw_byte(struct th_html *h, char c, struct th_buf *out)
{
    const char *end = h->state == HTML_COMMENT ? "-->" : h->raw_end;
    th_buf_putc(out, c);
    th_buf_putc(&h->held, c);
    size_t n = strlen(end);
    if (h->held.n > n) {
        th_buf_consume(&h->held, h->held.n - n);
    }
    if (h->held.n == n && strncasecmp(h->held.p, end, n) == 0) {
        h->state = HTML_TEXT;
        th_buf_clear(&h->held);
    }
}

static void tag_byte(struct th_html *h, char c, struct th_buf *out)
{
    th_buf_putc(&h->held, c);
    if (h->held.n == 2 && !isalpha((unsigned char)c) && c != '/' && c != '!' && c != '?') {
        th_buf_add(out, h->held.p, h->held.n); /* a "<" of the text */
        th_buf_clear(&h->held);
        h->state = HTML_TEXT;
    } else if (h->held.n == 4 && memcmp(h->held.p, "<!--", 4) == 0) {
        th_buf_add(out, h->held.p, h->held.n);
        th_buf_clear(&h->held);
        h->state = HTML_COMMENT;
    } else if (h->held.n > TH_LIMIT_HTML_TAG_B) {
        th_buf_add(out, h->held.p, h->held.n);
        th_buf_clear(&h->held);
        h->state = HTML_TEXT;
    } else if (h->quote) {
        h->quote = c == h->quote ? 0 : h->quote;
    } else if ((c == '"' || c == '\'') && h->held.n > 2 && h->held.p[1] != '/') {
        h->quote = c;
    } else if (c == '>') {
        tag_done(h, out);
    }
}

void th_html_feed(struct th_html *h, const char *p, size_t n, bool end, struct th_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        if (h->state == HTML_TAG) {
            tag_byte(h, p[i], out);
        } else if (h->state != HTML_TEXT) {
            raw_byte(h, p[i], out);
        } else if (p[i] == '<') {
            h->state = HTML_TAG;
            h->quote = 0;
            th_buf_putc(&h->held, '<');
        } else {
            th_buf_putc(out, p[i]);
        }
    }
    if (end && h->state == HTML_TAG) {
        th_buf_add(out, h->held.p, h->held.n);
        th_buf_clear(&h->held);
        h->state = HTML_TEXT;
    }
}

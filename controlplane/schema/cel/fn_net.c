/* Addresses, prefixes, URLs and named formats. Addresses are read as Go's net/netip reads them: no
 * leading zeros, no zones, no IPv4 inside IPv6. */
#include "controlplane/schema/cel/fn_priv.h"

#include "controlplane/schema/names.h"

#include <arpa/inet.h>

static bool parse_ip(const char *s, struct cel_ip *ret)
{
    *ret = (struct cel_ip){.v6 = strchr(s, ':') != NULL};
    if (ret->v6) {
        return !strchr(s, '.') && !strchr(s, '%') && inet_pton(AF_INET6, s, ret->b) == 1;
    }
    for (const char *p = s; *p; p++) {
        if (*p == '0' && p[1] >= '0' && p[1] <= '9' && (p == s || p[-1] == '.')) {
            return false;
        }
    }
    return inet_pton(AF_INET, s, ret->b) == 1;
}

static bool parse_cidr(const char *s, struct cel_ip *ip, int *bits)
{
    const char *slash = strchr(s, '/');
    if (!slash || strspn(slash + 1, "0123456789") != strlen(slash + 1) || !slash[1] ||
        strlen(slash + 1) > 3 || (slash[1] == '0' && slash[2])) {
        return false;
    }
    th_autofree char *addr = th_xstrndup(s, (size_t)(slash - s));
    *bits = (int)strtol(slash + 1, NULL, 10);
    return parse_ip(addr, ip) && *bits <= (ip->v6 ? 128 : 32);
}

static struct cel_val make(struct cel_eval *e, enum cel_kind kind, struct cel_ip ip, int bits)
{
    struct cel_ip *p = cel_alloc(&e->a, sizeof(*p));
    *p = ip;
    return (struct cel_val){.kind = kind, .net = {p, bits}};
}

CEL_FN_DEF(cel_fn_ip)
{
    struct cel_ip ip;
    th_autofree char *s = th_xstrndup(args[0].s.p, args[0].s.n);
    return parse_ip(s, &ip) ? make(e, CEL_IP, ip, 0)
                            : cel_error(e, "IP Address '%s' parse error during conversion from "
                                           "string: ParseAddr(\"%s\"): unable to parse IP",
                                        s, s);
}

CEL_FN_DEF(cel_fn_is_ip)
{
    struct cel_ip ip;
    th_autofree char *s = th_xstrndup(args[0].s.p, args[0].s.n);
    return cel_bool(parse_ip(s, &ip));
}

static void print_ip(const struct cel_ip *ip, char buf[INET6_ADDRSTRLEN])
{
    (void)inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, buf, INET6_ADDRSTRLEN);
}

CEL_FN_DEF(cel_fn_ip_is_canonical)
{
    struct cel_ip ip;
    char text[INET6_ADDRSTRLEN];
    th_autofree char *s = th_xstrndup(args[0].s.p, args[0].s.n);
    if (!parse_ip(s, &ip)) {
        return cel_error(e, "IP Address '%s' parse error during conversion from string", s);
    }
    print_ip(&ip, text);
    return cel_bool(th_streq(text, s));
}

CEL_FN_DEF(cel_fn_net_string)
{
    char text[INET6_ADDRSTRLEN];
    print_ip(args[0].net.ip, text);
    const char *s = args[0].kind == CEL_CIDR
                        ? cel_printf(&e->a, "%s/%d", text, args[0].net.bits)
                        : cel_printf(&e->a, "%s", text);
    return cel_text(s);
}

CEL_FN_DEF(cel_fn_ip_family)
{
    return cel_int(args[0].net.ip->v6 ? 6 : 4);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i]) {
            return false;
        }
    }
    return true;
}

static bool unspecified(const struct cel_ip *ip)
{
    return all_zero(ip->b, ip->v6 ? 16 : 4);
}

static bool loopback(const struct cel_ip *ip)
{
    return ip->v6 ? all_zero(ip->b, 15) && ip->b[15] == 1 : ip->b[0] == 127;
}

static bool ll_unicast(const struct cel_ip *ip)
{
    return ip->v6 ? ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80
                  : ip->b[0] == 169 && ip->b[1] == 254;
}

static bool multicast(const struct cel_ip *ip)
{
    return ip->v6 ? ip->b[0] == 0xff : (ip->b[0] & 0xf0) == 0xe0;
}

CEL_FN_DEF(cel_fn_ip_unspecified)
{
    return cel_bool(unspecified(args[0].net.ip));
}

CEL_FN_DEF(cel_fn_ip_loopback)
{
    return cel_bool(loopback(args[0].net.ip));
}

CEL_FN_DEF(cel_fn_ip_ll_unicast)
{
    return cel_bool(ll_unicast(args[0].net.ip));
}

CEL_FN_DEF(cel_fn_ip_ll_multicast)
{
    const struct cel_ip *ip = args[0].net.ip;
    return cel_bool(ip->v6 ? ip->b[0] == 0xff && (ip->b[1] & 0x0f) == 2
                           : ip->b[0] == 224 && ip->b[1] == 0 && ip->b[2] == 0);
}

CEL_FN_DEF(cel_fn_ip_global)
{
    const struct cel_ip *ip = args[0].net.ip;
    bool broadcast = !ip->v6 && ip->b[0] == 255 && ip->b[1] == 255 && ip->b[2] == 255 &&
                     ip->b[3] == 255;
    return cel_bool(!broadcast && !unspecified(ip) && !loopback(ip) && !multicast(ip) &&
                    !ll_unicast(ip));
}

/* ---- Prefixes ---- */

CEL_FN_DEF(cel_fn_cidr)
{
    struct cel_ip ip;
    int bits;
    th_autofree char *s = th_xstrndup(args[0].s.p, args[0].s.n);
    return parse_cidr(s, &ip, &bits)
               ? make(e, CEL_CIDR, ip, bits)
               : cel_error(e, "network address parse error during conversion from string: "
                              "netip.ParsePrefix(\"%s\"): invalid prefix",
                           s);
}

CEL_FN_DEF(cel_fn_is_cidr)
{
    struct cel_ip ip;
    int bits;
    th_autofree char *s = th_xstrndup(args[0].s.p, args[0].s.n);
    return cel_bool(parse_cidr(s, &ip, &bits));
}

static struct cel_ip masked(struct cel_ip ip, int bits)
{
    for (int i = 0; i < (ip.v6 ? 16 : 4); i++) {
        int keep = bits - 8 * i;
        ip.b[i] = (uint8_t)(keep >= 8 ? ip.b[i] : keep <= 0 ? 0 : ip.b[i] & (0xff << (8 - keep)));
    }
    return ip;
}

static bool inside(struct cel_val cidr, const struct cel_ip *ip)
{
    if (cidr.net.ip->v6 != ip->v6) {
        return false;
    }
    struct cel_ip a = masked(*cidr.net.ip, cidr.net.bits), b = masked(*ip, cidr.net.bits);
    return memcmp(a.b, b.b, 16) == 0;
}

CEL_FN_DEF(cel_fn_contains_ip)
{
    struct cel_val ip = args[1].kind == CEL_IP ? args[1] : cel_fn_ip(e, args + 1, 1);
    return ip.kind == CEL_ERROR ? ip : cel_bool(inside(args[0], ip.net.ip));
}

CEL_FN_DEF(cel_fn_contains_cidr)
{
    struct cel_val c = args[1].kind == CEL_CIDR ? args[1] : cel_fn_cidr(e, args + 1, 1);
    return c.kind == CEL_ERROR
               ? c
               : cel_bool(c.net.bits >= args[0].net.bits && inside(args[0], c.net.ip));
}

CEL_FN_DEF(cel_fn_cidr_ip)
{
    return make(e, CEL_IP, *args[0].net.ip, 0);
}

CEL_FN_DEF(cel_fn_cidr_masked)
{
    return make(e, CEL_CIDR, masked(*args[0].net.ip, args[0].net.bits), args[0].net.bits);
}

CEL_FN_DEF(cel_fn_cidr_prefix)
{
    return cel_int(args[0].net.bits);
}

/* ---- URLs ---- */

struct url {
    struct th_str scheme, host, path, query;
};

static bool split_url(struct th_str s, struct url *u)
{
    *u = (struct url){.path = {"", 0}};
    const char *p = s.p, *end = s.p + s.n;
    const char *colon = s.n && *p != '/' ? memchr(p, ':', s.n) : NULL;
    if (colon) {
        u->scheme = (struct th_str){p, (size_t)(colon - p)};
        p = colon + 1;
    }
    if (end - p >= 2 && p[0] == '/' && p[1] == '/' && colon) {
        p += 2;
        size_t k = 0;
        while (p + k < end && !strchr("/?#", p[k])) {
            k++;
        }
        const char *at = memchr(p, '@', k);
        const char *from = at ? at + 1 : p;
        u->host = (struct th_str){from, (size_t)(p + k - from)};
        p += k;
    }
    const char *q = memchr(p, '?', (size_t)(end - p));
    u->path = (struct th_str){p, (size_t)((q ? q : end) - p)};
    u->query = q ? (struct th_str){q + 1, (size_t)(end - q) - 1} : (struct th_str){"", 0};
    return true;
}

static bool valid_url(struct th_str s)
{
    th_autofree char *text = th_xstrndup(s.p, s.n);
    return th_format_valid("uri", text);
}

CEL_FN_DEF(cel_fn_url)
{
    (void)cel_charge(e, cel_text_cost(args[0].s.n));
    if (!valid_url(args[0].s)) {
        return cel_error(e, "URL parse error during conversion from string: parse \"%.*s\": "
                            "invalid URI for request",
                         (int)args[0].s.n, args[0].s.p);
    }
    return (struct cel_val){.kind = CEL_URL, .s = args[0].s};
}

CEL_FN_DEF(cel_fn_is_url)
{
    (void)cel_charge(e, cel_text_cost(args[0].s.n));
    return cel_bool(valid_url(args[0].s));
}

CEL_FN_DEF(cel_fn_url_scheme)
{
    struct url u;
    (void)split_url(args[0].s, &u);
    struct cel_val v = cel_string(u.scheme.p, u.scheme.n);
    return cel_fn_lower(e, &v, 1);
}

CEL_FN_DEF(cel_fn_url_host)
{
    struct url u;
    (void)split_url(args[0].s, &u);
    return cel_string(u.host.n ? u.host.p : "", u.host.n);
}

/* Where the port's colon is, or NULL. */
static const char *port_colon(struct th_str host)
{
    const char *close = host.n ? memrchr(host.p, ']', host.n) : NULL;
    const char *from = close ? close : host.p;
    return host.n ? memrchr(from, ':', (size_t)(host.p + host.n - from)) : NULL;
}

CEL_FN_DEF(cel_fn_url_hostname)
{
    struct url u;
    (void)split_url(args[0].s, &u);
    const char *colon = port_colon(u.host);
    struct th_str h = {u.host.p, colon ? (size_t)(colon - u.host.p) : u.host.n};
    if (h.n >= 2 && h.p[0] == '[' && h.p[h.n - 1] == ']') {
        h = (struct th_str){h.p + 1, h.n - 2};
    }
    return cel_string(h.n ? h.p : "", h.n);
}

CEL_FN_DEF(cel_fn_url_port)
{
    struct url u;
    (void)split_url(args[0].s, &u);
    const char *colon = port_colon(u.host);
    return colon ? cel_string(colon + 1, (size_t)(u.host.p + u.host.n - colon) - 1) : cel_text("");
}

CEL_FN_DEF(cel_fn_url_path)
{
    struct url u;
    (void)split_url(args[0].s, &u);
    static const char keep[] = "-_.~$&+,/:;=@!'()*%";
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < u.path.n; i++) {
        unsigned char c = (unsigned char)u.path.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c && strchr(keep, c));
        if (plain) {
            th_buf_putc(&b, (char)c);
        } else {
            th_buf_printf(&b, "%%%02X", c);
        }
    }
    return cel_string(cel_strdup(&e->a, th_buf_cstr(&b), b.n), b.n);
}

static int hex_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                        : c >= 'A' && c <= 'F'   ? c - 'A' + 10
                                                                 : -1;
}

static struct cel_val unescape(struct cel_eval *e, struct th_str s)
{
    char *p = cel_alloc(&e->a, s.n + 1);
    size_t k = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '%' && i + 2 < s.n && hex_of(s.p[i + 1]) >= 0 && hex_of(s.p[i + 2]) >= 0) {
            p[k++] = (char)(hex_of(s.p[i + 1]) * 16 + hex_of(s.p[i + 2]));
            i += 2;
        } else {
            p[k++] = s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    return cel_string(p, k);
}

CEL_FN_DEF(cel_fn_url_query)
{
    struct url u;
    (void)split_url(args[0].s, &u);
    struct cel_val *keys = cel_alloc(&e->a, (u.query.n + 1) * sizeof(*keys));
    struct cel_val *vals = cel_alloc(&e->a, (u.query.n + 1) * sizeof(*vals));
    size_t k = 0;
    for (const char *p = u.query.p, *end = p + u.query.n; p < end;) {
        const char *amp = memchr(p, '&', (size_t)(end - p));
        const char *to = amp ? amp : end;
        const char *eq = memchr(p, '=', (size_t)(to - p));
        struct cel_val key = unescape(e, (struct th_str){p, (size_t)((eq ? eq : to) - p)});
        struct cel_val val =
            eq ? unescape(e, (struct th_str){eq + 1, (size_t)(to - eq) - 1}) : cel_text("");
        p = to + 1;
        if (key.s.n == 0 && !eq) {
            continue;
        }
        size_t at = 0;
        while (at < k && cel_equal(e, keys[at], key) != 1) {
            at++;
        }
        struct cel_val one = cel_make_list(e, memcpy(cel_alloc(&e->a, sizeof(val)), &val, sizeof(val)), 1);
        if (at < k) {
            struct cel_val pair[2] = {vals[at], one};
            vals[at] = cel_fn_add(e, pair, 2);
            continue;
        }
        keys[k] = key;
        vals[k++] = one;
    }
    return cel_make_map(e, keys, vals, k);
}

/* ---- Named formats ---- */

static const struct {
    const char *name;
    int names; /* enum th_name_format, or -1: a format of schemas */
    bool prefix;
} formats[] = {
    {"dns1123Label", TH_NAME_DNS1123_LABEL, false},
    {"dns1123Subdomain", TH_NAME_DNS1123_SUBDOMAIN, false},
    {"dns1035Label", TH_NAME_DNS1035_LABEL, false},
    {"qualifiedName", TH_NAME_QUALIFIED, false},
    {"dns1123LabelPrefix", TH_NAME_DNS1123_LABEL, true},
    {"dns1123SubdomainPrefix", TH_NAME_DNS1123_SUBDOMAIN, true},
    {"dns1035LabelPrefix", TH_NAME_DNS1035_LABEL, true},
    {"labelValue", TH_NAME_LABEL_VALUE, false},
    {"uri", -1, false},
    {"uuid", -1, false},
    {"byte", -1, false},
    {"date", -1, false},
    {"datetime", -1, false},
};

#define FORMAT_FN(f)                                                                               \
    CEL_FN_DEF(cel_fn_format_##f)                                                                  \
    {                                                                                              \
        return (struct cel_val){.kind = CEL_FORMAT, .s = TH_STR(#f)};                              \
    }
CEL_FORMATS(FORMAT_FN)

CEL_FN_DEF(cel_fn_format_named)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(formats); i++) {
        if (th_str_eq(args[0].s, th_str_of(formats[i].name))) {
            return cel_some(e, (struct cel_val){.kind = CEL_FORMAT,
                                                .s = th_str_of(formats[i].name)});
        }
    }
    return cel_none();
}

CEL_FN_DEF(cel_fn_format_validate)
{
    th_autofree char *s = th_xstrndup(args[1].s.p, args[1].s.n);
    (void)cel_charge(e, cel_text_cost(args[1].s.n) * 4);
    const char *msgs[TH_NAME_MSGS];
    size_t k = 0;
    for (size_t i = 0; i < TH_ARRAY_LEN(formats); i++) {
        if (!th_str_eq(args[0].s, th_str_of(formats[i].name))) {
            continue;
        }
        if (formats[i].names < 0) {
            msgs[0] = "invalid value";
            k = !th_format_valid(formats[i].name, s);
            continue;
        }
        size_t len = strlen(s);
        if (formats[i].prefix && len && s[len - 1] == '-') {
            s[len - 1] = 'a'; /* what will follow makes a prefix whole */
        }
        k = th_name_messages((enum th_name_format)formats[i].names, s, msgs);
    }
    if (k == 0) {
        return cel_none();
    }
    struct cel_val *v = cel_alloc(&e->a, k * sizeof(*v));
    for (size_t i = 0; i < k; i++) {
        v[i] = cel_text(msgs[i]);
    }
    return cel_some(e, cel_make_list(e, v, k));
}

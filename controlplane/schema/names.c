/*
 * The formats of names, labels, keys and addresses, and the words that say what is wrong.
 *
 * The rules are small regular languages, so each is a hand-written matcher instead of a compiled
 * regular expression: no start-up cost, no allocation, linear time. The messages name the
 * expression that upstream uses, because tests and people compare them. All messages are static:
 * a value can break several rules at once, hence a list of pointers and not one built string.
 *
 * Upstream says "characters" in some length limits and "bytes" in others (its formats move one by
 * one to a newer package with other words); the table below keeps that difference. Lengths are in
 * bytes everywhere.
 *
 * Addresses: Go's parser, not inet_pton: no leading zeros in decimal octets, IPv6 zones refused,
 * IPv4-mapped IPv6 addresses refused, as upstream's strict validation does.
 */
#include "controlplane/schema/names.h"
#include "base/buf.h"
#include <arpa/inet.h>

#define LABEL_RE "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#define SUBDOMAIN_RE LABEL_RE "(\\." LABEL_RE ")*"
#define ULABEL_RE "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
#define QNAME_RE "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
#define USED "regex used for validation is '"

#define MSG_SUBDOMAIN                                                                              \
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "   \
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', " USED        \
    SUBDOMAIN_RE "')"
#define MSG_QNAME                                                                                  \
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "    \
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', " USED QNAME_RE "')"

static bool lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool alnum(char c)
{
    return lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* One or more of: letters and digits of the right case and, inside, any of `inner`. */
static bool is_word(const char *p, size_t n, bool (*ends)(char), const char *inner)
{
    if (n == 0 || !ends(p[0]) || !ends(p[n - 1])) {
        return false;
    }
    for (size_t i = 1; i + 1 < n; i++) {
        if (!ends(p[i]) && !strchr(inner, p[i])) {
            return false;
        }
    }
    return true;
}

static bool is_dns_label(const char *p, size_t n)
{
    return is_word(p, n, lower_alnum, "-");
}

static bool is_dns_ulabel(const char *p, size_t n)
{
    if (n > 1 && p[0] == '_') {
        p++;
        n--;
    }
    return is_word(p, n, lower_alnum, "-_");
}

/* Labels joined by dots. */
static bool is_dotted(const char *s, size_t n, bool (*label)(const char *, size_t))
{
    size_t start = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i == n || s[i] == '.') {
            if (!label(s + start, i - start)) {
                return false;
            }
            start = i + 1;
        }
    }
    return true;
}

static bool all_of(const char *s, bool (*class)(char), const char *extra)
{
    for (; *s; s++) {
        if (!class(*s) && !strchr(extra, *s)) {
            return false;
        }
    }
    return true;
}

struct msgs {
    const char **v;
    size_t n;
};

static void add(struct msgs *m, const char *text)
{
    TH_ASSERT(m->n < TH_NAME_MSGS);
    m->v[m->n++] = text;
}

static void dots_prefix(struct msgs *m, const char *s)
{
    if (th_streq(s, ".")) {
        add(m, "must not be '.'");
    } else if (th_streq(s, "..")) {
        add(m, "must not be '..'");
    } else if (th_startswith(s, "..")) {
        add(m, "must not start with '..'");
    }
}

static void check_label(struct msgs *m, const char *s)
{
    size_t n = strlen(s);
    if (n > 63) {
        add(m, "must be no more than 63 characters");
    }
    if (is_dns_label(s, n)) {
        return;
    }
    if (is_dotted(s, n, is_dns_label)) {
        add(m, "must not contain dots");
    } else {
        add(m, "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or "
               "'-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
               "'123-abc', " USED LABEL_RE "')");
    }
}

static void check_dotted(struct msgs *m, const char *s, bool (*label)(const char *, size_t),
                         const char *text)
{
    size_t n = strlen(s);
    if (n > 253) {
        add(m, "must be no more than 253 characters");
    }
    if (!is_dotted(s, n, label)) {
        add(m, text);
    }
}

static void check_wildcard(struct msgs *m, const char *s)
{
    size_t n = strlen(s);
    if (n > 253) {
        add(m, "must be no more than 253 characters");
    }
    if (n < 3 || s[0] != '*' || s[1] != '.' || !is_dotted(s + 2, n - 2, is_dns_label)) {
        add(m, "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS "
               "subdomain, which must consist of lower case alphanumeric characters, '-' or '.' "
               "and end with an alphanumeric character (e.g. '*.example.com', " USED
               "\\*\\." SUBDOMAIN_RE "')");
    }
}

static void check_1035(struct msgs *m, const char *s)
{
    size_t n = strlen(s);
    if (n > 63) {
        add(m, "must be no more than 63 characters");
    }
    if (!is_dns_label(s, n) || digit(s[0])) {
        add(m, "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start "
               "with an alphabetic character, and end with an alphanumeric character (e.g. "
               "'my-name',  or 'abc-123', " USED "[a-z]([-a-z0-9]*[a-z0-9])?')");
    }
}

static void check_qualified(struct msgs *m, const char *s)
{
    const char *name = s, *slash = strchr(s, '/');
    if (slash && strchr(slash + 1, '/')) {
        add(m, "a valid label key " MSG_QNAME
               " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')");
        return;
    }
    if (slash) {
        size_t n = (size_t)(slash - s);
        if (n == 0) {
            add(m, "prefix part must be non-empty");
        } else {
            if (n > 253) {
                add(m, "prefix part must be no more than 253 bytes");
            }
            if (!is_dotted(s, n, is_dns_label)) {
                add(m, "prefix part " MSG_SUBDOMAIN);
            }
        }
        name = slash + 1;
    }
    size_t n = strlen(name);
    if (n == 0) {
        add(m, "name part must be non-empty");
    } else if (n > 63) {
        add(m, "name part must be no more than 63 bytes");
    }
    if (!is_word(name, n, alnum, "-_.")) {
        add(m, "name part " MSG_QNAME);
    }
}

static void check_label_value(struct msgs *m, const char *s)
{
    size_t n = strlen(s);
    if (n > 63) {
        add(m, "must be no more than 63 bytes");
    }
    if (n > 0 && !is_word(s, n, alnum, "-_.")) {
        add(m, "a valid label must be an empty string or consist of alphanumeric characters, '-', "
               "'_' or '.', and must start and end with an alphanumeric character (e.g. "
               "'MyValue',  or 'my_value',  or '12345', " USED "(" QNAME_RE ")?')");
    }
}

static void check_port(struct msgs *m, const char *s)
{
    size_t n = strlen(s);
    if (n > 15) {
        add(m, "must be no more than 15 characters");
    }
    if (n == 0 || !all_of(s, lower_alnum, "-")) {
        add(m, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    bool letter = false;
    for (size_t i = 0; i < n; i++) {
        letter = letter || (s[i] >= 'a' && s[i] <= 'z');
    }
    if (!letter) {
        add(m, "must contain at least one letter (a-z)");
    }
    if (strstr(s, "--")) {
        add(m, "must not contain consecutive hyphens");
    }
    if (n > 0 && (s[0] == '-' || s[n - 1] == '-')) {
        add(m, "must not begin or end with a hyphen");
    }
}

static void check_env(struct msgs *m, const char *s)
{
    if (*s == '\0') {
        add(m, "environment variable name must be non-empty");
    }
    for (; *s; s++) {
        if (*s < ' ' || *s > '~' || *s == '=') {
            add(m, "a valid environment variable name must consist only of printable ASCII "
                   "characters other than '='");
            return;
        }
    }
}

static void check_env_strict(struct msgs *m, const char *s)
{
    if (*s == '\0' || digit(*s) || !all_of(s, alnum, "-._")) {
        add(m, "a valid environment variable name must consist of alphabetic characters, digits, "
               "'_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or "
               "'MY_ENV.NAME',  or 'MyEnvName1', " USED "[-._a-zA-Z][-._a-zA-Z0-9]*')");
    }
    dots_prefix(m, s);
}

static void check_config_key(struct msgs *m, const char *s)
{
    if (strlen(s) > 253) {
        add(m, "must be no more than 253 characters");
    }
    if (*s == '\0' || !all_of(s, alnum, "-._")) {
        add(m, "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
               "'key.name',  or 'KEY_NAME',  or 'key-name', " USED "[-._a-zA-Z0-9]+')");
    }
    dots_prefix(m, s);
}

static void check_percent(struct msgs *m, const char *s)
{
    size_t n = strspn(s, "0123456789");
    if (n == 0 || !th_streq(s + n, "%")) {
        add(m, "a valid percent string must be a numeric string followed by an ending '%' (e.g. "
               "'1%',  or '93%', " USED "[0-9]+%')");
    }
}

static void check_path_segment(struct msgs *m, const char *s, bool whole)
{
    if (whole && (th_streq(s, ".") || th_streq(s, ".."))) {
        add(m, s[1] ? "may not be '..'" : "may not be '.'");
        return;
    }
    if (strchr(s, '/')) {
        add(m, "may not contain '/'");
    }
    if (strchr(s, '%')) {
        add(m, "may not contain '%'");
    }
}

/* What Go's parser accepts: inet_pton, and in addition leading zeros in IPv4 octets, which only
 * the caller then refuses with their own message. */
enum addr { ADDR_BAD, ADDR_OK, ADDR_ZEROS, ADDR_MAPPED };

static enum addr parse_addr(const char *s, unsigned char out[16], int *bits)
{
    unsigned char v4[4];
    if (strchr(s, ':')) {
        if (inet_pton(AF_INET6, s, out) != 1) {
            return ADDR_BAD;
        }
        static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
        *bits = 128;
        return memcmp(out, mapped, sizeof(mapped)) == 0 ? ADDR_MAPPED : ADDR_OK;
    }
    bool zeros = false;
    const char *p = s;
    for (int i = 0; i < 4; i++) {
        unsigned v = 0;
        size_t n = strspn(p, "0123456789");
        if (n == 0 || n > 32) {
            return ADDR_BAD;
        }
        zeros = zeros || (n > 1 && *p == '0');
        for (size_t k = 0; k < n; k++) {
            v = v * 10 + (unsigned)(p[k] - '0');
            if (v > 255) {
                return ADDR_BAD;
            }
        }
        v4[i] = (unsigned char)v;
        p += n;
        if (*p != (i < 3 ? '.' : '\0')) {
            return ADDR_BAD;
        }
        p++;
    }
    memcpy(out, v4, 4);
    *bits = 32;
    return zeros ? ADDR_ZEROS : ADDR_OK;
}

static void check_ip(struct msgs *m, const char *s)
{
    unsigned char a[16];
    int bits;
    switch (parse_addr(s, a, &bits)) {
    case ADDR_BAD:
        add(m, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        break;
    case ADDR_ZEROS:
        add(m, "must not have leading 0s");
        break;
    case ADDR_MAPPED:
        add(m, "must not be an IPv4-mapped IPv6 address");
        break;
    case ADDR_OK:
        break;
    }
}

static void check_cidr(struct msgs *m, const char *s)
{
    static const char *const bad =
        "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    char host[64];
    const char *slash = strchr(s, '/');
    size_t n = slash ? (size_t)(slash - s) : 0;
    if (!slash || n >= sizeof(host)) {
        add(m, bad);
        return;
    }
    memcpy(host, s, n);
    host[n] = '\0';
    unsigned char a[16];
    int bits;
    enum addr kind = parse_addr(host, a, &bits);
    const char *len = slash + 1;
    size_t digits = strspn(len, "0123456789");
    if (kind == ADDR_BAD || digits == 0 || digits > 8 || len[digits]) {
        add(m, bad);
        return;
    }
    int prefix = 0;
    for (size_t i = 0; i < digits; i++) {
        prefix = prefix * 10 + (len[i] - '0');
    }
    if (prefix > bits) {
        add(m, bad);
    } else if (kind == ADDR_ZEROS || (digits > 1 && *len == '0')) {
        add(m, "must not have leading 0s in IP or prefix length");
    } else if (kind == ADDR_MAPPED) {
        add(m, "must not have an IPv4-mapped IPv6 address");
    } else {
        for (int i = prefix; i < bits; i++) {
            if (a[i / 8] & (0x80u >> (i % 8))) {
                add(m, "must not have bits set beyond the prefix length");
                return;
            }
        }
    }
}

size_t th_name_messages(enum th_name_format f, const char *s, const char *ret[TH_NAME_MSGS])
{
    struct msgs m = {.v = ret};
    s = s ? s : "";
    switch (f) {
    case TH_NAME_DNS1123_LABEL:
        check_label(&m, s);
        break;
    case TH_NAME_DNS1123_SUBDOMAIN:
        check_dotted(&m, s, is_dns_label, MSG_SUBDOMAIN);
        break;
    case TH_NAME_DNS1123_SUBDOMAIN_UNDERSCORE:
        check_dotted(&m, s, is_dns_ulabel,
                     "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
                     "characters, '_', '-' or '.', and must start and end with an alphanumeric "
                     "character (e.g. 'example.com', " USED ULABEL_RE "(\\." ULABEL_RE ")*')");
        break;
    case TH_NAME_DNS1123_WILDCARD:
        check_wildcard(&m, s);
        break;
    case TH_NAME_DNS1035_LABEL:
        check_1035(&m, s);
        break;
    case TH_NAME_QUALIFIED:
        check_qualified(&m, s);
        break;
    case TH_NAME_LABEL_VALUE:
        check_label_value(&m, s);
        break;
    case TH_NAME_PORT:
        check_port(&m, s);
        break;
    case TH_NAME_ENV:
        check_env(&m, s);
        break;
    case TH_NAME_ENV_STRICT:
        check_env_strict(&m, s);
        break;
    case TH_NAME_C_IDENTIFIER:
        if (*s == '\0' || digit(*s) || !all_of(s, alnum, "_")) {
            add(&m, "a valid C identifier must start with alphabetic character or '_', followed by "
                    "a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  "
                    "or 'MyName', " USED "[A-Za-z_][A-Za-z0-9_]*')");
        }
        break;
    case TH_NAME_CONFIG_KEY:
        check_config_key(&m, s);
        break;
    case TH_NAME_HTTP_HEADER:
        if (*s == '\0' || !all_of(s, alnum, "-")) {
            add(&m, "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. "
                    "'X-Header-Name', " USED "[-A-Za-z0-9]+')");
        }
        break;
    case TH_NAME_PERCENT:
        check_percent(&m, s);
        break;
    case TH_NAME_PATH_SEGMENT:
    case TH_NAME_PATH_SEGMENT_PREFIX:
        check_path_segment(&m, s, f == TH_NAME_PATH_SEGMENT);
        break;
    case TH_NAME_IP:
        check_ip(&m, s);
        break;
    case TH_NAME_CIDR:
        check_cidr(&m, s);
        break;
    }
    return m.n;
}

static const char *first(enum th_name_format f, const char *s)
{
    const char *v[TH_NAME_MSGS];
    return th_name_messages(f, s, v) ? v[0] : NULL;
}

const char *th_name_dns1123_label(const char *s)
{
    return first(TH_NAME_DNS1123_LABEL, s);
}

const char *th_name_dns1123_subdomain(const char *s)
{
    return first(TH_NAME_DNS1123_SUBDOMAIN, s);
}

const char *th_name_dns1035_label(const char *s)
{
    return first(TH_NAME_DNS1035_LABEL, s);
}

const char *th_name_qualified(const char *s)
{
    return first(TH_NAME_QUALIFIED, s);
}

const char *th_name_label_value(const char *s)
{
    return first(TH_NAME_LABEL_VALUE, s);
}

const char *th_name_port(const char *s)
{
    return first(TH_NAME_PORT, s);
}

const char *th_name_env(const char *s)
{
    return first(TH_NAME_ENV, s);
}

const char *th_name_config_key(const char *s)
{
    return first(TH_NAME_CONFIG_KEY, s);
}

const char *th_name_path_segment(const char *s)
{
    return first(TH_NAME_PATH_SEGMENT, s);
}

const char *th_name_ip(const char *s)
{
    return first(TH_NAME_IP, s);
}

const char *th_name_cidr(const char *s)
{
    return first(TH_NAME_CIDR, s);
}

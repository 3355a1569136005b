/*
 * String formats of OpenAPI schemas, those that upstream checks for custom resources.
 *
 * A table of names and functions; formats that are not in it are ignored, as upstream ignores them.
 * Names are compared without dashes ("date-time" is "datetime"). Most formats are defined upstream by
 * a regular expression, and are so here; the expressions are compiled on first use and kept.
 *
 * email and uri are read by hand: a mailbox with an optional display name, and an absolute URI or
 * path as a request line has it.
 */
#include "base/clock.h"
#include "base/encode.h"
#include "controlplane/schema/gotext.h"
#include "controlplane/schema/names.h"
#include "controlplane/schema/structural.h"

#include <arpa/inet.h>
#include <pthread.h>

enum pattern {
    P_HOSTNAME,
    P_UUID,
    P_UUID3,
    P_UUID4,
    P_UUID5,
    P_ISBN10,
    P_ISBN13,
    P_CARD,
    P_SSN,
    P_HEXCOLOR,
    P_RGBCOLOR,
    P_BASE64,
    P_BSON,
    P_DURATION,
    P_TIME,
    P_COUNT_
};
static const char *const patterns[P_COUNT_] = {
    [P_HOSTNAME] = "^([a-zA-Z0-9\\p{S}\\p{L}]((-?[a-zA-Z0-9\\p{S}\\p{L}]{0,62})?)|"
                   "([a-zA-Z0-9\\p{S}\\p{L}](([a-zA-Z0-9\\-\\p{S}\\p{L}]{0,61}"
                   "[a-zA-Z0-9\\p{S}\\p{L}])?)(\\.)){1,}([a-zA-Z\\p{L}]){2,63})$",
    [P_UUID] = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    [P_UUID3] = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    [P_UUID4] = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    [P_UUID5] = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    [P_ISBN10] = "^(?:[0-9]{9}X|[0-9]{10})$",
    [P_ISBN13] = "^(?:[0-9]{13})$",
    [P_CARD] = "^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|"
               "3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$",
    [P_SSN] = "^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$",
    [P_HEXCOLOR] = "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$",
    [P_RGBCOLOR] = "^rgb\\(\\s*(0|[1-9]\\d?|1\\d\\d?|2[0-4]\\d|25[0-5])\\s*,\\s*(0|[1-9]\\d?|"
                   "1\\d\\d?|2[0-4]\\d|25[0-5])\\s*,\\s*(0|[1-9]\\d?|1\\d\\d?|2[0-4]\\d|"
                   "25[0-5])\\s*\\)$",
    [P_BASE64] = "^(?:[A-Za-z0-9+\\/]{4})*(?:[A-Za-z0-9+\\/]{2}==|[A-Za-z0-9+\\/]{3}=|"
                 "[A-Za-z0-9+\\/]{4})$",
    [P_BSON] = "^[0-9a-fA-F]{24}$",
    [P_DURATION] = "(?i)([0-9]+)\\s*(ns|nano|us|µs|micro|ms|milli|s|sec|m|min|h|hr|hour|d|day|w|"
                   "week|wk)",
    [P_TIME] = "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$",
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards compiled */
static struct th_regex *compiled[P_COUNT_];

static bool matches(enum pattern p, const char *s)
{
    (void)pthread_mutex_lock(&lock);
    if (!compiled[p]) {
        int r = th_regex_new(patterns[p], strlen(patterns[p]), &compiled[p], NULL);
        TH_ASSERT(r >= 0);
    }
    const struct th_regex *r = compiled[p];
    (void)pthread_mutex_unlock(&lock);
    return th_regex_match(r, s, strlen(s), NULL) > 0;
}

static bool is_hostname(const char *s)
{
    if (strlen(s) > 255 || !matches(P_HOSTNAME, s)) {
        return false;
    }
    for (const char *p = s; *p;) {
        size_t n = strcspn(p, ".");
        if (n > 63) {
            return false;
        }
        p += n + (p[n] == '.');
    }
    return true;
}

/* Decimal parts, leading zeros allowed. */
static bool is_ipv4(const char *s)
{
    int parts = 0;
    for (;;) {
        unsigned v = 0;
        int digits = 0;
        for (; *s >= '0' && *s <= '9'; s++, digits++) {
            v = v * 10 + (unsigned)(*s - '0');
            if (v > 255) {
                return false;
            }
        }
        if (digits == 0 || ++parts > 4) {
            return false;
        }
        if (*s != '.') {
            return *s == '\0' && parts == 4;
        }
        s++;
    }
}

static bool is_ipv6(const char *s)
{
    struct in6_addr a;
    return strchr(s, ':') && inet_pton(AF_INET6, s, &a) == 1;
}

static bool is_cidr(const char *s)
{
    const char *slash = strchr(s, '/');
    if (!slash || slash[1] == '\0' || strlen(slash + 1) > 3) {
        return false;
    }
    th_autofree char *addr = th_xstrndup(s, (size_t)(slash - s));
    char *end = NULL;
    if (strspn(slash + 1, "0123456789") != strlen(slash + 1)) {
        return false;
    }
    long bits = strtol(slash + 1, &end, 10);
    return (is_ipv4(addr) && bits <= 32) || (is_ipv6(addr) && bits <= 128);
}

/* Groups of hex digits as Go's net.ParseMAC takes them: 6, 8 or 20 bytes. */
static bool is_mac(const char *s)
{
    size_t n = strlen(s);
    bool dots = n > 4 && s[4] == '.';
    size_t per = dots ? 5 : 3;
    char sep = dots ? '.' : s[0] && s[1] ? s[2] : '\0';
    if (n < 14 || (n + 1) % per != 0 || !(dots || sep == ':' || sep == '-')) {
        return false;
    }
    size_t bytes = (n + 1) / per * (dots ? 2 : 1);
    for (size_t i = 0; i < n; i++) {
        bool at_sep = i % per == per - 1;
        if (at_sep ? s[i] != sep : strchr("0123456789abcdefABCDEF", s[i]) == NULL) {
            return false;
        }
    }
    return bytes == 6 || bytes == 8 || bytes == 20;
}

static bool is_isbn10(const char *s)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (; *s; s++) {
        if (*s != '-' && *s != ' ') {
            th_buf_putc(&b, *s);
        }
    }
    if (!matches(P_ISBN10, th_buf_cstr(&b))) {
        return false;
    }
    int sum = 0;
    for (int i = 0; i < 10; i++) {
        sum += (i + 1) * (b.p[i] == 'X' ? 10 : b.p[i] - '0');
    }
    return sum % 11 == 0;
}

static bool is_isbn13(const char *s)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (; *s; s++) {
        if (*s != '-' && *s != ' ') {
            th_buf_putc(&b, *s);
        }
    }
    if (!matches(P_ISBN13, th_buf_cstr(&b))) {
        return false;
    }
    int sum = 0;
    for (int i = 0; i < 12; i++) {
        sum += (i % 2 ? 3 : 1) * (b.p[i] - '0');
    }
    return (b.p[12] - '0') == (10 - sum % 10) % 10;
}

static bool is_isbn(const char *s)
{
    return is_isbn10(s) || is_isbn13(s);
}

static bool is_card(const char *s)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (; *s; s++) {
        if (*s >= '0' && *s <= '9') {
            th_buf_putc(&b, *s);
        }
    }
    if (!matches(P_CARD, th_buf_cstr(&b))) {
        return false;
    }
    int sum = 0;
    for (size_t i = 0; i < b.n; i++) {
        int d = b.p[b.n - 1 - i] - '0';
        d = i % 2 ? d * 2 : d;
        sum += d > 9 ? d - 9 : d;
    }
    return sum % 10 == 0;
}

static bool is_date_n(const char *s, size_t n)
{
    if (n != 10) {
        return false;
    }
    th_autofree char *text = th_xasprintf("%.10sT00:00:00Z", s);
    int64_t sec;
    int32_t nsec;
    return th_go_time_parse(text, false, &sec, &nsec, NULL) >= 0;
}

static bool is_date(const char *s)
{
    return is_date_n(s, strlen(s));
}

static bool is_date_time(const char *s)
{
    size_t n = strcspn(s, "tT");
    if (!s[n] || !is_date_n(s, n)) {
        return false;
    }
    th_autofree char *time = th_xstrdup(s + n + 1);
    time[strcspn(time, "tT")] = '\0';
    for (char *p = time; *p; p++) {
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    }
    return matches(P_TIME, time);
}

static bool is_duration(const char *s)
{
    int64_t ns;
    return th_go_duration_parse(s, &ns, NULL) >= 0 || matches(P_DURATION, s);
}

static bool is_atext(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-/=?^_`{|}~", c)) || (unsigned char)c >= 0x80;
}

static bool dot_atom(const char *s, size_t n)
{
    bool prev_dot = true;
    for (size_t i = 0; i < n; i++) {
        bool dot = s[i] == '.';
        if ((dot && prev_dot) || (!dot && !is_atext(s[i]))) {
            return false;
        }
        prev_dot = dot;
    }
    return n > 0 && !prev_dot;
}

/* addr-spec: dot-atom or quoted local part, a domain. */
static bool addr_spec(const char *s, size_t n)
{
    const char *at = NULL;
    for (size_t i = 0; i < n; i++) {
        at = s[i] == '@' ? s + i : at;
    }
    if (!at) {
        return false;
    }
    size_t local = (size_t)(at - s), domain = n - local - 1;
    bool quoted = local >= 2 && s[0] == '"' && s[local - 1] == '"';
    bool literal = domain > 2 && at[1] == '[' && at[domain] == ']';
    return (quoted || dot_atom(s, local)) && (literal || dot_atom(at + 1, domain));
}

static bool is_email(const char *s)
{
    while (*s == ' ' || *s == '\t') {
        s++;
    }
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t')) {
        n--;
    }
    const char *open = memchr(s, '<', n);
    if (open && n && s[n - 1] == '>') {
        return addr_spec(open + 1, n - (size_t)(open - s) - 2);
    }
    return addr_spec(s, n);
}

/* What Go's url.ParseRequestURI takes: a scheme or an absolute path, no control characters, whole
 * escapes, a port of digits. */
static bool is_uri(const char *s)
{
    if (!*s) {
        return false;
    }
    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == ' ') {
            return false;
        }
    }
    const char *rest = s;
    if (*s != '/') {
        size_t n = strcspn(s, ":/?#");
        bool scheme = s[n] == ':' && ((s[0] >= 'a' && s[0] <= 'z') || (s[0] >= 'A' && s[0] <= 'Z'));
        for (size_t i = 0; scheme && i < n; i++) {
            scheme = (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
                     (s[i] >= '0' && s[i] <= '9') || strchr("+-.", s[i]);
        }
        if (!scheme) {
            return *s == '*' && !s[1];
        }
        rest = s + n + 1;
    }
    if (th_startswith(rest, "//") && rest != s) {
        const char *host = rest + 2;
        size_t n = strcspn(host, "/?#");
        const char *at = memchr(host, '@', n);
        size_t from = at ? (size_t)(at + 1 - host) : 0;
        const char *close = host[from] == '[' ? memchr(host + from, ']', n - from) : NULL;
        if (host[from] == '[' && !close) {
            return false;
        }
        const char *colon = close ? (close + 1 < host + n && close[1] == ':' ? close + 1 : NULL)
                                  : memchr(host + from, ':', n - from);
        if (close && close + 1 < host + n && !colon) {
            return false;
        }
        for (const char *p = colon ? colon + 1 : host + n; p < host + n; p++) {
            if (*p < '0' || *p > '9') {
                return false;
            }
        }
    }
    for (const char *p = rest; *p && *p != '?'; p++) {
        if (*p == '%' && !(p[1] && p[2] && strchr("0123456789abcdefABCDEF", p[1]) &&
                           strchr("0123456789abcdefABCDEF", p[2]))) {
            return false;
        }
    }
    return true;
}

static bool is_any(const char *s)
{
    (void)s;
    return true;
}

#define BY_PATTERN(fn, p)                                                                          \
    static bool fn(const char *s)                                                                  \
    {                                                                                              \
        return matches(p, s);                                                                      \
    }
BY_PATTERN(is_uuid, P_UUID)
BY_PATTERN(is_uuid3, P_UUID3)
BY_PATTERN(is_uuid4, P_UUID4)
BY_PATTERN(is_uuid5, P_UUID5)
BY_PATTERN(is_ssn, P_SSN)
BY_PATTERN(is_hexcolor, P_HEXCOLOR)
BY_PATTERN(is_rgbcolor, P_RGBCOLOR)
BY_PATTERN(is_base64, P_BASE64)
BY_PATTERN(is_bson, P_BSON)

static bool is_short_name(const char *s)
{
    return th_name_dns1123_label(s) == NULL;
}

static bool is_long_name(const char *s)
{
    return th_name_dns1123_subdomain(s) == NULL;
}

static const struct {
    const char *name; /* without dashes */
    bool (*valid)(const char *s);
} formats[] = {
    {"bsonobjectid", is_bson}, {"uri", is_uri},           {"email", is_email},
    {"hostname", is_hostname}, {"ipv4", is_ipv4},         {"ipv6", is_ipv6},
    {"cidr", is_cidr},         {"mac", is_mac},           {"uuid", is_uuid},
    {"uuid3", is_uuid3},       {"uuid4", is_uuid4},       {"uuid5", is_uuid5},
    {"isbn", is_isbn},         {"isbn10", is_isbn10},     {"isbn13", is_isbn13},
    {"creditcard", is_card},   {"ssn", is_ssn},           {"hexcolor", is_hexcolor},
    {"rgbcolor", is_rgbcolor}, {"byte", is_base64},       {"password", is_any},
    {"date", is_date},         {"duration", is_duration}, {"datetime", is_date_time},
    {"k8sshortname", is_short_name}, {"k8slongname", is_long_name},
};

static bool same_name(const char *format, const char *name)
{
    for (; *format; format++) {
        if (*format == '-') {
            continue;
        }
        if (*format != *name++) {
            return false;
        }
    }
    return *name == '\0';
}

bool th_format_known(const char *format)
{
    for (size_t i = 0; format && i < TH_ARRAY_LEN(formats); i++) {
        if (same_name(format, formats[i].name)) {
            return true;
        }
    }
    return false;
}

bool th_format_valid(const char *format, const char *s)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(formats); i++) {
        if (same_name(format, formats[i].name)) {
            return formats[i].valid(s);
        }
    }
    return true;
}

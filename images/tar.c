/* Tar, read and written.
 *
 * Why our own: what is needed is the subset that image tools write (ustar, GNU long names, pax),
 * with byte-exact names whatever the locale, hard limits, and a writer whose output is the same
 * for the same tree on every machine. That is a few hundred lines; libarchive, the alternative,
 * brings its locale-dependent name conversion and everything it links.
 *
 * Reading is pull-style: th_tar_next gives a header, th_tar_data the bytes of the entry; what was
 * not read is skipped. Pax records override the header's fields; "GNU.sparse" and the old GNU
 * sparse type are refused, since no image tool makes them and expanding them is an amplifier.
 * Header-only types (links, devices, folders) never have data, as Go's archive/tar reads it, which
 * is what Docker uses. The archive ends at two zero blocks, or at a clean end of the input.
 *
 * Writing uses plain ustar where the values fit and one pax header before the entry where they do
 * not. Times are whole seconds unless the entry says otherwise.
 */
#include "images/tar.h"
#include "base/limits.h"

#define BLOCK 512u
#define PAX_MAX (1u << 20)
#define NAME_LIMIT 4096u
#define XATTRS_MAX 128u

struct th_tar_reader {
    struct th_reader in;
    struct th_tar_entry e;
    uint64_t left;  /* data of the current entry not read yet */
    uint32_t pad;   /* zero bytes after it */
    bool ended;
};

void th_tar_entry_done(struct th_tar_entry *e)
{
    free(e->path);
    free(e->link);
    for (size_t i = 0; i < e->n_xattrs; i++) {
        free(e->xattrs[i].name);
        free(e->xattrs[i].value);
    }
    free(e->xattrs);
    *e = (struct th_tar_entry){0};
}

struct th_tar_reader *th_tar_reader_new(struct th_reader in)
{
    struct th_tar_reader *t = TH_NEW(struct th_tar_reader);
    t->in = in;
    return t;
}

void th_tar_reader_free(struct th_tar_reader *t)
{
    if (t) {
        th_tar_entry_done(&t->e);
        free(t);
    }
}

static int bad(struct th_err *err, const char *why)
{
    (void)th_fail(err, TH_R_BAD_ARCHIVE, "not a sound tar archive: %s", why);
    return th_hint(err, "the file may be cut off or of another kind; make or copy it again");
}

static int skip(struct th_tar_reader *t, uint64_t n, struct th_err *err)
{
    char sink[16384];
    while (n > 0) {
        size_t k = n < sizeof(sink) ? (size_t)n : sizeof(sink);
        ssize_t r = t->in.read(t->in.arg, sink, k, err);
        if (r < 0) {
            return (int)r;
        }
        if (r == 0) {
            return bad(err, "unexpected end");
        }
        n -= (uint64_t)r;
    }
    return 0;
}

/* Octal with blanks around it, or base-256 when the top bit is set. */
static bool number(const unsigned char *p, size_t n, int64_t *ret)
{
    if (p[0] & 0x80) {
        bool neg = p[0] & 0x40;
        uint64_t v = neg ? ~0ull : 0;
        for (size_t i = 0; i < n; i++) {
            unsigned char c = i == 0 ? (unsigned char)(neg ? p[i] | 0x80 : p[i] & 0x7f) : p[i];
            unsigned char top = (unsigned char)(v >> 56);
            if (top != (neg ? 0xff : 0)) {
                return false;
            }
            v = v << 8 | c;
        }
        if (!neg && v > INT64_MAX) {
            return false;
        }
        *ret = (int64_t)v;
        return true;
    }
    uint64_t v = 0;
    size_t i = 0;
    while (i < n && (p[i] == ' ' || p[i] == 0)) {
        i++;
    }
    for (; i < n && p[i] != 0 && p[i] != ' '; i++) {
        if (p[i] < '0' || p[i] > '7' || v > (UINT64_MAX >> 4)) {
            return false;
        }
        v = v << 3 | (uint64_t)(p[i] - '0');
    }
    *ret = (int64_t)v;
    return v <= INT64_MAX;
}

static bool checksum_ok(const unsigned char *h)
{
    int64_t want = 0;
    if (!number(h + 148, 8, &want)) {
        return false;
    }
    int64_t u = 0, s = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        unsigned char c = i >= 148 && i < 156 ? ' ' : h[i];
        u += c;
        s += (signed char)c;
    }
    return want == u || want == s;
}

/* What pax and GNU headers said for the next entry. */
struct extra {
    char *path, *link;
    bool has_size, has_uid, has_gid, has_mtime;
    uint64_t size, uid, gid;
    int64_t mtime_s;
    uint32_t mtime_ns;
    struct th_tar_xattr *xattrs;
    size_t n_xattrs, cap_xattrs;
};

static void extra_done(struct extra *x)
{
    struct th_tar_entry tmp = {.path = x->path,
                               .link = x->link,
                               .xattrs = x->xattrs,
                               .n_xattrs = x->n_xattrs};
    th_tar_entry_done(&tmp);
    *x = (struct extra){0};
}

static bool pax_u64(const char *p, size_t n, uint64_t *ret)
{
    uint64_t v = 0;
    if (n == 0 || n > 19) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return false;
        }
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    *ret = v;
    return v <= INT64_MAX;
}

static bool pax_time(const char *p, size_t n, int64_t *ret_s, uint32_t *ret_ns)
{
    bool neg = n > 0 && p[0] == '-';
    if (neg) {
        p++;
        n--;
    }
    const char *dot = memchr(p, '.', n);
    uint64_t s = 0;
    if (!pax_u64(p, dot ? (size_t)(dot - p) : n, &s) || s > (1ull << 40)) {
        return false;
    }
    uint32_t ns = 0;
    if (dot) {
        uint32_t unit = 100000000;
        for (const char *q = dot + 1; q < p + n; q++) {
            if (*q < '0' || *q > '9') {
                return false;
            }
            ns += unit * (uint32_t)(*q - '0');
            unit /= 10;
        }
    }
    *ret_s = neg ? -(int64_t)s : (int64_t)s;
    *ret_ns = ns;
    if (neg && ns > 0) { /* -1.25 is 0.75 after -2 */
        *ret_s -= 1;
        *ret_ns = 1000000000 - ns;
    }
    return true;
}

static int pax_record(struct extra *x, struct th_str key, struct th_str val, struct th_err *err)
{
    static const char xattr[] = "SCHILY.xattr.";
    const size_t xn = sizeof(xattr) - 1;
    bool ok = true;
    if (th_str_eq(key, TH_STR("path")) || th_str_eq(key, TH_STR("linkpath"))) {
        char **dst = key.p[0] == 'p' ? &x->path : &x->link;
        ok = val.n < NAME_LIMIT && !memchr(val.p, 0, val.n);
        if (ok && val.n > 0) {
            free(*dst);
            *dst = th_xstrndup(val.p, val.n);
        }
    } else if (th_str_eq(key, TH_STR("size"))) {
        ok = pax_u64(val.p, val.n, &x->size);
        x->has_size = true;
    } else if (th_str_eq(key, TH_STR("uid"))) {
        ok = pax_u64(val.p, val.n, &x->uid);
        x->has_uid = true;
    } else if (th_str_eq(key, TH_STR("gid"))) {
        ok = pax_u64(val.p, val.n, &x->gid);
        x->has_gid = true;
    } else if (th_str_eq(key, TH_STR("mtime"))) {
        ok = pax_time(val.p, val.n, &x->mtime_s, &x->mtime_ns);
        x->has_mtime = true;
    } else if (key.n > xn && memcmp(key.p, xattr, xn) == 0) {
        ok = x->n_xattrs < XATTRS_MAX && key.n - xn <= 255 && !memchr(key.p, 0, key.n);
        if (ok) {
            x->xattrs = th_xgrow(x->xattrs, &x->cap_xattrs, x->n_xattrs + 1, sizeof(*x->xattrs));
            x->xattrs[x->n_xattrs++] =
                (struct th_tar_xattr){.name = th_xstrndup(key.p + xn, key.n - xn),
                                      .value = th_xstrndup(val.p, val.n),
                                      .n = val.n};
        }
    } else if (key.n > 11 && memcmp(key.p, "GNU.sparse.", 11) == 0) {
        return bad(err, "sparse files are not supported");
    }
    return ok ? 0 : bad(err, "a malformed extended header");
}

static int pax_parse(struct extra *x, const char *p, size_t n, struct th_err *err)
{
    const char *end = p + n;
    while (p < end) {
        size_t len = 0, digits = 0;
        const char *q = p;
        for (; q < end && *q >= '0' && *q <= '9' && digits < 8; q++, digits++) {
            len = len * 10 + (size_t)(*q - '0');
        }
        if (digits == 0 || q >= end || *q != ' ' || len > (size_t)(end - p) ||
            len < (size_t)(q - p) + 3 || p[len - 1] != '\n') {
            return bad(err, "a malformed extended header");
        }
        q++;
        size_t rest = (size_t)(p + len - 1 - q);
        const char *eq = memchr(q, '=', rest);
        if (!eq || eq == q) {
            return bad(err, "a malformed extended header");
        }
        struct th_str key = {q, (size_t)(eq - q)};
        struct th_str val = {eq + 1, rest - key.n - 1};
        TH_TRY(pax_record(x, key, val, err));
        p += len;
    }
    return 0;
}

/* Data of a header that belongs to the next entry. */
static int read_meta(struct th_tar_reader *t, uint64_t size, struct th_buf *b, struct th_err *err)
{
    if (size > PAX_MAX) {
        return bad(err, "an extended header of more than 1 MiB");
    }
    th_buf_clear(b);
    th_buf_reserve(b, (size_t)size + BLOCK);
    size_t padded = (size_t)((size + BLOCK - 1) / BLOCK * BLOCK);
    ssize_t r = th_reader_fill(t->in, b->p, padded, err);
    if (r < 0) {
        return (int)r;
    }
    if ((size_t)r != padded) {
        return bad(err, "unexpected end");
    }
    b->n = (size_t)size;
    b->p[b->n] = 0;
    return 0;
}

static int take_long(char **dst, const struct th_buf *b, struct th_err *err)
{
    size_t n = strnlen(th_buf_cstr(b), b->n);
    if (n == 0 || n >= NAME_LIMIT) {
        return bad(err, "a name that is too long");
    }
    free(*dst);
    *dst = th_xstrndup(b->p, n);
    return 0;
}

static char *header_name(const unsigned char *h)
{
    size_t n = strnlen((const char *)h, 100);
    bool ustar = memcmp(h + 257, "ustar\0", 6) == 0;
    size_t pn = ustar ? strnlen((const char *)h + 345, 155) : 0;
    if (pn > 0) {
        return th_xasprintf("%.*s/%.*s", (int)pn, (const char *)h + 345, (int)n, (const char *)h);
    }
    return th_xstrndup((const char *)h, n);
}

static int fill_entry(struct th_tar_reader *t, const unsigned char *h, struct extra *x,
                      struct th_err *err)
{
    struct th_tar_entry *e = &t->e;
    int64_t mode = 0, uid = 0, gid = 0, size = 0, mtime = 0, major = 0, minor = 0;
    if (!number(h + 100, 8, &mode) || !number(h + 108, 8, &uid) || !number(h + 116, 8, &gid) ||
        !number(h + 124, 12, &size) || !number(h + 136, 12, &mtime)) {
        return bad(err, "a header with a malformed number");
    }
    char type = (char)h[156];
    e->path = x->path ? th_steal(&x->path) : header_name(h);
    if (x->link) {
        e->link = th_steal(&x->link);
    } else {
        e->link = th_xstrndup((const char *)h + 157, strnlen((const char *)h + 157, 100));
    }
    size_t n = strlen(e->path);
    bool slash = n > 0 && e->path[n - 1] == '/';
    while (n > 1 && e->path[n - 1] == '/') {
        e->path[--n] = 0;
    }
    if (type == 0 || type == '7') {
        type = '0';
    }
    if (type == '0' && slash) {
        type = '5';
    }
    if ((type == '3' || type == '4') &&
        (!number(h + 329, 8, &major) || !number(h + 337, 8, &minor))) {
        return bad(err, "a header with a malformed number");
    }
    size = x->has_size ? (int64_t)x->size : size;
    uid = x->has_uid ? (int64_t)x->uid : uid;
    gid = x->has_gid ? (int64_t)x->gid : gid;
    if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX || size < 0 || major < 0 ||
        minor < 0 || major > UINT32_MAX || minor > UINT32_MAX) {
        return bad(err, "a header with a number out of range");
    }
    e->type = (enum th_tar_type)type;
    e->mode = (uint32_t)(mode & 07777);
    e->uid = (uint32_t)uid;
    e->gid = (uint32_t)gid;
    e->mtime_s = x->has_mtime ? x->mtime_s : mtime;
    e->mtime_ns = x->has_mtime ? x->mtime_ns : 0;
    e->dev_major = (uint32_t)major;
    e->dev_minor = (uint32_t)minor;
    e->xattrs = th_steal(&x->xattrs);
    e->n_xattrs = x->n_xattrs;
    x->n_xattrs = 0;
    bool header_only = type >= '1' && type <= '6';
    t->left = header_only ? 0 : (uint64_t)size;
    t->pad = (uint32_t)((BLOCK - t->left % BLOCK) % BLOCK);
    e->size = type == '0' ? t->left : 0;
    return 0;
}

static bool all_zero(const unsigned char *h)
{
    for (size_t i = 0; i < BLOCK; i++) {
        if (h[i]) {
            return false;
        }
    }
    return true;
}

static int next_header(struct th_tar_reader *t, struct extra *x, struct th_buf *b,
                       struct th_err *err)
{
    unsigned char h[BLOCK];
    for (;;) {
        ssize_t r = th_reader_fill(t->in, h, BLOCK, err);
        if (r < 0) {
            return (int)r;
        }
        if (r == 0 || ((size_t)r == BLOCK && all_zero(h))) {
            t->ended = true;
            return 0;
        }
        if ((size_t)r != BLOCK) {
            return bad(err, "unexpected end");
        }
        if (!checksum_ok(h)) {
            return bad(err, "a header's checksum is wrong");
        }
        int64_t size = 0;
        char type = (char)h[156];
        if (type == 'x' || type == 'g' || type == 'L' || type == 'K') {
            if (!number(h + 124, 12, &size) || size < 0) {
                return bad(err, "a header with a malformed number");
            }
            TH_TRY(read_meta(t, (uint64_t)size, b, err));
            if (type == 'x') {
                TH_TRY(pax_parse(x, th_buf_cstr(b), b->n, err));
            } else if (type != 'g') { /* global records carry comments; no image needs them */
                TH_TRY(take_long(type == 'L' ? &x->path : &x->link, b, err));
            }
            continue;
        }
        if (type == 'S') {
            return bad(err, "sparse files are not supported");
        }
        TH_TRY(fill_entry(t, h, x, err));
        if ((type >= '0' && type <= '7') || type == 0) {
            return 1;
        }
        /* types of other worlds (volume labels, Solaris ACLs) are passed over */
        TH_TRY(skip(t, t->left + t->pad, err));
        t->left = t->pad = 0;
        th_tar_entry_done(&t->e);
        extra_done(x);
    }
}

int th_tar_next(struct th_tar_reader *t, const struct th_tar_entry **ret_e, struct th_err *err)
{
    if (t->ended) {
        return 0;
    }
    TH_TRY(skip(t, t->left + t->pad, err));
    t->left = t->pad = 0;
    th_tar_entry_done(&t->e);
    struct extra x = {0};
    th_autobuf struct th_buf b = TH_BUF_INIT;
    int r = next_header(t, &x, &b, err);
    extra_done(&x);
    if (r > 0) {
        *ret_e = &t->e;
    }
    return r;
}

static ssize_t data_read(void *arg, void *p, size_t n, struct th_err *err)
{
    struct th_tar_reader *t = arg;
    n = t->left < n ? (size_t)t->left : n;
    if (n == 0) {
        return 0;
    }
    ssize_t r = t->in.read(t->in.arg, p, n, err);
    if (r == 0) {
        return bad(err, "unexpected end");
    }
    if (r > 0) {
        t->left -= (uint64_t)r;
    }
    return r;
}

struct th_reader th_tar_data(struct th_tar_reader *t)
{
    return (struct th_reader){data_read, t};
}

int th_tar_read_all(struct th_tar_reader *t, size_t max, struct th_buf *b, struct th_err *err)
{
    if (t->left > max) {
        return th_fail(err, TH_R_TOO_LARGE, "%s in the archive is larger than %zu bytes",
                       t->e.path, max);
    }
    size_t n = (size_t)t->left;
    th_buf_reserve(b, n);
    ssize_t r = th_reader_fill(th_tar_data(t), b->p + b->n, n, err);
    if (r < 0) {
        return (int)r;
    }
    b->n += (size_t)r;
    b->p[b->n] = 0;
    return 0;
}

/* ---- writing ---- */

void th_tar_writer_init(struct th_tar_writer *w, struct th_writer out)
{
    *w = (struct th_tar_writer){.out = out};
}

static void octal(unsigned char *p, size_t n, uint64_t v)
{
    for (size_t i = n - 1; i-- > 0;) {
        p[i] = (unsigned char)('0' + (v & 7));
        v >>= 3;
    }
}

static int write_header(struct th_tar_writer *w, const char *name, char type, const char *link,
                        const struct th_tar_entry *e, uint64_t size, struct th_err *err)
{
    unsigned char h[BLOCK] = {0};
    memcpy(h, name, strnlen(name, 100));
    octal(h + 100, 8, e->mode & 07777);
    octal(h + 108, 8, e->uid <= 07777777 ? e->uid : 0);
    octal(h + 116, 8, e->gid <= 07777777 ? e->gid : 0);
    octal(h + 124, 12, size <= 077777777777ull ? size : 0);
    octal(h + 136, 12,
          e->mtime_s >= 0 && e->mtime_s <= 077777777777ll ? (uint64_t)e->mtime_s : 0);
    h[156] = (unsigned char)type;
    if (link) {
        memcpy(h + 157, link, strnlen(link, 100));
    }
    memcpy(h + 257, "ustar\00000", 8);
    if (type == TH_TAR_CHAR || type == TH_TAR_BLOCK) {
        octal(h + 329, 8, e->dev_major);
        octal(h + 337, 8, e->dev_minor);
    }
    memset(h + 148, ' ', 8);
    uint64_t sum = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        sum += h[i];
    }
    octal(h + 148, 7, sum);
    h[154] = 0;
    h[155] = ' ';
    return w->out.write(w->out.arg, h, BLOCK, err);
}

static void pax_add(struct th_buf *b, const char *key, const char *val, size_t n)
{
    size_t body = strlen(key) + n + 3; /* blank, '=' and newline */
    size_t len = body + 1;
    for (size_t digits = 1;; digits++) {
        size_t limit = 1;
        for (size_t i = 0; i < digits; i++) {
            limit *= 10;
        }
        len = body + digits;
        if (len < limit) {
            break;
        }
    }
    th_buf_printf(b, "%zu %s=", len, key);
    th_buf_add(b, val, n);
    th_buf_putc(b, '\n');
}

static void pax_addf(struct th_buf *b, const char *key, uint64_t v)
{
    char s[32];
    int n = snprintf(s, sizeof(s), "%llu", (unsigned long long)v);
    pax_add(b, key, s, (size_t)n);
}

static int pad(struct th_tar_writer *w, uint64_t size, struct th_err *err)
{
    static const char zero[BLOCK];
    size_t n = (size_t)((BLOCK - size % BLOCK) % BLOCK);
    return n ? w->out.write(w->out.arg, zero, n, err) : 0;
}

int th_tar_write_entry(struct th_tar_writer *w, const struct th_tar_entry *e, struct th_err *err)
{
    TH_ASSERT(w->left == 0);
    th_autobuf struct th_buf x = TH_BUF_INIT;
    th_autofree char *name =
        e->type == TH_TAR_DIR ? th_xasprintf("%s/", e->path) : th_xstrdup(e->path);
    uint64_t size = e->type == TH_TAR_REG ? e->size : 0;
    if (strlen(name) > 100) {
        pax_add(&x, "path", name, strlen(name));
    }
    if (e->link && strlen(e->link) > 100) {
        pax_add(&x, "linkpath", e->link, strlen(e->link));
    }
    if (size > 077777777777ull) {
        pax_addf(&x, "size", size);
    }
    if (e->uid > 07777777) {
        pax_addf(&x, "uid", e->uid);
    }
    if (e->gid > 07777777) {
        pax_addf(&x, "gid", e->gid);
    }
    if (e->mtime_s < 0 || e->mtime_s > 077777777777ll || e->mtime_ns) {
        char s[48];
        int64_t sec = e->mtime_s;
        uint32_t ns = e->mtime_ns;
        bool neg = sec < 0;
        if (neg && ns) {
            sec += 1;
            ns = 1000000000 - ns;
        }
        int n = snprintf(s, sizeof(s), "%s%lld.%09u", neg && sec == 0 ? "-" : "", (long long)sec,
                         ns);
        pax_add(&x, "mtime", s, (size_t)(ns ? n : n - 10));
    }
    for (size_t i = 0; i < e->n_xattrs; i++) {
        th_autofree char *key = th_xasprintf("SCHILY.xattr.%s", e->xattrs[i].name);
        pax_add(&x, key, e->xattrs[i].value, e->xattrs[i].n);
    }
    if (x.n > 0) {
        static const struct th_tar_entry plain = {.mode = 0644};
        TH_TRY(write_header(w, "PaxHeaders.0/entry", 'x', NULL, &plain, x.n, err));
        TH_TRY(w->out.write(w->out.arg, x.p, x.n, err));
        TH_TRY(pad(w, x.n, err));
    }
    const char *link =
        e->type == TH_TAR_SYMLINK || e->type == TH_TAR_HARDLINK ? e->link : NULL;
    TH_TRY(write_header(w, name, (char)e->type, link, e, size, err));
    w->left = size;
    w->pad = (uint32_t)((BLOCK - size % BLOCK) % BLOCK);
    return 0;
}

int th_tar_write_data(struct th_tar_writer *w, const void *p, size_t n, struct th_err *err)
{
    TH_ASSERT(n <= w->left);
    TH_TRY(w->out.write(w->out.arg, p, n, err));
    w->left -= n;
    if (w->left == 0 && w->pad) {
        static const char zero[BLOCK];
        uint32_t k = w->pad;
        w->pad = 0;
        return w->out.write(w->out.arg, zero, k, err);
    }
    return 0;
}

int th_tar_write_file(struct th_tar_writer *w, const char *path, uint32_t mode, const void *p,
                      size_t n, struct th_err *err)
{
    struct th_tar_entry e = {
        .type = TH_TAR_REG, .path = (char *)(uintptr_t)path, .mode = mode, .size = n};
    TH_TRY(th_tar_write_entry(w, &e, err));
    return n ? th_tar_write_data(w, p, n, err) : 0;
}

int th_tar_write_end(struct th_tar_writer *w, struct th_err *err)
{
    static const char zero[2 * BLOCK];
    TH_ASSERT(w->left == 0);
    return w->out.write(w->out.arg, zero, sizeof(zero), err);
}

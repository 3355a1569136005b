/* Empty pages out of a machine's stream.
 *
 * QEMU's stream has a record for every page of the guest's memory, and nineteen of twenty say that the page
 * is zero. They are small, but for each QEMU looks at its own memory, whether it is zero already, which
 * maps it: a quarter of a million page faults, most of the time that reading a template takes. A machine
 * that was made to wait for a stream has nothing in its memory, so these records may as well be missing.
 * (Other blocks, firmware above all, have content from the beginning: theirs stay.)
 *
 * The stream (QEMU's docs/devel/migration, and its savevm.c and ram.c, version 3 and 4): magic and version;
 * an optional configuration; sections, first those of "ram", begun, parts and end, each followed by a
 * footer; then devices, which are copied as they are. A record of memory is an address with flags in its
 * low bits, then the name of the block unless it is that of the record before (be it in another section),
 * then the content. So a record after dropped ones may have to name its block where it did not before.
 *
 * Whatever is not as described here ends the attempt, and the stream is used as QEMU wrote it. */
#include "vm/launcher/thin.h"
#include "base/io.h"

#define MAGIC 0x5145564du
#define STREAM_VERSION 3
#define RAM_VERSION 4
#define RAM_BLOCK "pc.ram"
#define PAGE 4096
#define FLUSH_B ((size_t)1 << 20)

enum section { SECTION_START = 1, SECTION_PART = 2, SECTION_END = 3, SECTION_CONFIG = 7, SECTION_FOOTER = 0x7e };
enum flag { FLAG_ZERO = 0x02, FLAG_SIZES = 0x04, FLAG_PAGE = 0x08, FLAG_EOS = 0x10, FLAG_SAME_BLOCK = 0x20 };

struct thin {
    const unsigned char *p;
    size_t n, at;
    bool bad; /* the stream ended too early, or is not what it should be */
    int out_fd, failed;
    struct th_err *err;
    struct th_buf out;
    struct th_str block, out_block; /* of the last record, read and written */
};

/* The next k bytes; zeros, and bad set, when there are none. */
static const unsigned char *take(struct thin *t, size_t k)
{
    static const unsigned char nothing[256];
    if (t->bad || t->n - t->at < k) {
        t->bad = true;
        return nothing;
    }
    t->at += k;
    return t->p + t->at - k;
}

static uint64_t be(struct thin *t, size_t bytes)
{
    const unsigned char *p = take(t, bytes);
    uint64_t v = 0;
    for (size_t i = 0; i < bytes; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static struct th_str name(struct thin *t)
{
    size_t n = (size_t)be(t, 1);
    const unsigned char *p = take(t, n);
    return t->bad ? TH_STR("") : (struct th_str){(const char *)p, n};
}

static void put(struct thin *t, const void *p, size_t n)
{
    if (t->failed < 0 || t->bad) {
        return;
    }
    th_buf_add(&t->out, p, n);
    if (t->out.n >= FLUSH_B) {
        t->failed = th_io_write_all(t->out_fd, t->out.p, t->out.n, t->err);
        th_buf_clear(&t->out);
    }
}

/* The content of one record, and the record to the output unless it can be missing. */
static void page(struct thin *t, uint64_t head)
{
    bool zero = head & FLAG_ZERO;
    size_t n = zero ? 1 : PAGE;
    const unsigned char *content = take(t, n);
    if (zero && content[0] == 0 && th_str_eq(t->block, TH_STR(RAM_BLOCK))) {
        return;
    }
    bool again = t->out_block.n > 0 && th_str_eq(t->block, t->out_block);
    head = again ? head | FLAG_SAME_BLOCK : head & ~(uint64_t)FLAG_SAME_BLOCK;
    unsigned char bytes[9];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(head >> (56 - 8 * i));
    }
    bytes[8] = (unsigned char)t->block.n;
    put(t, bytes, again ? 8 : 9);
    put(t, t->block.p, again ? 0 : t->block.n);
    put(t, content, n);
    t->out_block = t->block;
}

static void sizes(struct thin *t, uint64_t total)
{
    while (!t->bad && total > 0) {
        (void)name(t);
        uint64_t n = be(t, 8);
        t->bad = t->bad || n == 0 || n > total;
        total -= t->bad ? 0 : n;
    }
}

static void records(struct thin *t)
{
    for (;;) {
        size_t from = t->at;
        uint64_t head = be(t, 8), flags = head & (PAGE - 1);
        if (flags == FLAG_SIZES) {
            sizes(t, head - flags);
            put(t, t->p + from, t->at - from);
        } else if (flags == FLAG_EOS) {
            put(t, t->p + from, t->at - from);
            return;
        } else if ((flags & ~(uint64_t)FLAG_SAME_BLOCK) == FLAG_ZERO ||
                   (flags & ~(uint64_t)FLAG_SAME_BLOCK) == FLAG_PAGE) {
            t->block = flags & FLAG_SAME_BLOCK ? t->block : name(t);
            t->bad = t->bad || t->block.n == 0;
            page(t, head);
        } else {
            t->bad = true;
        }
        if (t->bad || t->failed < 0) {
            return;
        }
    }
}

/* A section of the memory, and true; false at the first of another kind, with nothing taken. */
static bool section(struct thin *t, uint64_t *id)
{
    size_t from = t->at;
    uint64_t type = be(t, 1);
    if (type == SECTION_CONFIG) {
        (void)take(t, (size_t)be(t, 4));
        put(t, t->p + from, t->at - from);
        return true;
    }
    if (type == SECTION_FOOTER) {
        t->bad = t->bad || be(t, 4) != *id;
        put(t, t->p + from, t->at - from);
        return true;
    }
    if (type != SECTION_START && type != SECTION_PART && type != SECTION_END) {
        t->at = from;
        return false;
    }
    uint64_t which = be(t, 4);
    if (type == SECTION_START) {
        bool ram = th_str_eq(name(t), TH_STR("ram"));
        uint64_t instance = be(t, 4), version = be(t, 4);
        t->bad = t->bad || !ram || instance != 0 || version != RAM_VERSION || *id != 0;
        *id = which;
    }
    t->bad = t->bad || which != *id || which == 0;
    put(t, t->p + from, t->at - from);
    if (!t->bad) {
        records(t);
    }
    return true;
}

int th_thin_stream(const void *stream, size_t n, int out_fd, struct th_err *err)
{
    struct thin t = {.p = stream, .n = n, .out_fd = out_fd, .err = err, .block = TH_STR(""),
                     .out_block = TH_STR("")};
    uint64_t id = 0;
    t.bad = be(&t, 4) != MAGIC || be(&t, 4) != STREAM_VERSION || t.bad;
    put(&t, t.p, t.at);
    while (!t.bad && t.failed == 0 && section(&t, &id)) {
    }
    t.bad = t.bad || id == 0;
    while (!t.bad && t.failed == 0 && t.at < t.n) {
        size_t k = t.n - t.at < FLUSH_B ? t.n - t.at : FLUSH_B;
        put(&t, take(&t, k), k);
    }
    if (t.failed == 0 && !t.bad) {
        t.failed = th_io_write_all(out_fd, t.out.p, t.out.n, err);
    }
    th_buf_done(&t.out);
    return t.failed < 0 ? t.failed : t.bad ? 0 : 1;
}

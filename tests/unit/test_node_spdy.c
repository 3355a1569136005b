/* SPDY/3.1 frames as a client writes them, and what chan.c makes of them. */
#include "vm/node/chan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- a client ---- */

struct client {
    z_stream z;
    struct th_buf out;
};

static void dictionary(struct th_buf *b);

static void client_init(struct client *c)
{
    memset(c, 0, sizeof(*c));
    th_autobuf struct th_buf d = TH_BUF_INIT;
    dictionary(&d);
    assert_int_equal(deflateInit(&c->z, 9), Z_OK);
    assert_int_equal(deflateSetDictionary(&c->z, (const Bytef *)d.p, (uInt)d.n), Z_OK);
}

static void client_done(struct client *c)
{
    (void)deflateEnd(&c->z);
    th_buf_done(&c->out);
}

static void put32(struct th_buf *b, uint32_t v)
{
    const char x[4] = {(char)(v >> 24), (char)(v >> 16), (char)(v >> 8), (char)v};
    th_buf_add(b, x, 4);
}

/* Out of our own compressor; that it is the protocol's is a test of its own (its checksum is
 * fixed). */
static void dictionary(struct th_buf *b)
{
    struct spdy s;
    spdy_init(&s);
    char d[32768];
    uInt n = sizeof(d);
    assert_int_equal(deflateGetDictionary(&s.deflate, (Bytef *)d, &n), Z_OK);
    th_buf_add(b, d, n);
    spdy_done(&s);
}

/* A control frame with headers; pairs end with NULL. */
static void client_syn(struct client *c, uint32_t stream, int flags, const char *const *pairs)
{
    th_autobuf struct th_buf h = TH_BUF_INIT, block = TH_BUF_INIT;
    uint32_t n = 0;
    while (pairs[n]) {
        n++;
    }
    put32(&h, n / 2);
    for (uint32_t i = 0; i < n; i++) {
        put32(&h, (uint32_t)strlen(pairs[i]));
        th_buf_puts(&h, pairs[i]);
    }
    static char packed[1 << 20];
    c->z.next_in = (Bytef *)h.p;
    c->z.avail_in = (uInt)h.n;
    c->z.next_out = (Bytef *)packed;
    c->z.avail_out = sizeof(packed);
    assert_int_equal(deflate(&c->z, Z_SYNC_FLUSH), Z_OK);
    th_buf_add(&block, packed, sizeof(packed) - c->z.avail_out);
    put32(&c->out, 0x80030001u);
    put32(&c->out, (uint32_t)flags << 24 | (uint32_t)(10 + block.n));
    put32(&c->out, stream);
    put32(&c->out, 0);
    th_buf_add(&c->out, "\0\0", 2);
    th_buf_add(&c->out, block.p, block.n);
}

/* ---- tests ---- */

static void the_dictionary_is_the_protocols(void **state)
{
    (void)state;
    assert_int_equal(spdy_dictionary_adler(), 0xe3c6a7c2u);
    th_autobuf struct th_buf d = TH_BUF_INIT;
    dictionary(&d);
    assert_int_equal(d.n, 1423);
}

static void streams_and_their_headers_are_read_byte_by_byte(void **state)
{
    (void)state;
    struct client c;
    client_init(&c);
    client_syn(&c, 1, 0,
               (const char *[]){"streamtype", "error", "PORT", "8080", "requestid", "0", NULL});
    client_syn(&c, 3, 1, (const char *[]){"streamtype", "data", "port", "8080", NULL});
    spdy_put_data(&c.out, 3, true, "hello", 5);
    spdy_put_ping(&c.out, 7);
    spdy_put_rst(&c.out, 1, 5);
    spdy_put_goaway(&c.out, 3);
    put32(&c.out, 0x80030004u); /* SETTINGS */
    put32(&c.out, 4);
    put32(&c.out, 0);
    struct spdy s;
    spdy_init(&s);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autobuf struct th_buf data = TH_BUF_INIT, kinds = TH_BUF_INIT;
    for (size_t i = 0; i < c.out.n; i++) {
        spdy_feed(&s, c.out.p + i, 1);
        struct spdy_frame f;
        int r;
        while ((r = spdy_next(&s, &f, &err)) > 0) {
            th_buf_printf(&kinds, "%d", f.kind);
            if (f.kind == SPDY_SYN_STREAM) {
                assert_string_equal(spdy_header(&f, "port"), "8080");
                assert_string_equal(spdy_header(&f, "streamType"),
                                    f.stream == 1 ? "error" : "data");
                assert_int_equal(f.fin, f.stream == 3);
            } else if (f.kind == SPDY_DATA) {
                assert_int_equal(f.stream, 3);
                th_buf_add(&data, f.p, f.n);
                assert_int_equal(f.fin, data.n == 5);
            } else if (f.kind == SPDY_PING) {
                assert_int_equal(f.value, 7);
            } else if (f.kind == SPDY_RST) {
                assert_int_equal(f.value, 5);
                assert_int_equal(f.stream, 1);
            }
            spdy_frame_done(&f);
        }
        assert_int_equal(r, 0);
    }
    assert_string_equal(th_buf_cstr(&data), "hello");
    assert_string_equal(th_buf_cstr(&kinds), "00111113245");
    spdy_done(&s);
    client_done(&c);
}

static void our_frames_are_read_by_our_reader(void **state)
{
    (void)state;
    struct spdy a, b;
    spdy_init(&a);
    spdy_init(&b);
    th_autobuf struct th_buf out = TH_BUF_INIT;
    for (uint32_t i = 1; i < 50; i += 2) { /* one compressor over many frames */
        spdy_put_reply(&a, &out, i);
    }
    spdy_put_data(&out, 1, true, "", 0);
    spdy_feed(&b, out.p, out.n);
    struct spdy_frame f;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    for (uint32_t i = 1; i < 50; i += 2) {
        assert_int_equal(spdy_next(&b, &f, &err), 1);
        assert_int_equal(f.kind, SPDY_OTHER);
        assert_int_equal(f.stream, i);
        assert_int_equal(f.headers.n, 0);
        spdy_frame_done(&f);
    }
    assert_int_equal(spdy_next(&b, &f, &err), 1);
    assert_true(f.kind == SPDY_DATA && f.fin && f.n == 0);
    assert_int_equal(spdy_next(&b, &f, &err), 0);
    spdy_done(&a);
    spdy_done(&b);
}

static int read_all(const void *p, size_t n)
{
    struct spdy s;
    struct spdy_frame f;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    spdy_init(&s);
    spdy_feed(&s, p, n);
    int r;
    while ((r = spdy_next(&s, &f, &err)) > 0) {
        spdy_frame_done(&f);
    }
    spdy_done(&s);
    return r;
}

static void what_is_not_spdy_is_refused(void **state)
{
    (void)state;
    assert_true(read_all("\x80\2\0\1\0\0\0\0", 8) < 0);       /* version 2 */
    assert_true(read_all("\x80\3\0\1\0\xff\xff\xff", 8) < 0); /* a control frame of 16 MiB */
    assert_true(read_all("\x80\3\0\6\0\0\0\2xx", 10) < 0);    /* a short ping */
    assert_true(read_all("\x80\3\0\1\0\0\0\x0e\0\0\0\1\0\0\0\0\0\0junk", 22) <
                0);                               /* headers not zlib */
    assert_int_equal(read_all("GET / HT", 8), 0); /* reads as data: nobody's stream */
    struct client c;
    client_init(&c);
    static char big[100000];
    memset(big, 'x', sizeof(big) - 1);
    client_syn(&c, 1, 0,
               (const char *[]){"streamtype", big, NULL}); /* small packed, large unpacked */
    assert_true(c.out.n < 2000);
    assert_true(read_all(c.out.p, c.out.n) < 0);
    client_done(&c);
}

static void subprotocols_are_chosen(void **state)
{
    (void)state;
    assert_string_equal(chans_choose("v5.channel.k8s.io, v4.channel.k8s.io", false),
                        "v5.channel.k8s.io");
    assert_string_equal(chans_choose("v4.channel.k8s.io", false), "v4.channel.k8s.io");
    assert_null(chans_choose("v3.channel.k8s.io", false));
    assert_string_equal(chans_choose("channel.k8s.io", false), "channel.k8s.io");
    assert_string_equal(chans_choose("base64.channel.k8s.io, v4.base64.channel.k8s.io", false),
                        "v4.base64.channel.k8s.io");
    assert_string_equal(chans_choose(NULL, false), ""); /* the first version */
    assert_string_equal(chans_choose("v3.channel.k8s.io,v5.channel.k8s.io,v4.channel.k8s.io", true),
                        "v4.channel.k8s.io");
    assert_string_equal(chans_choose("channel.k8s.io", true), "channel.k8s.io");
    assert_string_equal(chans_choose("", true), "");
    assert_null(chans_choose("v9.channel.k8s.io", true));
}

struct seen {
    struct th_buf text;
};

static void note(void *arg, enum chan ch, const char *p, size_t n)
{
    struct th_buf *b = arg;
    if (p) {
        th_buf_printf(b, "%d=%.*s;", ch, (int)n, p);
    } else {
        th_buf_printf(b, "%d end;", ch);
    }
}

static void a_spdy_session_opens_its_channels(void **state)
{
    (void)state;
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    struct client c;
    client_init(&c);
    client_syn(&c, 1, 0, (const char *[]){"streamtype", "error", NULL});
    client_syn(&c, 3, 0, (const char *[]){"streamtype", "stdin", NULL});
    client_syn(&c, 5, 0, (const char *[]){"streamtype", "stdout", NULL});
    client_syn(&c, 7, 0, (const char *[]){"streamtype", "nonsense", NULL});
    spdy_put_data(&c.out, 3, false, "abc", 3);
    assert_int_equal(write(sv[1], c.out.p, c.out.n), (ssize_t)c.out.n);
    struct chans ch;
    chans_init(&ch, sv[0], NULL, 0, true, "v4.channel.k8s.io");
    assert_int_equal(ch.version, 4);
    assert_true(chans_open(&ch, 1u << CH_ERROR | 1u << CH_STDIN | 1u << CH_STDOUT, 5000));
    th_buf_clear(&c.out);
    spdy_put_data(&c.out, 3, true, "d", 1);
    assert_int_equal(write(sv[1], c.out.p, c.out.n), (ssize_t)c.out.n);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    assert_true(chans_fill(&ch));
    assert_true(chans_take(&ch, note, &text));
    assert_non_null(strstr(th_buf_cstr(&text), "0=abc;0=d;0 end;"));
    assert_true(chans_send(&ch, CH_STDOUT, "out", 3));
    assert_true(chans_send(&ch, CH_STDERR, "lost: no such stream", 5));
    chans_done(&ch);
    close(sv[0]);
    /* what the client got: three replies, a refusal, the output */
    char buf[4096];
    ssize_t n = read(sv[1], buf, sizeof(buf));
    struct spdy s;
    spdy_init(&s);
    spdy_feed(&s, buf, (size_t)n);
    struct spdy_frame f;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autobuf struct th_buf got = TH_BUF_INIT;
    while (spdy_next(&s, &f, &err) > 0) {
        th_buf_printf(&got, "%d/%u/%.*s ", f.kind, f.stream, (int)f.n, f.n ? f.p : "");
        spdy_frame_done(&f);
    }
    assert_string_equal(th_buf_cstr(&got), "5/1/ 5/3/ 5/5/ 2/7/ 1/5/out ");
    spdy_done(&s);
    client_done(&c);
    close(sv[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dictionary_is_the_protocols),
        cmocka_unit_test(streams_and_their_headers_are_read_byte_by_byte),
        cmocka_unit_test(our_frames_are_read_by_our_reader),
        cmocka_unit_test(what_is_not_spdy_is_refused),
        cmocka_unit_test(subprotocols_are_chosen),
        cmocka_unit_test(a_spdy_session_opens_its_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Empty pages go out of a machine's stream, everything else stays, and what is not such a stream is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/io.h"
#include "vm/launcher/thin.h"
#include <sys/mman.h>
#include <unistd.h>

static void num(struct th_buf *b, uint64_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--) {
        th_buf_putc(b, (char)(v >> (8 * i)));
    }
}

static void text(struct th_buf *b, const char *s)
{
    num(b, strlen(s), 1);
    th_buf_puts(b, s);
}

static void content(struct th_buf *b, char c)
{
    for (int i = 0; i < 4096; i++) {
        th_buf_putc(b, c);
    }
}

static void begin(struct th_buf *b)
{
    num(b, 0x5145564d, 4);
    num(b, 3, 4);
    num(b, 7, 1);
    num(b, 4, 4);
    th_buf_puts(b, "pc-x");
    num(b, 1, 1);
    num(b, 3, 4);
    text(b, "ram");
    num(b, 0, 4);
    num(b, 4, 4);
    num(b, 0x6000 | 4, 8);
    text(b, "pc.ram");
    num(b, 0x4000, 8);
    text(b, "rom");
    num(b, 0x2000, 8);
    num(b, 0x10, 8);
    num(b, 0x7e, 1);
    num(b, 3, 4);
    num(b, 2, 1); /* a part of the memory; QEMU has many */
    num(b, 3, 4);
}

static void next_section(struct th_buf *b)
{
    num(b, 0x10, 8);
    num(b, 0x7e, 1);
    num(b, 3, 4);
    num(b, 3, 1); /* the last one */
    num(b, 3, 4);
}

static void end(struct th_buf *b)
{
    num(b, 0x10, 8);
    num(b, 0x7e, 1);
    num(b, 3, 4);
    num(b, 4, 1); /* a device */
    num(b, 9, 4);
    th_buf_puts(b, "whatever \x01\x02 a device says");
}

static int thin(const struct th_buf *in, struct th_buf *out)
{
    th_autoclose int fd = memfd_create("thin", MFD_CLOEXEC);
    assert_true(fd >= 0);
    int r = th_thin_stream(in->p, in->n, fd, NULL);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(th_io_read_fd(fd, 1 << 20, out, NULL), 0);
    return r;
}

static void empty_pages_of_the_memory_go(void **state)
{
    (void)state;
    th_autobuf struct th_buf in = TH_BUF_INIT, want = TH_BUF_INIT, got = TH_BUF_INIT;
    begin(&in);
    num(&in, 0x0000 | 0x02, 8); /* names the block, and goes */
    text(&in, "pc.ram");
    num(&in, 0, 1);
    num(&in, 0x1000 | 0x28, 8);
    content(&in, 'a');
    num(&in, 0x2000 | 0x22, 8);
    num(&in, 0, 1);
    next_section(&in);
    num(&in, 0x3000 | 0x28, 8); /* of the block of the section before */
    content(&in, 'b');
    num(&in, 0x0000 | 0x02, 8); /* of another block: stays */
    text(&in, "rom");
    num(&in, 0, 1);
    num(&in, 0x1000 | 0x22, 8);
    num(&in, 0, 1);
    end(&in);

    begin(&want);
    num(&want, 0x1000 | 0x08, 8); /* now it is this one that names it */
    text(&want, "pc.ram");
    content(&want, 'a');
    next_section(&want);
    num(&want, 0x3000 | 0x28, 8);
    content(&want, 'b');
    num(&want, 0x0000 | 0x02, 8);
    text(&want, "rom");
    num(&want, 0, 1);
    num(&want, 0x1000 | 0x22, 8);
    num(&want, 0, 1);
    end(&want);
    assert_int_equal(thin(&in, &got), 1);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.p, want.p, want.n);
}

static void what_is_built_otherwise_is_left_alone(void **state)
{
    (void)state;
    th_autobuf struct th_buf whole = TH_BUF_INIT;
    begin(&whole);
    size_t first = whole.n;
    num(&whole, 0x1000 | 0x08, 8);
    text(&whole, "pc.ram");
    content(&whole, 'a');
    size_t memory = whole.n + 13;
    end(&whole);
    for (size_t n = 0; n < memory; n += n < 200 ? 1 : 97) { /* cut off anywhere in the memory */
        th_autobuf struct th_buf cut = TH_BUF_INIT, got = TH_BUF_INIT;
        th_buf_add(&cut, whole.p, n);
        (void)thin(&cut, &got);
        assert_true(got.n <= n);
    }
    static const struct {
        size_t at;
        char byte;
    } odd[] = {{3, 'x'}, {7, 4}, {0, 0}};
    for (size_t i = 0; i < TH_ARRAY_LEN(odd); i++) {
        th_autobuf struct th_buf in = TH_BUF_INIT, got = TH_BUF_INIT;
        th_buf_add(&in, whole.p, whole.n);
        in.p[odd[i].at] = odd[i].byte;
        assert_int_equal(thin(&in, &got), 0);
    }
    static const int flags[] = {0x40, 0x80, 0x100, 0x0a, 0x28}; /* 0x28: no block was named yet */
    for (size_t i = 0; i < TH_ARRAY_LEN(flags); i++) {
        th_autobuf struct th_buf in = TH_BUF_INIT, got = TH_BUF_INIT;
        th_buf_add(&in, whole.p, whole.n);
        in.p[first + 6] = (char)(0x10 | flags[i] >> 8);
        in.p[first + 7] = (char)flags[i];
        assert_int_equal(thin(&in, &got), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_pages_of_the_memory_go),
        cmocka_unit_test(what_is_built_otherwise_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

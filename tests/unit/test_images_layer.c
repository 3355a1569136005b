/* Tar and layers: what hostile archives cannot do, and what comes back as it went in. */
#include "images/layer.h"
#include "base/io.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <cmocka.h>

static char top[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(top, sizeof(top), "/tmp/th-layer-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return th_io_rm_rf(top, NULL);
}

static char *fresh(const char *name)
{
    char *p = th_path_join(top, name);
    assert_true(th_io_mkdir_p(p, 0755, NULL) >= 0);
    return p;
}

static void put(struct th_tar_writer *w, enum th_tar_type type, const char *path, const char *link,
                const char *text)
{
    struct th_tar_entry e = {.type = type,
                             .path = (char *)(uintptr_t)path,
                             .link = (char *)(uintptr_t)link,
                             .mode = type == TH_TAR_DIR ? 0755 : 0644,
                             .uid = geteuid(),
                             .gid = getegid(),
                             .mtime_s = 1700000000,
                             .size = text ? strlen(text) : 0};
    assert_int_equal(th_tar_write_entry(w, &e, NULL), 0);
    if (text && *text) {
        assert_int_equal(th_tar_write_data(w, text, strlen(text), NULL), 0);
    }
}

static int apply(struct th_buf *tar, const char *dir, bool whiteouts, struct th_err *err)
{
    TH_AUTO_ERR struct th_err own = TH_ERR_INIT;
    struct th_mem_reader m = {.p = tar->p, .n = tar->n};
    struct th_layer_apply_opts o = {
        .whiteouts = whiteouts, .keep_owner = geteuid() == 0, .max_bytes = 1 << 20,
        .max_entries = 1000};
    return th_layer_apply(th_reader_mem(&m), dir, &o, NULL, err ? err : &own);
}

#define TAR(b, w)                                                                                  \
    th_autobuf struct th_buf b = TH_BUF_INIT;                                                      \
    struct th_tar_writer w;                                                                        \
    th_tar_writer_init(&w, th_writer_buf(&b))

static void links_never_lead_outside(void **state)
{
    th_autofree char *dir = fresh("jail"), *victim = fresh("victim");
    (void)state;
    TAR(b, w);
    put(&w, TH_TAR_SYMLINK, "abs", victim, NULL);
    put(&w, TH_TAR_REG, "abs/x", NULL, "evil");
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)apply(&b, dir, true, &err); /* refused, or written inside: both are fine */
    TAR(b2, w2);
    put(&w2, TH_TAR_SYMLINK, "up", "../victim", NULL);
    put(&w2, TH_TAR_REG, "up/x", NULL, "evil");
    put(&w2, TH_TAR_SYMLINK, "f", "../victim/y", NULL);
    put(&w2, TH_TAR_REG, "f", NULL, "not through the link");
    assert_int_equal(th_tar_write_end(&w2, NULL), 0);
    (void)apply(&b2, dir, true, NULL);
    th_autostrv struct th_strv names = TH_STRV_INIT;
    assert_int_equal(th_io_list(victim, &names, NULL), 0);
    assert_int_equal(names.n, 0);
}

static void bad_entries_are_refused(void **state)
{
    static const struct {
        enum th_tar_type type;
        const char *path, *link;
    } cases[] = {{TH_TAR_REG, "../x", NULL}, {TH_TAR_REG, "a/../../x", NULL},
                 {TH_TAR_REG, "..", NULL}, {TH_TAR_HARDLINK, "h", "../../etc/passwd"},
                 {TH_TAR_HARDLINK, "h", "/etc/passwd"}, {TH_TAR_CHAR, "c", NULL},
                 {TH_TAR_SYMLINK, "/", "x"}, {TH_TAR_REG, ".wh...", NULL}};
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *dir = fresh("bad");
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        TAR(b, w);
        put(&w, cases[i].type, cases[i].path, cases[i].link, NULL);
        assert_int_equal(th_tar_write_end(&w, NULL), 0);
        if (apply(&b, dir, true, &err) != -TH_R_BAD_ARCHIVE) {
            fail_msg("%s was not refused", cases[i].path);
        }
        assert_non_null(err.hint);
    }
}

static void limits_hold(void **state)
{
    th_autofree char *dir = fresh("limits");
    th_autofree char *big = th_xcalloc(1, (1 << 20) + 2);
    (void)state;
    memset(big, 'x', (1 << 20) + 1);
    TAR(b, w);
    put(&w, TH_TAR_REG, "big", NULL, big);
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    assert_int_equal(apply(&b, dir, true, NULL), -TH_R_TOO_LARGE);
    TAR(b2, w2);
    for (int i = 0; i < 1001; i++) {
        put(&w2, TH_TAR_DIR, "d", NULL, NULL);
    }
    assert_int_equal(th_tar_write_end(&w2, NULL), 0);
    assert_int_equal(apply(&b2, dir, true, NULL), -TH_R_TOO_LARGE);
}

static void truncated_and_damaged_archives_are_refused(void **state)
{
    th_autofree char *dir = fresh("cut");
    (void)state;
    TAR(b, w);
    put(&w, TH_TAR_REG, "a", NULL, "some text");
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    for (size_t n = 1; n < 1024; n += 37) {
        struct th_buf cut = {.p = b.p, .n = n};
        if (n != 512 && apply(&cut, dir, true, NULL) != -TH_R_BAD_ARCHIVE) {
            fail_msg("cut at %zu was accepted", n);
        }
    }
    b.p[10] ^= 1;
    assert_int_equal(apply(&b, dir, true, NULL), -TH_R_BAD_ARCHIVE);
}

static void trees_come_back_as_they_were(void **state)
{
    th_autofree char *one = fresh("one"), *two = fresh("two");
    th_autofree char *deep = th_xasprintf(
        "d/%0120d/%0120d", 1, 2); /* longer than ustar's field: goes into a pax header */
    (void)state;
    TAR(b, w);
    put(&w, TH_TAR_DIR, "d", NULL, NULL);
    put(&w, TH_TAR_REG, deep, NULL, "deep");
    put(&w, TH_TAR_REG, "f", NULL, "text");
    put(&w, TH_TAR_HARDLINK, "g", "f", NULL);
    put(&w, TH_TAR_SYMLINK, "l", "f", NULL);
    put(&w, TH_TAR_FIFO, "p", NULL, NULL);
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    assert_int_equal(apply(&b, one, true, NULL), 0);
    struct th_layer_write_opts o = {.whiteouts = true};
    TAR(first, w1);
    assert_int_equal(th_layer_write(one, &o, &w1, NULL, NULL), 0);
    assert_int_equal(th_tar_write_end(&w1, NULL), 0);
    assert_int_equal(apply(&first, two, true, NULL), 0);
    TAR(second, w2);
    assert_int_equal(th_layer_write(two, &o, &w2, NULL, NULL), 0);
    assert_int_equal(th_tar_write_end(&w2, NULL), 0);
    /* times of d/..., made on the way, differ; everything named has the same bytes */
    assert_int_equal(first.n, second.n);
    th_autofree char *f = th_path_join(two, "f"), *g = th_path_join(two, "g");
    struct stat a, c;
    assert_int_equal(stat(f, &a), 0);
    assert_int_equal(stat(g, &c), 0);
    assert_int_equal(a.st_ino, c.st_ino);
    assert_int_equal(a.st_mtime, 1700000000);
    th_autofree char *dp = th_path_join(two, deep);
    assert_true(th_io_exists(dp));
}

static void whiteouts_go_both_ways(void **state)
{
    if (geteuid() != 0) {
        skip();
    }
    th_autofree char *dir = fresh("wh");
    (void)state;
    TAR(b, w);
    put(&w, TH_TAR_DIR, "o", NULL, NULL);
    put(&w, TH_TAR_REG, "o/.wh..wh..opq", NULL, "");
    put(&w, TH_TAR_REG, ".wh.gone", NULL, "");
    put(&w, TH_TAR_REG, ".wh.again", NULL, "");
    put(&w, TH_TAR_DIR, "again", NULL, NULL);
    put(&w, TH_TAR_REG, "again/x", NULL, "x");
    assert_int_equal(th_tar_write_end(&w, NULL), 0);
    assert_int_equal(apply(&b, dir, true, NULL), 0);
    th_autofree char *gone = th_path_join(dir, "gone"), *o = th_path_join(dir, "o");
    th_autofree char *again = th_path_join(dir, "again");
    struct stat st;
    char v = 0;
    assert_int_equal(lstat(gone, &st), 0);
    assert_true(S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0));
    assert_int_equal(getxattr(o, "trusted.overlay.opaque", &v, 1), 1);
    assert_int_equal(getxattr(again, "trusted.overlay.opaque", &v, 1), 1);
    struct th_layer_write_opts opts = {.whiteouts = true};
    TAR(out, w2);
    assert_int_equal(th_layer_write(dir, &opts, &w2, NULL, NULL), 0);
    assert_int_equal(th_tar_write_end(&w2, NULL), 0);
    struct th_mem_reader m = {.p = out.p, .n = out.n};
    TH_AUTO(th_tar_reader) struct th_tar_reader *t = th_tar_reader_new(th_reader_mem(&m));
    const struct th_tar_entry *e = NULL;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    while (th_tar_next(t, &e, NULL) > 0) {
        th_strv_add(&names, e->path);
    }
    th_autofree char *all = th_strv_join(&names, " ");
    assert_string_equal(all, "again again/.wh..wh..opq again/x .wh.gone o o/.wh..wh..opq");
}

static void compression_round_trips_and_truncation_shows(void **state)
{
    static const enum th_compression kinds[] = {TH_COMP_NONE, TH_COMP_GZIP, TH_COMP_ZSTD};
    char text[100000];
    (void)state;
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)(i * i >> 3);
    }
    text[0] = 'T';
    for (size_t k = 0; k < TH_ARRAY_LEN(kinds); k++) {
        th_autobuf struct th_buf packed = TH_BUF_INIT;
        TH_AUTO(th_comp) struct th_comp *c = th_comp_new(th_writer_buf(&packed), kinds[k], 0);
        struct th_writer w = th_comp_writer(c);
        assert_int_equal(w.write(w.arg, text, sizeof(text), NULL), 0);
        assert_int_equal(th_comp_finish(c, NULL), 0);
        for (int cut = 0; cut < 2; cut++) {
            struct th_mem_reader m = {.p = packed.p, .n = packed.n - (cut ? 20 : 0)};
            TH_AUTO(th_decomp) struct th_decomp *d = th_decomp_new(th_reader_mem(&m));
            th_autofree char *back = th_xmalloc(sizeof(text) + 1);
            TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
            ssize_t n = th_reader_fill(th_decomp_reader(d), back, sizeof(text) + 1, &err);
            if (cut && kinds[k] != TH_COMP_NONE) {
                assert_int_equal(n, -TH_R_BAD_ARCHIVE);
            } else if (!cut) {
                assert_int_equal(n, sizeof(text));
                assert_memory_equal(back, text, sizeof(text));
                assert_int_equal(th_decomp_kind(d), kinds[k]);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(links_never_lead_outside, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_entries_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(limits_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(truncated_and_damaged_archives_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(trees_come_back_as_they_were, setup, teardown),
        cmocka_unit_test_setup_teardown(whiteouts_go_both_ways, setup, teardown),
        cmocka_unit_test(compression_round_trips_and_truncation_shows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* base/alloc and base/buf: buffers keep their invariants, lists and slices behave. */
#include "base/buf.h"
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void check(const struct th_buf *b)
{
    if (b->p) {
        assert_true(b->n < b->cap);
        assert_int_equal(b->p[b->n], '\0');
    } else {
        assert_int_equal(b->n, 0);
    }
}

static void an_empty_buffer_is_an_empty_string(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    assert_string_equal(th_buf_cstr(&b), "");
    assert_int_equal(th_buf_str(&b).n, 0);
    th_buf_truncate(&b, 0);
    th_buf_consume(&b, 5);
    th_buf_add(&b, "", 0);
    th_buf_add(&b, NULL, 0);
    check(&b);
    th_autofree char *s = th_buf_steal(&b, NULL);
    assert_string_equal(s, "");
}

static void additions_append_and_keep_the_nul(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (int i = 0; i < 1000; i++) {
        th_buf_putc(&b, (char)('a' + i % 26));
        check(&b);
        th_buf_printf(&b, "%d", i);
        check(&b);
        th_buf_addstr(&b, TH_STR("--"));
        check(&b);
    }
    assert_int_equal(b.n, 1000 * 3 + 10 + 180 + 2700);
    assert_int_equal(strncmp(b.p, "a0--b1--c2--", 12), 0);
}

static void printf_grows_for_long_results(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "x");
    th_buf_printf(&b, "%0500d|", 7);
    assert_int_equal(b.n, 502);
    assert_string_equal(b.p + 499, "07|");
}

static void going_over_max_drops_the_whole_addition(void **state)
{
    (void)state;
    th_autobuf struct th_buf b;
    th_buf_init(&b, 10);
    th_buf_puts(&b, "12345678");
    th_buf_puts(&b, "abc");
    assert_true(b.overflow);
    assert_string_equal(th_buf_cstr(&b), "12345678");
    th_buf_puts(&b, "90");
    assert_string_equal(th_buf_cstr(&b), "1234567890");
    th_buf_putc(&b, 'x');
    th_buf_printf(&b, "%s", "y");
    check(&b);
    assert_int_equal(b.n, 10);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_buf_check(&b, &err), -TH_R_TOO_LARGE);
    th_buf_clear(&b);
    assert_int_equal(th_buf_check(&b, NULL), 0);
    assert_string_equal(th_buf_cstr(&b), "");
}

static void consume_and_truncate_cut_the_ends(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "hello world");
    th_buf_consume(&b, 6);
    assert_string_equal(th_buf_cstr(&b), "world");
    th_buf_truncate(&b, 2);
    assert_string_equal(th_buf_cstr(&b), "wo");
    th_buf_truncate(&b, 50);
    assert_int_equal(b.n, 2);
    th_buf_consume(&b, 50);
    assert_string_equal(th_buf_cstr(&b), "");
    check(&b);
}

static void reserve_gives_room_past_the_end(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "ab");
    th_buf_reserve(&b, 1000);
    assert_true(b.cap >= 1003);
    assert_string_equal(b.p, "ab");
    memset(b.p + b.n, 'z', 1000);
    b.n += 1000;
    b.p[b.n] = '\0';
    check(&b);
}

static void steal_hands_out_and_starts_anew(void **state)
{
    (void)state;
    struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "abc");
    size_t n;
    th_autofree char *s = th_buf_steal(&b, &n);
    assert_int_equal(n, 3);
    assert_string_equal(s, "abc");
    assert_null(b.p);
    assert_int_equal(b.n, 0);
}

static void slices_and_affixes_compare(void **state)
{
    (void)state;
    assert_true(th_str_eq(TH_STR("abc"), th_str_of("abc")));
    assert_false(th_str_eq(TH_STR("abc"), TH_STR("abd")));
    assert_false(th_str_eq(TH_STR("abc"), TH_STR("ab")));
    assert_true(th_str_eq((struct th_str){NULL, 0}, TH_STR("")));
    assert_true(th_startswith("kube-system", "kube-"));
    assert_true(th_startswith("x", ""));
    assert_false(th_startswith("kube", "kube-"));
    assert_true(th_endswith("a.yaml", ".yaml"));
    assert_false(th_endswith("aml", ".yaml"));
    assert_true(th_streq(NULL, NULL));
    assert_false(th_streq(NULL, ""));
    assert_true(th_streq("a", "a"));
}

static void split_keeps_empty_parts_and_join_undoes_it(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
    } cases[] = {{"", 1}, {"a", 1}, {"a,b", 2}, {",", 2}, {"a,,b", 3}, {",a,", 3}};
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autostrv struct th_strv l = TH_STRV_INIT;
        th_strv_split(&l, cases[i].text, ',');
        assert_int_equal(l.n, cases[i].n);
        assert_null(l.v[l.n]);
        th_autofree char *s = th_strv_join(&l, ",");
        assert_string_equal(s, cases[i].text);
    }
}

static void lists_own_sort_and_search(void **state)
{
    (void)state;
    th_autostrv struct th_strv l = TH_STRV_INIT;
    assert_false(th_strv_has(&l, "a"));
    th_strv_sort(&l);
    for (int i = 99; i >= 0; i--) {
        th_strv_addf(&l, "%02d", i);
    }
    th_strv_take(&l, th_xstrdup("zz"));
    th_strv_add(&l, "a");
    th_strv_sort(&l);
    assert_string_equal(l.v[0], "00");
    assert_string_equal(l.v[99], "99");
    assert_string_equal(l.v[100], "a");
    assert_string_equal(l.v[101], "zz");
    assert_null(l.v[102]);
    assert_true(th_strv_has(&l, "42"));
    assert_false(th_strv_has(&l, "4"));
}

static void allocation_helpers_copy_and_zero(void **state)
{
    (void)state;
    assert_null(th_xstrdup(NULL));
    th_autofree char *s = th_xstrndup("abcdef", 3);
    assert_string_equal(s, "abc");
    th_autofree char *t = th_xstrndup("ab", 10);
    assert_string_equal(t, "ab");
    th_autofree char *f = th_xasprintf("%s-%d", "x", 5);
    assert_string_equal(f, "x-5");
    th_autofree unsigned char *z = th_xcalloc(16, 4);
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(z[i], 0);
    }
    size_t cap = 0;
    int *v = NULL;
    for (size_t i = 0; i < 1000; i++) {
        v = th_xgrow(v, &cap, i + 1, sizeof(*v));
        assert_true(cap > i);
        v[i] = (int)i;
    }
    assert_int_equal(v[999], 999);
    free(v);
    char *a = th_xstrdup("moved");
    th_autofree char *b = th_steal(&a);
    assert_null(a);
    assert_string_equal(b, "moved");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_buffer_is_an_empty_string),
        cmocka_unit_test(additions_append_and_keep_the_nul),
        cmocka_unit_test(printf_grows_for_long_results),
        cmocka_unit_test(going_over_max_drops_the_whole_addition),
        cmocka_unit_test(consume_and_truncate_cut_the_ends),
        cmocka_unit_test(reserve_gives_room_past_the_end),
        cmocka_unit_test(steal_hands_out_and_starts_anew),
        cmocka_unit_test(slices_and_affixes_compare),
        cmocka_unit_test(split_keeps_empty_parts_and_join_undoes_it),
        cmocka_unit_test(lists_own_sort_and_search),
        cmocka_unit_test(allocation_helpers_copy_and_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What the user sees: plain lines where there is no terminal, tables, errors as text and JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include "base/io.h"
#include "cli/output.h"

static int saved[2] = {-1, -1};

/* What fd gets until release_fd goes into a temporary file. */
static FILE *capture(int fd)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    (void)fflush(stdout);
    saved[fd - 1] = dup(fd);
    assert_true(dup2(fileno(f), fd) >= 0);
    return f;
}

static void release(int fd, FILE *f, struct th_buf *out)
{
    (void)fflush(stdout);
    assert_true(dup2(saved[fd - 1], fd) >= 0);
    (void)close(saved[fd - 1]);
    assert_int_equal(lseek(fileno(f), 0, SEEK_SET), 0);
    assert_int_equal(th_io_read_fd(fileno(f), 1 << 20, out, NULL), 0);
    (void)fclose(f);
}

static void plain_lines_without_a_terminal(void **state)
{
    (void)state;
    struct th_cli cli = {0};
    struct th_progress p;
    struct th_buf out TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    FILE *f = capture(2);
    th_progress_init(&p, &cli);
    th_progress_step(&p, "Booting %s", "it");
    th_progress_detail(&p, "never seen");
    th_progress_note(&p, "a note");
    th_progress_step(&p, "Waiting");
    th_progress_failed(&p);
    th_progress_done(&p); /* nothing runs any more */
    release(2, f, &out);
    const char *s = th_buf_cstr(&out);
    assert_true(th_startswith(s, "a note\nBooting it ("));
    assert_non_null(strstr(s, "\nfailed: Waiting ("));
    assert_null(strchr(s, '\033'));
    assert_null(strchr(s, '\r'));
    assert_null(strstr(s, "never seen"));
    assert_null(strstr(s, "✓"));
}

static void a_terminal_is_redrawn_and_colour_is_separate(void **state)
{
    (void)state;
    for (int color = 0; color < 2; color++) {
        struct th_cli cli = {.tty = true, .color = color};
        struct th_progress p;
        struct th_buf out TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        FILE *f = capture(2);
        th_progress_init(&p, &cli);
        th_progress_step(&p, "Booting");
        th_progress_detail(&p, "half");
        th_progress_done(&p);
        release(2, f, &out);
        const char *s = th_buf_cstr(&out);
        assert_non_null(strstr(s, "\r\033[K"));
        assert_non_null(strstr(s, "half"));
        assert_non_null(strstr(s, "✓"));
        assert_int_equal(strstr(s, "\033[32m") != NULL, color);
    }
}

static void quiet_is_quiet(void **state)
{
    (void)state;
    struct th_cli cli = {.quiet = true};
    struct th_progress p;
    struct th_buf out TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    FILE *f = capture(2);
    th_progress_init(&p, &cli);
    th_progress_step(&p, "Booting");
    th_progress_note(&p, "a note");
    th_progress_done(&p);
    release(2, f, &out);
    assert_int_equal(out.n, 0);
}

static void every_reason_has_a_next_step(void **state)
{
    (void)state;
    for (int r = TH_R_OK + 1; r < TH_R_COUNT_; r++) {
        struct th_cli cli = {0};
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        struct th_buf out TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        (void)th_fail(&err, (enum th_reason)r, "it broke");
        FILE *f = capture(2);
        th_print_error(&cli, &err);
        release(2, f, &out);
        th_autofree char *want = th_xasprintf("thimble: it broke [%s]\n  %s\n",
                                              th_reason_code(err.reason),
                                              th_reason_next(err.reason));
        assert_string_equal(th_buf_cstr(&out), want);
        assert_true(strlen(th_reason_next(err.reason)) > 5);
        int exit_code = th_reason_exit(err.reason);
        assert_true(exit_code >= 1 && exit_code <= 7);
    }
}

static void errors_have_causes_and_the_next_step(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)th_fail(&err, TH_R_INVALID, "Pod \"a\" is invalid");
    th_err_add_cause(&err, "FieldValueRequired", "spec.image", "Required value");
    th_err_add_cause(&err, "x", "", "no field");
    (void)th_hint(&err, "name an image");
    struct th_cli text = {0}, json = {.json = true}, color = {.color = true};
    struct th_buf a TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_buf c TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    FILE *f = capture(2);
    th_print_error(&text, &err);
    release(2, f, &a);
    assert_string_equal(th_buf_cstr(&a), "thimble: Pod \"a\" is invalid [invalid]\n"
                                         "  spec.image: Required value\n  no field\n"
                                         "  name an image\n");
    f = capture(2);
    th_print_error(&color, &err);
    release(2, f, &c);
    assert_non_null(strstr(th_buf_cstr(&c), "\033[31mthimble:\033[0m"));
    f = capture(1);
    th_print_error(&json, &err);
    release(1, f, &b);
    struct th_json *o TH_AUTO(th_json) = NULL;
    assert_int_equal(th_json_parse(b.p, b.n, NULL, &o, NULL), 0);
    assert_string_equal(th_json_path_str(o, "error.reason"), "invalid");
    assert_string_equal(th_json_path_str(o, "error.next"), "name an image");
    assert_string_equal(th_json_path_str(o, "error.causes[0].field"), "spec.image");
}

static void tables_are_aligned(void **state)
{
    (void)state;
    struct th_table t = {0};
    th_table_row(&t, 3, "NAME", "SIZE", "WHERE");
    th_table_row(&t, 3, "a-long-name", "1", "here");
    th_table_row(&t, 3, "b", NULL, "x");
    for (int i = 0; i < 30; i++) { /* it grows */
        th_table_row(&t, 3, "c", "2", "y");
    }
    struct th_buf out TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    FILE *f = capture(1);
    th_table_print(&t);
    release(1, f, &out);
    assert_true(th_startswith(th_buf_cstr(&out), "NAME          SIZE   WHERE\n"
                                                 "a-long-name   1      here\n"
                                                 "b                    x\n"
                                                 "c             2      y\n"));
    assert_null(strstr(th_buf_cstr(&out), " \n")); /* no blanks at the ends of lines */
}

static void times_and_sizes_are_short(void **state)
{
    (void)state;
    char buf[32];
    assert_string_equal(th_format_ms(0, buf), "0 ms");
    assert_string_equal(th_format_ms(999, buf), "999 ms");
    assert_string_equal(th_format_ms(1449, buf), "1.4 s");
    assert_string_equal(th_format_ms(61000, buf), "1 min 1 s");
    assert_string_equal(th_format_bytes(0, buf), "0 B");
    assert_string_equal(th_format_bytes(1023, buf), "1023 B");
    assert_string_equal(th_format_bytes(1536, buf), "1.5 KiB");
    assert_string_equal(th_format_bytes(1ull << 40, buf), "1.0 TiB");
    assert_string_equal(th_format_bytes(~0ull, buf), "16777216.0 TiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_lines_without_a_terminal),
        cmocka_unit_test(a_terminal_is_redrawn_and_colour_is_separate),
        cmocka_unit_test(quiet_is_quiet),
        cmocka_unit_test(every_reason_has_a_next_step),
        cmocka_unit_test(errors_have_causes_and_the_next_step),
        cmocka_unit_test(tables_are_aligned),
        cmocka_unit_test(times_and_sizes_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

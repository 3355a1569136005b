/* base/log: one line per event, levels per module, no forged lines. */
#include "base/buf.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static int pipe_fds[2];

static int set_up(void **state)
{
    (void)state;
    if (pipe(pipe_fds) != 0 || th_io_set_nonblock(pipe_fds[0], true) != 0) {
        return -1;
    }
    th_log_set_fd(pipe_fds[1]);
    th_log_configure("info");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    th_log_set_fd(2);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
    return 0;
}

/* What was logged since the last call. */
static const char *logged(void)
{
    static char text[65536];
    ssize_t n = read(pipe_fds[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void a_line_has_time_level_module_message_and_pairs(void **state)
{
    (void)state;
    th_info("store", "committed", "rows=%d took_us=%d", 12, 340);
    const char *line = logged();
    assert_int_equal(line[4], '-');
    assert_int_equal(line[23], 'Z');
    assert_string_equal(line + 24, " I store \"committed\" rows=12 took_us=340\n");
    th_log(TH_LOG_ERROR, "node", "bare", NULL);
    assert_string_equal(logged() + 24, " E node \"bare\"\n");
}

static void levels_are_per_module(void **state)
{
    (void)state;
    th_log_configure("warn,store=debug,node=error");
    static const struct {
        enum th_log_level level;
        const char *module;
        bool enabled;
    } cases[] = {
        {TH_LOG_DEBUG, "store", true}, {TH_LOG_TRACE, "store", false}, {TH_LOG_WARN, "node", false},
        {TH_LOG_ERROR, "node", true},  {TH_LOG_WARN, "api", true},     {TH_LOG_INFO, "api", false},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        assert_int_equal(th_log_enabled(cases[i].level, cases[i].module), cases[i].enabled);
        th_log(cases[i].level, cases[i].module, "x", NULL);
        assert_int_equal(strlen(logged()) > 0, cases[i].enabled);
    }
}

static void the_environment_configures(void **state)
{
    (void)state;
    assert_int_equal(setenv("THIMBLE_LOG", "trace", 1), 0);
    th_log_configure(NULL);
    assert_true(th_log_enabled(TH_LOG_TRACE, "any"));
    assert_int_equal(unsetenv("THIMBLE_LOG"), 0);
    th_log_configure(NULL);
    assert_false(th_log_enabled(TH_LOG_DEBUG, "any"));
    assert_true(th_log_enabled(TH_LOG_INFO, "any"));
}

static void unknown_words_are_reported_and_ignored(void **state)
{
    (void)state;
    th_log_configure("debug,loud,store=quiet,=info");
    const char *text = logged();
    assert_non_null(strstr(text, "word=\"loud\"\n"));
    assert_non_null(strstr(text, "word=\"store=quiet\"\n"));
    assert_non_null(strstr(text, "word=\"=info\"\n"));
    assert_true(th_log_enabled(TH_LOG_DEBUG, "store"));
}

static void a_value_cannot_begin_a_new_line(void **state)
{
    (void)state;
    th_info("m", "x", "v=%s", "a\n2026 E fake\r\x1b[2J");
    const char *text = logged();
    const char *end = strchr(text, '\n');
    assert_non_null(end);
    assert_string_equal(end, "\n");
    assert_null(strchr(text, '\x1b'));
}

static void long_lines_are_cut_but_end(void **state)
{
    (void)state;
    char big[20000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    th_info("m", "x", "v=%s", big);
    const char *text = logged();
    size_t n = strlen(text);
    assert_true(n > 4000 && n < 10000);
    assert_int_equal(text[n - 1], '\n');
}

static void quoting_escapes_and_bounds(void **state)
{
    (void)state;
    assert_string_equal(th_log_q("a \"b\"\\\n\x01"), "\"a \\\"b\\\"\\\\\\n\\u0001\"");
    assert_string_equal(th_log_q(NULL), "\"\"");
    const char *first = th_log_q("first");
    for (int i = 0; i < 7; i++) {
        (void)th_log_q("other");
    }
    assert_string_equal(first, "\"first\"");
    char big[3000];
    memset(big, '\x02', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    const char *q = th_log_q(big);
    assert_true(strlen(q) < 512);
    assert_true(th_endswith(q, "...\""));
}

static void errno_survives_a_line(void **state)
{
    (void)state;
    th_log_set_fd(-1);
    errno = ENOSPC;
    th_info("m", "x", NULL);
    assert_int_equal(errno, ENOSPC);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_line_has_time_level_module_message_and_pairs),
        TEST(levels_are_per_module),
        TEST(the_environment_configures),
        TEST(unknown_words_are_reported_and_ignored),
        TEST(a_value_cannot_begin_a_new_line),
        TEST(long_lines_are_cut_but_end),
        TEST(quoting_escapes_and_bounds),
        TEST(errno_survives_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

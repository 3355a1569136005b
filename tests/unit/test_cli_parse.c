/* The command line: every way to write an option, and what is said about a wrong one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "cli/cmd.h"

#define ARGV(...) (char *[]){(char *)"thimble", __VA_ARGS__, NULL}

static int parse(char **argv, struct th_cli *cli, bool *help, struct th_err *err)
{
    int argc = 0;
    while (argv[argc]) {
        argc++;
    }
    *cli = (struct th_cli){0};
    *help = false;
    return th_cli_parse(argc, argv, cli, help, err);
}

/* Parses what must be right. */
static void good(char **argv, struct th_cli *cli)
{
    bool help;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (parse(argv, cli, &help, &err) != 0) {
        fail_msg("%s", err.msg);
    }
    assert_false(help);
}

static void bad(char **argv, const char *msg, const char *hint)
{
    struct th_cli cli;
    bool help;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(parse(argv, &cli, &help, &err), -TH_R_USAGE);
    if (!strstr(err.msg, msg) || !err.hint || !strstr(err.hint, hint)) {
        fail_msg("\"%s\" (%s), wanted \"%s\" (%s)", err.msg, err.hint ? err.hint : "", msg, hint);
    }
    th_cli_done(&cli);
}

static void options_may_be_written_in_every_usual_way(void **state)
{
    (void)state;
    char **const lines[] = {
        ARGV("start", "--memory", "512", "-p", "demo"), ARGV("start", "--memory=512", "-pdemo"),
        ARGV("-p", "demo", "start", "-m", "512"),       ARGV("--profile=demo", "start", "-m512"),
        ARGV("start", "-m=512", "--profile", "demo"),
        ARGV("start", "-m", "1", "-p", "x", "-p", "demo", "-m", "512"), /* the last one counts */
        ARGV("start", "-qvm512", "-pdemo"),
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(lines); i++) {
        struct th_cli cli;
        int64_t memory = 0;
        good(lines[i], &cli);
        assert_string_equal(cli.path, "start");
        assert_string_equal(cli.profile, "demo");
        assert_int_equal(th_opt_int(&cli, "memory", 1, 10000, &memory, NULL), 0);
        assert_int_equal(memory, 512);
        assert_int_equal(cli.n_args, 0);
        th_cli_done(&cli);
    }
}

static void subcommands_arguments_and_repeated_options(void **state)
{
    (void)state;
    struct th_cli cli;
    const char *all[4];
    good(ARGV("image", "build", "-t", "a:1", "dir", "--tag", "b:2", "-o", "json"), &cli);
    assert_string_equal(cli.path, "image build");
    assert_int_equal(th_opt_all(&cli, "tag", all, 4), 2);
    assert_string_equal(all[0], "a:1");
    assert_string_equal(all[1], "b:2");
    assert_int_equal(th_opt_all(&cli, "tag", all, 1), 1);
    assert_int_equal(cli.n_args, 1);
    assert_string_equal(cli.args[0], "dir");
    assert_null(cli.args[1]);
    assert_true(cli.json);
    assert_string_equal(th_opt_str(&cli, "file"), "Dockerfile"); /* its default */
    assert_null(th_opt_str(&cli, "target"));
    assert_false(th_opt_bool(&cli, "no-cache"));
    th_cli_done(&cli);
    good(ARGV("image", "load", "--", "-odd", "--name"), &cli);
    assert_int_equal(cli.n_args, 2);
    assert_string_equal(cli.args[0], "-odd");
    th_cli_done(&cli);
    good(ARGV("image", "load", "-"), &cli); /* standard input */
    assert_string_equal(cli.args[0], "-");
    th_cli_done(&cli);
    good(ARGV("port-agent", "-p", "x", "--anything"), &cli); /* raw: not looked at */
    assert_int_equal(cli.n_args, 3);
    th_cli_done(&cli);
}

static void wrong_lines_say_what_was_meant(void **state)
{
    (void)state;
    bad(ARGV("strat"), "unknown command \"strat\"", "\"thimble start\"");
    bad(ARGV("image", "biuld"), "unknown command \"image biuld\"", "\"thimble image build\"");
    bad(ARGV("xyzzy"), "unknown command \"xyzzy\"", "\"thimble help\"");
    bad(ARGV("start", "--memroy", "1"), "\"--memroy\"", "--memory");
    bad(ARGV("start", "--memroy=1"), "\"--memroy=1\"", "--memory");
    bad(ARGV("start", "--mem", "1"), "\"--mem\"", "--memory");
    bad(ARGV("start", "-Z"), "\"-Z\"", "thimble help start");
    bad(ARGV("start", "-qZ"), "\"-Z\"", "thimble help start");
    bad(ARGV("--memory", "1", "start"), "\"--memory\"", "after its name");
    bad(ARGV("start", "--driver", "hots"), "not one of libvirt, host", "did you mean host?");
    bad(ARGV("start", "-m"), "-m needs a value", "-m MIB");
    bad(ARGV("start", "--cpus"), "--cpus needs a value", "--cpus N");
    bad(ARGV("start", "--keep-context=yes"), "takes no value", "--keep-context");
    bad(ARGV("start", "here"), "unexpected argument \"here\"", "thimble help start");
    bad(ARGV("image", "tag", "a"), "needs IMAGE NAME", "thimble help image tag");
    bad(ARGV("image", "tag", "a", "b", "c"), "unexpected argument \"c\"", "image tag");
    bad(ARGV("status", "-o", "yaml"), "not one of text, json", "thimble help status");
}

static void numbers_are_checked_whole(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "x", "1x", " ", "0", "65", "-1",
                                        "99999999999999999999", "1.5"};
    for (size_t i = 0; i < TH_ARRAY_LEN(wrong); i++) {
        struct th_cli cli;
        int64_t n = 7;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        good(ARGV("start", "--cpus", (char *)(uintptr_t)wrong[i]), &cli);
        assert_int_equal(th_opt_int(&cli, "cpus", 1, 64, &n, &err), -TH_R_USAGE);
        assert_int_equal(n, 7);
        assert_non_null(err.hint);
        th_cli_done(&cli);
    }
}

static void help_and_version_are_asked_for(void **state)
{
    (void)state;
    char **const lines[] = {ARGV("--help"), ARGV("start", "-h"), ARGV("-h", "image", "tag"),
                            ARGV("image"), ARGV("image", "tag", "--help")};
    for (size_t i = 0; i < TH_ARRAY_LEN(lines); i++) {
        struct th_cli cli;
        bool help = false;
        assert_int_equal(parse(lines[i], &cli, &help, NULL), 0);
        assert_true(help);
        th_cli_done(&cli);
    }
    struct th_cli cli;
    bool help;
    assert_int_equal(parse((char *[]){(char *)"thimble", NULL}, &cli, &help, NULL), 0);
    assert_true(help);
    th_cli_done(&cli);
    good(ARGV("--version"), &cli);
    assert_string_equal(cli.cmd->name, "version");
    th_cli_done(&cli);
}

static void the_environment_chooses_profile_and_colour(void **state)
{
    (void)state;
    struct th_cli cli;
    assert_int_equal(setenv("THIMBLE_PROFILE", "env", 1), 0);
    good(ARGV("status"), &cli);
    assert_string_equal(cli.profile, "env");
    th_cli_done(&cli);
    good(ARGV("status", "-p", "flag"), &cli); /* the line goes before it */
    assert_string_equal(cli.profile, "flag");
    th_cli_done(&cli);
    assert_int_equal(unsetenv("THIMBLE_PROFILE"), 0);
    good(ARGV("status"), &cli);
    assert_string_equal(cli.profile, "default");
    assert_false(cli.json);
    if (!isatty(2)) { /* as in CI */
        assert_false(cli.color);
        assert_false(cli.tty);
    }
    th_cli_done(&cli);
    assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
    good(ARGV("status"), &cli);
    assert_false(cli.color);
    th_cli_done(&cli);
}

static void a_wrong_line_is_reported_in_the_format_it_asks_for(void **state)
{
    (void)state;
    char **const json[] = {ARGV("strat", "-o", "json"), ARGV("start", "--nope", "-ojson"),
                           ARGV("start", "--nope", "--output=json"), ARGV("-o", "json", "strat"),
                           ARGV("start", "--nope", "--output", "json")};
    char **const text[] = {ARGV("strat"), ARGV("start", "--nope", "-o"),
                           ARGV("strat", "--", "-o", "json")};
    for (size_t i = 0; i < TH_ARRAY_LEN(json) + TH_ARRAY_LEN(text); i++) {
        struct th_cli cli;
        bool help, wanted = i < TH_ARRAY_LEN(json);
        char **line = wanted ? json[i] : text[i - TH_ARRAY_LEN(json)];
        assert_int_equal(parse(line, &cli, &help, NULL), -TH_R_USAGE);
        assert_int_equal(cli.json, wanted);
        th_cli_done(&cli);
    }
}

static void suggestions_are_near(void **state)
{
    (void)state;
    static const char *const names[] = {"start", "stop", "status", "image", "ls"};
    static const struct {
        const char *word, *near;
    } cases[] = {{"strat", "start"}, {"stpo", "stop"},   {"stats", "status"}, {"statu", "status"},
                 {"imag", "image"},  {"images", "image"}, {"im", "image"},    {"sl", NULL},
                 {"x", NULL},        {"", NULL},          {"somethingelse", NULL}};
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        const char *got = th_suggest(cases[i].word, names, TH_ARRAY_LEN(names));
        if (!th_streq(got, cases[i].near)) {
            fail_msg("%s: %s, not %s", cases[i].word, got ? got : "-", cases[i].near);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_be_written_in_every_usual_way),
        cmocka_unit_test(subcommands_arguments_and_repeated_options),
        cmocka_unit_test(wrong_lines_say_what_was_meant),
        cmocka_unit_test(numbers_are_checked_whole),
        cmocka_unit_test(help_and_version_are_asked_for),
        cmocka_unit_test(the_environment_chooses_profile_and_colour),
        cmocka_unit_test(a_wrong_line_is_reported_in_the_format_it_asks_for),
        cmocka_unit_test(suggestions_are_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

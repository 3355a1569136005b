/* The command table: help, examples and completion say what the table says, for every command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <ctype.h>
#include "cli/cmd.h"
#include "base/io.h"
#include "base/proc.h"

typedef void each_fn(const struct th_cmd *c, const char *path);

static void each(const struct th_cmd *const *table, const char *parent, each_fn *fn)
{
    for (size_t i = 0; table[i]; i++) {
        th_autofree char *path = th_xasprintf("%s%s%s", parent, *parent ? " " : "", table[i]->name);
        fn(table[i], path);
        if (table[i]->subs) {
            each(table[i]->subs, path, fn);
        }
    }
}

static void check_row(const struct th_cmd *c, const char *path)
{
    assert_true(c->run || c->subs);
    assert_non_null(c->summary);
    assert_non_null(c->args);
    size_t n = strlen(c->summary);
    if (!isupper((unsigned char)c->summary[0]) || c->summary[n - 1] == '.') {
        fail_msg("summary of %s: %s", path, c->summary);
    }
    assert_true(c->max_args < 0 || c->max_args >= c->min_args);
    assert_true((*c->args != 0) == (c->max_args != 0)); /* arguments are named when there are any */
    bool shorts[128] = {false};
    const struct th_cmd_opt *tables[] = {c->opts, th_global_opts};
    for (size_t t = 0; t < 2; t++) {
        for (const struct th_cmd_opt *o = tables[t]; o && o->name; o++) {
            n = strlen(o->help);
            if (!isupper((unsigned char)o->help[0]) || o->help[n - 1] == '.') {
                fail_msg("help of %s --%s: %s", path, o->name, o->help);
            }
            if (o->short_name) {
                if (shorts[(unsigned char)o->short_name]) {
                    fail_msg("%s has -%c twice", path, o->short_name);
                }
                shorts[(unsigned char)o->short_name] = true;
            }
            bool listed = !o->choices || !o->dflt;
            for (size_t i = 0; !listed && o->choices[i]; i++) {
                listed = th_streq(o->choices[i], o->dflt);
            }
            assert_true(listed); /* a default is one of the choices */
            assert_true(o->arg || (!o->choices && !o->dflt && !o->repeat));
        }
    }
}

static void every_row_is_complete(void **state)
{
    (void)state;
    each(th_commands, "", check_row);
}

static void check_help(const struct th_cmd *c, const char *path)
{
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_help_print(c, path, &text);
    const char *s = th_buf_cstr(&text);
    th_autofree char *usage = th_xasprintf("Usage: thimble %s", path);
    assert_non_null(strstr(s, usage));
    for (const struct th_cmd_opt *o = c->opts; o && o->name; o++) {
        th_autofree char *line = th_xasprintf("--%s%s%s", o->name, o->arg ? " " : "",
                                              o->arg ? o->arg : "");
        if (!strstr(s, line) || !strstr(s, o->help)) {
            fail_msg("the help of %s lacks %s", path, line);
        }
        for (size_t i = 0; o->choices && o->choices[i]; i++) {
            assert_non_null(strstr(s, o->choices[i]));
        }
    }
    size_t width = 0;
    for (const char *p = s; *p; p++) {
        width = *p == '\n' ? 0 : width + 1;
        if (width > 100) {
            fail_msg("a line of the help of %s is too long", path);
        }
    }
}

static void help_shows_every_option(void **state)
{
    (void)state;
    each(th_commands, "", check_help);
    struct th_buf all TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_help_print(NULL, "", &all);
    for (size_t i = 0; th_commands[i]; i++) {
        th_autofree char *line = th_xasprintf("\n  %s ", th_commands[i]->name);
        assert_int_equal(strstr(th_buf_cstr(&all), line) == NULL, th_commands[i]->hidden);
    }
}

/* "thimble ..." inside an example, up to what the shell does with it. */
static void check_example(const struct th_cmd *c, const char *path)
{
    for (size_t i = 0; c->examples && c->examples[i]; i++) {
        const char *at = strstr(c->examples[i], "thimble ");
        assert_non_null(at);
        th_autofree char *line = th_xstrndup(at, strcspn(at, ")|>;"));
        struct th_strv words TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
        struct th_strv argv TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
        th_strv_split(&words, line, ' ');
        for (size_t k = 0; k < words.n; k++) {
            if (words.v[k][0]) {
                th_strv_add(&argv, words.v[k]);
            }
        }
        struct th_cli cli = {0};
        bool help = false;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_cli_parse((int)argv.n, argv.v, &cli, &help, &err) < 0 || help || cli.cmd != c) {
            fail_msg("example of %s: %s: %s", path, c->examples[i], err.msg ? err.msg : "other");
        }
        th_cli_done(&cli);
    }
}

static void every_example_is_a_good_line(void **state)
{
    (void)state;
    each(th_commands, "", check_example);
}

/* ---- Completion ---- */

static char dir[] = "/tmp/th-complete-XXXXXX";

static void write_scripts(void)
{
    static const char *const shells[] = {"bash", "zsh", "fish"};
    for (size_t i = 0; i < TH_ARRAY_LEN(shells); i++) {
        struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
        assert_int_equal(th_completion_script(shells[i], &b, NULL), 0);
        th_autofree char *path = th_path_join(dir, shells[i]);
        assert_int_equal(th_io_write_file(path, b.p, b.n, 0600, NULL), 0);
    }
    /* What the scripts ask at the moment: a thimble that says its arguments. */
    static const char fake[] = "#!/bin/sh\n[ \"$1\" = __complete ] && shift && echo \"x-$1$2$3\"\n";
    th_autofree char *path = th_path_join(dir, "thimble");
    assert_int_equal(th_io_write_file(path, fake, sizeof(fake) - 1, 0700, NULL), 0);
}

/* What the shell offers for a line, one a line; false when the shell is not installed. */
static bool complete(const char *shell, const char *line, struct th_buf *out)
{
    th_autofree char *program = th_proc_find(shell);
    if (!program) {
        return false;
    }
    th_autofree char *script = NULL;
    if (th_streq(shell, "bash")) {
        script = th_xasprintf("PATH=%s:$PATH; source %s/bash; COMP_WORDS=(%s); l='%s'; "
                              "[[ $l = *' ' ]] && COMP_WORDS+=(''); "
                              "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _thimble; "
                              "printf '%%s\\n' \"${COMPREPLY[@]}\"",
                              dir, dir, line, line);
    } else {
        script = th_xasprintf("set PATH %s $PATH; source %s/fish; complete -C '%s'", dir, dir, line);
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    const char *const argv[] = {program, th_streq(shell, "bash") ? "--norc" : "--no-config", "-c",
                                script, NULL};
    th_autofree char *home = th_xasprintf("HOME=%s", dir);
    const char *const env[] = {"PATH=/usr/bin:/bin", home, NULL};
    struct th_proc_opts o = {
        .argv = argv, .env = env, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    if (th_proc_run(&o, (struct th_str){NULL, 0}, out, NULL, 60000, NULL, &err) < 0) {
        fail_msg("%s: %s", shell, err.msg);
    }
    return true;
}

static bool offers(const struct th_buf *out, const char *word)
{
    th_autofree char *text = th_xasprintf("\n%s", th_buf_cstr(out));
    size_t n = strlen(word);
    for (const char *p = text; (p = strchr(p, '\n')); p++) {
        if (strncmp(p + 1, word, n) == 0 && (!p[n + 1] || strchr("\t\n ", p[n + 1]))) {
            return true;
        }
    }
    return false;
}

static void shells_complete_from_the_table(void **state)
{
    (void)state;
    static const struct {
        const char *line, *offered, *not_offered;
    } cases[] = {
        {"thimble st", "start", "image"},
        {"thimble ", "delete", "port-agent"},
        {"thimble image ", "build", "start"},
        {"thimble image b", "base", "ls"},
        {"thimble start --dri", "--driver", "--disk"},
        {"thimble start --driver ", "host", "kvm"},
        {"thimble image build --no", "--no-cache", "--target"},
        {"thimble status -o ", "json", "text2"},
        {"thimble stop -p ", "x-profile", "stop"},
        {"thimble service ", "x-service", "x-image"},
        {"thimble image rm ", "x-image", "x-service"},
        {"thimble image rm -p demo ", "x-image-pdemo", "x-image"},
        {"thimble service -n ", NULL, "x-service"},
    };
    static const char *const shells[] = {"bash", "fish"};
    for (size_t s = 0; s < TH_ARRAY_LEN(shells); s++) {
        for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
            struct th_buf out TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
            if (!complete(shells[s], cases[i].line, &out)) {
                print_message("%s is not installed: its completion is not run\n", shells[s]);
                break;
            }
            if ((cases[i].offered && !offers(&out, cases[i].offered)) ||
                offers(&out, cases[i].not_offered)) {
                fail_msg("%s, \"%s\": %s", shells[s], cases[i].line, th_buf_cstr(&out));
            }
        }
    }
}

static void scripts_are_sound_for_their_shells(void **state)
{
    (void)state;
    static const char *const shells[][2] = {{"bash", "-n"}, {"zsh", "-n"}, {"fish", "-n"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(shells); i++) {
        th_autofree char *program = th_proc_find(shells[i][0]);
        th_autofree char *path = th_path_join(dir, shells[i][0]);
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (!program) {
            print_message("%s is not installed: its script is not checked\n", shells[i][0]);
        } else if (th_proc_runl(NULL, 60000, &err, program, shells[i][1], path, NULL) < 0) {
            fail_msg("%s: %s", shells[i][0], err.msg);
        }
    }
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    assert_int_equal(th_completion_script("tcsh", &b, NULL), -TH_R_USAGE);
}

static int setup(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_scripts();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return th_io_rm_rf(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_complete),
        cmocka_unit_test(help_shows_every_option),
        cmocka_unit_test(every_example_is_a_good_line),
        cmocka_unit_test(scripts_are_sound_for_their_shells),
        cmocka_unit_test(shells_complete_from_the_table),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* The Dockerfile language and .dockerignore. */
#include "images/dockerfile.h"
#include "images/dockerignore.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct th_dockerfile *parse(const char *text, struct th_err *err)
{
    struct th_dockerfile *d = NULL;
    return th_dockerfile_parse("Dockerfile", text, strlen(text), &d, err) == 0 ? d : NULL;
}

static void stages_flags_and_forms_are_read(void **state)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)state;
    TH_AUTO(th_dockerfile) struct th_dockerfile *d = parse(
        "# syntax=docker/dockerfile:1\nARG V=1\n# a comment\nFROM --platform=linux/amd64 golang:$V "
        "AS Build\nRUN a && \\\n# inside\n\n  b\nCOPY --from=x --chown=1:2 a b/\n"
        "CMD [\"./hello\", \"x\"]\nENV A=1 B=\"two words\" C=a\\ b\nENV OLD some value\n"
        "from build\nentrypoint echo hi\n", &err);
    assert_non_null(d);
    assert_string_equal(d->syntax, "docker/dockerfile:1");
    assert_int_equal(d->n_global_args, 1);
    assert_int_equal(d->n_stages, 2);
    assert_string_equal(d->stages[0]->name, "build");
    assert_string_equal(d->stages[0]->platform, "linux/amd64");
    struct th_df_inst **in = d->stages[0]->insts;
    assert_string_equal(in[0]->args.v[0], "a &&   b");
    assert_int_equal(d->warnings.n, 1);
    assert_string_equal(th_df_flag(in[1], "chown"), "1:2");
    assert_true(in[2]->json);
    assert_int_equal(in[2]->args.n, 2);
    assert_int_equal(in[3]->args.n, 3);
    assert_string_equal(in[3]->args.v[1], "B=\"two words\"");
    assert_string_equal(in[4]->args.v[0], "OLD=some value");
    assert_false(d->stages[1]->insts[0]->json);
    assert_int_equal(in[4]->line, 12);
}

static void heredocs_are_read_to_their_end(void **state)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)state;
    TH_AUTO(th_dockerfile) struct th_dockerfile *d =
        parse("FROM a\nRUN <<EOF\necho 1\n# kept\nEOF\nCOPY <<-\"X\" <<Y /d/\n\ttext $V\n\tX\ny\nY\n"
              "CMD x\n", &err);
    assert_non_null(d);
    struct th_df_inst **in = d->stages[0]->insts;
    assert_int_equal(d->stages[0]->n_insts, 3);
    assert_string_equal(in[0]->heredocs[0].text, "echo 1\n# kept\n");
    assert_int_equal(in[1]->n_heredocs, 2);
    assert_false(in[1]->heredocs[0].expand);
    assert_string_equal(in[1]->heredocs[0].text, "text $V\n");
    assert_string_equal(in[1]->heredocs[1].name, "Y");
}

static void faults_name_the_line(void **state)
{
    static const struct {
        const char *text, *msg;
    } cases[] = {
        {"FROM a\nRNU x\n", "Dockerfile:2: unknown instruction: RNU (did you mean RUN?)"},
        {"FROM a\n\n\nFOOBARBAZ x\n", "Dockerfile:4: unknown instruction: FOOBARBAZ"},
        {"", "Dockerfile:1: the Dockerfile cannot be empty"},
        {"RUN x\n", "Dockerfile:1: no build stage in current context: RUN stands before the first "
                    "FROM"},
        {"FROM a b\n", "Dockerfile:1: FROM requires either one or three arguments"},
        {"FROM a\nCOPY --form=x a b\n",
         "Dockerfile:2: unknown flag: --form (did you mean --from?)"},
        {"FROM a\nCOPY a\n", "Dockerfile:2: COPY requires at least two arguments, but only one was "
                             "provided. Destination could not be determined"},
        {"FROM a\nENV a=1 b\n", "Dockerfile:2: Syntax error - can't find = in \"b\". Must be of "
                                "the form: name=value"},
        {"FROM a\nRUN <<EOF\nx\n", "Dockerfile:2: unterminated heredoc: no line \"EOF\""},
        {"# escape=x\nFROM a\n", "Dockerfile:1: invalid ESCAPE 'x' does not match ` or \\"},
        {"FROM a\nONBUILD FROM b\n", "Dockerfile:2: FROM isn't allowed as an ONBUILD trigger"},
    };
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_null(parse(cases[i].text, &err));
        assert_int_equal(err.reason, TH_R_DOCKERFILE);
        assert_string_equal(err.msg, cases[i].msg);
    }
}

static const char *lookup(void *arg, const char *name, size_t n)
{
    (void)arg;
    if (n == 1 && name[0] == 'x') {
        return "foo.tar.gz";
    }
    return n == 1 && name[0] == 'e' ? "" : NULL;
}

static void variables_and_quotes_are_expanded(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {{"$x", "foo.tar.gz"}, {"a${x}b", "afoo.tar.gzb"}, {"'$x'", "$x"},
                 {"\"$x\"", "foo.tar.gz"}, {"\\$x", "$x"}, {"${u:-d}", "d"}, {"${e:-d}", "d"},
                 {"${e-d}", ""}, {"${x:+y}", "y"}, {"${u:+y}", ""}, {"${u:-${x}}", "foo.tar.gz"},
                 {"${x#*.}", "tar.gz"}, {"${x##*.}", "gz"}, {"${x%.*}", "foo.tar"},
                 {"${x%%.*}", "foo"}, {"${x/o/0}", "f0o.tar.gz"}, {"${x//o/0}", "f00.tar.gz"},
                 {"$", "$"}, {"a$-b", "a$-b"}, {"\"a\\b\"", "a\\b"}};
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autobuf struct th_buf out = TH_BUF_INIT;
        assert_int_equal(th_df_expand(cases[i].in, '\\', lookup, NULL, &out, NULL), 0);
        assert_string_equal(th_buf_cstr(&out), cases[i].out);
    }
    static const char *const broken[] = {"${", "${}", "${x", "${x:", "'a", "\"a", "${u:?gone}"};
    for (size_t i = 0; i < TH_ARRAY_LEN(broken); i++) {
        th_autobuf struct th_buf out = TH_BUF_INIT;
        assert_int_equal(th_df_expand(broken[i], '\\', lookup, NULL, &out, NULL),
                         -TH_R_DOCKERFILE);
    }
}

static void patterns_match_as_in_docker(void **state)
{
    static const struct {
        const char *rules, *path;
        bool out;
    } cases[] = {{"*.md", "a.md", true}, {"*.md", "d/a.md", false}, {"**/*.md", "d/a.md", true},
                 {"**/*.md", "a.md", true}, {"d", "d/x/y", true}, {"/d", "d", true},
                 {"./d/", "d/a", true}, {"# d\n", "d", false}, {"d\n!d/keep", "d/keep", false},
                 {"d\n!d/keep", "d/other", true}, {"*\n!go.mod", "go.mod", false},
                 {"*\n!go.mod", "main.go", true}, {"a/**/b", "a/b", true},
                 {"a/**/b", "a/x/y/b", true}, {"a/**", "a/x", true}, {"te?t", "test", true},
                 {"[a-c]x", "bx", true}, {"[^a-c]x", "bx", false}, {"a**b", "axxb", true},
                 {".", "x", false}, {"x/../y", "y", true}, {"*/temp*", "a/tempx", true},
                 {"*/temp*", "a/b/tempx", false}, {"**/x", "yx", false}};
    (void)state;
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO(th_ignore) struct th_ignore *ig = NULL;
        assert_int_equal(th_ignore_parse(cases[i].rules, strlen(cases[i].rules), &ig, NULL), 0);
        if (th_ignore_match(ig, cases[i].path) != cases[i].out) {
            fail_msg("%s against %s", cases[i].rules, cases[i].path);
        }
    }
    struct th_ignore *none = NULL;
    assert_int_equal(th_ignore_parse("[a", 2, &none, NULL), -TH_R_INVALID);
}

static void excluded_folders_are_entered_only_for_exceptions(void **state)
{
    TH_AUTO(th_ignore) struct th_ignore *ig = NULL;
    (void)state;
    assert_int_equal(th_ignore_parse("*\n!a/b/c\n!x/*.go", 16, &ig, NULL), 0);
    assert_true(th_ignore_must_descend(ig, "a"));
    assert_true(th_ignore_must_descend(ig, "a/b"));
    assert_true(th_ignore_must_descend(ig, "x"));
    assert_false(th_ignore_must_descend(ig, "node_modules"));
    assert_false(th_ignore_must_descend(ig, "ab"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_flags_and_forms_are_read),
        cmocka_unit_test(heredocs_are_read_to_their_end),
        cmocka_unit_test(faults_name_the_line),
        cmocka_unit_test(variables_and_quotes_are_expanded),
        cmocka_unit_test(patterns_match_as_in_docker),
        cmocka_unit_test(excluded_folders_are_entered_only_for_exceptions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

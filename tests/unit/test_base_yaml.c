/* base/yaml: scalars as go-yaml resolves them, structure, limits, faults, and kubectl's layout. */
#include "base/json/yaml.h"
#include "base/limits.h"
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_one(const char *yaml, const char *json)
{
    TH_AUTO(th_json) struct th_json *o = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_yaml_parse_one(yaml, strlen(yaml), NULL, &o, &err) < 0) {
        fail_msg("%s: %s", yaml, err.msg);
    }
    th_autofree char *s = th_json_to_string(o);
    assert_string_equal(s, json);
}

static void scalars_resolve_as_in_go(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *json;
    } cases[] = {
        {"v: text", "\"text\""},
        {"v: true", "true"},
        {"v: Yes", "true"},
        {"v: off", "false"},
        {"v: y", "true"},
        {"v: yEs", "\"yEs\""},
        {"v:", "null"},
        {"v: ~", "null"},
        {"v: Null", "null"},
        {"v: nULL", "\"nULL\""},
        {"v: 12", "12"},
        {"v: +12", "12"},
        {"v: -12", "-12"},
        {"v: 0", "0"},
        {"v: 012", "10"},
        {"v: 08", "8"},
        {"v: 0o17", "15"},
        {"v: 0x1F", "31"},
        {"v: -0x10", "-16"},
        {"v: 0b101", "5"},
        {"v: 1_000", "1000"},
        {"v: 18446744073709551615", "18446744073709551615"},
        {"v: 1.5", "1.5"},
        {"v: .5", "0.5"},
        {"v: 1.", "1"},
        {"v: 1e3", "1000"},
        {"v: 1.e+2", "100"},
        {"v: 1e", "\"1e\""},
        {"v: 1.2.3", "\"1.2.3\""},
        {"v: 10.0.0.1", "\"10.0.0.1\""},
        {"v: 500m", "\"500m\""},
        {"v: 1Gi", "\"1Gi\""},
        {"v: 8080/tcp", "\"8080/tcp\""},
        {"v: 2026-01-02", "\"2026-01-02\""},
        {"v: 2026-01-02T03:04:05Z", "\"2026-01-02T03:04:05Z\""},
        {"v: 12:30", "\"12:30\""},
        {"v: \"12\"", "\"12\""},
        {"v: 'true'", "\"true\""},
        {"v: 'it''s'", "\"it's\""},
        {"v: \"a\\tb\\u00e9\"", "\"a\\tbé\""},
        {"v: !!str 12", "\"12\""},
        {"v: !!int \"12\"", "12"},
        {"v: !!float 3", "3"},
        {"v: !!binary aGVsbG8=", "\"hello\""},
        {"v: !custom 12", "\"12\""},
        {"v: .e5", "\".e5\""},
        {"v: -", "[null]"},
        {"v: --x", "\"--x\""},
        {"v: <<", "\"<<\""},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autofree char *json = th_xasprintf("{\"v\":%s}", cases[i].json);
        if (strcmp(cases[i].yaml, "v: -") == 0) {
            assert_one("v:\n-", json);
        } else {
            assert_one(cases[i].yaml, json);
        }
    }
}

static void structure_becomes_objects_and_arrays(void **state)
{
    (void)state;
    assert_one("a:\n  b:\n  - 1\n  - c: x\n    d: [1, {e: f}]\n",
               "{\"a\":{\"b\":[1,{\"c\":\"x\",\"d\":[1,{\"e\":\"f\"}]}]}}");
    assert_one("t: |\n  line 1\n   line 2\n", "{\"t\":\"line 1\\n line 2\\n\"}");
    assert_one("t: >-\n  a\n  b\n\n  c\n", "{\"t\":\"a b\\nc\"}");
    assert_one("1: a\nn: b\n1.5: c\n'2': d\n0x10: e\n",
               "{\"1\":\"a\",\"false\":\"b\",\"1.5\":\"c\",\"2\":\"d\",\"16\":\"e\"}");
    assert_one("{}", "{}");
    assert_one("# comment only before\na: 1 # after\n", "{\"a\":1}");
}

static void anchors_and_merges_are_expanded(void **state)
{
    (void)state;
    assert_one("a: &x {k: 1}\nb: *x\nc: [*x, *x]\n",
               "{\"a\":{\"k\":1},\"b\":{\"k\":1},\"c\":[{\"k\":1},{\"k\":1}]}");
    assert_one("base: &b {cpu: 1, mem: 2}\nv:\n  <<: *b\n  mem: 3\n",
               "{\"base\":{\"cpu\":1,\"mem\":2},\"v\":{\"mem\":3,\"cpu\":1}}");
    assert_one("- &a {x: 1}\n- &b {x: 2, w: 2}\n- <<: [*a, *b]\n  z: 3\n",
               "[{\"x\":1},{\"x\":2,\"w\":2},{\"z\":3,\"x\":1,\"w\":2}]");
    assert_one("k: &n name\n*n : v\n", "{\"k\":\"name\",\"name\":\"v\"}");
    /* a copy, not a shared node */
    TH_AUTO(th_json) struct th_json *o = NULL;
    static const char text[] = "a: &x {k: 1}\nb: *x\n";
    assert_int_equal(th_yaml_parse_one(text, strlen(text), NULL, &o, NULL), 0);
    th_json_path_set_int(o, "a.k", 9);
    assert_int_equal(th_json_path_int(o, "b.k", 0), 1);
}

static void json_is_read_as_json(void **state)
{
    (void)state;
    assert_one(" {\"a\": \"\\ud83d\\ude00\\/\", \"b\":\t[1]}", "{\"a\":\"😀/\",\"b\":[1]}");
    assert_one("{a: b}", "{\"a\":\"b\"}");
}

static void documents_are_counted_and_empty_ones_left_out(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *json;
    } cases[] = {
        {"", "[]"},
        {"# nothing\n", "[]"},
        {"---\n---\n", "[]"},
        {"a: 1\n---\nb: 2\n", "[{\"a\":1},{\"b\":2}]"},
        {"---\na: 1\n---\n---\n# x\n---\nb: 2\n...\n", "[{\"a\":1},{\"b\":2}]"},
        {"{\"a\":1}", "[{\"a\":1}]"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO(th_json) struct th_json *docs = NULL;
        assert_int_equal(th_yaml_parse(cases[i].yaml, strlen(cases[i].yaml), &docs, NULL), 0);
        th_autofree char *s = th_json_to_string(docs);
        assert_string_equal(s, cases[i].json);
    }
}

static void faults_have_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *begin;
    } cases[] = {
        {"a: b: c", "line 1, column 5: "},
        {"a:\n\t- b", "line 2, column 1: "},
        {"a: [1, 2", "line 2, column 1: "},
        {"ok: 1\nv: *nope", "line 2, column 4: unknown anchor"},
        {"ok: 1\n? [a]\n: b", "line 2, column 3: mapping key is not a scalar"},
        {"~: x", "line 1, column 1: mapping key is null"},
        {"v: .inf", "line 1, column 4: number that JSON cannot hold"},
        {"v: 99999999999999999999", "line 1, column 4: number that JSON cannot hold"},
        {"v: !!int abc", "line 1, column 4: value does not match its tag"},
        {"v: !!binary '*'", "line 1, column 4: !!binary value is not base64"},
        {"<<: 5", "line 1, column 1: map merge requires map"},
        {"a: 1\n---\nb: 2", "expected one YAML document, found 2"},
        {"", "expected one YAML document, found 0"},
        {"\x80", "byte 0: "},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        struct th_json *o = NULL;
        assert_int_equal(th_yaml_parse_one(cases[i].yaml, strlen(cases[i].yaml), NULL, &o, &err),
                         -TH_R_PARSE);
        assert_null(o);
        if (!th_startswith(err.msg, cases[i].begin)) {
            fail_msg("\"%s\" does not begin with \"%s\"", err.msg, cases[i].begin);
        }
    }
}

static void duplicates_are_named_by_path(void **state)
{
    (void)state;
    static const char yaml[] = "spec:\n  replicas: 1\n  c:\n  - m: 1\n    m: 2\n  replicas: 3\n";
    th_autostrv struct th_strv dups = TH_STRV_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_yaml_parse_one(yaml, strlen(yaml), &dups, &o, NULL), 0);
    th_autofree char *got = th_strv_join(&dups, "|");
    assert_string_equal(got, "spec.c[0].m|spec.replicas");
    assert_int_equal(th_json_path_int(o, "spec.replicas", 0), 3);
}

static void aliases_cannot_multiply_without_end(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 10; i++) {
        th_buf_printf(&b, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i,
                      i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_json *o = NULL;
    assert_int_equal(th_yaml_parse_one(b.p, b.n, NULL, &o, &err), -TH_R_PARSE);
    assert_non_null(strstr(err.msg, "excessive aliasing"));
}

static void depth_counts_through_aliases(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "a0: &a0 [x]\n");
    for (int i = 1; i < 300; i++) {
        th_buf_printf(&b, "a%d: &a%d [*a%d]\n", i, i, i - 1);
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    struct th_json *o = NULL;
    assert_int_equal(th_yaml_parse_one(b.p, b.n, NULL, &o, &err), -TH_R_PARSE);
    assert_non_null(strstr(err.msg, "nested too deeply"));
    th_buf_clear(&b);
    for (int i = 0; i < 5000; i++) {
        th_buf_putc(&b, '[');
    }
    assert_int_equal(th_yaml_parse_one(b.p, b.n, NULL, &o, NULL), -TH_R_PARSE);
    th_buf_clear(&b);
    for (int i = 0; i < TH_LIMIT_JSON_DEPTH; i++) {
        th_buf_puts(&b, "- ");
    }
    th_buf_puts(&b, "x");
    TH_AUTO(th_json) struct th_json *deep = NULL;
    assert_int_equal(th_yaml_parse_one(b.p, b.n, NULL, &deep, NULL), 0);
}

static void output_is_laid_out_as_kubectl_does(void **state)
{
    (void)state;
    static const struct {
        const char *json, *yaml;
    } cases[] = {
        {"{\"b\":1,\"a\":{\"y\":[1,2],\"x\":{}}}", "a:\n  x: {}\n  \"y\":\n  - 1\n  - 2\nb: 1\n"},
        {"[{\"a\":1,\"b\":[[1],[]]},\"s\"]", "- a: 1\n  b:\n  - - 1\n  - []\n- s\n"},
        {"{\"v\":\"true\"}", "v: \"true\"\n"},
        {"{\"v\":\"12\"}", "v: \"12\"\n"},
        {"{\"v\":\"\"}", "v: \"\"\n"},
        {"{\"v\":\"null\"}", "v: \"null\"\n"},
        {"{\"v\":\"2026-01-02T03:04:05Z\"}", "v: \"2026-01-02T03:04:05Z\"\n"},
        {"{\"v\":\"2026-13-02\"}", "v: 2026-13-02\n"},
        {"{\"v\":\"12:30\"}", "v: \"12:30\"\n"},
        {"{\"v\":\"1.5\"}", "v: \"1.5\"\n"},
        {"{\"v\":\"1.5.1\"}", "v: 1.5.1\n"},
        {"{\"v\":\"500m\"}", "v: 500m\n"},
        {"{\"v\":\"y\"}", "v: \"y\"\n"},
        {"{\"v\":\"plain text\"}", "v: plain text\n"},
        {"{\"v\":\"a: b\"}", "v: 'a: b'\n"},
        {"{\"v\":\"- x\"}", "v: '- x'\n"},
        {"{\"v\":\"it's\"}", "v: it's\n"},
        {"{\"v\":\" lead\"}", "v: ' lead'\n"},
        {"{\"v\":\"*\"}", "v: '*'\n"},
        {"{\"v\":\"tab\\there\"}", "v: \"tab\\there\"\n"},
        {"{\"v\":\"é€\"}", "v: é€\n"},
        {"{\"v\":\"é😀\"}", "v: \"é\\U0001F600\"\n"}, /* as go-yaml, too */
        {"{\"v\":\"l1\\nl2\\n\"}", "v: |\n  l1\n  l2\n"},
        {"{\"v\":\"l1\\nl2\"}", "v: |-\n  l1\n  l2\n"},
        {"{\"v\":\"l1\\n\\n\"}", "v: |+\n  l1\n\n"},
        {"{\"v\":null,\"w\":false,\"x\":-3}", "v: null\nw: false\nx: -3\n"},
        {"{\"v\":1.5,\"w\":1234567.5,\"x\":0.00001}", "v: 1.5\nw: 1.2345675e+06\nx: 1e-05\n"},
        {"{\"a10\":1,\"a9\":1,\"B\":1,\"a\":1,\"_x\":1,\"1\":1}",
         "_x: 1\n\"1\": 1\nB: 1\na: 1\na9: 1\na10: 1\n"},
        {"\"top\"", "top\n"},
        {"{}", "{}\n"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO(th_json) struct th_json *o = NULL;
        assert_int_equal(th_json_parse_cstr(cases[i].json, &o, NULL), 0);
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_yaml_dump(o, &b);
        assert_string_equal(th_buf_cstr(&b), cases[i].yaml);
        TH_AUTO(th_json) struct th_json *back = NULL;
        assert_int_equal(th_yaml_parse_one(b.p, b.n, NULL, &back, NULL), 0);
        assert_true(th_json_equal(o, back));
    }
}

static void long_text_is_folded_and_reads_back(void **state)
{
    (void)state;
    th_autobuf struct th_buf text = TH_BUF_INIT;
    for (int i = 0; i < 40; i++) {
        th_buf_printf(&text, "word%d ", i);
    }
    th_buf_puts(&text, "end");
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    th_json_set_str(o, "message", th_buf_cstr(&text));
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_yaml_dump(o, &b);
    assert_non_null(strstr(th_buf_cstr(&b), "\n  word"));
    TH_AUTO(th_json) struct th_json *back = NULL;
    assert_int_equal(th_yaml_parse_one(b.p, b.n, NULL, &back, NULL), 0);
    assert_true(th_json_equal(o, back));
}

static void damaged_text_is_refused_or_round_trips(void **state)
{
    (void)state;
    static const char good[] =
        "a: &x [1, two, {three: ~}]\nb: *x\nc: |\n  text\n   more\n"
        "d: {<<: {e: 1.5}, 'f': \"q\\n\"}\n- no\n? k\n: !!str 5\n--- \ng: h\n";
    static const char bytes[] = "{}[]\"',:&*!|>-?~#%@` \n\tax019._\\\x01\x80\xc3";
    th_rand_seed(22);
    for (int i = 0; i < 6000; i++) {
        size_t n = sizeof(good) - 1 - th_rand_below(sizeof(good) - 1);
        th_autofree char *text = th_xmemdup(good, n);
        for (uint64_t edits = th_rand_below(4); n && edits > 0; edits--) {
            text[th_rand_below(n)] = bytes[th_rand_below(sizeof(bytes) - 1)];
        }
        TH_AUTO(th_json) struct th_json *docs = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_yaml_parse(text, n, &docs, &err) < 0) {
            assert_int_equal(err.reason, TH_R_PARSE);
            continue;
        }
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_yaml_dump(docs, &b);
        TH_AUTO(th_json) struct th_json *back = NULL;
        if (th_yaml_parse_one(b.p, b.n, NULL, &back, &err) < 0) {
            fail_msg("%s\n%s", err.msg, b.p);
        }
        assert_true(th_json_equal(docs, back));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_resolve_as_in_go),
        cmocka_unit_test(structure_becomes_objects_and_arrays),
        cmocka_unit_test(anchors_and_merges_are_expanded),
        cmocka_unit_test(json_is_read_as_json),
        cmocka_unit_test(documents_are_counted_and_empty_ones_left_out),
        cmocka_unit_test(faults_have_line_and_column),
        cmocka_unit_test(duplicates_are_named_by_path),
        cmocka_unit_test(aliases_cannot_multiply_without_end),
        cmocka_unit_test(depth_counts_through_aliases),
        cmocka_unit_test(output_is_laid_out_as_kubectl_does),
        cmocka_unit_test(long_text_is_folded_and_reads_back),
        cmocka_unit_test(damaged_text_is_refused_or_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

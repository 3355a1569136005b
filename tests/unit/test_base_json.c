/* base/json: strict parsing with positions, duplicates, dumping, trees, paths and templates. */
#include "base/json/json.h"
#include "base/limits.h"
#include "base/rand.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

static struct th_json *parse(const char *s)
{
    struct th_json *o = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_json_parse_cstr(s, &o, &err) < 0) {
        fail_msg("%s: %s", s, err.msg);
    }
    return o;
}

static void assert_dump(const struct th_json *o, const char *expected)
{
    th_autofree char *s = th_json_to_string(o);
    assert_string_equal(s, expected);
}

static void canonical_text_of_what_was_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"null", "null"},
        {" true ", "true"},
        {"\n[ ]\t", "[]"},
        {"{ }", "{}"},
        {"0", "0"},
        {"-0", "0"},
        {"-17", "-17"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"18446744073709551615", "18446744073709551615"},
        {"1.0", "1"},
        {"2.50", "2.5"},
        {"-0.001", "-0.001"},
        {"0.1", "0.1"},
        {"1e3", "1000"},
        {"1e17", "100000000000000000"},
        {"1E+20", "1e+20"},
        {"-1e18", "-1e+18"},
        {"1e21", "1e+21"},
        {"1.5e300", "1.5e+300"},
        {"1e-6", "0.000001"},
        {"1e-7", "1e-7"},
        {"1.2345678901234567e-8", "1.2345678901234567e-8"},
        {"5e-324", "5e-324"},
        {"123456789.125", "123456789.125"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"\"\"", "\"\""},
        {"\"a\\/b\"", "\"a/b\""},
        {"\"\\\"\\\\\\b\\f\\n\\r\\t\\u001f\"", "\"\\\"\\\\\\b\\f\\n\\r\\t\\u001f\""},
        {"\"\\u00e9\\ud83d\\ude00<&>\"", "\"é😀<&>\""},
        {"\"x\\u0000y\"", "\"x\\u0000y\""},
        {"{\"b\":1,\"a\":[1,{\"x\":null}],\"\":{}}", "{\"b\":1,\"a\":[1,{\"x\":null}],\"\":{}}"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\":3,\"b\":2}"},
        {"[1,\n 2 , 3]", "[1,2,3]"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO(th_json) struct th_json *o = parse(cases[i].in);
        assert_dump(o, cases[i].out);
        TH_AUTO(th_json) struct th_json *copy = th_json_dup(o);
        assert_dump(copy, cases[i].out);
        TH_AUTO(th_json) struct th_json *again = parse(cases[i].out);
        assert_true(th_json_equal(o, again));
    }
}

static void faults_have_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *in, *message;
    } cases[] = {
        {"", "line 1, column 1: expected a value"},
        {"  \n ", "line 2, column 2: expected a value"},
        {"{", "line 1, column 2: expected a member name in double quotes"},
        {"{\n  \"a\": 1,\n  \"b\" 2\n}", "line 3, column 7: expected ':' after a member name"},
        {"{\"a\":1,}", "line 1, column 8: expected a member name in double quotes"},
        {"{'a':1}", "line 1, column 2: expected a member name in double quotes"},
        {"{\"a\":1 \"b\":2}", "line 1, column 8: expected ',' or '}'"},
        {"[1 2]", "line 1, column 4: expected ',' or ']'"},
        {"[1,]", "line 1, column 4: expected a value"},
        {"[1}", "line 1, column 3: expected ',' or ']'"},
        {"[1", "line 1, column 3: unexpected end of document"},
        {"[", "line 1, column 2: unexpected end of document"},
        {"1 x", "line 1, column 3: unexpected text after the document"},
        {"{}{}", "line 1, column 3: unexpected text after the document"},
        {"nul", "line 1, column 1: expected a value"},
        {"True", "line 1, column 1: expected a value"},
        {"NaN", "line 1, column 1: expected a value"},
        {"-Infinity", "line 1, column 2: expected a digit"},
        {"01", "line 1, column 1: number with a leading zero"},
        {"-", "line 1, column 2: expected a digit"},
        {"1.", "line 1, column 3: expected a digit after the decimal point"},
        {".5", "line 1, column 1: expected a value"},
        {"1e", "line 1, column 3: expected a digit in the exponent"},
        {"[1e400]", "line 1, column 2: number out of range"},
        {"18446744073709551616", "line 1, column 1: number out of range"},
        {"-9223372036854775809", "line 1, column 1: number out of range"},
        {"\"abc", "line 1, column 5: unterminated string"},
        {"\"abc\\", "line 1, column 6: unterminated string"},
        {"\"a\nb\"", "line 1, column 3: control character in string"},
        {"\"\\x\"", "line 1, column 2: invalid escape in string"},
        {"\"\\u12g4\"", "line 1, column 2: invalid \\u escape in string"},
        {"\"ok \xff\"", "line 1, column 5: invalid UTF-8"},
        {"\"\xed\xa0\x80\"", "line 1, column 2: invalid UTF-8"},
        {"\xef\xbb\xbf{}", "line 1, column 1: expected a value"},
        {"/* c */ 1", "line 1, column 1: expected a value"},
        {"{\"a\\u0000b\":1}", "line 1, column 4: NUL in a member name"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        struct th_json *o = (struct th_json *)state;
        assert_int_equal(th_json_parse_cstr(cases[i].in, &o, &err), -TH_R_PARSE);
        assert_string_equal(err.msg, cases[i].message);
        assert_ptr_equal(o, state); /* not written on failure */
    }
}

static void a_nul_byte_in_the_text_is_no_end(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    assert_int_equal(th_json_parse("[1]\0 ", 5, NULL, &o, NULL), -TH_R_PARSE);
    assert_int_equal(th_json_parse("\"a\0b\"", 5, NULL, &o, NULL), -TH_R_PARSE);
}

static void text_need_not_be_terminated(void **state)
{
    (void)state;
    static const char text[] = "[12]34";
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_json_parse(text, 4, NULL, &o, NULL), 0);
    assert_dump(o, "[12]");
    TH_AUTO(th_json) struct th_json *n = NULL;
    assert_int_equal(th_json_parse(text + 1, 1, NULL, &n, NULL), 0);
    assert_dump(n, "1");
}

static void depth_is_limited_exactly(void **state)
{
    (void)state;
    for (int extra = 0; extra < 2; extra++) {
        size_t depth = TH_LIMIT_JSON_DEPTH + (size_t)extra;
        th_autobuf struct th_buf b = TH_BUF_INIT;
        for (size_t i = 0; i < depth; i++) {
            th_buf_puts(&b, i % 2 ? "{\"a\":" : "[");
        }
        th_buf_puts(&b, "1");
        for (size_t i = depth; i-- > 0;) {
            th_buf_puts(&b, i % 2 ? "}" : "]");
        }
        TH_AUTO(th_json) struct th_json *o = NULL;
        int r = th_json_parse(b.p, b.n, NULL, &o, NULL);
        assert_int_equal(r, extra ? -TH_R_PARSE : 0);
        if (r == 0) {
            assert_dump(o, b.p);
        }
    }
}

static void duplicates_are_named_by_path(void **state)
{
    (void)state;
    static const struct {
        const char *in, *paths;
    } cases[] = {
        {"{\"a\":1,\"b\":2}", ""},
        {"{\"a\":1,\"a\":2}", "a"},
        {"{\"a\":1,\"a\":2,\"a\":3}", "a"},
        {"{\"spec\":{\"replicas\":1,\"replicas\":2},\"x\":{\"replicas\":1}}", "spec.replicas"},
        {"{\"c\":[{\"n\":1},{\"n\":1,\"n\":[2,{\"z\":1,\"z\":\"}\"}]}]}", "c[1].n|c[1].n[1].z"},
        {"[{\"a\":1,\"\\u0061\":2}]", "[0].a"},
        {"{\"a\":{\"x\":1,\"x\":1},\"a\":{\"x\":1,\"x\":1}}", "a.x|a"},
        {"{\"a\" : 1 ,\"b\": [ ] ,\"a\": { } }", "a"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        th_autostrv struct th_strv dups = TH_STRV_INIT;
        TH_AUTO(th_json) struct th_json *o = NULL;
        assert_int_equal(th_json_parse(cases[i].in, strlen(cases[i].in), &dups, &o, NULL), 0);
        th_autofree char *got = th_strv_join(&dups, "|");
        assert_string_equal(got, cases[i].paths);
    }
}

static void thousands_of_duplicates_are_cut_off(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_putc(&b, '{');
    for (int i = 0; i < 20000; i++) {
        th_buf_printf(&b, "%s\"k%d\":0", i ? "," : "", i % 5000);
    }
    th_buf_putc(&b, '}');
    th_autostrv struct th_strv dups = TH_STRV_INIT;
    TH_AUTO(th_json) struct th_json *o = NULL;
    assert_int_equal(th_json_parse(b.p, b.n, &dups, &o, NULL), 0);
    assert_int_equal(th_json_len(o), 5000);
    assert_int_equal(dups.n, 100);
}

static void scalars_convert_only_where_it_is_exact(void **state)
{
    (void)state;
    TH_AUTO(th_json)
    struct th_json *o =
        parse("{\"i\":5,\"d\":5.0,\"h\":5.5,\"s\":\"5\",\"b\":true,\"n\":null,\"big\":1e19}");
    assert_int_equal(th_json_as_int(th_json_get(o, "i"), -1), 5);
    assert_int_equal(th_json_as_int(th_json_get(o, "d"), -1), 5);
    assert_int_equal(th_json_as_int(th_json_get(o, "h"), -1), -1);
    assert_int_equal(th_json_as_int(th_json_get(o, "s"), -1), -1);
    assert_int_equal(th_json_as_int(th_json_get(o, "b"), -1), -1);
    assert_int_equal(th_json_as_int(th_json_get(o, "n"), -1), -1);
    assert_int_equal(th_json_as_int(th_json_get(o, "big"), -1), -1);
    assert_int_equal(th_json_as_int(NULL, 9), 9);
    assert_true(th_json_as_double(th_json_get(o, "i"), 0) == 5.0);
    assert_true(th_json_as_double(th_json_get(o, "s"), 1.5) == 1.5);
    assert_true(th_json_as_bool(th_json_get(o, "b"), false));
    assert_true(th_json_as_bool(th_json_get(o, "i"), true));
    assert_null(th_json_str(th_json_get(o, "i")));
    assert_string_equal(th_json_str(th_json_get(o, "s")), "5");
    assert_int_equal(th_json_str_len(th_json_get(o, "s")), 1);
    assert_int_equal(th_json_str_len(NULL), 0);
    assert_null(th_json_double(NAN));
    assert_null(th_json_string(NULL));
    assert_true(th_json_is_null(th_json_get(o, "n")));
    assert_int_equal(th_json_type(th_json_get(o, "h")), TH_JSON_DOUBLE);
}

static void equality_ignores_member_order_and_number_kind(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool equal;
    } cases[] = {
        {"{\"a\":1,\"b\":[1,2]}", "{\"b\":[1,2],\"a\":1}", true},
        {"[1,2]", "[2,1]", false},
        {"{\"a\":1}", "{\"a\":1,\"b\":null}", false},
        {"{\"a\":null}", "{\"b\":null}", false},
        {"1", "1.0", true},
        {"1", "1.5", false},
        {"1", "\"1\"", false},
        {"18446744073709551615", "9223372036854775807", false},
        {"-1", "18446744073709551615", false},
        {"null", "false", false},
        {"null", "null", true},
        {"\"a\\u0000b\"", "\"a\\u0000c\"", false},
        {"true", "true", true},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO(th_json) struct th_json *a = parse(cases[i].a);
        TH_AUTO(th_json) struct th_json *b = parse(cases[i].b);
        assert_int_equal(th_json_equal(a, b), cases[i].equal);
        assert_int_equal(th_json_equal(b, a), cases[i].equal);
    }
}

static void objects_set_get_delete_keep_order(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    for (int i = 0; i < 40; i++) { /* past the size at which lookups change their way */
        th_autofree char *k = th_xasprintf("key%d", i);
        th_json_set_int(o, k, i);
    }
    for (int i = 0; i < 40; i++) {
        th_autofree char *k = th_xasprintf("key%d", i);
        assert_int_equal(th_json_as_int(th_json_get(o, k), -1), i);
        th_autofree char *path = th_xasprintf("key%d.x", i);
        assert_null(th_json_path(o, path));
    }
    assert_null(th_json_get(o, "key"));
    assert_null(th_json_get(o, "key400"));
    for (int i = 0; i < 40; i += 2) {
        th_autofree char *k = th_xasprintf("key%d", i);
        assert_true(th_json_del(o, k));
        assert_false(th_json_del(o, k));
    }
    assert_int_equal(th_json_len(o), 20);
    th_json_set_str(o, "key3", "replaced"); /* keeps its place */
    th_json_set(o, "nothing", NULL);
    assert_true(th_json_has(o, "nothing"));
    assert_null(th_json_get(o, "nothing"));
    assert_false(th_json_has(o, "key0"));
    struct th_json_iter it = TH_JSON_ITER(o);
    assert_true(th_json_next(&it));
    assert_string_equal(it.name, "key1");
    assert_true(th_json_next(&it));
    assert_string_equal(it.name, "key3");
    assert_string_equal(th_json_str(it.value), "replaced");
    assert_null(th_json_get(NULL, "x"));
    assert_false(th_json_has(NULL, "x"));
    assert_false(th_json_del(NULL, "x"));
}

static void the_current_member_may_be_deleted_while_walking(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o = parse("{\"a\":1,\"b\":2,\"c\":3,\"d\":4}");
    struct th_json_iter it = TH_JSON_ITER(o);
    int seen = 0;
    while (th_json_next(&it)) {
        seen++;
        if (th_json_as_int(it.value, 0) % 2 == 0) {
            assert_true(th_json_del(o, it.name));
        }
    }
    assert_int_equal(seen, 4);
    assert_dump(o, "{\"a\":1,\"c\":3}");
    struct th_json_iter none = TH_JSON_ITER(NULL);
    assert_false(th_json_next(&none));
    assert_false(th_json_next(&none));
}

static int by_value(const struct th_json *a, const struct th_json *b)
{
    int64_t x = th_json_as_int(th_json_get(a, "k"), 0);
    int64_t y = th_json_as_int(th_json_get(b, "k"), 0);
    return (x > y) - (x < y);
}

static void arrays_insert_delete_and_sort_stably(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *a = parse("[1,2,3]");
    th_json_insert_at(a, 0, th_json_int(0));
    th_json_insert_at(a, 4, th_json_int(9));
    th_json_insert_at(a, 2, NULL);
    assert_dump(a, "[0,1,null,2,3,9]");
    th_json_del_at(a, 2);
    th_json_del_at(a, 77);
    th_json_set_at(a, 0, th_json_string("z"));
    th_json_append_str(a, "end");
    assert_dump(a, "[\"z\",1,2,3,9,\"end\"]");
    assert_null(th_json_at(a, 6));
    assert_null(th_json_at(NULL, 0));
    TH_AUTO(th_json)
    struct th_json *s =
        parse("[{\"k\":2,\"n\":0},{\"k\":1,\"n\":1},{\"k\":2,\"n\":2},{\"k\":1,\"n\":3}]");
    th_json_sort(s, by_value);
    assert_dump(s, "[{\"k\":1,\"n\":1},{\"k\":1,\"n\":3},{\"k\":2,\"n\":0},{\"k\":2,\"n\":2}]");
}

static void values_outlive_their_parent_by_reference(void **state)
{
    (void)state;
    struct th_json *o = parse("{\"a\":{\"b\":\"text\"}}");
    TH_AUTO(th_json) struct th_json *a = th_json_ref(th_json_get(o, "a"));
    th_json_unref(o);
    assert_string_equal(th_json_path_str(a, "b"), "text");
    th_json_unref(NULL);
    assert_null(th_json_ref(NULL));
}

static void paths_walk_objects_and_arrays(void **state)
{
    (void)state;
    TH_AUTO(th_json)
    struct th_json *o =
        parse("{\"spec\":{\"c\":[{\"image\":\"x\"},{\"ports\":[[7,8]]}],\"n\":3,\"on\":true},"
              "\"a.b\":1}");
    static const struct {
        const char *path, *json;
    } cases[] = {
        {"spec.c[0].image", "\"x\""},
        {"spec.c[1].ports[0][1]", "8"},
        {"spec.n", "3"},
        {"spec.c[2]", "null"},
        {"spec.c[0].image.x", "null"},
        {"spec.missing.x", "null"},
        {"a.b", "null"},
        {"spec.c.image", "null"},
        {"spec[0]", "null"},
        {"spec.c[x]", "null"},
        {"spec.c[0", "null"},
        {"spec.c[]", "null"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        assert_dump(th_json_path(o, cases[i].path), cases[i].json);
    }
    assert_ptr_equal(th_json_path(o, ""), o);
    assert_string_equal(th_json_path_str(th_json_path(o, "spec.c"), "[0].image"), "x");
    assert_int_equal(th_json_path_int(o, "spec.n", 0), 3);
    assert_int_equal(th_json_path_int(o, "spec.m", 4), 4);
    assert_true(th_json_path_bool(o, "spec.on", false));
    assert_null(th_json_path_str(NULL, "a.b"));
}

static void paths_make_what_is_missing(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o = parse("{\"x\":null,\"l\":[{\"a\":1}]}");
    th_json_path_set_str(o, "metadata.labels.app", "web");
    th_json_path_set_int(o, "x.y", 1);
    th_json_path_set_bool(o, "top", true);
    th_json_path_set_str(o, "l[0].b", "z");
    th_json_path_set(o, "metadata.gone", NULL);
    assert_dump(o, "{\"x\":{\"y\":1},\"l\":[{\"a\":1,\"b\":\"z\"}],"
                   "\"metadata\":{\"labels\":{\"app\":\"web\"},\"gone\":null},\"top\":true}");
    assert_ptr_equal(th_json_path_object(o, "metadata.labels"), th_json_path(o, "metadata.labels"));
    th_json_append_str(th_json_path_array(o, "status.conditions"), "c");
    assert_dump(th_json_get(o, "status"), "{\"conditions\":[\"c\"]}");
    assert_true(th_json_path_del(o, "metadata.labels.app"));
    assert_false(th_json_path_del(o, "metadata.labels.app"));
    assert_false(th_json_path_del(o, "no.such.thing"));
    assert_true(th_json_path_del(o, "l[0]"));
    assert_false(th_json_path_del(o, "l[0]"));
    assert_dump(th_json_get(o, "l"), "[]");
    assert_dump(th_json_get(o, "metadata"), "{\"labels\":{},\"gone\":null}");
}

static void templates_build_trees(void **state)
{
    (void)state;
    TH_AUTO(th_json)
    struct th_json *o = th_json_build(
        "{'kind':'Pod', 'n':%d,'s':%s,'none':%s,'b':%b,'o':%o,'f':%f,%s:[1,-2.5,true,null,{},[]],"
        "'pct':'25%','it\\'s':''}",
        (int64_t)-5, "quote\" and \\", NULL, 2, th_json_array(), 0.5, "dynamic");
    assert_dump(o,
                "{\"kind\":\"Pod\",\"n\":-5,\"s\":\"quote\\\" and \\\\\",\"none\":null,\"b\":true,"
                "\"o\":[],\"f\":0.5,\"dynamic\":[1,-2.5,true,null,{},[]],\"pct\":\"25%\","
                "\"it's\":\"\"}");
}

static void build_in_a_child(const char *template)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)fclose(stderr);
        (void)close(2);
        (void)th_json_build(template, "x", "y", "z");
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void a_malformed_template_aborts(void **state)
{
    (void)state;
    static const char *const bad[] = {"{'a'}", "{'a':1", "[1,]", "{'a':'%s'}", "{'a':%q}", "{} x"};
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        build_in_a_child(bad[i]);
    }
}

static void pretty_and_sorted_layouts(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o = parse("{\"b\":[1,{}],\"a\":{\"z\":[],\"c\":\"x\"}}");
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump_pretty(o, &b);
    assert_string_equal(th_buf_cstr(&b), "{\n  \"b\": [\n    1,\n    {}\n  ],\n"
                                         "  \"a\": {\n    \"z\": [],\n    \"c\": \"x\"\n  }\n}");
    th_buf_clear(&b);
    th_json_dump_sorted(o, &b);
    assert_string_equal(th_buf_cstr(&b), "{\"a\":{\"c\":\"x\",\"z\":[]},\"b\":[1,{}]}");
    th_buf_clear(&b);
    th_json_dump_pretty_sorted(th_json_get(o, "a"), &b);
    assert_string_equal(th_buf_cstr(&b), "{\n  \"c\": \"x\",\n  \"z\": []\n}");
}

static void a_dump_over_the_buffers_max_is_dropped_whole(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o = parse("[1,2,3,4,5]");
    th_autobuf struct th_buf b;
    th_buf_init(&b, 14);
    th_buf_puts(&b, "abc");
    th_json_dump(o, &b);
    assert_false(b.overflow);
    assert_string_equal(th_buf_cstr(&b), "abc[1,2,3,4,5]");
    th_buf_truncate(&b, 4);
    th_json_dump(o, &b);
    assert_true(b.overflow);
    assert_string_equal(th_buf_cstr(&b), "abc[");
}

/* Whatever text comes: either our scanner names the fault, or the tree dumps to text that gives the
 * same tree. json-c may never be the one to refuse. */
static void damaged_text_is_refused_by_us_or_round_trips(void **state)
{
    (void)state;
    static const char good[] =
        "{\"a\":[1,-2.5e3,\"x\\u00e9\\n\",{\"b\":null,\"c\":[true,false,[]]}],"
        "\"d\":{},\"e\":0.125,\"f\":\"\\ud83d\\ude00 \xc3\xbc\"}";
    static const char bytes[] = "{}[]\",:\\ /0123456789-+.eEutrfn \n\x01\x80\xc3\xff";
    th_rand_seed(21);
    for (int i = 0; i < 30000; i++) {
        size_t n = sizeof(good) - 1 - (i % 3 ? 0 : th_rand_below(sizeof(good) - 1));
        th_autofree char *text = th_xmemdup(good, n);
        for (uint64_t edits = 1 + th_rand_below(3); n && edits > 0; edits--) {
            text[th_rand_below(n)] = bytes[th_rand_below(sizeof(bytes) - 1)];
        }
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        TH_AUTO(th_json) struct th_json *o = NULL;
        th_autostrv struct th_strv dups = TH_STRV_INIT;
        if (th_json_parse(text, n, &dups, &o, &err) < 0) {
            assert_true(th_startswith(err.msg, "line "));
            continue;
        }
        TH_AUTO(th_json) struct th_json *back = NULL;
        th_autofree char *dump = th_json_to_string(o);
        assert_int_equal(th_json_parse_cstr(dump, &back, NULL), 0);
        assert_true(th_json_equal(o, back));
        th_autofree char *again = th_json_to_string(back);
        assert_string_equal(dump, again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_text_of_what_was_parsed),
        cmocka_unit_test(faults_have_line_and_column),
        cmocka_unit_test(a_nul_byte_in_the_text_is_no_end),
        cmocka_unit_test(text_need_not_be_terminated),
        cmocka_unit_test(depth_is_limited_exactly),
        cmocka_unit_test(duplicates_are_named_by_path),
        cmocka_unit_test(thousands_of_duplicates_are_cut_off),
        cmocka_unit_test(scalars_convert_only_where_it_is_exact),
        cmocka_unit_test(equality_ignores_member_order_and_number_kind),
        cmocka_unit_test(objects_set_get_delete_keep_order),
        cmocka_unit_test(the_current_member_may_be_deleted_while_walking),
        cmocka_unit_test(arrays_insert_delete_and_sort_stably),
        cmocka_unit_test(values_outlive_their_parent_by_reference),
        cmocka_unit_test(paths_walk_objects_and_arrays),
        cmocka_unit_test(paths_make_what_is_missing),
        cmocka_unit_test(templates_build_trees),
        cmocka_unit_test(a_malformed_template_aborts),
        cmocka_unit_test(pretty_and_sorted_layouts),
        cmocka_unit_test(a_dump_over_the_buffers_max_is_dropped_whole),
        cmocka_unit_test(damaged_text_is_refused_by_us_or_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Custom resources' schemas: tables, values, defaults, pruning, patterns, JSONPaths. */
#include "controlplane/schema/jsonpath.h"
#include "controlplane/schema/structural.h"
#include "controlplane/schema/validate.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct th_json *json(const char *s)
{
    struct th_json *o = NULL;
    th_autofree char *text = th_xstrdup(s);
    for (char *p = text; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    assert_int_equal(th_json_parse_cstr(text, &o, NULL), 0);
    return o;
}

static struct th_structural *schema(const char *props)
{
    TH_AUTO(th_json) struct th_json *j = json(props);
    return th_structural_new(j, false, "t");
}

/* All causes as lines "field: message". */
static char *faults(const char *props, const char *value, const char *old)
{
    TH_AUTO(th_structural) struct th_structural *s = schema(props);
    TH_AUTO(th_json) struct th_json *v = json(value);
    TH_AUTO(th_json) struct th_json *o = old ? json(old) : NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_structural_validate(s, v, o, old != NULL, "f", &err);
    th_structural_validate_lists(s, v, "f", &err);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < err.n_causes; i++) {
        th_buf_printf(&b, "%s%s: %s", i ? "\n" : "", err.causes[i].field, err.causes[i].msg);
    }
    return th_xstrdup(th_buf_cstr(&b));
}

static void values_are_refused_with_upstreams_words(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *value, *out;
    } rows[] = {
        {"{'type':'integer'}", "'x'",
         "f: Invalid value: \"string\": f in body must be of type integer: \"string\""},
        {"{'type':'integer'}", "1.5",
         "f: Invalid value: \"number\": f in body must be of type integer: \"number\""},
        {"{'type':'integer'}", "1.0", ""},
        {"{'type':'number'}", "3", ""},
        {"{'type':'integer','format':'int32'}", "true",
         "f: Invalid value: \"\": f in body must be of type int32: \"\""},
        {"{'type':'string'}", "null",
         "f: Invalid value: \"null\": f in body must be of type string: \"null\""},
        {"{'type':'string','nullable':true}", "null", ""},
        {"{'type':'integer','minimum':1,'exclusiveMinimum':true}", "1",
         "f: Invalid value: 1: f in body should be greater than 1"},
        {"{'type':'number','maximum':1.5}", "2.5",
         "f: Invalid value: 2.5: f in body should be less than or equal to 1.5"},
        {"{'type':'integer','multipleOf':5}", "7",
         "f: Invalid value: 7: f in body should be a multiple of 5"},
        {"{'type':'string','maxLength':2}", "'abc'", "f: Too long: may not be more than 2 bytes"},
        {"{'type':'string','minLength':2}", "'\u00e9'",
         "f: Invalid value: \"\u00e9\": f in body should be at least 2 chars long"},
        {"{'type':'string','pattern':'^a$'}", "'b'",
         "f: Invalid value: \"b\": f in body should match '^a$'"},
        {"{'type':'string','format':'date-time'}", "'x'",
         "f: Invalid value: \"x\": f in body must be of type date-time: \"x\""},
        {"{'type':'string','enum':['a','b']}", "'c'",
         "f: Unsupported value: \"c\": supported values: \"a\", \"b\""},
        {"{'type':'array','minItems':1,'items':{}}", "[]",
         "f: Invalid value: 0: f in body should have at least 1 items"},
        {"{'type':'array','maxItems':1,'items':{}}", "[1,2]", "f: Too many: 2: must have at most 1 item"},
        {"{'type':'object','maxProperties':1}", "{'a':1,'b':2}",
         "f: Too many: 2: must have at most 1 item"},
        {"{'type':'object','minProperties':1}", "{}",
         "f: Invalid value: 0: f in body should have at least 1 properties"},
        {"{'type':'object','required':['a']}", "{}", "f.a: Required value"},
        {"{'type':'object','properties':{'a':{'type':'array','items':{'type':'string'}}}}",
         "{'a':['x',1]}",
         "f.a[1]: Invalid value: \"integer\": f.a[1] in body must be of type string: \"integer\""},
        {"{'type':'object','additionalProperties':{'type':'string'}}", "{'k':1}",
         "f.k: Invalid value: \"integer\": f.k in body must be of type string: \"integer\""},
        {"{'x-kubernetes-int-or-string':true}", "1.5",
         "f: Invalid value: \"number\": f in body must be of type integer,string: \"number\""},
        {"{'not':{'enum':['a']}}", "'a'",
         "<nil>: Invalid value: \"\": \"f\" must not validate the schema (not)"},
        {"{'oneOf':[{'minimum':1},{'maximum':5}]}", "3",
         "<nil>: Invalid value: \"\": \"f\" must validate one and only one schema (oneOf). Found 2 "
         "valid alternatives"},
        {"{'allOf':[{'minimum':1},{'maximum':5}]}", "9",
         "f: Invalid value: 9: f in body should be less than or equal to 5\n"
         "<nil>: Invalid value: \"\": \"f\" must validate all the schemas (allOf)"},
        {"{'type':'array','x-kubernetes-list-type':'set','items':{'type':'string'}}",
         "['a','b','a','a']", "f[2]: Duplicate value: \"a\""},
        {"{'type':'array','x-kubernetes-list-type':'map','x-kubernetes-list-map-keys':['a','b'],"
         "'items':{'type':'object','properties':{'a':{'type':'string'},'b':{'type':'integer'}}}}",
         "[{'a':'x','b':1},{'a':'x','b':2},{'a':'x','b':1}]",
         "f[2]: Duplicate value: {\"a\":\"x\",\"b\":1}"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        th_autofree char *got = faults(rows[i].schema, rows[i].value, NULL);
        if (strcmp(got, rows[i].out) != 0) {
            fail_msg("%s of %s\n  gives %s\n  not %s", rows[i].value, rows[i].schema, got,
                     rows[i].out);
        }
    }
}

static void what_did_not_change_is_not_reported(void **state)
{
    (void)state;
    static const char s[] = "{'type':'object','properties':{'a':{'maximum':1},'b':{'maximum':1},"
                            "'l':{'type':'array','x-kubernetes-list-type':'map',"
                            "'x-kubernetes-list-map-keys':['k'],'items':{'type':'object',"
                            "'properties':{'k':{'type':'string'},'v':{'maximum':1}}}}}}";
    th_autofree char *one = faults(s, "{'a':5,'b':7}", "{'a':5,'b':6}");
    assert_string_equal(one, "f.b: Invalid value: 7: f.b in body should be less than or equal to 1");
    th_autofree char *list = faults(s, "{'l':[{'k':'y','v':3},{'k':'x','v':2}]}",
                                    "{'l':[{'k':'x','v':2}]}");
    assert_string_equal(
        list, "f.l[0].v: Invalid value: 3: f.l[0].v in body should be less than or equal to 1");
}

static void formats_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *format, *good, *bad;
    } rows[] = {
        {"date", "2024-02-29", "2023-02-29"},
        {"date-time", "2024-01-01T00:00:00.5+01:00", "2024-01-01 00:00:00"},
        {"duration", "1h30m", "x"},
        {"ipv4", "10.0.0.1", "10.0.0.256"},
        {"ipv6", "2001:db8::1", "10.0.0.1"},
        {"cidr", "10.0.0.0/8", "10.0.0.0/33"},
        {"mac", "00:11:22:33:44:55", "00:11:22:33:44"},
        {"uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"},
        {"uri", "https://a.b/c?d=e", "a b"},
        {"email", "A <a@b.c>", "a@"},
        {"hostname", "a-b.example.com", "-a"},
        {"byte", "YWJj", "YW"},
        {"hexcolor", "#fff", "#ff"},
        {"isbn10", "0321751043", "0321751044"},
        {"isbn13", "978-0321751041", "978-0321751042"},
        {"creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"},
        {"k8s-short-name", "a-b", "A"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        assert_true(th_format_known(rows[i].format));
        if (!th_format_valid(rows[i].format, rows[i].good)) {
            fail_msg("%s is no %s", rows[i].good, rows[i].format);
        }
        if (th_format_valid(rows[i].format, rows[i].bad)) {
            fail_msg("%s is a %s", rows[i].bad, rows[i].format);
        }
    }
    assert_false(th_format_known("nope"));
}

static void defaults_and_nulls_follow_the_schema(void **state)
{
    (void)state;
    TH_AUTO(th_structural) struct th_structural *s = schema(
        "{'type':'object','properties':{'a':{'type':'integer','default':1},"
        "'b':{'type':'string','nullable':true,'default':'x'},'c':{'type':'string'},"
        "'o':{'type':'object','default':{},'properties':{'d':{'type':'integer','default':2}}},"
        "'l':{'type':'array','items':{'type':'object','properties':{'e':{'default':3}}}},"
        "'m':{'type':'object','additionalProperties':{'type':'object','properties':"
        "{'f':{'default':4}}}}}}");
    TH_AUTO(th_json) struct th_json *v =
        json("{'a':null,'b':null,'c':null,'l':[{},{'e':9}],'m':{'k':{}}}");
    TH_AUTO(th_json) struct th_json *want =
        json("{'a':1,'b':null,'o':{'d':2},'l':[{'e':3},{'e':9}],'m':{'k':{'f':4}}}");
    th_structural_default(s, v);
    assert_true(th_json_equal(v, want));
    th_structural_default(s, v);
    assert_true(th_json_equal(v, want));
}

static void unknown_members_are_pruned_but_where_kept(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *props = json(
        "{'type':'object','properties':{'a':{'type':'object','properties':{'b':{'type':'integer'}}},"
        "'p':{'type':'object','x-kubernetes-preserve-unknown-fields':true,"
        "'properties':{'q':{'type':'object'}}},"
        "'ll':{'type':'array','items':{'type':'array','items':{'type':'object',"
        "'properties':{'x':{'type':'integer'}}}}}}}");
    TH_AUTO(th_structural) struct th_structural *s = th_structural_new(props, true, "t");
    TH_AUTO(th_json) struct th_json *v = json(
        "{'apiVersion':'v1','kind':'K','metadata':{'name':'n'},'z':1,'a':{'b':1,'c':2},"
        "'p':{'y':{'w':1},'q':{'r':1}},'ll':[[{'x':1,'y':2}]]}");
    TH_AUTO(th_json) struct th_json *want = json(
        "{'apiVersion':'v1','kind':'K','metadata':{'name':'n'},'a':{'b':1},"
        "'p':{'y':{'w':1},'q':{}},'ll':[[{'x':1}]]}");
    th_autostrv struct th_strv unknown = TH_STRV_INIT;
    TH_AUTO(th_json) struct th_json *decoded = th_json_dup(v);
    assert_int_equal(th_schema_decode(s->table, decoded, &unknown, NULL), 0);
    assert_true(th_json_equal(decoded, want));
    th_strv_sort(&unknown);
    th_autofree char *names = th_strv_join(&unknown, " ");
    assert_string_equal(names, "a.c ll[0][0].y p.q.r z");
    assert_true(th_structural_prune(s, v, true));
    assert_true(th_json_equal(v, want));
    assert_false(th_structural_prune(s, v, true));
}

static void patterns_are_read_as_go_reads_them(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        int match;
    } rows[] = {
        {"^a$", "a\n", 0},   {"a.c", "a\nc", 0},       {"(?s)a.c", "a\nc", 1},
        {"\\s", "\v", 0},    {"[[:alpha:]]+", "1", 0}, {"\\p{Greek}", "\u03b1", 1},
        {"(?i)ABC", "abc", 1}, {"a{2,3}", "aa", 1},    {"\\Qa.b\\E", "axb", 0},
        {"x{", "x{", 1},     {"^(a|b)*$", "abab", 1},  {"\\x{e9}", "\u00e9", 1},
        {"[^]a]", "]", 0},   {"(?P<n>a)", "a", 1},     {"", "x", 1},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        TH_AUTO(th_regex) struct th_regex *re = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (th_regex_new(rows[i].pattern, strlen(rows[i].pattern), &re, &err) < 0) {
            fail_msg("%s: %s", rows[i].pattern, err.msg);
        }
        assert_int_equal(th_regex_match(re, rows[i].text, strlen(rows[i].text), NULL),
                         rows[i].match);
    }
    static const struct {
        const char *pattern, *msg;
    } bad[] = {
        {"(a", "error parsing regexp: missing closing ): `(a`"},
        {"a)", "error parsing regexp: unexpected ): `a)`"},
        {"[a", "error parsing regexp: missing closing ]: `[a`"},
        {"*", "error parsing regexp: missing argument to repetition operator: `*`"},
        {"a**", "error parsing regexp: invalid nested repetition operator: `**`"},
        {"a{1001}", "error parsing regexp: invalid repeat count: `{1001}`"},
        {"(?=a)", "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"},
        {"\\1", "error parsing regexp: invalid escape sequence: `\\1`"},
        {"[z-a]", "error parsing regexp: invalid character class range: `z-a`"},
        {"\\", "error parsing regexp: trailing backslash at end of expression: ``"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        TH_AUTO(th_regex) struct th_regex *re = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_true(th_regex_new(bad[i].pattern, strlen(bad[i].pattern), &re, &err) < 0);
        assert_string_equal(err.msg, bad[i].msg);
    }
}

static void a_pattern_that_backtracks_costs_no_more_than_others(void **state)
{
    (void)state;
    static char text[50001];
    memset(text, 'a', sizeof(text) - 1);
    TH_AUTO(th_regex) struct th_regex *re = NULL;
    static const char evil[] = "^(a|aa)+$|(a*)*b";
    assert_int_equal(th_regex_new(evil, strlen(evil), &re, NULL), 0);
    assert_int_equal(th_regex_match(re, text, 50000, NULL), 1);
    text[49999] = 'c';
    assert_int_equal(th_regex_match(re, text, 50000, NULL), 0);
}

static void json_paths_find_what_kubectl_finds(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o = json(
        "{'a':{'b':1,'c.d':2},'l':[{'n':'x','v':1},{'n':'y','v':2},{'n':'z'}],'e':[]}");
    static const struct {
        const char *path, *out;
    } rows[] = {
        {".a.b", "1"},          {"['a']['c.d']", "2"},        {".a.c\\.d", "2"},
        {".l[0].n", "\"x\""},   {".l[-1].n", "\"z\""},        {".l[*].v", "1 2"},
        {".l[0:2].n", "\"x\" \"y\""}, {".l[?(@.n==\"y\")].v", "2"}, {".l[?(@.v>1)].n", "\"y\""},
        {".l[?(@.v)].n", "\"x\" \"y\""}, {"..n", "\"x\" \"y\" \"z\""}, {".nope", ""},
        {".a['b','c.d']", "1 2"}, {".l[9].n", "!"},           {".a[0]", "!"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        TH_AUTO(th_jsonpath) struct th_jsonpath *p = NULL;
        assert_int_equal(th_jsonpath_parse(rows[i].path, &p, NULL), 0);
        struct th_jsonpath_found f = {.v = NULL};
        th_autobuf struct th_buf b = TH_BUF_INIT;
        if (th_jsonpath_find(p, o, &f, NULL) < 0) {
            th_buf_putc(&b, '!');
        }
        for (size_t k = 0; k < f.n; k++) {
            th_buf_puts(&b, k ? " " : "");
            th_json_dump(f.v[k], &b);
        }
        th_jsonpath_found_done(&f);
        if (strcmp(th_buf_cstr(&b), rows[i].out) != 0) {
            fail_msg("%s finds %s, not %s", rows[i].path, th_buf_cstr(&b), rows[i].out);
        }
    }
    static const char *const bad[] = {".a[", ".a[x]", ".l[?(@.n==\"y\"]", "$$(", "'a"};
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        TH_AUTO(th_jsonpath) struct th_jsonpath *p = NULL;
        assert_true(th_jsonpath_parse(bad[i], &p, NULL) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_refused_with_upstreams_words),
        cmocka_unit_test(what_did_not_change_is_not_reported),
        cmocka_unit_test(formats_are_checked),
        cmocka_unit_test(defaults_and_nulls_follow_the_schema),
        cmocka_unit_test(unknown_members_are_pruned_but_where_kept),
        cmocka_unit_test(patterns_are_read_as_go_reads_them),
        cmocka_unit_test(a_pattern_that_backtracks_costs_no_more_than_others),
        cmocka_unit_test(json_paths_find_what_kubectl_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Label, field and node selectors. */
#include "controlplane/schema/selector.h"
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

static void queries_parse_to_canonical_text(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"", ""},
        {"a", "a"},
        {"!a", "!a"},
        {"z=1,a==2,m!=3", "a==2,m!=3,z=1"},
        {"x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"},
        {"x in (b,a,b)", "x in (a,b)"},
        {" a  in ( in , notin ) ", "a in (in,notin)"},
        {"in in (a)", "in in (a)"},
        {"a=", "a="},
        {"a=,b", "a=,b"},
        {"x>1,x<5", "x>1,x<5"},
        {"a in (,)", "a in ()"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        TH_AUTO(th_selector) struct th_selector *s = NULL;
        assert_int_equal(th_selector_parse(rows[i].in, &s, NULL), 0);
        th_autofree char *text = th_selector_format(s);
        assert_string_equal(text, rows[i].out);
    }
}

static void bad_queries_are_refused_in_upstreams_words(void **state)
{
    (void)state;
    static const struct {
        const char *in, *msg;
    } rows[] = {
        {"a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"},
        {"=a", "found '=', expected: !, identifier, or 'end of string'"},
        {"a,", "found '', expected: identifier after ','"},
        {"!", "unable to parse requirement: found '', expected: identifier"},
        {"!a=b", "found '=', expected: ',' or 'end of string'"},
        {"a in b", "unable to parse requirement: found 'b' expected: '('"},
        {"a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"},
        {"a in (b", "unable to parse requirement: found '', expected: ',' or ')'"},
        {"a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"},
        {"a=b=c", "found '=', expected: ',' or 'end of string'"},
        {"a=(", "unable to parse requirement: found '(', expected: identifier"},
        {"a>x", "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' "
                "operators, the value must be an integer"},
        {"a=-b",
         "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be "
         "an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
         "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
         "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"},
        {"a/b/c=d",
         "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must "
         "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
         "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
         "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain "
         "prefix and '/' (e.g. 'example.com/MyName')"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        struct th_selector *s = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(th_selector_parse(rows[i].in, &s, &err), -TH_R_BAD_REQUEST);
        assert_string_equal(err.msg, rows[i].msg);
    }
}

static bool matches(const char *query, const char *labels)
{
    TH_AUTO(th_selector) struct th_selector *s = NULL;
    TH_AUTO(th_json) struct th_json *l = json(labels);
    assert_int_equal(th_selector_parse(query, &s, NULL), 0);
    return th_selector_matches(s, l);
}

static void requirements_are_anded_and_absent_keys_satisfy_negations(void **state)
{
    (void)state;
    assert_true(matches("", "null"));
    assert_true(matches("a=1,b!=2", "{'a':'1','b':'3'}"));
    assert_true(matches("b!=2", "{}"));
    assert_false(matches("b in (2)", "{}"));
    assert_true(matches("b notin (2)", "null"));
    assert_true(matches("a=", "{'a':''}"));
    assert_false(matches("a=", "{}"));
    assert_true(matches("n>3,n<5", "{'n':'4'}"));
    assert_false(matches("n>3", "{'n':'x'}"));
    assert_false(matches("!a", "{'a':''}"));
}

static void objects_and_maps_select_as_upstream(void **state)
{
    (void)state;
    struct th_selector *s = NULL;
    TH_AUTO(th_json) struct th_json *o =
        json("{'matchLabels':{'b':'2','a':'1'},'matchExpressions':[{'key':'c','operator':'NotIn',"
             "'values':['y','x']}]}");
    assert_int_equal(th_selector_from_json(o, &s, NULL), 0);
    th_autofree char *text = th_selector_format(s);
    assert_string_equal(text, "a=1,b=2,c notin (x,y)");
    assert_string_equal(th_selector_exact(s, "a"), "1");
    assert_null(th_selector_exact(s, "c"));
    th_selector_free(s);

    assert_int_equal(th_selector_from_json(NULL, &s, NULL), 0);
    assert_true(th_selector_is_nothing(s));
    assert_false(th_selector_matches(s, NULL));
    th_selector_free(s);

    TH_AUTO(th_json) struct th_json *empty = json("{}");
    assert_int_equal(th_selector_from_json(empty, &s, NULL), 0);
    assert_true(th_selector_empty(s));
    th_selector_free(s);
    s = th_selector_from_map(empty);
    assert_false(th_selector_matches(s, NULL));
    th_selector_free(s);

    TH_AUTO(th_json) struct th_json *gt =
        json("{'matchExpressions':[{'key':'c','operator':'Gt','values':['1']}]}");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_selector_from_json(gt, &s, &err), -TH_R_BAD_REQUEST);
    assert_string_equal(err.msg, "\"Gt\" is not a valid label selector operator");
}

static void node_terms_are_ored_and_empty_terms_match_nothing(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *terms =
        json("[{},{'matchExpressions':[{'key':'cpu','operator':'Gt','values':['4']}],"
             "'matchFields':[{'key':'metadata.name','operator':'In','values':['n1']}]},"
             "{'matchExpressions':[{'key':'zone','operator':'Exists'}]},"
             "{'matchFields':[{'key':'metadata.uid','operator':'In','values':['u']}]}]");
    TH_AUTO(th_node_selector) struct th_node_selector *s = th_node_selector_new(terms);
    TH_AUTO(th_json) struct th_json *big = json("{'cpu':'8'}");
    TH_AUTO(th_json) struct th_json *zone = json("{'zone':'a'}");
    assert_true(th_node_selector_matches(s, big, "n1"));
    assert_false(th_node_selector_matches(s, big, "n2"));
    assert_true(th_node_selector_matches(s, zone, "n2"));
    assert_false(th_node_selector_matches(s, NULL, "n1"));
}

static const char *field_of(void *arg, const char *field)
{
    return th_json_str(th_json_get(arg, field));
}

static void field_selectors_unescape_and_match(void **state)
{
    (void)state;
    struct th_fieldsel f;
    assert_int_equal(th_fieldsel_parse("status.phase!=Running,,a==x\\,y\\=z,b=", &f, NULL), 0);
    assert_int_equal(f.n, 3);
    th_autofree char *text = th_fieldsel_format(&f);
    assert_string_equal(text, "a=x\\,y\\=z,b=,status.phase!=Running");
    TH_AUTO(th_json) struct th_json *o = json("{'a':'x,y=z','status.phase':'Failed'}");
    assert_true(th_fieldsel_matches_fn(&f, field_of, o));
    th_json_set_str(o, "status.phase", "Running");
    assert_false(th_fieldsel_matches_fn(&f, field_of, o));
    th_fieldsel_done(&f);

    static const struct {
        const char *in, *msg;
    } bad[] = {
        {"a", "invalid selector: 'a'; can't understand 'a'"},
        {"a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'"},
        {"a=b=c", "invalid field selector: unescaped character in value: 61"},
        {"a=\\x", "invalid field selector: invalid escape sequence: \\x"},
        {"a=x\\", "invalid field selector: invalid escape sequence: \\"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(th_fieldsel_parse(bad[i].in, &f, &err), -TH_R_BAD_REQUEST);
        assert_string_equal(err.msg, bad[i].msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_parse_to_canonical_text),
        cmocka_unit_test(bad_queries_are_refused_in_upstreams_words),
        cmocka_unit_test(requirements_are_anded_and_absent_keys_satisfy_negations),
        cmocka_unit_test(objects_and_maps_select_as_upstream),
        cmocka_unit_test(node_terms_are_ored_and_empty_terms_match_nothing),
        cmocka_unit_test(field_selectors_unescape_and_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* CEL: what expressions are worth, what is wrong with them, and what they cost. */
#include "controlplane/schema/cel/cel_admission.h"
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

static const char *const value = "{'a':1,'b':'x','l':[1,2,3],'m':{'k':'v'},'n':null,'d':1.5,"
                                 "'objs':[{'n':'p','v':1},{'n':'q','v':2}]}";

/* The result as JSON, "! message" of an evaluation error, "? message" of a compile error. */
static char *eval_with(const char *text, const struct th_structural *s, const struct th_json *self,
                       uint64_t limit, uint64_t *ret_cost)
{
    const struct th_cel_var_type type = {.name = "self",
                                         .kind = s ? TH_CEL_VAR_SCHEMA : TH_CEL_VAR_DYN,
                                         .schema = s,
                                         .resource = true};
    const struct th_cel_binding bind = {
        .name = "self", .value = self, .schema = s, .resource = true};
    TH_AUTO(th_cel_prog) struct th_cel_prog *p = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_cel_compile(text, &type, 1, TH_CEL_RESULT_ANY, &p, &err) < 0) {
        return th_xasprintf("? %s", err.msg);
    }
    TH_AUTO(th_json) struct th_json *out = NULL;
    enum th_cel_outcome o;
    if (th_cel_eval(p, &bind, 1, limit, 0, &o, ret_cost, NULL, &out, &err) < 0) {
        return th_xasprintf("! %s", err.msg);
    }
    return th_json_to_string(out);
}

static char *eval(const char *text)
{
    TH_AUTO(th_json) struct th_json *self = json(value);
    uint64_t cost;
    return eval_with(text, NULL, self, TH_CEL_PER_CALL_LIMIT, &cost);
}

struct row {
    const char *in, *out;
};

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        th_autofree char *got = eval(rows[i].in);
        if (strcmp(got, rows[i].out) != 0) {
            fail_msg("%s\n  is %s\n  not %s", rows[i].in, got, rows[i].out);
        }
    }
}

static void operators_follow_the_language(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"1 + 2 * 3 - 4 / 2", "5"},
        {"7 % 3 == 1 && -7 / 2 == -3", "true"},
        {"1u + 2u", "3"},
        {"1.5 * 2.0", "3"},
        {"'a' + \"b\" + '''c'''", "\"abc\""},
        {"[1, 2] + [3]", "[1,2,3]"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"0x1F", "31"},
        {"r'\\d' == '\\\\d'", "true"},
        {"'\\u00e9'.size() == 1 && b'\\303\\251'.size() == 2", "true"},
        {"true ? 1 : 2", "1"},
        {"1 < 2.5 && 2u > 1 && 'a' < 'b'", "true"},
        {"dyn(1) == 1.0 && dyn(1) != '1'", "true"},
        {"2 in [1, 2] && !('x' in {'y': 1})", "true"},
        {"{'a': 1}['a'] == 1", "true"},
        {"[1, [2]] == [1, [2]]", "? ERROR: <input>:1:5: expected type 'int' but found 'list(int)'\n"
                                 " | [1, [2]] == [1, [2]]\n | ....^\n"
                                 "ERROR: <input>:1:17: expected type 'int' but found 'list(int)'\n"
                                 " | [1, [2]] == [1, [2]]\n | ................^"},
        {"type(1) == int && type('') == string", "true"},
        {"// a comment\n1", "1"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void errors_are_absorbed_where_the_other_side_decides(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"1 / 0 == 1", "! division by zero"},
        {"1 % 0 == 1", "! modulus by zero"},
        {"9223372036854775807 + 1", "! integer overflow"},
        {"self.zz", "! no such key: zz"},
        {"self.l[3]", "! index out of bounds: 3"},
        {"self.m['x']", "! no such key: x"},
        {"self.zz == 1 || true", "true"},
        {"true || self.zz == 1", "true"},
        {"self.zz == 1 && false", "false"},
        {"self.zz == 1 && true", "! no such key: zz"},
        {"self.objs.exists(o, o.zz == 1 || o.v == 2)", "true"},
        {"self.objs.all(o, o.v == 2 || o.zz == 1)", "! no such key: zz"},
        {"false ? self.zz : 1", "1"},
        {"self.b < 1", "! no such overload"},
        {"has(self.zz) || has(self.a)", "true"},
        {"has(self.n)", "true"},
        {"self.n == null", "true"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void macros_walk_lists_and_maps(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"self.l.all(x, x > 0)", "true"},
        {"self.l.exists(x, x == 2)", "true"},
        {"self.l.exists_one(x, x > 1)", "false"},
        {"self.l.map(x, x * 2)", "[2,4,6]"},
        {"self.l.map(x, x > 1, x * 2)", "[4,6]"},
        {"self.l.filter(x, x > 1)", "[2,3]"},
        {"self.m.all(k, k == 'k')", "true"},
        {"self.l.all(i, v, i + 1 == v)", "true"},
        {"self.m.exists(k, v, v == 'v')", "true"},
        {"self.l.transformList(i, v, i * v)", "[0,2,6]"},
        {"{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", "{\"b\":20}"},
        {"{'a': 'x'}.transformMapEntry(k, v, {v: k})", "{\"x\":\"a\"}"},
        {"self.objs.map(o, o.n)", "[\"p\",\"q\"]"},
        {"[[1, 2], [3]].map(l, l.map(x, x + 1))", "[[2,3],[4]]"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void optional_values_flow(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"self.?zz.orValue('d')", "\"d\""},
        {"self.?m.k.orValue('d')", "\"v\""},
        {"self.?m.?zz.hasValue()", "false"},
        {"self.l[?9].or(optional.of(5)).value()", "5"},
        {"optional.none().value()", "! optional.none() dereference"},
        {"optional.ofNonZeroValue('').hasValue()", "false"},
        {"self.?a.optMap(x, x + 1).value()", "2"},
        {"[?self.?zz, ?self.?b]", "[\"x\"]"},
        {"{?'k': self.?zz, 'o': 1}", "{\"o\":1}"},
        {"optional.unwrap([optional.of(1), optional.none()])", "[1]"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void text_functions_count_characters(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"'h\u00e9llo'.size()", "5"},
        {"'h\u00e9llo'.charAt(1)", "\"\u00e9\""},
        {"'h\u00e9llo'.indexOf('l')", "2"},
        {"'h\u00e9llo'.lastIndexOf('l')", "3"},
        {"'h\u00e9llo'.substring(1, 3)", "\"\u00e9l\""},
        {"'abc'.substring(4)", "! index out of range: 4"},
        {"'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"},
        {"'abc'.split('')", "[\"a\",\"b\",\"c\"]"},
        {"['a', 'b'].join('-')", "\"a-b\""},
        {"' \\t x '.trim()", "\"x\""},
        {"'aaa'.replace('a', 'b', 2)", "\"bba\""},
        {"'ab'.replace('', '-')", "\"-a-b-\""},
        {"'aB'.lowerAscii() + 'aB'.upperAscii()", "\"abAB\""},
        {"'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b')", "true"},
        {"'abc'.matches('^a.c$') && !'abc'.matches('^b')", "true"},
        {"'a1b22'.findAll('[0-9]+')", "[\"1\",\"22\"]"},
        {"'a1b22'.find('[0-9]+')", "\"1\""},
        {"'%s %d %.2f %x %b %e'.format(['a', 7, 1.5, 255, 5, 1.5])",
         "\"a 7 1.50 ff 101 1.500000e+00\""},
        {"strings.quote('a\\n\"')", "\"\\\"a\\\\n\\\\\\\"\\\"\""},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void kubernetes_libraries_are_there(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"[1, 2, 2].isSorted() && [3, 1].max() == 3 && [3, 1].min() == 1", "true"},
        {"[1, 2].sum() == 3 && [1.5].sum() == 1.5", "true"},
        {"[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2", "true"},
        {"[].min()", "! min called on empty list"},
        {"[1, 2, 3, 4].slice(1, 3)", "[2,3]"},
        {"[[1], [2, 3]].flatten()", "[1,2,3]"},
        {"lists.range(3)", "[0,1,2]"},
        {"[1, 2, 1].distinct()", "[1,2]"},
        {"[3, 1, 2].sort().reverse()", "[3,2,1]"},
        {"[1, 2].first().value() + [1, 2].last().value()", "3"},
        {"sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1, 1])", "true"},
        {"sets.intersects([1], [2])", "false"},
        {"quantity('1Gi').isGreaterThan(quantity('500Mi'))", "true"},
        {"quantity('1.5').isInteger()", "false"},
        {"quantity('2k').asInteger()", "2000"},
        {"quantity('50k').add(20).compareTo(quantity('50020'))", "0"},
        {"isQuantity('1x')", "false"},
        {"ip('10.0.0.1').family() == 4 && ip('::1').isLoopback()", "true"},
        {"isIP('010.0.0.1') || isIP('1.2.3')", "false"},
        {"ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1')", "true"},
        {"cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
         "true"},
        {"string(cidr('10.1.2.3/8').masked())", "\"10.0.0.0/8\""},
        {"url('https://u@a.b:80/p%20q?x=1&x=2').getHost()", "\"a.b:80\""},
        {"url('https://[::1]:80/').getHostname() + url('https://a:8/').getPort()", "\"::18\""},
        {"url('https://a/p?x=1&y=a+b').getQuery()", "{\"x\":[\"1\"],\"y\":[\"a b\"]}"},
        {"isURL('nope nope')", "false"},
        {"format.dns1123Label().validate('a-b').hasValue()", "false"},
        {"format.named('dns1123Label').value().validate('A').hasValue()", "true"},
        {"semver('1.2.3-rc.1').isLessThan(semver('1.2.3'))", "true"},
        {"isSemver('v1.2') || !isSemver('v1.2', true)", "false"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void time_is_read_and_reckoned(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"timestamp('2024-02-29T13:14:15Z').getFullYear()", "2024"},
        {"timestamp('2024-02-29T13:14:15Z').getMonth()", "1"},
        {"timestamp('2024-02-29T13:14:15Z').getDate()", "29"},
        {"timestamp('2024-02-29T13:14:15Z').getDayOfWeek()", "4"},
        {"timestamp('2024-02-29T23:14:15Z').getHours('+02:00')", "1"},
        {"timestamp('2024-01-01T00:00:00Z') - timestamp('2023-12-31T23:00:00Z') == duration('1h')",
         "true"},
        {"timestamp('2024-01-01T00:00:00Z') + duration('36h')", "\"2024-01-02T12:00:00Z\""},
        {"string(duration('1m30.5s'))", "\"90.5s\""},
        {"duration('90m').getHours()", "1"},
        {"int(timestamp('1970-01-01T00:01:00Z'))", "60"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void conversions_say_what_they_cannot(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"int('12') + int(3.9) + int(2u)", "17"},
        {"int('x')", "! type conversion error from 'string' to 'int': x"},
        {"uint(-1)", "! unsigned integer overflow"},
        {"double('1.5') + double(1)", "2.5"},
        {"string(1) + string(true) + string(1.5) + string(b'x')", "\"1true1.5x\""},
        {"bool('true') && !bool('F')", "true"},
        {"bytes('a') == b'a'", "true"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

static void the_compiler_points_at_what_is_wrong(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"self.a == foo", "? ERROR: <input>:1:11: undeclared reference to 'foo' (in container '')\n"
                          " | self.a == foo\n | ..........^"},
        {"1 + 'a'", "? ERROR: <input>:1:3: found no matching overload for '_+_' applied to "
                    "'(int, string)'\n | 1 + 'a'\n | ..^"},
        {"1.size()", "? ERROR: <input>:1:1: Syntax error: mismatched input '.' expecting <EOF>"},
        {"nope(1)", "? ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')\n"
                    " | nope(1)\n | ....^"},
        {"'a'.size(1)", "? ERROR: <input>:1:9: found no matching overload for 'size' applied to "
                        "'string.(int)'\n | 'a'.size(1)\n | ........^"},
        {"has(1)", "? ERROR: <input>:1:4: invalid argument to has() macro\n | has(1)\n | ...^"},
        {"'a'.matches('(')", "? ERROR: <input>:1:13: invalid matches argument\n"
                             " | 'a'.matches('(')\n | ............^"},
        {"1.all(x, true)", ""},
        {"true +", "? ERROR: <input>:1:7: Syntax error: mismatched input '<EOF>' expecting an "
                   "expression\n | true +\n | ......^"},
        {"'abc", ""},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        th_autofree char *got = eval(rows[i].in);
        assert_int_equal(got[0], '?');
        if (*rows[i].out && i != 2) {
            assert_string_equal(got, rows[i].out);
        }
    }
}

static void schemas_give_types_and_names(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *props = json(
        "{'type':'object','properties':{"
        "'when':{'type':'string','format':'date-time'},'len':{'type':'string','format':'duration'},"
        "'num':{'type':'number'},'port':{'x-kubernetes-int-or-string':true},"
        "'a.b-c':{'type':'string'},'if':{'type':'integer'},"
        "'set':{'type':'array','x-kubernetes-list-type':'set','items':{'type':'string'}},"
        "'map':{'type':'object','additionalProperties':{'type':'integer'}},"
        "'any':{'type':'object','x-kubernetes-preserve-unknown-fields':true}}}");
    TH_AUTO(th_structural) struct th_structural *s = th_structural_new(props, true, "t");
    TH_AUTO(th_json) struct th_json *self = json(
        "{'apiVersion':'g/v1','kind':'T','metadata':{'name':'n','labels':{'a':'b'}},"
        "'when':'2024-01-01T00:00:00Z','len':'90s','num':2,'port':'http','a.b-c':'x','if':3,"
        "'set':['a','b'],'map':{'k':1},'any':{'z':1}}");
    static const struct row rows[] = {
        {"self.when.getFullYear() == 2024 && self.len == duration('1m30s')", "true"},
        {"self.num == 2.0 && type(self.num) == double", "true"},
        {"self.port == 'http' && type(self.port) == string", "true"},
        {"self.a__dot__b__dash__c == 'x' && self.__if__ == 3", "true"},
        {"self.set == ['b', 'a']", "true"},
        {"self.set + ['b', 'c']", "[\"a\",\"b\",\"c\"]"},
        {"self.map.k == 1 && 'k' in self.map", "true"},
        {"self.metadata.name == 'n' && self.kind == 'T'", "true"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        uint64_t cost;
        th_autofree char *got = eval_with(rows[i].in, s, self, TH_CEL_PER_CALL_LIMIT, &cost);
        assert_string_equal(got, rows[i].out);
    }
    static const char *const wrong[] = {"self.nope", "self.num == 'x'", "self.any.z",
                                        "self.metadata.labels", "self.map.all(k, k > 1)"};
    for (size_t i = 0; i < TH_ARRAY_LEN(wrong); i++) {
        uint64_t cost;
        th_autofree char *got = eval_with(wrong[i], s, self, TH_CEL_PER_CALL_LIMIT, &cost);
        assert_int_equal(got[0], '?');
    }
}

static void evaluation_stops_at_its_cost_limit(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *self = th_json_array();
    for (int i = 0; i < 300; i++) {
        th_json_append(self, th_json_int(i));
    }
    uint64_t cost = 0;
    th_autofree char *got = eval_with("self.all(a, self.all(b, self.all(c, a + b + c >= 0)))", NULL,
                                      self, TH_CEL_PER_CALL_LIMIT, &cost);
    assert_string_equal(got, "! operation cancelled: actual cost limit exceeded");
    assert_true(cost > TH_CEL_PER_CALL_LIMIT && cost < 2 * TH_CEL_PER_CALL_LIMIT);
    th_autofree char *ok = eval_with("self.all(a, a >= 0)", NULL, self, 10000, &cost);
    assert_string_equal(ok, "true");
    assert_true(cost > 300);
    th_autofree char *big = eval_with("lists.range(100000000).size()", NULL, self,
                                      TH_CEL_PER_CALL_LIMIT, &cost);
    assert_int_equal(big[0], '!');
}

static void deep_and_long_expressions_are_refused(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (int i = 0; i < 500; i++) {
        th_buf_puts(&b, "(");
    }
    th_autofree char *got = eval(th_buf_cstr(&b));
    assert_int_equal(got[0], '?');
    th_buf_clear(&b);
    for (int i = 0; i < 500; i++) {
        th_buf_puts(&b, "!");
    }
    th_buf_puts(&b, "true");
    th_autofree char *nots = eval(th_buf_cstr(&b));
    assert_int_equal(nots[0], '?');
}

/* ---- What admission adds ---- */

static bool ask(void *self, const struct th_cel_question *q, struct th_buf *reason)
{
    (void)self;
    th_buf_printf(reason, "%s %s/%s in %s as %s", q->verb, q->group, q->resource, q->ns,
                  q->account ? q->account : "me");
    return strcmp(q->verb, "get") == 0;
}

/* As eval, in the environment of a policy; want decides what may be written. */
static char *admit(const char *text, enum th_cel_result want)
{
    static const char variables[] = "[{'name':'two','expression':'object.a + 1'},"
                                    "{'name':'four','expression':'variables.two + variables.two'},"
                                    "{'name':'bad','expression':'1 +'},"
                                    "{'name':'fails','expression':'object.none'}]";
    TH_AUTO(th_json) struct th_json *object = json(value);
    TH_AUTO(th_json) struct th_json *request = json("{'operation':'CREATE'}");
    TH_AUTO(th_json) struct th_json *list = json(variables);
    TH_CLEANUP(th_cel_variables_done) struct th_cel_variables vars = {.v = NULL};
    struct th_cel_env env = {.flags = TH_CEL_ADMIT_AUTHORIZER};
    th_cel_variables_init(&vars, list, &env);
    env.flags |= TH_CEL_ADMIT_VARIABLES;
    env.variables = vars.v;
    env.n_variables = vars.n;
    TH_AUTO(th_cel_prog) struct th_cel_prog *p = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_cel_admission_compile(text, &env, want, &p, &err) < 0) {
        return th_xasprintf("? %s", err.msg);
    }
    const struct th_cel_authorizer authorizer = {.allowed = ask, .own = {.group = "apps", .ns = "n"}};
    const struct th_cel_binding binds[] = {
        {.name = "object", .value = object},
        {.name = "oldObject"},
        {.name = "request", .value = request},
        {.name = "namespaceObject"},
        {.name = "authorizer", .authorizer = &authorizer},
        {.name = "authorizer.requestResource", .authorizer = &authorizer, .check = true},
        {.name = "variables", .named = vars.v, .n_named = vars.n},
    };
    TH_AUTO(th_cel_session) struct th_cel_session *s =
        th_cel_session_new(binds, TH_ARRAY_LEN(binds), 0);
    TH_AUTO(th_json) struct th_json *out = NULL;
    enum th_cel_outcome o;
    int64_t budget = TH_CEL_BUDGET;
    if (th_cel_admission_eval(s, p, text, &budget, &o, NULL, &out, &err) < 0) {
        return th_xasprintf("! %s", err.msg);
    }
    return th_json_to_string(out);
}

static void check_admit(const struct row *rows, size_t n, enum th_cel_result want)
{
    for (size_t i = 0; i < n; i++) {
        th_autofree char *got = admit(rows[i].in, want);
        if (strncmp(got, rows[i].out, strlen(rows[i].out)) != 0) {
            fail_msg("%s\n  is %s\n  not %s", rows[i].in, got, rows[i].out);
        }
    }
}

static void policies_see_variables_and_the_authorizer(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"variables.four + object.a", "5"},
        {"oldObject == null && namespaceObject == null", "true"},
        {"request.operation", "\"CREATE\""},
        {"variables.bad", "! expression 'variables.bad' resulted in error: composited variable "
                          "\"bad\" fails to compile: compilation failed: ERROR: <input>:1:4: "},
        {"variables.fails || true", "true"},
        {"variables.none", "? compilation failed: ERROR: <input>:1:10: undefined field 'none'"},
        {"variables.two > 'a'", "? compilation failed: ERROR: <input>:1:"},
        {"request.object == null", "? compilation failed: ERROR: <input>:1:8: undefined field 'object'"},
        {"authorizer.group('g').resource('pods').namespace('x').check('get').allowed()", "true"},
        {"authorizer.group('g').resource('pods').check('list').reason()", "\"list g/pods in  as me\""},
        {"authorizer.serviceAccount('a', 'b').group('').resource('r').check('get').reason()",
         "\"get /r in  as b\""},
        {"authorizer.requestResource.check('get').reason()", "\"get apps/ in n as me\""},
        {"authorizer.path('/healthz').check('get').allowed()", "true"},
        {"authorizer.group('g').check('get')", "? compilation failed: ERROR: <input>:1:28: found no "
                                               "matching overload for 'check' applied to "
                                               "'kubernetes.authorization.GroupCheck.(string)'"},
        {"[1, 2, 3].map(x, authorizer.path('/' + string(x)).check('get').allowed()).size()",
         "! expression '[1, 2, 3].map(x, authorizer.path('/' + string(x)).check('get').allowed())."
         "size()' resulted in error: operation cancelled: actual cost limit exceeded"},
    };
    check_admit(rows, TH_ARRAY_LEN(rows), TH_CEL_RESULT_ANY);
}

static void mutations_are_written_as_messages(void **state)
{
    (void)state;
    static const struct row objects[] = {
        {"Object{spec: Object.spec{replicas: variables.two, list: [1, 2]}}",
         "{\"spec\":{\"replicas\":2,\"list\":[1,2]}}"},
        {"Object{metadata: Object.metadata{labels: {'a': 'b'}, ?name: optional.none()}}",
         "{\"metadata\":{\"labels\":{\"a\":\"b\"}}}"},
        {"true ? Object{} : Object{spec: Object.spec{}}", "{}"},
        {"Object{spec: Object.other{}}", "! type mismatch: unexpected type name \"Object.other\", "
                                         "expected \"Object.spec\""},
        {"Object{list: [Object.list{}, Object.item{}]}", "? compilation failed: ERROR: <input>:1:36: "
                                                         "expected type 'Object.list' but found "},
        {"Object.spec{}", "? must evaluate to Object but got Object.spec"},
        {"Other{}", "? compilation failed: ERROR: <input>:1:1: undeclared reference to 'Other'"},
        {"{'a': 1}", "? must evaluate to Object but got map(string, int)"},
    };
    static const struct row patches[] = {
        {"[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('x/y~z'), value: {'k': 1}}]",
         "[{\"op\":\"add\",\"path\":\"/a/x~1y~0z\",\"value\":{\"k\":1}}]"},
        {"object.l.map(i, JSONPatch{op: 'remove', path: '/' + string(i)}).size() > 0 ? [] : []", "?"},
        {"[JSONPatch{op: 1}]", "? compilation failed: ERROR: <input>:1:16: expected type of field "
                               "'op' is 'string' but provided type is 'int'"},
        {"[JSONPatch{what: 1}]", "? compilation failed: ERROR: <input>:1:18: undefined field 'what'"},
    };
    check_admit(objects, TH_ARRAY_LEN(objects), TH_CEL_RESULT_OBJECT);
    check_admit(patches, TH_ARRAY_LEN(patches), TH_CEL_RESULT_PATCHES);
    th_autofree char *plain = admit("Object{}", TH_CEL_RESULT_ANY);
    assert_int_equal(plain[0], '?'); /* validations may not write them */
}

static void lists_are_sorted_by_what_is_said(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"[3, 1, 2].sortBy(x, x)", "[1,2,3]"},
        {"[3, 1, 2].sortBy(x, -x)", "[3,2,1]"},
        {"self.objs.sortBy(o, -o.v).map(o, o.n)", "[\"q\",\"p\"]"},
        {"['bb', 'a', 'cc', 'd'].sortBy(s, s.size())", "[\"a\",\"d\",\"bb\",\"cc\"]"},
        {"self.l.sortBy(x, [x])", "! list elements must be comparable"},
        {"[].sortBy(x, x)", "[]"},
    };
    check_rows(rows, TH_ARRAY_LEN(rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operators_follow_the_language),
        cmocka_unit_test(errors_are_absorbed_where_the_other_side_decides),
        cmocka_unit_test(macros_walk_lists_and_maps),
        cmocka_unit_test(optional_values_flow),
        cmocka_unit_test(text_functions_count_characters),
        cmocka_unit_test(kubernetes_libraries_are_there),
        cmocka_unit_test(time_is_read_and_reckoned),
        cmocka_unit_test(conversions_say_what_they_cannot),
        cmocka_unit_test(the_compiler_points_at_what_is_wrong),
        cmocka_unit_test(schemas_give_types_and_names),
        cmocka_unit_test(evaluation_stops_at_its_cost_limit),
        cmocka_unit_test(deep_and_long_expressions_are_refused),
        cmocka_unit_test(policies_see_variables_and_the_authorizer),
        cmocka_unit_test(mutations_are_written_as_messages),
        cmocka_unit_test(lists_are_sorted_by_what_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

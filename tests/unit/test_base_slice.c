/* base/json/slice: agrees with the parser on good text, never reads past the end of any text. */
#include "base/json/json.h"
#include "base/json/slice.h"
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char pod[] =
    "{ \"kind\":\"Pod\" ,\"metadata\":{\"name\":\"web-0\",\"labels\":{\"a\":\"1\",\"b]\":\"}\"},"
    "\"annotations\":{\"q\":\"say \\\"x\\\" \\\\\"}},\"n\":-12.5e3,\"t\":true,\"z\":null,"
    "\"list\":[1,\"two\",{\"three\":[3,[]]},[ ],{}],\"empty\":{},\"none\":[ ]}";

static void walk(struct th_str text, const struct th_json *tree)
{
    struct th_json_slice s = TH_JSON_SLICE(text);
    struct th_str name;
    struct th_str value;
    size_t n = 0;
    bool object = th_json_is(tree, TH_JSON_OBJECT);
    while (object ? th_json_slice_member(&s, &name, &value) : th_json_slice_element(&s, &value)) {
        struct th_json *expected = th_json_at(tree, n);
        if (object) {
            th_autofree char *z = th_xstrndup(name.p, name.n);
            expected = th_json_get(tree, z);
        }
        TH_AUTO(th_json) struct th_json *got = NULL;
        assert_int_equal(th_json_parse(value.p, value.n, NULL, &got, NULL), 0);
        assert_true(th_json_equal(got, expected));
        if (th_json_is(expected, TH_JSON_OBJECT) || th_json_is(expected, TH_JSON_ARRAY)) {
            walk(value, expected);
        }
        n++;
    }
    assert_int_equal(n, th_json_len(tree));
    assert_true(th_json_slice_ended(&s));
}

static void every_value_is_the_one_the_parser_sees(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *tree = NULL;
    assert_int_equal(th_json_parse_cstr(pod, &tree, NULL), 0);
    walk(TH_STR(pod), tree);
}

static void values_are_found_by_name_and_path(void **state)
{
    (void)state;
    static const struct {
        const char *path, *value; /* NULL: absent */
    } cases[] = {
        {"kind", "\"Pod\""},
        {"metadata.name", "\"web-0\""},
        {"metadata.labels", "{\"a\":\"1\",\"b]\":\"}\"}"},
        {"metadata.labels.a", "\"1\""},
        {"n", "-12.5e3"},
        {"z", "null"},
        {"metadata.missing", NULL},
        {"kind.x", NULL},
        {"list.x", NULL},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        struct th_str v = th_json_slice_path(TH_STR(pod), cases[i].path);
        if (cases[i].value) {
            assert_true(th_str_eq(v, th_str_of(cases[i].value)));
        } else {
            assert_null(v.p);
        }
    }
    struct th_str name = th_json_slice_text(th_json_slice_path(TH_STR(pod), "metadata.name"));
    assert_true(th_str_eq(name, TH_STR("web-0")));
    assert_null(th_json_slice_text(th_json_slice_get(TH_STR(pod), "n")).p);
    assert_null(th_json_slice_text(th_json_slice_path(TH_STR(pod), "metadata.annotations.q")).p);
}

/* Walks all of it, members or elements, values included, and ignores what it finds. */
static void walk_blindly(struct th_str text, int depth)
{
    struct th_str name;
    struct th_str value;
    struct th_json_slice o = TH_JSON_SLICE(text);
    while (depth < 6 && th_json_slice_member(&o, &name, &value)) {
        walk_blindly(value, depth + 1);
    }
    (void)th_json_slice_ended(&o);
    struct th_json_slice a = TH_JSON_SLICE(text);
    while (depth < 6 && th_json_slice_element(&a, &value)) {
        walk_blindly(value, depth + 1);
    }
    (void)th_json_slice_text(text);
}

/* The memory is exactly as long as the text, so that a sanitizer sees a step too far. */
static void broken_text_ends_the_walk(void **state)
{
    (void)state;
    size_t len = sizeof(pod) - 1;
    for (size_t n = 0; n < len; n++) {
        th_autofree char *cut = th_xmemdup(pod, n);
        struct th_str text = {cut, n};
        walk_blindly(text, 0);
        struct th_json_slice s = TH_JSON_SLICE(text);
        struct th_str name;
        struct th_str value;
        while (th_json_slice_member(&s, &name, &value)) {
        }
        assert_false(th_json_slice_ended(&s));
    }
    th_rand_seed(9);
    for (int i = 0; i < 3000; i++) {
        th_autofree char *copy = th_xmemdup(pod, len);
        for (int j = 0; j < 3; j++) {
            copy[th_rand_below(len)] = "{}[]\",:\\ x"[th_rand_below(10)];
        }
        walk_blindly((struct th_str){copy, len}, 0);
    }
    walk_blindly((struct th_str){NULL, 0}, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_is_the_one_the_parser_sees),
        cmocka_unit_test(values_are_found_by_name_and_path),
        cmocka_unit_test(broken_text_ends_the_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

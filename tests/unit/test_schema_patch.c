/* JSON patch, merge patch and strategic merge patch. */
#include "controlplane/schema/patch.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "tests/unit/random_object.h"

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

enum how { JSON_PATCH, MERGE, STRATEGIC };

static int run(enum how how, const char *kind, const char *obj, const char *patch,
               struct th_json **ret, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = json(obj);
    TH_AUTO(th_json) struct th_json *p = json(patch);
    th_autofree char *before = th_json_to_string(o), *patch_before = th_json_to_string(p);
    int rc = how == JSON_PATCH ? th_json_patch(o, p, ret, err)
             : how == MERGE    ? th_merge_patch(o, p, ret, err)
                               : th_strategic_merge(th_kind_find("", "v1", kind)->type, o, p, ret,
                                                    err);
    th_autofree char *after = th_json_to_string(o), *patch_after = th_json_to_string(p);
    assert_string_equal(before, after);
    assert_string_equal(patch_before, patch_after);
    return rc;
}

static void expect(enum how how, const char *kind, const char *obj, const char *patch,
                   const char *want)
{
    struct th_json *got = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *expected = json(want);
    if (run(how, kind, obj, patch, &got, &err) < 0) {
        fail_msg("%s: %s", patch, err.msg);
    }
    if (!th_json_equal(got, expected)) {
        th_autofree char *text = th_json_to_string(got);
        fail_msg("%s gives %s", patch, text);
    }
    th_json_unref(got);
}

static void refuse(enum how how, const char *kind, const char *obj, const char *patch,
                   enum th_reason reason, const char *msg)
{
    struct th_json *got = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(run(how, kind, obj, patch, &got, &err), -(int)reason);
    assert_null(got);
    assert_string_equal(err.msg, msg);
}

static void json_patch_operations_act_as_upstreams_library(void **state)
{
    (void)state;
    static const struct {
        const char *obj, *ops, *want;
    } rows[] = {
        {"{'a':1}", "[{'op':'add','path':'/b','value':2}]", "{'a':1,'b':2}"},
        {"{'l':[1,3]}", "[{'op':'add','path':'/l/1','value':2}]", "{'l':[1,2,3]}"},
        {"{'l':[1]}", "[{'op':'add','path':'/l/-','value':2}]", "{'l':[1,2]}"},
        {"{'l':[1,2]}", "[{'op':'remove','path':'/l/-1'}]", "{'l':[1]}"},
        {"{}", "[{'op':'replace','path':'/new','value':1}]", "{'new':1}"},
        {"{'a':{'b':1}}", "[{'op':'move','from':'/a/b','path':'/c'}]", "{'a':{},'c':1}"},
        {"{'a':[1]}", "[{'op':'copy','from':'/a','path':'/b'}]", "{'a':[1],'b':[1]}"},
        {"{'a/b':{'~':1}}", "[{'op':'replace','path':'/a~1b/~0','value':2}]", "{'a/b':{'~':2}}"},
        {"{'a':1}", "[{'op':'test','path':'/x','value':null},{'op':'test','path':'/a','value':1}]",
         "{'a':1}"},
        {"{'a':1}", "[{'op':'replace','path':'','value':{'z':1}}]", "{'z':1}"},
        {"{'a':1}", "[]", "{'a':1}"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        expect(JSON_PATCH, NULL, rows[i].obj, rows[i].ops, rows[i].want);
    }
}

static void failing_json_patches_are_unprocessable_and_say_why_in_the_hint(void **state)
{
    (void)state;
    static const struct {
        const char *ops, *hint;
    } rows[] = {
        {"[{'op':'test','path':'/a','value':2}]", "testing value /a failed: test failed"},
        {"[{'op':'remove','path':'/x'}]", "Unable to remove nonexistent key: x: missing value"},
        {"[{'op':'add','path':'/x/y','value':1}]",
         "add operation does not apply: doc is missing path: \"/x/y\": missing value"},
        {"[{'op':'add','path':'/l/5','value':1}]",
         "Unable to access invalid index: 5: invalid index referenced"},
        {"[{'op':'swap','path':'/a'}]", "Unexpected kind: swap"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        struct th_json *got = NULL;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(run(JSON_PATCH, NULL, "{'a':1,'l':[]}", rows[i].ops, &got, &err),
                         -TH_R_INVALID);
        assert_string_equal(err.msg,
                            "the server rejected our request due to an error in our request");
        assert_string_equal(err.hint, rows[i].hint);
    }
    refuse(JSON_PATCH, NULL, "{}", "{'op':'add'}", TH_R_BAD_REQUEST,
           "error decoding patch: json: cannot unmarshal object into Go value of type "
           "[]handlers.jsonPatchOp");
}

static void json_patch_limits_hold(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *ops = th_json_array();
    for (int i = 0; i < 10001; i++) {
        th_json_append(ops, th_json_build("{'op':'test','path':'/x','value':null}"));
    }
    TH_AUTO(th_json) struct th_json *obj = th_json_object();
    struct th_json *got = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_json_patch(obj, ops, &got, &err), -TH_R_TOO_LARGE);
    assert_string_equal(err.msg, "Request entity too large: The allowed maximum operations in a "
                                 "JSON patch is 10000, got 10001");
    /* Each copy doubles the document. */
    TH_AUTO(th_json) struct th_json *bomb = th_json_array();
    for (int i = 0; i < 64; i++) {
        th_autofree char *path = th_xasprintf("/a/x%d", i);
        th_json_append(bomb, th_json_build("{'op':'copy','from':'/a','path':%s}", path));
    }
    TH_AUTO(th_json) struct th_json *small = json("{'a':{'b':1}}");
    assert_int_equal(th_json_patch(small, bomb, &got, NULL), -TH_R_INVALID);
}

static void merge_patches_replace_remove_and_prune(void **state)
{
    (void)state;
    expect(MERGE, NULL, "{'a':{'b':1,'c':2},'d':[1]}", "{'a':{'b':null,'x':3},'d':[2]}",
           "{'a':{'c':2,'x':3},'d':[2]}");
    expect(MERGE, NULL, "{}", "{'a':{'b':null,'c':[{'d':null}]}}", "{'a':{'c':[{}]}}");
    expect(MERGE, NULL, "{'a':1}", "{'a':{'b':null}}", "{'a':{}}");
    refuse(MERGE, NULL, "{}", "null", TH_R_BAD_REQUEST, "Invalid JSON Patch");
    refuse(MERGE, NULL, "{}", "[]", TH_R_BAD_REQUEST,
           "error decoding patch: json: cannot unmarshal array into Go value of type "
           "map[string]interface {}");
}

static void strategic_patches_follow_the_field_tables(void **state)
{
    (void)state;
    static const struct {
        const char *kind, *obj, *patch, *want;
    } rows[] = {
        /* merged by key, the patch's element first */
        {"Pod", "{'spec':{'containers':[{'name':'a','image':'1'},{'name':'b'}]}}",
         "{'spec':{'containers':[{'name':'b','image':'2'}]}}",
         "{'spec':{'containers':[{'name':'a','image':'1'},{'name':'b','image':'2'}]}}"},
        {"Pod", "{'spec':{'containers':[{'name':'a'},{'name':'b'}]}}",
         "{'spec':{'containers':[{'name':'a','$patch':'delete'}]}}",
         "{'spec':{'containers':[{'name':'b'}]}}"},
        {"Pod", "{'spec':{'containers':[{'name':'a'},{'name':'b'}]}}",
         "{'spec':{'containers':[{'name':'c'},{'$patch':'replace'}]}}",
         "{'spec':{'containers':[{'name':'c'}]}}"},
        /* lists that do not merge are replaced */
        {"Pod", "{'spec':{'tolerations':[{'key':'a'}]}}", "{'spec':{'tolerations':[{'key':'b'}]}}",
         "{'spec':{'tolerations':[{'key':'b'}]}}"},
        {"Pod", "{'metadata':{'finalizers':['a','b']}}",
         "{'metadata':{'$deleteFromPrimitiveList/finalizers':['a']}}",
         "{'metadata':{'finalizers':['b']}}"},
        {"Pod", "{'metadata':{'finalizers':['a','b']}}", "{'metadata':{'finalizers':['c','b']}}",
         "{'metadata':{'finalizers':['c','a','b']}}"},
        {"Pod", "{'spec':{'containers':[{'name':'a'},{'name':'b'},{'name':'s'}]}}",
         "{'spec':{'$setElementOrder/containers':[{'name':'b'},{'name':'a'}]}}",
         "{'spec':{'containers':[{'name':'b'},{'name':'a'},{'name':'s'}]}}"},
        {"Pod", "{'spec':{'volumes':[{'name':'v','hostPath':{'path':'/x'}}]}}",
         "{'spec':{'volumes':[{'name':'v','emptyDir':{},'$retainKeys':['name','emptyDir']}]}}",
         "{'spec':{'volumes':[{'name':'v','emptyDir':{}}]}}"},
        {"Pod", "{'metadata':{'labels':{'a':'1','b':'2'}}}",
         "{'metadata':{'labels':{'a':null,'$patch':'replace','c':'3'}}}",
         "{'metadata':{'labels':{'a':null,'c':'3'}}}"},
        {"Pod", "{'metadata':{'labels':{'a':'1'}}}", "{'metadata':{'labels':{'$patch':'delete'}}}",
         "{'metadata':{'labels':{}}}"},
        {"Pod", "{'metadata':{'labels':{'a':'1'}}}", "{'metadata':{'labels':{'a':null,'b':'2'}}}",
         "{'metadata':{'labels':{'b':'2'}}}"},
        {"Service", "{'spec':{'ports':[{'port':80,'name':'x'}]}}",
         "{'spec':{'ports':[{'port':80,'name':'y'},{'port':81}]}}",
         "{'spec':{'ports':[{'port':80,'name':'y'},{'port':81}]}}"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(rows); i++) {
        expect(STRATEGIC, rows[i].kind, rows[i].obj, rows[i].patch, rows[i].want);
    }
}

static void strategic_faults_have_upstreams_words(void **state)
{
    (void)state;
    refuse(STRATEGIC, "Pod", "{'spec':{'containers':[{'name':'a'}]}}",
           "{'spec':{'containers':[{'image':'x'}]}}", TH_R_INTERNAL,
           "map: map[image:x] does not contain declared merge key: name");
    refuse(STRATEGIC, "Pod", "{'spec':{}}", "{'spec':{'$patch':'merge'}}", TH_R_INTERNAL,
           "unknown patch type: merge in map: map[$patch:merge]");
    refuse(STRATEGIC, "Pod", "{'spec':{'zzz':{}}}", "{'spec':{'zzz':{}}}", TH_R_INTERNAL,
           "unable to find api field in struct PodSpec for the json field \"zzz\"");
    refuse(STRATEGIC, "Pod", "{}", "{'x':1,'$retainKeys':['y']}", TH_R_BAD_REQUEST,
           "invalid patch format of retainKeys");
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    struct th_json *got = NULL;
    assert_int_equal(th_strategic_merge(NULL, o, o, &got, NULL), -TH_R_BAD_REQUEST);
}

static void merged(const struct th_kind *k, const struct th_json *o, const struct th_json *patch,
                   struct th_json **ret)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_strategic_merge(k->type, o, patch, ret, &err) < 0) {
        fail_msg("%s: %s", k->kind, err.msg);
    }
}

/* What a patch says is so afterwards, except for what lists merge: there it is among the rest. */
static bool contains(const struct th_json *have, const struct th_json *want)
{
    if (th_json_is(want, TH_JSON_OBJECT)) {
        struct th_json_iter it = TH_JSON_ITER(want);
        while (th_json_next(&it)) {
            if (!contains(th_json_get(have, it.name), it.value)) {
                return false;
            }
        }
        return th_json_is(have, TH_JSON_OBJECT);
    }
    for (size_t i = 0; i < th_json_len(want) && th_json_is(want, TH_JSON_ARRAY); i++) {
        bool found = false;
        for (size_t j = 0; j < th_json_len(have) && !found; j++) {
            found = contains(th_json_at(have, j), th_json_at(want, i));
        }
        if (!found) {
            return false;
        }
    }
    return th_json_is(want, TH_JSON_ARRAY) || th_json_equal(have, want);
}

static void check_strategic_laws(const struct th_kind *k)
{
    TH_AUTO(th_json) struct th_json *o = random_config(k, "v1");
    TH_AUTO(th_json) struct th_json *p = random_config(k, "v1");
    TH_AUTO(th_json) struct th_json *nothing = th_json_object();
    TH_AUTO(th_json) struct th_json *o_before = th_json_dup(o);
    TH_AUTO(th_json) struct th_json *p_before = th_json_dup(p);
    struct th_json *same = NULL, *itself = NULL, *once = NULL, *twice = NULL;
    merged(k, o, nothing, &same);
    assert_true(th_json_equal(o, same));
    merged(k, o, o, &itself);
    assert_true(th_json_equal(o, itself));
    merged(k, o, p, &once);
    merged(k, once, p, &twice);
    if (!th_json_equal(once, twice) || !contains(once, p)) {
        th_autofree char *x = th_json_to_string(o), *y = th_json_to_string(p);
        th_autofree char *z = th_json_to_string(once), *w = th_json_to_string(twice);
        fail_msg("%s:\n%s\n%s\n%s\n%s", k->kind, x, y, z, w);
    }
    assert_true(th_json_equal(o, o_before) && th_json_equal(p, p_before));
    th_json_unref(same);
    th_json_unref(itself);
    th_json_unref(once);
    th_json_unref(twice);
}

static void strategic_merge_is_idempotent_for_random_objects_of_every_kind(void **state)
{
    (void)state;
    th_rand_seed(20261123);
    for (size_t i = 0; th_kind_at(i); i++) {
        const struct th_kind *k = th_kind_at(i);
        for (int round = 0; round < 8 && !k->is_list && th_type_path(k->type, "metadata.name");
             round++) {
            check_strategic_laws(k);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_patch_operations_act_as_upstreams_library),
        cmocka_unit_test(failing_json_patches_are_unprocessable_and_say_why_in_the_hint),
        cmocka_unit_test(json_patch_limits_hold),
        cmocka_unit_test(merge_patches_replace_remove_and_prune),
        cmocka_unit_test(strategic_patches_follow_the_field_tables),
        cmocka_unit_test(strategic_faults_have_upstreams_words),
        cmocka_unit_test(strategic_merge_is_idempotent_for_random_objects_of_every_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What objects use of quotas, and which a scope means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "controlplane/schema/quota.h"

static int64_t uses(const char *group, const char *plural, const char *obj, const char *name)
{
    TH_AUTO(th_json) struct th_json *o = th_json_build(obj);
    struct th_amounts a TH_CLEANUP(th_amounts_done) = {NULL, 0};
    th_quota_usage(group, plural, o, &a);
    return th_amounts_get(&a, name);
}

#define DEVICES(requests) "{'spec':{'devices':{'requests':[" requests "]}}}"

static void a_device_claim_uses_what_it_could_get_at_most(void **state)
{
    (void)state;
    static const struct {
        const char *claim;
        int64_t a, b;
    } cases[] = {
        {DEVICES("{'exactly':{'deviceClassName':'a','allocationMode':'ExactCount','count':2}}"), 2, 0},
        {DEVICES("{'exactly':{'deviceClassName':'a','allocationMode':'All'}}"), 32, 0},
        {DEVICES("{'exactly':{'deviceClassName':'a'}},{'exactly':{'deviceClassName':'a','count':3}}"), 4, 0},
        {DEVICES("{'firstAvailable':[{'deviceClassName':'a','count':3},{'deviceClassName':'b','count':2},"
                 "{'deviceClassName':'a','count':1}]},{'exactly':{'deviceClassName':'b'}}"), 3, 3},
        {DEVICES("{'exactly':{'deviceClassName':'a','allocationMode':'Later','count':9}}"), 0, 0},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        const char *g = "resource.k8s.io", *p = "resourceclaims", *c = cases[i].claim;
        assert_int_equal(uses(g, p, c, "a.deviceclass.resource.k8s.io/devices"), cases[i].a);
        assert_int_equal(uses(g, p, c, "b.deviceclass.resource.k8s.io/devices"), cases[i].b);
        assert_int_equal(uses(g, p, c, "count/resourceclaims.resource.k8s.io"), 1);
    }
}

static void a_volume_claim_uses_what_it_was_given(void **state)
{
    (void)state;
    const char *o = "{'metadata':{'annotations':{'volume.beta.kubernetes.io/storage-class':'old'}},'spec':{"
                    "'storageClassName':'new','resources':{'requests':{'storage':'1Ki'}}},"
                    "'status':{'allocatedResources':{'storage':'2Ki'}}}";
    assert_int_equal(uses("", "persistentvolumeclaims", o, "requests.storage"), 2048);
    assert_int_equal(uses("", "persistentvolumeclaims", o,
                          "old.storageclass.storage.k8s.io/requests.storage"), 2048);
}

static bool covers(const char *scope, const char *op, const char *values, const char *plural,
                   const char *obj)
{
    TH_AUTO(th_json) struct th_json *o = th_json_build(obj);
    TH_AUTO(th_json) struct th_json *list = th_json_build(values);
    TH_AUTO(th_json) struct th_json *q = th_json_build(
        "{'spec':{'scopeSelector':{'matchExpressions':[{'scopeName':%s,'operator':%s,'values':%o}]}}}",
        scope, op, th_json_dup(list));
    return th_quota_covers(q, "", plural, o);
}

static void a_scope_means_classes_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *op, *values;
        bool none, gold, gold_to_silver;
    } cases[] = {
        {"Exists", "[]", false, true, true},        {"DoesNotExist", "[]", true, false, false},
        {"In", "['silver']", false, false, true},   {"NotIn", "['silver']", true, true, true},
        {"In", "['gold','x']", false, true, true},  {"NotIn", "['gold','silver']", true, false, false},
    };
    static const char *const vac = "VolumeAttributesClass", *const pvcs = "persistentvolumeclaims";
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        const char *op = cases[i].op, *values = cases[i].values;
        assert_int_equal(covers(vac, op, values, pvcs, "{}"), cases[i].none);
        assert_int_equal(covers(vac, op, values, pvcs, "{'spec':{'volumeAttributesClassName':'gold'}}"),
                         cases[i].gold);
        assert_int_equal(covers(vac, op, values, pvcs,
                                "{'spec':{'volumeAttributesClassName':'gold'},'status':{"
                                "'currentVolumeAttributesClassName':'silver'}}"),
                         cases[i].gold_to_silver);
        assert_int_equal(covers("PriorityClass", op, values, "pods", "{'spec':{}}"), cases[i].none);
        assert_int_equal(covers("PriorityClass", op, values, "pods",
                                "{'spec':{'priorityClassName':'gold'}}"), cases[i].gold);
        assert_false(covers(vac, op, values, "pods", "{'spec':{}}"));
        assert_false(covers("PriorityClass", op, values, pvcs, "{}"));
        assert_false(covers(vac, op, values, "services", "{}"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_claim_uses_what_it_could_get_at_most),
        cmocka_unit_test(a_volume_claim_uses_what_it_was_given),
        cmocka_unit_test(a_scope_means_classes_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

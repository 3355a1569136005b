/* Server-side apply and managedFields: scenarios, and laws on random objects of every kind. */
#include "controlplane/schema/patch.h"
#include "base/rand.h"
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

static struct th_apply_opts opts(const char *manager, bool force)
{
    return (struct th_apply_opts){.type = th_kind_find("apps", "v1", "Deployment")->type,
                                  .api_version = "apps/v1",
                                  .manager = manager,
                                  .subresource = "",
                                  .force = force,
                                  .now_ms = 1700000000000};
}

/* Replaces *obj by the result; the error, if any, stays in err. */
static int apply(struct th_json **obj, const char *manager, bool force, const char *config,
                 struct th_err *err)
{
    struct th_apply_opts o = opts(manager, force);
    TH_AUTO(th_json) struct th_json *c = json(config);
    struct th_json *next = NULL;
    int rc = th_apply(&o, *obj, c, &next, err);
    if (rc == 0) {
        th_json_unref(*obj);
        *obj = next;
    }
    return rc;
}

static void update(struct th_json **obj, const char *manager, const char *config)
{
    struct th_apply_opts o = opts(manager, false);
    struct th_json *next = json(config);
    assert_int_equal(th_managed_fields_update(&o, *obj, next, NULL), 0);
    th_json_unref(*obj);
    *obj = next;
}

/* fieldsV1 of a manager's entry as text; "" when it has none. */
static char *owned(const struct th_json *obj, const char *manager, const char *op)
{
    const struct th_json *list = th_json_path(obj, "metadata.managedFields");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *e = th_json_at(list, i);
        if (th_streq(th_json_path_str(e, "manager"), manager) &&
            th_streq(th_json_path_str(e, "operation"), op)) {
            return th_json_to_string(th_json_get(e, "fieldsV1"));
        }
    }
    return th_xstrdup("");
}

static void assert_owned(const struct th_json *obj, const char *manager, const char *op,
                         const char *fields)
{
    th_autofree char *have = owned(obj, manager, op);
    assert_string_equal(have, fields);
}

#define HEAD "'apiVersion':'apps/v1','kind':'Deployment','metadata':{'name':'d'}"

static void applying_owns_what_it_names_and_only_that(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    assert_int_equal(
        apply(&o, "m", false,
              "{" HEAD ",'spec':{'replicas':1,'template':{'spec':{'containers':[{'name':'c',"
              "'image':'i','ports':[{'containerPort':80}]}]}}}}",
              NULL),
        0);
    assert_owned(o, "m", "Apply",
                 "{\"f:spec\":{\"f:replicas\":{},\"f:template\":{\"f:spec\":{\"f:containers\":{"
                 "\"k:{\\\"name\\\":\\\"c\\\"}\":{\".\":{},\"f:image\":{},\"f:name\":{},\"f:ports\":"
                 "{\"k:{\\\"containerPort\\\":80,\\\"protocol\\\":\\\"TCP\\\"}\":{\".\":{},"
                 "\"f:containerPort\":{}}}}}}}}}");
    th_json_unref(o);
}

static void a_changed_field_of_another_manager_is_a_conflict(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    update(&o, "kubectl-client-side-apply",
           "{" HEAD ",'spec':{'replicas':3,'paused':true,'selector':{'matchLabels':{'a':'b'}}}}");
    assert_int_equal(apply(&o, "m", false, "{" HEAD ",'spec':{'replicas':4}}", &err),
                     -TH_R_CONFLICT);
    assert_string_equal(err.msg, "Apply failed with 1 conflict: conflict with "
                                 "\"kubectl-client-side-apply\" using apps/v1: .spec.replicas");
    assert_int_equal(err.n_causes, 1);
    assert_string_equal(err.causes[0].reason, "FieldManagerConflict");
    assert_string_equal(err.causes[0].field, ".spec.replicas");
    assert_string_equal(err.causes[0].msg,
                        "conflict with \"kubectl-client-side-apply\" using apps/v1");
    assert_int_equal(apply(&o, "m", false, "{" HEAD ",'spec':{'paused':false,'replicas':4}}", &err),
                     -TH_R_CONFLICT);
    assert_string_equal(err.msg, "Apply failed with 2 conflicts: conflicts with "
                                 "\"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n"
                                 "- .spec.replicas");
    /* The same value is no conflict: both own it. */
    assert_int_equal(apply(&o, "m", false, "{" HEAD ",'spec':{'replicas':3}}", &err), 0);
    assert_owned(o, "m", "Apply", "{\"f:spec\":{\"f:replicas\":{}}}");
    /* Force takes it. */
    assert_int_equal(apply(&o, "m", true, "{" HEAD ",'spec':{'replicas':5}}", &err), 0);
    assert_int_equal(th_json_path_int(o, "spec.replicas", 0), 5);
    th_autofree char *left = owned(o, "kubectl-client-side-apply", "Update");
    assert_null(strstr(left, "replicas"));
    assert_non_null(strstr(left, "paused"));
    th_json_unref(o);
}

static void fields_no_longer_applied_go_unless_others_own_them(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    assert_int_equal(apply(&o, "m", false,
                           "{" HEAD ",'spec':{'replicas':1,'paused':true,'minReadySeconds':5}}",
                           NULL),
                     0);
    assert_int_equal(apply(&o, "n", false, "{" HEAD ",'spec':{'paused':true}}", NULL), 0);
    assert_int_equal(apply(&o, "m", false, "{" HEAD ",'spec':{'replicas':1}}", NULL), 0);
    assert_null(th_json_path(o, "spec.minReadySeconds"));
    assert_true(th_json_path_bool(o, "spec.paused", false));
    th_json_unref(o);
}

static void untracked_objects_get_before_first_apply(void **state)
{
    (void)state;
    struct th_json *o = json("{" HEAD ",'spec':{'replicas':3}}");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(apply(&o, "m", false, "{" HEAD ",'spec':{'replicas':4}}", &err),
                     -TH_R_CONFLICT);
    assert_string_equal(err.msg, "Apply failed with 1 conflict: conflict with "
                                 "\"before-first-apply\" using apps/v1: .spec.replicas");
    /* and an update does not begin to track them */
    update(&o, "u", "{" HEAD ",'spec':{'replicas':5}}");
    assert_null(th_json_path(o, "metadata.managedFields"));
    th_json_unref(o);
}

static void updates_take_ownership_and_keep_time_when_nothing_changes(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    update(&o, "u", "{" HEAD ",'spec':{'replicas':3}}");
    th_autofree char *before = th_json_to_string(th_json_path(o, "metadata.managedFields"));
    struct th_apply_opts later = opts("u", false);
    later.now_ms += 60000;
    TH_AUTO(th_json) struct th_json *same = json("{" HEAD ",'spec':{'replicas':3}}");
    assert_int_equal(th_managed_fields_update(&later, o, same, NULL), 0);
    th_autofree char *after = th_json_to_string(th_json_path(same, "metadata.managedFields"));
    assert_string_equal(before, after);
    update(&o, "v", "{" HEAD ",'spec':{'replicas':4}}");
    assert_owned(o, "v", "Update", "{\"f:spec\":{\"f:replicas\":{}}}");
    assert_owned(o, "u", "Update", "");
    /* an empty list forgets everybody, and decoding keeps it until then */
    TH_AUTO(th_json) struct th_json *reset = json("{'metadata':{'managedFields':[]}}");
    th_autostrv struct th_strv unknown = TH_STRV_INIT;
    assert_int_equal(th_schema_decode(later.type, reset, &unknown, NULL), 0);
    assert_true(th_json_has(th_json_get(reset, "metadata"), "managedFields"));
    update(&o, "v",
           "{'apiVersion':'apps/v1','kind':'Deployment','metadata':{'name':'d','managedFields':[]},"
           "'spec':{'replicas':4}}");
    assert_null(th_json_path(o, "metadata.managedFields"));
    th_json_unref(o);
}

static void more_than_ten_updaters_become_ancient_changes(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    for (int i = 0; i < 13; i++) {
        th_autofree char *name = th_xasprintf("u%02d", i);
        TH_AUTO(th_json) struct th_json *next = o ? th_json_dup(o) : json("{" HEAD "}");
        th_autofree char *path = th_xasprintf("metadata.annotations.a%d", i);
        th_json_path_set_str(next, path, "x");
        struct th_apply_opts op = opts(name, false);
        op.now_ms += i * 1000;
        assert_int_equal(th_managed_fields_update(&op, o, next, NULL), 0);
        th_json_unref(o);
        o = th_steal(&next);
    }
    assert_int_equal(th_json_len(th_json_path(o, "metadata.managedFields")), 10);
    assert_owned(o, "ancient-changes", "Update",
                 "{\"f:metadata\":{\"f:annotations\":{\".\":{},\"f:a0\":{},\"f:a1\":{},\"f:a2\":{},"
                 "\"f:a3\":{}}}}");
    th_json_unref(o);
}

static void kubectl_may_take_over_what_client_side_apply_set(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *csa = json(
        "{'apiVersion':'apps/v1','kind':'Deployment','metadata':{'name':'d','annotations':{}},"
        "'spec':{'replicas':3}}");
    th_json_set_str(th_json_path(csa, "metadata.annotations"),
                    "kubectl.kubernetes.io/last-applied-configuration",
                    "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":"
                    "\"d\"},\"spec\":{\"replicas\":3}}");
    struct th_apply_opts u = opts("kubectl-client-side-apply", false);
    assert_int_equal(th_managed_fields_update(&u, NULL, csa, NULL), 0);
    o = th_json_ref(csa);
    assert_int_equal(apply(&o, "other", false, "{" HEAD ",'spec':{'replicas':4}}", &err),
                     -TH_R_CONFLICT);
    assert_int_equal(apply(&o, "kubectl", false, "{" HEAD ",'spec':{'replicas':4}}", &err), 0);
    assert_string_equal(th_json_str(th_json_get(th_json_path(o, "metadata.annotations"),
                                                "kubectl.kubernetes.io/last-applied-configuration")),
                        "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":"
                        "\"d\"},\"spec\":{\"replicas\":4}}\n");
    th_json_unref(o);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    struct th_json *o = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(apply(&o, "m", false,
                           "{'apiVersion':'apps/v1','kind':'Deployment','metadata':{'name':'d',"
                           "'managedFields':[]}}",
                           &err),
                     -TH_R_BAD_REQUEST);
    assert_string_equal(err.msg, "metadata.managedFields must be nil");
    assert_int_equal(apply(&o, "m", false, "{" HEAD ",'spec':{'foo':1}}", &err), -TH_R_UNKNOWN);
    assert_string_equal(err.msg, "failed to create typed patch object (/d; apps/v1, "
                                 "Kind=Deployment): .spec.foo: field not declared in schema");
    assert_int_equal(apply(&o, "m", false,
                           "{" HEAD ",'spec':{'template':{'spec':{'containers':[{'name':'c'},"
                           "{'name':'c'}]}}}}",
                           &err),
                     -TH_R_UNKNOWN);
    assert_string_equal(err.msg,
                        "failed to create typed patch object (/d; apps/v1, Kind=Deployment): "
                        ".spec.template.spec.containers: duplicate entries for key [name=\"c\"]");
    assert_null(o);
}

static void without_a_schema_maps_are_granular_and_lists_atomic(void **state)
{
    (void)state;
    struct th_apply_opts o = {
        .api_version = "x.io/v1", .manager = "m", .subresource = "", .now_ms = 1000};
    TH_AUTO(th_json) struct th_json *c =
        json("{'apiVersion':'x.io/v1','kind':'X','metadata':{'name':'x'},'spec':{'m':{'a':1},"
             "'l':[{'b':2}]}}");
    struct th_json *r = NULL;
    assert_int_equal(th_apply(&o, NULL, c, &r, NULL), 0);
    assert_owned(r, "m", "Apply",
                 "{\"f:spec\":{\".\":{},\"f:l\":{},\"f:m\":{\".\":{},\"f:a\":{}}}}");
    th_json_unref(r);
}

/* ---- Laws, on random objects of every built-in kind ---- */

static struct th_json *without_managers(const struct th_json *o)
{
    struct th_json *c = th_json_dup(o);
    (void)th_json_path_del(c, "metadata.managedFields");
    return c;
}

static void check_laws(const struct th_kind *k)
{
    th_autofree char *version =
        *k->group ? th_xasprintf("%s/%s", k->group, k->version) : th_xstrdup(k->version);
    struct th_apply_opts m = {.type = k->type, .api_version = version, .manager = "m",
                              .subresource = "", .force = true, .now_ms = 1000};
    struct th_apply_opts n = m;
    n.manager = "n";
    TH_AUTO(th_json) struct th_json *a = random_config(k, version);
    TH_AUTO(th_json) struct th_json *b = random_config(k, version);
    struct th_json *one = NULL, *two = NULL, *three = NULL, *four = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_apply(&m, NULL, a, &one, &err) < 0) {
        fail_msg("%s: %s", k->kind, err.msg);
    }
    /* Applying again changes nothing, not even the time. */
    m.now_ms += 60000;
    assert_int_equal(th_apply(&m, one, a, &two, &err), 0);
    if (!th_json_equal(one, two)) {
        th_autofree char *x = th_json_to_string(one), *y = th_json_to_string(two);
        fail_msg("%s: applied again\n%s\n%s", k->kind, x, y);
    }
    /* What another manager takes by force is as it wants it, and no conflict afterwards. */
    assert_int_equal(th_apply(&n, two, b, &three, &err), 0);
    n.force = false;
    assert_int_equal(th_apply(&n, three, b, &four, &err), 0);
    assert_true(th_json_equal(three, four));
    th_json_unref(four);
    /* A manager that lets go of all leaves no trace of what only it owned. */
    TH_AUTO(th_json) struct th_json *nothing =
        th_json_build("{'apiVersion':%s,'kind':%s,'metadata':{'name':'n'}}", version, k->kind);
    assert_int_equal(th_apply(&m, one, nothing, &four, &err), 0);
    th_autofree char *left = owned(four, "m", "Apply");
    assert_string_equal(left, "");
    TH_AUTO(th_json) struct th_json *bare = without_managers(four);
    struct th_json_iter it = TH_JSON_ITER(bare);
    while (th_json_next(&it)) {
        bool kept = strcmp(it.name, "apiVersion") == 0 || strcmp(it.name, "kind") == 0 ||
                    strcmp(it.name, "metadata") == 0;
        assert_true(kept || th_json_len(it.value) == 0);
    }
    th_json_unref(one);
    th_json_unref(two);
    th_json_unref(three);
    th_json_unref(four);
}

static void laws_hold_for_random_objects_of_every_kind(void **state)
{
    (void)state;
    th_rand_seed(20260102);
    for (size_t i = 0; th_kind_at(i); i++) {
        const struct th_kind *k = th_kind_at(i);
        if (!k->is_list && th_type_path(k->type, "metadata.managedFields")) {
            for (int round = 0; round < 4; round++) {
                check_laws(k);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(applying_owns_what_it_names_and_only_that),
        cmocka_unit_test(a_changed_field_of_another_manager_is_a_conflict),
        cmocka_unit_test(fields_no_longer_applied_go_unless_others_own_them),
        cmocka_unit_test(untracked_objects_get_before_first_apply),
        cmocka_unit_test(updates_take_ownership_and_keep_time_when_nothing_changes),
        cmocka_unit_test(more_than_ten_updaters_become_ancient_changes),
        cmocka_unit_test(kubectl_may_take_over_what_client_side_apply_set),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(without_a_schema_maps_are_granular_and_lists_atomic),
        cmocka_unit_test(laws_hold_for_random_objects_of_every_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

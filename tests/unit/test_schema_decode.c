/* Decoding, field validation, defaults, validation and protobuf over the built-in tables. */
#include "controlplane/schema/openapi.h"
#include "controlplane/schema/schema.h"
#include "controlplane/schema/validate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct th_json *parse(const char *text)
{
    struct th_json *o = NULL;
    assert_int_equal(th_json_parse_cstr(text, &o, NULL), 0);
    return o;
}

static const struct th_kind *kind(const char *group, const char *version, const char *name)
{
    const struct th_kind *k = th_kind_find(group, version, name);
    assert_non_null(k);
    return k;
}

static void assert_json(const struct th_json *o, const char *want)
{
    char *text = th_json_to_string(o);
    assert_string_equal(text, want);
    free(text);
}

static void test_tables(void **state)
{
    (void)state;
    for (size_t i = 1; th_type_at(i); i++) {
        assert_true(strcmp(th_type_at(i - 1)->name, th_type_at(i)->name) < 0);
        assert_ptr_equal(th_type_find(th_type_at(i)->name), th_type_at(i));
    }
    const struct th_kind *k;
    for (size_t i = 0; (k = th_kind_at(i)); i++) {
        assert_ptr_equal(th_kind_find(k->group, k->version, k->kind), k);
    }
    k = kind("apps", "v1", "Deployment");
    const struct th_field *f = th_type_path(k->type, "spec.template.spec.containers");
    assert_non_null(f);
    assert_int_equal(f->topology, TH_TOPO_MAP);
    assert_string_equal(f->keys[0], "name");
    assert_string_equal(f->merge_key, "name");
    assert_null(th_type_path(k->type, "spec.nothing"));
    assert_null(th_kind_find("apps", "v2", "Deployment"));
    assert_non_null(th_kind_find("apps", "v1", "DeleteOptions"));
    char *name = th_type_openapi_name(th_type_find("meta.ObjectMeta"));
    assert_string_equal(name, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    free(name);
}

static void test_type_errors(void **state)
{
    (void)state;
    static const struct {
        const char *group, *kind, *text, *want;
    } cases[] = {
        {"apps", "Deployment", "{\"spec\":{\"replicas\":\"3\"}}",
         "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type "
         "int32"},
        {"apps", "Deployment", "{\"spec\":{\"replicas\":1.5}}",
         "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of "
         "type int32"},
        {"apps", "Deployment", "{\"metadata\":{\"labels\":[\"a\"]}}",
         "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type "
         "map[string]string"},
        {"", "Pod", "{\"spec\":{\"volumes\":[{\"name\":\"a\",\"hostPath\":\"x\"}]}}",
         "json: cannot unmarshal string into Go struct field Volume.spec.volumes.VolumeSource."
         "hostPath of type v1.HostPathVolumeSource"},
        {"", "Pod", "{\"spec\":{\"containers\":[{\"ports\":[{\"containerPort\":99999999999}]}]}}",
         "json: cannot unmarshal number 99999999999 into Go struct field ContainerPort.spec."
         "containers.ports.containerPort of type int32"},
        {"", "Pod", "{\"metadata\":{\"creationTimestamp\":\"foo\"}}",
         "parsing time \"foo\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"foo\" as \"2006\""},
        {"", "Secret", "{\"data\":{\"a\":\"%%%\"}}", "illegal base64 data at input byte 0"},
        /* a type's own decoder ends it, whatever was wrong before */
        {"", "Pod",
         "{\"spec\":{\"hostname\":5,\"containers\":[{\"resources\":{\"limits\":{\"cpu\":\"x\"}}}]}}",
         "quantities must match the regular expression "
         "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        TH_AUTO(th_json) struct th_json *o = parse(cases[i].text);
        const struct th_kind *k = kind(cases[i].group, "v1", cases[i].kind);
        assert_int_equal(th_schema_decode(k->type, o, NULL, &err), -TH_R_BAD_REQUEST);
        assert_string_equal(err.msg, cases[i].want);
    }
}

static void test_type_errors_of_maps(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"{'metadata':{'labels':'x'}}", "cannot restore map from string"},
        {"{'metadata':{'labels':{'a':[1]}}}", "unrecognized type: string"},
        {"{'spec':{'containers':'x'}}", "cannot restore slice from string"},
        {"{'spec':{'containers':[1]}}", "cannot restore struct from: int64"},
        {"{'spec':{'containers':[{'name':3}]}}", "cannot convert int64 to string"},
        {"{'spec':{'restartPolicy':3}}", "cannot convert int64 to v1.RestartPolicy"},
        {"{'spec':{'restartPolicy':true}}", "unrecognized type: string"},
        {"{'spec':{'priority':1.5}}", "cannot convert float64 to int32"},
        {"{'spec':{'hostNetwork':'yes'}}", "unrecognized type: bool"},
        /* these read JSON by themselves */
        {"{'metadata':{'creationTimestamp':5}}",
         "json: cannot unmarshal number into Go value of type string"},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        TH_AUTO(th_json) struct th_json *o = th_json_build(cases[i].text);
        const struct th_type *t = kind("", "v1", "Pod")->type;
        assert_int_equal(th_schema_decode_map(t, o, NULL, &err), -TH_R_BAD_REQUEST);
        assert_string_equal(err.msg, cases[i].want);
    }
}

static void test_unknown(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o =
        parse("{\"spec\":{\"foo\":1,\"containers\":[{\"name\":\"a\",\"Image\":\"b\"}]}}");
    th_autostrv struct th_strv unknown = TH_STRV_INIT, dups = TH_STRV_INIT, warn = TH_STRV_INIT;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_schema_decode(kind("", "v1", "Pod")->type, o, &unknown, &err), 0);
    assert_null(th_json_path(o, "spec.foo"));
    th_strv_add(&dups, "spec.hostname");
    th_strv_add(&dups, "spec.foo.a"); /* inside something unknown */
    assert_int_equal(th_schema_field_validation(TH_FV_STRICT, &unknown, &dups, NULL, &err),
                     -TH_R_BAD_REQUEST);
    assert_string_equal(err.msg, "strict decoding error: unknown field \"spec.foo\", unknown field "
                                 "\"spec.containers[0].Image\", duplicate field \"spec.hostname\"");
    assert_int_equal(th_schema_field_validation(TH_FV_WARN, &unknown, &dups, &warn, NULL), 0);
    assert_int_equal(warn.n, 3);
    assert_string_equal(warn.v[0], "unknown field \"spec.foo\"");
    assert_int_equal(th_schema_field_validation(TH_FV_IGNORE, &unknown, &dups, NULL, NULL), 0);
}

static void test_round_trip(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o = parse(
        "{\"spec\":{\"containers\":[{\"resources\":{\"limits\":{\"memory\":\"1024Mi\",\"cpu\":1}}}],"
        "\"hostNetwork\":false,\"priority\":0},\"metadata\":{\"creationTimestamp\":null,"
        "\"labels\":{\"b\":\"\",\"a\":null},\"finalizers\":[]},\"status\":{\"conditions\":[{"
        "\"type\":\"Ready\",\"status\":\"True\"}]}}");
    const struct th_type *t = kind("", "v1", "Pod")->type;
    assert_int_equal(th_schema_decode(t, o, NULL, NULL), 0);
    th_schema_canonicalize(t, o);
    assert_json(o, "{\"metadata\":{\"labels\":{\"a\":\"\",\"b\":\"\"}},\"spec\":{\"containers\":[{"
                   "\"name\":\"\",\"resources\":{\"limits\":{\"cpu\":\"1\",\"memory\":\"1Gi\"}}}],"
                   "\"priority\":0},\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":"
                   "\"True\",\"lastProbeTime\":null,\"lastTransitionTime\":null}]}}");
}

static void test_defaults(void **state)
{
    (void)state;
    TH_AUTO(th_json) struct th_json *o =
        parse("{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":"
              "\"localhost:5000/a\"},{\"name\":\"d\",\"image\":\"a:1\"}]}}}}");
    const struct th_kind *k = kind("apps", "v1", "Deployment");
    assert_int_equal(th_schema_decode(k->type, o, NULL, NULL), 0);
    th_schema_default(k, o);
    assert_int_equal(th_json_path_int(o, "spec.replicas", 0), 1);
    assert_string_equal(th_json_path_str(o, "spec.strategy.rollingUpdate.maxSurge"), "25%");
    assert_string_equal(
        th_json_path_str(o, "spec.template.spec.containers[0].imagePullPolicy"), "Always");
    assert_string_equal(
        th_json_path_str(o, "spec.template.spec.containers[1].imagePullPolicy"), "IfNotPresent");
    assert_null(th_json_path(o, "spec.template.spec.enableServiceLinks")); /* Pods only */
    TH_AUTO(th_json) struct th_json *before = th_json_dup(o);
    th_schema_default(k, o);
    assert_true(th_json_equal(before, o));
    TH_AUTO(th_json) struct th_json *zero = parse("{\"spec\":{\"replicas\":0}}");
    assert_int_equal(th_schema_decode(k->type, zero, NULL, NULL), 0);
    th_schema_default(k, zero);
    assert_int_equal(th_json_path_int(zero, "spec.replicas", 9), 0);
}

static void test_protobuf(void **state)
{
    (void)state;
    const struct th_kind *k = kind("", "v1", "Pod"), *found = NULL;
    TH_AUTO(th_json) struct th_json *o = parse(
        "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\",\"creationTimestamp\":"
        "\"2026-01-02T03:04:05Z\",\"labels\":{\"x\":\"y\"}},\"spec\":{\"volumes\":[{\"name\":\"v\","
        "\"hostPath\":{\"path\":\"/\"}}],\"containers\":[{\"name\":\"c\",\"livenessProbe\":{"
        "\"httpGet\":{\"port\":\"web\"},\"periodSeconds\":-1},\"resources\":{\"limits\":{\"cpu\":"
        "\"500m\"}}}],\"priority\":0},\"status\":{}}");
    assert_int_equal(th_schema_decode(k->type, o, NULL, NULL), 0);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    assert_int_equal(th_pb_encode(k, o, &b, NULL), 0);
    TH_AUTO(th_json) struct th_json *back = NULL;
    assert_int_equal(th_pb_decode(b.p, b.n, NULL, &found, &back, NULL), 0);
    assert_ptr_equal(found, k);
    assert_true(th_json_equal(o, back));
    /* every shorter input is an error or a shorter object, never a crash */
    for (size_t n = 0; n < b.n; n++) {
        TH_AUTO(th_json) struct th_json *part = NULL;
        char *copy = th_xmemdup(b.p, n ? n : 1);
        if (th_pb_decode(copy, n, NULL, NULL, &part, NULL) < 0) {
            assert_null(part);
        }
        free(copy);
    }
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    TH_AUTO(th_json) struct th_json *none = NULL;
    assert_int_equal(th_pb_decode("{}", 2, NULL, NULL, &none, &err), -TH_R_BAD_REQUEST);
}

static void test_openapi(void **state)
{
    (void)state;
    static const struct th_openapi_resource res[] = {
        {"apps", "v1", "Deployment", "deployments", true, 255, NULL, NULL}};
    th_autobuf struct th_buf v3 = TH_BUF_INIT, v2 = TH_BUF_INIT;
    th_openapi_v3("apps", "v1", res, 1, &v3);
    th_openapi_v2(res, 1, &v2);
    TH_AUTO(th_json) struct th_json *doc = parse(th_buf_cstr(&v3));
    TH_AUTO(th_json) struct th_json *old = parse(th_buf_cstr(&v2));
    assert_non_null(th_json_get(old, "definitions"));
    const struct th_json *path =
        th_json_get(th_json_get(doc, "paths"),
                    "/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
    const struct th_json *params = th_json_path(path, "patch.parameters");
    bool validates = false;
    for (size_t i = 0; i < th_json_len(params); i++) {
        const char *name = th_json_path_str(th_json_at(params, i), "name");
        validates = validates || th_streq(name, "fieldValidation");
    }
    assert_true(validates);
    const struct th_json *schemas = th_json_path(doc, "components.schemas");
    const struct th_json *pod = th_json_get(schemas, "io.k8s.api.core.v1.PodSpec");
    assert_string_equal(th_json_str(th_json_get(th_json_path(pod, "properties.containers"),
                                                "x-kubernetes-patch-merge-key")),
                        "name");
    assert_non_null(th_json_get(th_json_get(schemas, "io.k8s.api.apps.v1.Deployment"),
                                "x-kubernetes-group-version-kind"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),     cmocka_unit_test(test_type_errors),
        cmocka_unit_test(test_type_errors_of_maps),
        cmocka_unit_test(test_unknown),    cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_protobuf),   cmocka_unit_test(test_openapi),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

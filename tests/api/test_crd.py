#!/usr/bin/env python3
"""CustomResourceDefinitions and the resources they make, as kubectl and raw requests see them."""
import json
import time
import unittest

from cluster import MODES, Cluster
from hookserver import HookServer

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def crd(plural, kind, spec, group="example.com", scope="Namespaced", status=None, **version):
    props = {"spec": spec}
    if status:
        props["status"] = status
    v = {"name": "v1", "served": True, "storage": True,
         "schema": {"openAPIV3Schema": {"type": "object", "properties": props}}}
    v.update(version)
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": plural + "." + group},
            "spec": {"group": group, "scope": scope, "versions": [v],
                     "names": {"plural": plural, "kind": kind}}}


def obj(kind, name, spec=None, gv="example.com/v1", **more):
    return dict({"apiVersion": gv, "kind": kind, "metadata": {"name": name}, "spec": spec or {}}, **more)


def props(**p):
    return {"type": "object", "properties": p}


STR, INT = {"type": "string"}, {"type": "integer"}
CRON = crd("crontabs", "CronTab", {
    "type": "object", "required": ["cronSpec"], "description": "what runs when", "properties": {
        "cronSpec": {"type": "string", "pattern": "^(\\S+\\s){4}\\S+$", "description": "five fields"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 2},
        "mode": {"type": "string", "enum": ["a", "b"]},
        "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "matrix": {"type": "array", "items": {"type": "array", "items": props(a=INT)}},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "env": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                          "properties": {"name": STR, "value": {"type": "string", "nullable": True}}}},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": STR},
        "tmpl": {"type": "object", "x-kubernetes-embedded-resource": True,
                 "x-kubernetes-preserve-unknown-fields": True}}},
    status=props(replicas=INT, labelSelector=STR,
                 conditions={"type": "array", "items": props(type=STR, status=STR)}),
    subresources={"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                                          "statusReplicasPath": ".status.replicas",
                                          "labelSelectorPath": ".status.labelSelector"}},
    additionalPrinterColumns=[
        {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
    selectableFields=[{"jsonPath": ".spec.mode"}])
CRON["spec"]["names"].update({"shortNames": ["ct"], "categories": ["all"]})
TABS = "/apis/example.com/v1/namespaces/default/crontabs"
OK = "* * * * */5"


class Converter(HookServer):
    """A conversion webhook: v1 has spec.address "host:port", v2 has spec.host and spec.port."""

    def __init__(self, directory):
        super().__init__(directory)
        self.fail = None

    def answer(self, path, request):
        if self.fail:
            return {"uid": request["uid"], "result": {"status": "Failed", "message": self.fail}}
        out = []
        for o in request["objects"]:
            spec = o["spec"]
            if request["desiredAPIVersion"].endswith("/v2"):
                host, port = spec["address"].split(":")
                spec = {"host": host, "port": int(port), "unknown": 1}
            else:
                spec = {"address": "%s:%d" % (spec["host"], spec["port"])}
            meta = dict(o["metadata"], labels={"converted": "yes"}, generation=77)
            out.append(dict(o, apiVersion=request["desiredAPIVersion"], spec=spec, metadata=meta))
        return {"uid": request["uid"], "convertedObjects": out, "result": {"status": "Success"}}


class Crd(unittest.TestCase):
    mode = "memory"

    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(cls.mode)
        s, o = cls.c.api("POST", CRDS, CRON)
        assert s == 201, o

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def define(self, d):
        s, o = self.c.api("POST", CRDS, d)
        self.assertEqual(s, 201, o)
        self.addCleanup(self.c.api, "DELETE", CRDS + "/" + d["metadata"]["name"])
        return o

    def refused(self, got, *messages):
        s, o = got
        self.assertEqual((s, o["reason"]), (422, "Invalid"), o)
        have = ["%s: %s" % (x["field"], x["message"]) for x in o["details"]["causes"]]
        for m in messages:
            self.assertIn(m, have)
        return have

    def conditions(self, o):
        return {x["type"]: (x["status"], x["reason"]) for x in o["status"]["conditions"]}

    def gone(self, path):
        for _ in range(200):
            s, o = self.c.api("GET", path)
            if s == 404:
                return
            time.sleep(0.05)
        self.fail("%s is still there: %s" % (path, o))

    # ---- the definition ----

    def test_a_definition_is_established_when_its_create_returns(self):
        o = self.define(crd("foos", "Foo", props(a=STR)))
        self.assertEqual(self.conditions(o), {"NamesAccepted": ("True", "NoConflicts"),
                                              "Established": ("True", "InitialNamesAccepted")})
        self.assertEqual(o["status"]["acceptedNames"],
                         {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"})
        self.assertEqual(o["status"]["storedVersions"], ["v1"])
        s, o = self.c.api("GET", "/apis/example.com/v1/foos")
        self.assertEqual((s, o["kind"], o["items"]), (200, "FooList", []))

    def test_schemas_that_are_not_structural_are_refused_with_upstreams_words(self):
        bad = crd("bads", "Bad", props(a={}, b={"type": "array"}, m={"type": "string", "pattern": "(a"},
                                       u={"type": "string", "anyOf": [{"type": "string"}]},
                                       s={"type": "array", "x-kubernetes-list-type": "map", "items": STR},
                                       d={"type": "integer", "default": "x"}))
        base = "spec.validation.openAPIV3Schema.properties[spec].properties"
        self.refused(self.c.api("POST", CRDS, bad),
                     base + "[a].type: Required value: must not be empty for specified object fields",
                     base + "[b].items: Required value: must be specified",
                     base + "[m].pattern: Invalid value: \"(a\": must be a valid regular expression, but isn't: "
                     "error parsing regexp: missing closing ): `(a`",
                     base + "[u].anyOf[0].type: Forbidden: must be empty to be structural",
                     base + "[s].x-kubernetes-list-map-keys: Required value: must not be empty if "
                     "x-kubernetes-list-type is map")
        bad = crd("bads", "Bad", props(d={"type": "integer", "default": "x"}, u={"type": "array", "uniqueItems": True,
                                                                               "items": STR}))
        self.refused(self.c.api("POST", CRDS, bad),
                     base + "[d].default: Invalid value: \"string\": " + base +
                     "[d].default in body must be of type integer: \"string\"",
                     base + "[u].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime "
                     "complexity becomes quadratic")

    def test_definitions_can_be_applied_on_the_server(self):
        d = crd("applieds", "Applied", props(list={"type": "array", "items": props(a=INT)},
                                             map={"type": "object", "additionalProperties": STR}))
        self.addCleanup(self.c.api, "DELETE", CRDS + "/applieds.example.com")
        k = self.c.kubectl
        self.assertIn("serverside-applied", k("apply", "--server-side", "-f", "-", stdin=json.dumps(d)))
        d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["list"]["items"] = INT
        self.assertIn("serverside-applied", k("apply", "--server-side", "-f", "-", stdin=json.dumps(d)))
        s, o = self.c.api("GET", CRDS + "/applieds.example.com")
        spec = o["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        self.assertEqual(spec, {"list": {"type": "array", "items": INT},
                                "map": {"type": "object", "additionalProperties": STR}})
        d["metadata"]["labels"] = {"a": "b"}
        self.assertIn("configured", k("apply", "-f", "-", stdin=json.dumps(d)))

    def test_formats_that_are_not_checked_are_warned_about(self):
        d = crd("fmts", "Fmt", props(a={"type": "string", "format": "date-time"}, b={"type": "integer", "format": "int32"},
                                     c={"type": "array", "items": {"type": "string", "format": "odd"}}))
        code, out = self.c.kubectl("create", "-f", "-", stdin=json.dumps(d), ok=False)
        self.addCleanup(self.c.api, "DELETE", CRDS + "/fmts.example.com")
        self.assertEqual((code, out.count("Warning:")), (0, 1), out)
        self.assertIn('Warning: unrecognized format "odd"', out)

    def test_names_and_versions_are_checked(self):
        bad = crd("bads", "Bad", props(a=STR))
        bad["metadata"]["name"] = "other.example.com"
        bad["spec"]["versions"].append(dict(bad["spec"]["versions"][0], name="v2"))
        have = self.refused(self.c.api("POST", CRDS, bad),
                            'metadata.name: Invalid value: "other.example.com": must be '
                            'spec.names.plural+"."+spec.group')
        self.assertTrue([m for m in have if "must have exactly one version marked as storage version" in m])
        bad = crd("bads", "Bad", props(a=STR), group="nodots")
        self.refused(self.c.api("POST", CRDS, bad),
                     'spec.group: Invalid value: "nodots": should be a domain with at least one dot')

    def test_a_name_that_is_taken_is_not_accepted_until_it_is_free(self):
        self.define(crd("ones", "Thing", props(a=STR)))
        o = self.define(crd("twos", "Thing", props(a=STR)))
        self.assertEqual(self.conditions(o), {"NamesAccepted": ("False", "ListKindConflict"),
                                              "Established": ("False", "NotAccepted")})
        self.assertEqual(self.c.api("GET", "/apis/example.com/v1/twos")[0], 404)
        self.c.api("DELETE", CRDS + "/ones.example.com")
        for _ in range(200):
            if self.c.api("GET", "/apis/example.com/v1/twos")[0] == 200:
                break
            time.sleep(0.05)
        o = self.c.api("GET", CRDS + "/twos.example.com")[1]
        self.assertEqual(self.conditions(o)["Established"], ("True", "InitialNamesAccepted"))

    def test_deleting_a_definition_waits_for_its_instances(self):
        self.define(crd("lasts", "Last", props(a=STR)))
        path = "/apis/example.com/v1/namespaces/default/lasts"
        held = obj("Last", "held")
        held["metadata"]["finalizers"] = ["example.com/wait"]
        self.assertEqual(self.c.api("POST", path, held)[0], 201)
        self.assertEqual(self.c.api("POST", path, obj("Last", "plain"))[0], 201)
        s, o = self.c.api("DELETE", CRDS + "/lasts.example.com")
        self.assertEqual((s, o["kind"]), (200, "CustomResourceDefinition"))
        self.assertEqual(o["metadata"]["finalizers"], ["customresourcecleanup.apiextensions.k8s.io"])
        self.assertEqual(self.conditions(o)["Terminating"][0], "True")
        self.gone(path + "/plain")
        s, o = self.c.api("POST", path, obj("Last", "new"))
        self.assertEqual((s, o["message"]), (403, 'lasts.example.com "new" is forbidden: create not allowed while '
                                                  'custom resource definition is terminating'))
        s, o = self.c.api("GET", path + "/held")
        self.assertEqual(s, 200)
        s, o = self.c.api("PATCH", path + "/held", {"metadata": {"finalizers": None}},
                          headers={"Content-Type": "application/merge-patch+json"})
        self.assertEqual(s, 200, o)
        self.gone(CRDS + "/lasts.example.com")
        self.assertEqual(self.c.api("GET", path)[0], 404)

    # ---- objects ----

    def test_kubectl_works_with_custom_resources(self):
        k = self.c.kubectl
        y = json.dumps(obj("CronTab", "k1", {"cronSpec": OK, "mode": "a"}))
        self.assertIn("created", k("apply", "-f", "-", stdin=y))
        self.assertIn("unchanged", k("apply", "-f", "-", stdin=y))
        self.assertIn("configured", k("apply", "-f", "-", stdin=y.replace('"a"', '"b"')))
        self.assertEqual(k("get", "ct", "k1", "-o", "jsonpath={.spec.mode}"), "b")
        self.assertIn("configured", k("apply", "-f", "-", stdin=y))
        out = k("get", "ct").splitlines()
        self.assertEqual(out[0].split(), ["NAME", "SPEC", "REPLICAS", "READY", "AGE"])
        self.assertEqual(out[1].split()[:7], ["k1", "*", "*", "*", "*", "*/5", "2"])
        self.assertIn("crontab.example.com/k1", k("get", "all"))
        self.assertIn("five fields", k("explain", "crontab.spec.cronSpec"))
        self.assertIn("crontabs", k("api-resources", "--api-group=example.com"))
        k("scale", "ct", "k1", "--replicas=5")
        self.assertEqual(k("get", "ct", "k1", "-o", "jsonpath={.spec.replicas}"), "5")
        k("patch", "ct", "k1", "--subresource=status", "--type=merge", "-p",
          '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}')
        self.assertIn("True", k("get", "ct", "k1"))
        self.assertIn("APIVersion defines the group and version", k("explain", "ct"))
        self.assertIn("CreationTimestamp is a timestamp", k("explain", "ct.metadata"))
        self.assertIn("k1", k("get", "ct", "--field-selector", "spec.mode=a"))
        self.assertNotIn("k1", k("get", "ct", "--field-selector", "spec.mode=b"))
        code, out = k("patch", "ct", "k1", "-p", "{}", ok=False)
        self.assertIn("application/strategic-merge-patch+json is not supported by example.com/v1, Kind=CronTab", out)
        code, out = k("apply", "-f", "-", stdin=json.dumps(obj("CronTab", "k2", {"cronSpec": OK, "foo": 1})), ok=False)
        self.assertIn('strict decoding error: unknown field "spec.foo"', out)
        k("delete", "ct", "k1")

    def test_values_are_checked_with_upstreams_words(self):
        spec = {"cronSpec": "no", "replicas": 11, "mode": "z", "port": True, "env": [{"name": "x"}, {"name": "x"}],
                "tags": ["a", "a"], "tmpl": {"metadata": {"name": "x"}}}
        self.refused(self.c.api("POST", TABS, obj("CronTab", "bad", spec)),
                     'spec.cronSpec: Invalid value: "no": spec.cronSpec in body should match \'^(\\S+\\s){4}\\S+$\'',
                     'spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10',
                     'spec.mode: Unsupported value: "z": supported values: "a", "b"',
                     'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"',
                     'spec.env[1]: Duplicate value: {"name":"x"}', 'spec.tags[1]: Duplicate value: "a"',
                     'spec.tmpl.apiVersion: Required value', 'spec.tmpl.kind: Required value')
        s, o = self.c.api("POST", TABS, obj("CronTab", "bad", {"replicas": "x"}))
        self.assertEqual(o["message"], 'CronTab.example.com "bad" is invalid: [spec.replicas: Invalid value: "string": '
                         'spec.replicas in body must be of type integer: "string", spec.cronSpec: Required value, '
                         '.spec.replicas: Invalid value: 0: .spec.replicas accessor error: x is of the type string, '
                         'expected int64]')

    def test_unknown_members_are_pruned_and_defaults_filled(self):
        spec = {"cronSpec": OK, "foo": 1, "any": {"x": {"y": 1}}, "matrix": [[{"a": 1, "b": 2}]],
                "env": [{"name": "n", "value": None, "z": 1}], "mode": None,
                "tmpl": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "bad": 1}, "spec": {"q": 1}}}
        s, o = self.c.api("POST", TABS, obj("CronTab", "pruned", spec))
        self.assertEqual(s, 201, o)
        self.assertEqual(o["spec"], {"cronSpec": OK, "any": {"x": {"y": 1}}, "matrix": [[{"a": 1}]],
                                     "env": [{"name": "n", "value": None}], "replicas": 2,
                                     "tmpl": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                                              "spec": {"q": 1}}})
        self.assertEqual(o["metadata"]["generation"], 1)

    def test_status_is_written_apart_and_generation_follows_the_rest(self):
        o = self.c.api("POST", TABS, obj("CronTab", "st", {"cronSpec": OK}, status={"replicas": 9}))[1]
        self.assertNotIn("status", o)
        o["status"] = {"replicas": 3, "labelSelector": "a=b"}
        o["spec"]["cronSpec"] = "1 * * * *"
        s, o = self.c.api("PUT", TABS + "/st/status", o)
        self.assertEqual((s, o["spec"]["cronSpec"], o["status"]["replicas"], o["metadata"]["generation"]),
                         (200, OK, 3, 1))
        s, scale = self.c.api("GET", TABS + "/st/scale")
        self.assertEqual((scale["spec"], scale["status"]), ({"replicas": 2}, {"replicas": 3, "selector": "a=b"}))
        scale["spec"]["replicas"] = 7
        self.assertEqual(self.c.api("PUT", TABS + "/st/scale", scale)[1]["spec"]["replicas"], 7)
        self.assertEqual(self.c.api("GET", TABS + "/st")[1]["metadata"]["generation"], 2)
        o = dict(o, metadata=dict(o["metadata"], resourceVersion=""))
        self.refused(self.c.api("PUT", TABS + "/st", o),
                     "metadata.resourceVersion: Invalid value: 0: must be specified for an update")

    def test_apply_merges_lists_by_their_type(self):
        def apply(manager, spec, force=False):
            return self.c.api("PATCH", TABS + "/ssa?fieldManager=%s&force=%s" % (manager, str(force).lower()),
                              obj("CronTab", "ssa", spec), headers={"Content-Type": "application/apply-patch+yaml"})
        self.assertEqual(apply("a", {"cronSpec": OK, "env": [{"name": "x", "value": "1"}], "tags": ["p"]})[0], 201)
        s, o = apply("b", {"env": [{"name": "w", "value": "2"}], "tags": ["q"]})
        self.assertEqual((s, [e["name"] for e in o["spec"]["env"]], o["spec"]["tags"]), (200, ["x", "w"], ["p", "q"]))
        s, o = apply("b", {"cronSpec": "1 * * * *"})
        self.assertEqual((s, o["message"]), (409, 'Apply failed with 1 conflict: conflict with "a": .spec.cronSpec'))
        s, o = apply("b", {"cronSpec": "1 * * * *"}, force=True)
        self.assertEqual((s, [e["name"] for e in o["spec"]["env"]]), (200, ["x"]))

    def test_what_did_not_change_is_not_checked_again(self):
        d = self.define(crd("rats", "Rat", props(a=STR, b=STR)))
        path = "/apis/example.com/v1/namespaces/default/rats"
        self.assertEqual(self.c.api("POST", path, obj("Rat", "r", {"a": "long", "b": "x"}))[0], 201)
        d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"]["maxLength"] = 2
        self.assertEqual(self.c.api("PUT", CRDS + "/rats.example.com", d)[0], 200)
        merge = {"Content-Type": "application/merge-patch+json"}
        self.assertEqual(self.c.api("PATCH", path + "/r", {"spec": {"b": "y"}}, headers=merge)[0], 200)
        self.refused(self.c.api("PATCH", path + "/r", {"spec": {"a": "longer"}}, headers=merge),
                     "spec.a: Too long: may not be more than 2 bytes")

    def test_finalizers_of_custom_objects_need_no_domain(self):
        s, o = self.c.api("POST", TABS, dict(obj("CronTab", "fin", {"cronSpec": OK}), metadata={
            "name": "fin", "finalizers": ["wait"]}))
        self.assertEqual((s, o["metadata"]["finalizers"]), (201, ["wait"]))
        s, o = self.c.api("DELETE", TABS + "/fin")
        self.assertEqual((s, o["metadata"]["finalizers"]), (200, ["wait"]))
        s, o = self.c.api("PATCH", TABS + "/fin", {"metadata": {"finalizers": None}},
                          headers={"Content-Type": "application/merge-patch+json"})
        self.assertEqual((s, self.c.api("GET", TABS + "/fin")[0]), (200, 404))

    def test_versions_convert_by_name_and_new_defaults_show_on_read(self):
        d = crd("vers", "Ver", props(a=STR))
        d["spec"]["versions"].append({"name": "v2beta1", "served": True, "storage": False, "deprecated": True, "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": props(a=STR, b=STR)}}}})
        d = self.define(d)
        v1, v2 = ("/apis/example.com/%s/namespaces/default/vers" % v for v in ("v1", "v2beta1"))
        self.c.api("POST", v1, obj("Ver", "x", {"a": "1"}))
        s, h, out = self.c.http("GET", v2 + "/x")
        self.assertEqual(json.loads(out)["apiVersion"], "example.com/v2beta1")
        self.assertEqual(h["Warning"], '299 - "example.com/v2beta1 Ver is deprecated"')
        versions = d["spec"]["versions"]
        versions[0]["storage"], versions[1]["storage"] = False, True
        versions[1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["b"]["default"] = "dflt"
        versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["c"] = {"type": "string",
                                                                                            "default": "cc"}
        s, d = self.c.api("PUT", CRDS + "/vers.example.com", d)
        self.assertEqual((s, d["status"]["storedVersions"]), (200, ["v1", "v2beta1"]))
        self.assertEqual(self.c.api("GET", v1 + "/x")[1]["spec"], {"a": "1", "c": "cc"})
        s, o = self.c.api("POST", v2, obj("Ver", "y", {"a": "2"}, gv="example.com/v2beta1"))
        self.assertEqual((s, o["spec"]), (201, {"a": "2", "b": "dflt"}))
        items = self.c.api("GET", v1)[1]["items"]
        self.assertEqual([(i["apiVersion"], i["metadata"]["name"]) for i in items],
                         [("example.com/v1", "x"), ("example.com/v1", "y")])
        d["spec"]["versions"] = d["spec"]["versions"][1:]
        have = self.refused(self.c.api("PUT", CRDS + "/vers.example.com", d))
        self.assertTrue([m for m in have if m.startswith("status.storedVersions[0]: Invalid value: \"v1\": missing from")])

    def test_a_webhook_converts_between_versions(self):
        hook = Converter(self.c.dir)
        self.addCleanup(hook.close)
        d = crd("links", "Link", props(address=STR))
        d["spec"]["versions"].append({"name": "v2", "served": True, "storage": False, "schema": {
            "openAPIV3Schema": props(spec=props(host=STR, port=INT))}, "selectableFields": [{"jsonPath": ".spec.host"}]})
        d["spec"]["conversion"] = {"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"], "clientConfig": hook.config("/convert")}}
        self.define(d)
        v1, v2 = ("/apis/example.com/%s/namespaces/default/links" % v for v in ("v1", "v2"))
        s, o = self.c.api("POST", v1, obj("Link", "a", {"address": "h:80"}))
        self.assertEqual((s, hook.asked), (201, []), "the storage version needs no webhook")
        s, o = self.c.api("GET", v2 + "/a")
        self.assertEqual((s, o["apiVersion"], o["spec"]), (200, "example.com/v2", {"host": "h", "port": 80}))
        self.assertEqual((o["metadata"]["labels"], o["metadata"]["generation"]), ({"converted": "yes"}, 1))
        path, review = hook.asked[0]
        self.assertEqual((path, review["apiVersion"], review["kind"], review["request"]["desiredAPIVersion"]),
                         ("/convert?timeout=30s", "apiextensions.k8s.io/v1", "ConversionReview", "example.com/v2"))
        s, o = self.c.api("POST", v2, obj("Link", "b", {"host": "i", "port": 81}, gv="example.com/v2"))
        self.assertEqual((s, o["spec"]), (201, {"host": "i", "port": 81}), o)
        self.assertEqual(self.c.api("GET", v1 + "/b")[1]["spec"], {"address": "i:81"})
        s, o = self.c.api("PATCH", v2 + "/a", {"spec": {"port": 8080}}, headers={"Content-Type": "application/merge-patch+json"})
        self.assertEqual((s, o["spec"]), (200, {"host": "h", "port": 8080}), o)
        self.assertEqual(self.c.api("GET", v1 + "/a")[1]["spec"], {"address": "h:8080"})
        before = len(hook.asked)
        o = self.c.api("GET", v2)[1]
        self.assertEqual([x["spec"]["port"] for x in o["items"]], [8080, 81])
        self.assertEqual([len(r["request"]["objects"]) for _, r in hook.asked[before:]], [2], "a list goes in one request")
        events, conn = self.c.watch(v2 + "?watch=true")
        self.assertEqual({next(events)["object"]["spec"]["port"] for _ in range(2)}, {8080, 81})
        conn.close()
        o = self.c.api("GET", v2 + "?fieldSelector=spec.host%3Di")[1]
        self.assertEqual([x["metadata"]["name"] for x in o["items"]], ["b"], "fields are those of the version asked for")
        events, conn = self.c.watch(v2 + "?watch=true&fieldSelector=spec.host%3Dh")
        self.assertEqual(next(events)["object"]["metadata"]["name"], "a")
        conn.close()
        hook.fail = "no such thing"
        s, o = self.c.api("GET", v2 + "/a")
        self.assertEqual((s, o["reason"]), (500, "InternalError"))
        self.assertEqual(self.c.api("GET", v2 + "?fieldSelector=spec.host%3Di")[0], 500)
        self.assertEqual(o["message"], "Internal error occurred: conversion webhook for example.com/v1, Kind=Link failed: "
                         "no such thing")
        self.assertEqual(self.c.api("GET", v1 + "/a")[0], 200)
        hook.fail = None

    def test_validation_rules_are_evaluated(self):
        rules = lambda *r: [dict(x) for x in r]
        spec = {"type": "object", "required": ["min", "max"], "properties": {
            "min": INT, "max": {"type": "integer", "x-kubernetes-validations": rules(
                {"rule": "self < 100", "messageExpression": "'max is ' + string(self) + ', not below 100'"})},
            "name": {"type": "string", "x-kubernetes-validations": rules(
                {"rule": "self == oldSelf", "message": "name is immutable"})},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                     "items": {"type": "object", "required": ["k"], "properties": {"k": STR, "v": INT},
                               "x-kubernetes-validations": rules({"rule": "self.v >= oldSelf.v", "reason":
                                                                  "FieldValueForbidden", "message": "v only grows",
                                                                  "fieldPath": ".v"})}}},
            "x-kubernetes-validations": rules({"rule": "self.min <= self.max"})}
        d = crd("ruleds", "Ruled", spec)
        d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = rules(
            {"rule": "self.metadata.name.startsWith('r')", "message": "names begin with r"})
        self.define(d)
        path = "/apis/example.com/v1/namespaces/default/ruleds"
        have = self.refused(self.c.api("POST", path, obj("Ruled", "x", {"min": 200, "max": 150})),
                            "<nil>: Invalid value: names begin with r",
                            "spec: Invalid value: failed rule: self.min <= self.max",
                            "spec.max: Invalid value: 150: max is 150, not below 100")
        self.assertEqual(len(have), 3)
        have = self.refused(self.c.api("POST", path, obj("Ruled", "r", {"min": "a"})))
        self.assertIn("<nil>: Invalid value: null: some validation rules were not checked because the object was "
                      "invalid; correct the existing errors to complete validation", have)
        s, o = self.c.api("POST", path, obj("Ruled", "r", {"min": 1, "max": 2, "name": "n", "list": [{"k": "a", "v": 5}]}))
        self.assertEqual(s, 201, o)
        o["spec"].update(name="m", list=[{"k": "b", "v": 1}, {"k": "a", "v": 4}])
        self.refused(self.c.api("PUT", path + "/r", o), 'spec.name: Invalid value: "m": name is immutable',
                     "spec.list[1].v: Forbidden: v only grows")

    def test_rules_that_do_not_compile_are_refused(self):
        spec = dict(props(a=INT, l={"type": "array", "items": {"type": "string", "x-kubernetes-validations": [
            {"rule": "self == oldSelf"}]}}), **{"x-kubernetes-validations": [
                {"rule": "self.nope > 1"}, {"rule": "self.a"}, {"rule": "true", "messageExpression": "1"}]})
        base = "spec.validation.openAPIV3Schema.properties[spec]"
        rule = lambda r, m="": json.dumps({"Rule": r, "Message": "", "MessageExpression": m, "Reason": None,
                                           "FieldPath": "", "OptionalOldSelf": None}, separators=(",", ":"))
        self.refused(self.c.api("POST", CRDS, crd("bads", "Bad", spec)),
                     base + ".x-kubernetes-validations[0].rule: Invalid value: " + rule("self.nope > 1") +
                     ": compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope > 1\n | ....^",
                     base + ".x-kubernetes-validations[1].rule: Invalid value: " + rule("self.a") +
                     ": cel expression must evaluate to a bool",
                     base + ".x-kubernetes-validations[2].messageExpression: Invalid value: " + rule("true", "1") +
                     ": messageExpression must evaluate to a string",
                     base + ".properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": "
                     "oldSelf cannot be used on the uncorrelatable portion of the schema within " + base + ".properties[l]")

    def test_rules_that_could_cost_too_much_are_refused(self):
        x = {"type": "array", "items": {"type": "array", "items": STR}}
        rule = "self.x.all(a, a.all(b, self.x.all(c, c.all(d, b == d))))"
        d = crd("costs", "Cost", dict(props(x=x), **{"x-kubernetes-validations": [{"rule": rule}]}))
        at = "spec.validation.openAPIV3Schema"
        hint = (" (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and "
                "strings are declared)")
        self.refused(self.c.api("POST", CRDS, d),
                     at + ".properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds "
                     "budget by factor of more than 100x" + hint,
                     at + ".properties[spec].x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule "
                     "cost total exceeding cost limit for entire OpenAPIv3 schema",
                     at + ": Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema "
                     "exceeds budget by factor of more than 100x" + hint)
        x["maxItems"], x["items"]["maxItems"], x["items"]["items"] = 10, 10, {"type": "string", "maxLength": 10}
        self.define(d)

    def test_discovery_and_openapi_follow_at_once(self):
        self.assertEqual(self.c.api("GET", "/apis/fresh.example.com")[0], 404)
        before = self.c.http("GET", "/openapi/v3")[1]["ETag"]
        self.define(crd("freshes", "Fresh", props(a=STR), group="fresh.example.com", scope="Cluster"))
        s, o = self.c.api("GET", "/apis/fresh.example.com/v1")
        self.assertEqual([(r["name"], r["namespaced"], r["kind"]) for r in o["resources"]],
                         [("freshes", False, "Fresh")])
        agg = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
        groups = json.loads(self.c.http("GET", "/apis", headers=agg)[2])["items"]
        self.assertIn("fresh.example.com", [g["metadata"]["name"] for g in groups])
        self.assertNotEqual(self.c.http("GET", "/openapi/v3")[1]["ETag"], before)
        doc = self.c.api("GET", "/openapi/v3/apis/fresh.example.com/v1")[1]
        schema = doc["components"]["schemas"]["com.example.fresh.v1.Fresh"]
        self.assertEqual(schema["x-kubernetes-group-version-kind"],
                         [{"group": "fresh.example.com", "kind": "Fresh", "version": "v1"}])
        self.assertIn("/apis/fresh.example.com/v1/freshes/{name}", doc["paths"])
        v2 = self.c.api("GET", "/openapi/v2")[1]
        self.assertIn("com.example.fresh.v1.FreshList", v2["definitions"])

    def test_watches_and_tables_serve_custom_resources(self):
        events, conn = self.c.watch(TABS + "?watch=true&labelSelector=w%3D1")
        o = obj("CronTab", "w1", {"cronSpec": OK})
        o["metadata"]["labels"] = {"w": "1"}
        self.c.api("POST", TABS, o)
        e = next(events)
        self.assertEqual((e["type"], e["object"]["metadata"]["name"], e["object"]["kind"]), ("ADDED", "w1", "CronTab"))
        self.c.api("DELETE", TABS + "/w1")
        self.assertEqual(next(events)["type"], "DELETED")
        conn.close()


def load_tests(loader, tests, pattern):
    suite = unittest.TestSuite()
    for mode in MODES:
        case = type("Crd_" + mode, (Crd,), {"mode": mode})
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite


if __name__ == "__main__":
    unittest.main()

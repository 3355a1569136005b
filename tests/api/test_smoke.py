#!/usr/bin/env python3
"""The API as clients see it: kubectl over TLS, raw HTTP over the Unix socket."""
import json
import signal
import threading
import unittest

from cluster import MODES, Cluster

CM = "/api/v1/namespaces/default/configmaps"


def cm(name, data=None, **meta):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": dict(name=name, **meta), "data": data or {}}


class Api(unittest.TestCase):
    mode = "memory"

    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(cls.mode)

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def fails(self, code, reason, message, got):
        status, obj = got
        self.assertEqual((status, obj.get("reason"), obj["message"]), (code, reason, message))
        self.assertEqual((obj["kind"], obj["apiVersion"], obj["code"], obj["status"]), ("Status", "v1", code, "Failure"))

    def test_answers_say_which_flow_they_belonged_to(self):
        for path, schema in ((CM, "global-default"), ("/version", "global-default"), ("/readyz", "probes")):
            status, h, _ = self.c.http("GET", path, user="u", groups=("system:authenticated", "system:monitoring"))
            _, o = self.c.api("GET", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/" + schema)
            self.assertEqual(h["X-Kubernetes-PF-FlowSchema-UID"], o["metadata"]["uid"], path)
            self.assertTrue(h["X-Kubernetes-PF-PriorityLevel-UID"], path)

    # ---- kubectl ----

    def test_kubectl_walks_through_the_life_of_a_configmap(self):
        k = self.c.kubectl
        self.assertIn("v1.36", k("version"))
        self.assertIn("default", k("get", "ns"))
        k("create", "cm", "k1", "--from-literal=a=b")
        y = json.dumps(cm("k2", {"x": "1"}))
        self.assertIn("created", k("apply", "-f", "-", stdin=y))
        self.assertIn("unchanged", k("apply", "-f", "-", stdin=y))
        self.assertIn("configured", k("apply", "-f", "-", stdin=json.dumps(cm("k2", {"x": "2"}))))
        self.assertIn("serverside-applied", k("apply", "--server-side", "-f", "-", stdin=json.dumps(cm("k3", {"x": "2"}))))
        k("label", "cm", "k2", "z=1")
        self.assertIn("k2", k("get", "cm", "-l", "z=1"))
        k("annotate", "cm", "k2", "n=1")
        k("patch", "cm", "k2", "-p", '{"data":{"y":"3"}}')
        k("patch", "cm", "k2", "--type=json", "-p", '[{"op":"remove","path":"/data/x"}]')
        self.assertEqual(json.loads(k("get", "cm", "k2", "-o", "json"))["data"], {"y": "3"})
        self.assertIn("k2", k("get", "cm", "--field-selector", "metadata.name=k2"))
        self.assertIn("deleted", k("delete", "cm", "k2"))
        code, out = k("get", "cm", "k2", ok=False)
        self.assertEqual((code, out), (1, 'Error from server (NotFound): configmaps "k2" not found\n'))
        code, out = k("create", "cm", "k1", ok=False)
        self.assertEqual(out, 'error: failed to create configmap: configmaps "k1" already exists\n')
        k("create", "secret", "generic", "s", "--from-literal=p=q")
        k("delete", "cm", "--all")
        self.assertIn("FIELD", k("explain", "configmap.data").upper())
        code, out = k("create", "-f", "-", stdin=json.dumps(dict(cm("bad"), nope=1)), ok=False)
        self.assertEqual(code, 1)
        self.assertIn('unknown field "nope"', out)

    # ---- writes ----

    def test_create_fills_metadata_and_refuses_a_second_one(self):
        s, o = self.c.api("POST", CM, cm("c1", {"a": "b"}))
        self.assertEqual(s, 201)
        for f in ("uid", "creationTimestamp", "resourceVersion"):
            self.assertTrue(o["metadata"][f])
        self.assertEqual(o["metadata"]["managedFields"][0]["operation"], "Update")
        self.fails(409, "AlreadyExists", 'configmaps "c1" already exists', self.c.api("POST", CM, cm("c1")))
        s, g = self.c.api("GET", CM + "/c1")
        self.assertEqual(g, o)

    def test_generate_name_makes_names(self):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}}
        names = {self.c.api("POST", CM, body)[1]["metadata"]["name"] for _ in range(5)}
        self.assertEqual(len(names), 5)
        for n in names:
            self.assertRegex(n, r"^gen-[bcdfghjklmnpqrstvwxz2456789]{5}$")

    def test_namespaces_are_checked(self):
        self.fails(404, "NotFound", 'namespaces "none" not found',
                   self.c.api("POST", "/api/v1/namespaces/none/configmaps", cm("x")))
        self.fails(400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request",
                   self.c.api("POST", CM, cm("x", namespace="other")))
        self.fails(403, "Forbidden", 'namespaces "default" is forbidden: this namespace may not be deleted',
                   self.c.api("DELETE", "/api/v1/namespaces/default"))

    def test_stale_updates_conflict_and_unconditional_ones_do_not(self):
        _, o = self.c.api("POST", CM, cm("u1", {"a": "1"}))
        fresh = json.loads(json.dumps(o))
        fresh["data"] = {"a": "2"}
        s, n = self.c.api("PUT", CM + "/u1", fresh)
        self.assertEqual(s, 200)
        self.assertEqual(n["metadata"]["uid"], o["metadata"]["uid"])
        self.fails(409, "Conflict", 'Operation cannot be fulfilled on configmaps "u1": the object has been modified; '
                   "please apply your changes to the latest version and try again", self.c.api("PUT", CM + "/u1", fresh))
        s, n2 = self.c.api("PUT", CM + "/u1", cm("u1", {"a": "3"}))
        self.assertEqual((s, n2["data"]), (200, {"a": "3"}))
        s, n3 = self.c.api("PUT", CM + "/u1", cm("u1", {"a": "3"}))
        self.assertEqual(n3["metadata"]["resourceVersion"], n2["metadata"]["resourceVersion"], "a change of nothing writes nothing")
        self.fails(404, "NotFound", 'configmaps "nix" not found', self.c.api("PUT", CM + "/nix", cm("nix")))
        self.fails(400, "BadRequest", "the name of the object (u1) does not match the name on the URL (u2)",
                   self.c.api("PUT", CM + "/u2", cm("u1")))

    def test_an_update_may_leave_out_what_admission_filled_in(self):
        pods = "/api/v1/namespaces/default/pods"
        self.c.api("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "filler"}})
        code, made = self.c.api("POST", pods, {"metadata": {"name": "filled"}, "spec": {
            "serviceAccountName": "filler", "containers": [{"name": "c", "image": "i"}]}})
        self.assertEqual(code, 201)
        sent = json.loads(json.dumps(made))
        for field in ("priority", "preemptionPolicy", "tolerations"):
            del sent["spec"][field]
        sent["metadata"]["labels"] = {"new": "1"}
        code, got = self.c.api("PUT", pods + "/filled", sent)
        self.assertEqual((code, got["spec"]), (200, made["spec"]))

    def test_a_strategic_merge_that_makes_nonsense_is_refused_in_its_own_words(self):
        code, out = self.c.kubectl("patch", "ns", "default", "-p", '{"metadata":{"labels":"x"}}', ok=False)
        self.assertEqual((code, out), (1, 'The request is invalid: patch: Invalid value: "map[metadata:map[labels:x]]": '
                                          'cannot restore map from string\n'))

    def test_people_get_json_they_can_read(self):
        def newlines(path, agent):
            return self.c.http("GET", path, headers={"User-Agent": agent})[2].count(b"\n")
        path = "/api/v1/namespaces/default"
        self.assertLess(newlines(path, "kubectl/v1.36.3"), 2)
        self.assertGreater(newlines(path, "curl/8.0"), 5)
        self.assertGreater(newlines(path + "?pretty=true", "kubectl/v1.36.3"), 5)
        self.assertLess(newlines(path + "?pretty=false", "curl/8.0"), 2)
        self.assertGreater(newlines(path + "x", "curl/8.0"), 5) # errors too

    def test_dry_run_changes_nothing(self):
        copy = dict(cm("copied", {"a": "b"}))
        copy["metadata"]["resourceVersion"] = "1" # of what it was copied from; a real create refuses it
        self.assertEqual(self.c.api("POST", CM + "?dryRun=All", copy)[0], 201)
        self.assertEqual(self.c.api("POST", CM, copy)[0], 500)
        s, o = self.c.api("POST", CM + "?dryRun=All", cm("dry"))
        self.assertEqual(s, 201)
        self.assertEqual(self.c.api("GET", CM + "/dry")[0], 404)
        s, o = self.c.api("POST", CM + "?dryRun=Some", cm("dry"))
        self.assertEqual((s, o["reason"]), (422, "Invalid"))

    def test_requests_have_a_deadline(self):
        self.fails(400, "BadRequest", 'invalid timeout specified in the request URL - time: invalid duration "soon"',
                   self.c.api("GET", CM + "?timeout=soon"))
        for ok in ("0s", "10h", "30s"):
            self.assertEqual(self.c.api("GET", CM + "?timeout=" + ok)[0], 200)
        self.fails(504, "Timeout", "Timeout: request did not complete within requested timeout - context deadline exceeded",
                   self.c.api("POST", CM + "?timeout=1ns", cm("late")))
        self.assertEqual(self.c.api("GET", CM + "/late")[0], 404)
        events, conn = self.c.watch(CM + "?watch=1&timeout=1ns&timeoutSeconds=1")
        list(events)
        conn.close()

    def test_a_status_that_says_nothing_is_there(self):
        base = "/apis/%s/namespaces/default/%s?dryRun=All"
        meta = {"metadata": {"name": "z"}}
        for gv, plural, spec, want in (
                ("policy/v1", "poddisruptionbudgets", {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}},
                 {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
                ("networking.k8s.io/v1", "ingresses", {"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}},
                 {"loadBalancer": {}}),
                ("autoscaling/v2", "horizontalpodautoscalers",
                 {"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
                 {"currentMetrics": None, "desiredReplicas": 0})):
            s, o = self.c.api("POST", base % (gv, plural), dict(meta, spec=spec, status={"x": 1}))
            self.assertEqual((s, o.get("status")), (201, want), o)

    def test_field_validation_warns_or_refuses(self):
        body = dict(cm("fv"), extra=1)
        s, h, _ = self.c.http("POST", CM + "?dryRun=All", body)
        self.assertEqual((s, h["Warning"]), (201, '299 - "unknown field \\"extra\\""'))
        s, o = self.c.api("POST", CM + "?fieldValidation=Strict", body)
        self.assertEqual((s, o["message"]), (400, 'ConfigMap in version "v1" cannot be handled as a ConfigMap: '
                                             'strict decoding error: unknown field "extra"'))
        s, h, _ = self.c.http("POST", CM + "?dryRun=All&fieldValidation=Ignore", body)
        self.assertIsNone(h["Warning"])

    def test_invalid_objects_name_every_fault(self):
        s, o = self.c.api("POST", CM, cm("Bad_Name", labels={"a b": "c"}))
        self.assertEqual((s, o["reason"], o["details"]["kind"]), (422, "Invalid", "ConfigMap"))
        self.assertEqual({c["field"] for c in o["details"]["causes"]}, {"metadata.name", "metadata.labels"})
        s, o = self.c.api("POST", CM, dict(cm("fin"), metadata={"name": "fin", "finalizers": ["example.com/a", "wait"]}))
        self.assertEqual([(c["field"], c["message"]) for c in o["details"]["causes"]], [(
            "metadata.finalizers[1]", 'Invalid value: "wait": name is neither a standard finalizer name nor is it fully qualified')])

    def test_apply_tracks_owners_and_finds_conflicts(self):
        p = CM + "/ssa?fieldManager="
        h = {"Content-Type": "application/apply-patch+yaml"}
        s, o = self.c.api("PATCH", p + "one", json.dumps(cm("ssa", {"k": "1"})).encode(), headers=h)
        self.assertEqual(s, 201)
        self.assertEqual(o["metadata"]["managedFields"][0]["operation"], "Apply")
        s, o = self.c.api("PATCH", p + "two", json.dumps(cm("ssa", {"k": "2"})).encode(), headers=h)
        self.assertEqual((s, o["reason"]), (409, "Conflict"))
        self.assertEqual(o["details"]["causes"][0]["reason"], "FieldManagerConflict")
        s, o = self.c.api("PATCH", p + "two&force=true", json.dumps(cm("ssa", {"k": "2"})).encode(), headers=h)
        self.assertEqual((s, o["data"]), (200, {"k": "2"}))
        s, o = self.c.api("PATCH", CM + "/ssa", b"{}", headers=h)
        self.assertEqual(o["message"], 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch')

    def test_apply_refuses_what_the_schema_does_not_declare_whatever_is_asked_for(self):
        p = CM + "/odd?fieldManager=one&fieldValidation="
        h = {"Content-Type": "application/apply-patch+yaml"}
        text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd, namespace: default}\n"
        for mode in ("Strict", "Warn", "Ignore"):
            s, o = self.c.api("PATCH", p + mode, text + b"extra: 1\n", headers=h)
            self.assertEqual((s, o.get("reason"), o["message"]), (
                500, None, "failed to create typed patch object (default/odd; /v1, Kind=ConfigMap): "
                ".extra: field not declared in schema"))
        twice = text + b"data:\n  a: b\n  a:\n    c\n"
        s, o = self.c.api("PATCH", p + "Strict", twice, headers=h)
        self.assertEqual((s, o["reason"], o["message"]), (
            400, "BadRequest", "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
            '  line 7: key "a" already set in map'))
        s, o = self.c.api("PATCH", p + "Warn", twice, headers=h)
        self.assertEqual((s, o["data"]), (201, {"a": "c"}))

    def test_what_admission_adds_is_nobodys(self):
        self.c.api("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        s, o = self.c.api("POST", "/api/v1/namespaces/default/pods?dryRun=All", {
            "metadata": {"name": "nb"}, "spec": {"containers": [{"name": "a", "image": "i"}]}})
        self.assertEqual((s, o["spec"]["priority"], len(o["spec"]["tolerations"])), (201, 0, 2))
        owned = o["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
        self.assertEqual(sorted(owned), ["f:containers", "f:dnsPolicy", "f:enableServiceLinks", "f:restartPolicy",
                                         "f:schedulerName", "f:securityContext", "f:terminationGracePeriodSeconds"])

    def test_parts_of_pods_are_applied_through_their_subresources(self):
        pods, h = "/api/v1/namespaces/default/pods", {"Content-Type": "application/apply-patch+yaml"}
        self.c.api("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        s, o = self.c.api("POST", pods, {"metadata": {"name": "parts"}, "spec": {"containers": [{"name": "a", "image": "i"}]}})
        self.assertEqual(s, 201, o)
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "parts", "labels": {"not": "taken"}}, "spec": {
            "ephemeralContainers": [{"name": "dbg", "image": "i"}]}}
        s, o = self.c.api("PATCH", pods + "/parts/ephemeralcontainers?fieldManager=dbg", body, headers=h)
        self.assertEqual((s, [c["name"] for c in o["spec"]["ephemeralContainers"]], o["metadata"].get("labels")), (200, ["dbg"], None))
        self.assertEqual(o["spec"]["ephemeralContainers"][0]["terminationMessagePath"], "/dev/termination-log")
        mine = [m for m in o["metadata"]["managedFields"] if m["manager"] == "dbg"]
        self.assertEqual((len(mine), mine[0]["operation"], mine[0]["subresource"]), (1, "Apply", "ephemeralcontainers"))
        self.assertEqual(list(mine[0]["fieldsV1"]), ["f:spec"])
        self.assertEqual([c["name"] for c in o["spec"]["containers"]], ["a"])

    def test_unknown_media_types_and_methods_are_refused(self):
        s, o = self.c.api("POST", CM, b"x", headers={"Content-Type": "text/csv"})
        self.assertEqual((s, o["reason"]), (415, "UnsupportedMediaType"))
        s, o = self.c.api("PATCH", CM + "/x", b"{}", headers={"Content-Type": "application/json"})
        self.assertEqual((s, o["reason"]), (415, "UnsupportedMediaType"))
        s, o = self.c.api("GET", CM, headers={"Accept": "text/csv"})
        self.assertEqual((s, o["reason"]), (406, "NotAcceptable"))
        self.fails(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", self.c.api("PUT", CM, {}))
        self.fails(404, "NotFound", "the server could not find the requested resource", self.c.api("GET", "/api/v1/namespaces/default/foos"))
        s, o = self.c.api("POST", CM, b"x" * (4 << 20))
        self.assertEqual((s, o["message"]), (413, "Request entity too large: limit is 3145728"))

    def test_finalizers_hold_a_deletion(self):
        self.c.api("POST", CM, cm("fin", finalizers=["example.com/hold"]))
        s, o = self.c.api("DELETE", CM + "/fin")
        self.assertEqual(s, 200)
        self.assertTrue(o["metadata"]["deletionTimestamp"])
        self.assertEqual(o["metadata"]["deletionGracePeriodSeconds"], 0)
        h = {"Content-Type": "application/merge-patch+json"}
        s, o = self.c.api("PATCH", CM + "/fin", b'{"metadata":{"finalizers":["example.com/other"]}}', headers=h)
        self.assertEqual((s, o["reason"]), (422, "Invalid"))
        s, o = self.c.api("PATCH", CM + "/fin", b'{"metadata":{"finalizers":null}}', headers=h)
        self.assertEqual(s, 200)
        self.assertEqual(self.c.api("GET", CM + "/fin")[0], 404)

    def test_delete_honours_preconditions_and_propagation(self):
        _, o = self.c.api("POST", CM, cm("pre"))
        s, e = self.c.api("DELETE", CM + "/pre", {"preconditions": {"uid": "other"}})
        self.assertEqual(s, 409)
        s, e = self.c.api("DELETE", CM + "/pre", {"propagationPolicy": "Foreground"})
        self.assertEqual(e["metadata"]["finalizers"], ["foregroundDeletion"])
        s, e = self.c.api("DELETE", CM + "/pre", {"propagationPolicy": "Background"})
        self.assertEqual((s, e["status"], e["details"]), (200, "Success", {"name": "pre", "kind": "configmaps", "uid": o["metadata"]["uid"]}))

    def test_namespace_deletion_waits_for_finalize(self):
        self.c.api("POST", "/api/v1/namespaces", {"metadata": {"name": "going"}})
        s, o = self.c.api("DELETE", "/api/v1/namespaces/going")
        self.assertEqual((s, o["status"]["phase"]), (200, "Terminating"))
        s, e = self.c.api("POST", "/api/v1/namespaces/going/configmaps", cm("x"))
        self.assertEqual((s, e["reason"], e["details"]["causes"][0]["reason"]), (403, "Forbidden", "NamespaceTerminating"))
        o["spec"]["finalizers"] = []
        self.assertEqual(self.c.api("PUT", "/api/v1/namespaces/going/finalize", o)[0], 200)
        self.assertEqual(self.c.api("GET", "/api/v1/namespaces/going")[0], 404)

    def test_racing_patches_all_arrive(self):
        self.c.api("POST", CM, cm("race"))
        h = {"Content-Type": "application/merge-patch+json"}

        def one(i):
            self.c.api("PATCH", CM + "/race", json.dumps({"data": {"k%d" % i: "v"}}).encode(), headers=h)
        ts = [threading.Thread(target=one, args=(i,)) for i in range(5)]
        [t.start() for t in ts]
        [t.join() for t in ts]
        self.assertEqual(len(self.c.api("GET", CM + "/race")[1]["data"]), 5)

    # ---- reads ----

    def test_pages_show_one_moment(self):
        self.c.api("POST", "/api/v1/namespaces", {"metadata": {"name": "pages"}})
        p = "/api/v1/namespaces/pages/configmaps"
        for i in range(5):
            self.c.api("POST", p, cm("p%d" % i, labels={"odd": str(i % 2)}))
        _, one = self.c.api("GET", p + "?limit=2")
        self.assertEqual(one["metadata"]["remainingItemCount"], 3)
        self.c.api("DELETE", p + "/p3")
        seen, cont = [i["metadata"]["name"] for i in one["items"]], one["metadata"]["continue"]
        while cont:
            _, page = self.c.api("GET", p + "?limit=2&continue=" + cont)
            self.assertEqual(page["metadata"]["resourceVersion"], one["metadata"]["resourceVersion"])
            seen += [i["metadata"]["name"] for i in page["items"]]
            cont = page["metadata"].get("continue")
        self.assertEqual(seen, ["p0", "p1", "p2", "p3", "p4"])
        _, sel = self.c.api("GET", p + "?labelSelector=odd%3D0&limit=2")
        self.assertEqual([i["metadata"]["name"] for i in sel["items"]], ["p0", "p2"])
        self.assertTrue(sel["metadata"]["continue"])
        s, e = self.c.api("GET", p + "?continue=rubbish")
        self.assertEqual(s, 400)
        s, e = self.c.api("GET", p + "?resourceVersion=999999999")
        self.assertEqual((s, e["reason"], e["details"]["causes"][0]["reason"]), (504, "Timeout", "ResourceVersionTooLarge"))
        s, e = self.c.api("GET", p + "?resourceVersionMatch=Exact")
        self.assertEqual(s, 422)
        s, e = self.c.api("GET", p + "?fieldSelector=spec.x%3D1")
        self.assertEqual((s, e["reason"]), (400, "BadRequest"))

    def test_tables_and_metadata_only(self):
        self.c.api("POST", CM, cm("tab", {"a": "b"}))
        _, t = self.c.api("GET", CM + "/tab", headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
        self.assertEqual([d["name"] for d in t["columnDefinitions"]], ["Name", "Data", "Age"])
        self.assertEqual(t["rows"][0]["cells"][:2], ["tab", 1])
        self.assertEqual(t["rows"][0]["object"]["kind"], "PartialObjectMetadata")
        _, m = self.c.api("GET", CM, headers={"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"})
        self.assertEqual(m["kind"], "PartialObjectMetadataList")
        for name in ("tab0", "tab1"):
            self.assertEqual(self.c.api("POST", CM, cm(name, labels={"tab": "1"}))[0], 201)
        table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        s, _, out = self.c.http("GET", CM + "?watch=1&timeoutSeconds=1&resourceVersion=0&labelSelector=tab", headers=table)
        columns = [json.loads(line)["object"]["columnDefinitions"] for line in out.splitlines()]
        self.assertEqual([bool(x) for x in columns], [True, False])
        self.assertIsNone(columns[1], "the first table of a watch says what the columns are")
        # What is only made has no rows.
        s, o = self.c.api("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                          {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}},
                          headers={"Content-Type": "application/json", "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
        self.assertEqual((s, o["reason"]), (406, "NotAcceptable"))
        self.assertNotIn("data", m["items"][0])

    def test_watch_follows_selectors(self):
        _, l = self.c.api("GET", CM)
        rv = l["metadata"]["resourceVersion"]
        ev, conn = self.c.watch(CM + "?watch=1&labelSelector=w%3D1&timeoutSeconds=20&resourceVersion=" + rv)
        h = {"Content-Type": "application/merge-patch+json"}
        self.c.api("POST", CM, cm("other"))
        self.c.api("POST", CM, cm("w", labels={"w": "1"}))
        self.c.api("PATCH", CM + "/w", b'{"data":{"a":"b"}}', headers=h)
        _, off = self.c.api("PATCH", CM + "/w", b'{"metadata":{"labels":{"w":"2"}}}', headers=h)
        self.c.api("PATCH", CM + "/w", b'{"metadata":{"labels":{"w":"1"}}}', headers=h)
        self.c.api("DELETE", CM + "/w")
        got = [next(ev) for _ in range(5)]
        self.assertEqual([e["type"] for e in got], ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"])
        self.assertEqual(got[2]["object"]["metadata"]["resourceVersion"], off["metadata"]["resourceVersion"])
        self.assertEqual(got[2]["object"]["metadata"]["labels"], {"w": "1"})
        conn.close()

    def test_watch_lists_end_with_a_bookmark(self):
        self.c.api("POST", CM, cm("wl"))
        ev, conn = self.c.watch(CM + "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=20")
        names = set()
        for e in ev:
            if e["type"] == "BOOKMARK":
                self.assertEqual(e["object"]["metadata"]["annotations"], {"k8s.io/initial-events-end": "true"})
                break
            self.assertEqual(e["type"], "ADDED")
            names.add(e["object"]["metadata"]["name"])
        self.assertIn("wl", names)
        conn.close()

    def test_a_watch_ends_at_its_timeout(self):
        ev, conn = self.c.watch(CM + "?watch=1&timeoutSeconds=1&allowWatchBookmarks=true")
        self.assertTrue(all(e["type"] in ("ADDED", "BOOKMARK") for e in ev))
        conn.close()

    # ---- the rest ----

    def test_discovery_in_both_forms(self):
        _, h, out = self.c.http("GET", "/apis", headers={"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"})
        self.assertEqual(h["Content-Type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        self.assertEqual(json.loads(out)["kind"], "APIGroupDiscoveryList")
        s, _, out = self.c.http("GET", "/apis", headers={"If-None-Match": h["ETag"], "Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"})
        self.assertEqual((s, out), (304, b""))
        self.assertEqual(self.c.api("GET", "/api")[1]["versions"], ["v1"])
        names = [r["name"] for r in self.c.api("GET", "/api/v1")[1]["resources"]]
        self.assertIn("configmaps", names)
        self.assertIn("namespaces/status", names)
        self.assertEqual(self.c.api("GET", "/apis/coordination.k8s.io")[1]["preferredVersion"]["version"], "v1")
        self.assertIn("/openapi/v3", self.c.api("GET", "/")[1]["paths"])
        _, idx = self.c.api("GET", "/openapi/v3")
        _, doc = self.c.api("GET", idx["paths"]["api/v1"]["serverRelativeURL"])
        self.assertIn("io.k8s.api.core.v1.ConfigMap", doc["components"]["schemas"])

    def test_documents_have_no_empty_lists(self):
        """Go's readers tell an empty list from none, and write only the latter."""
        for gv in ("api/v1", "apis/apps/v1"):
            self.assertNotIn(b'"parameters":[]', self.c.http("GET", "/openapi/v3/" + gv)[2])

    def test_a_clients_deadline_must_be_a_duration(self):
        self.fails(400, "BadRequest", 'invalid timeout specified in the request URL - time: invalid duration "soon"',
                   self.c.api("GET", "/version?timeout=soon"))
        for text in ("0s", "3m", ""):
            self.assertEqual(self.c.api("GET", "/version?timeout=" + text)[0], 200)

    def test_checks_have_upstreams_names_and_figures(self):
        for path in ("/healthz", "/livez", "/readyz"):
            text = self.c.http("GET", path + "?verbose=1")[2].decode().split("\n")
            for name in ("ping", "log", "etcd", "poststarthook/bootstrap-controller"):
                self.assertIn("[+]%s ok" % name, text)
            self.assertEqual("[+]informer-sync ok" in text, path == "/readyz")
        text = self.c.http("GET", "/metrics/slis")[2].decode().split("\n")
        self.assertIn('kubernetes_healthcheck{name="etcd",type="readyz"} 1', text)
        self.assertNotIn('kubernetes_healthcheck{name="informer-sync",type="livez"} 1', text)

    def test_strangers_are_kept_out(self):
        s, o = self.c.api("GET", CM, user="jane", groups=["system:authenticated"])
        self.assertEqual((s, o["message"]), (403, 'configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" in the namespace "default"'))
        import ssl
        import urllib.error
        import urllib.request
        ctx = ssl.create_default_context(cafile=self.c.dir + "/pki/ca.crt")
        self.assertEqual(urllib.request.urlopen(self.c.url + "/readyz", context=ctx).read(), b"ok")
        for headers, code in (({}, 403), ({"Authorization": "Bearer nonsense"}, 401)):
            with self.assertRaises(urllib.error.HTTPError) as e:
                urllib.request.urlopen(urllib.request.Request(self.c.url + "/api/v1/nodes", headers=headers), context=ctx)
            self.assertIn(e.exception.code, (code, 404) if code == 403 else (code,))
            e.exception.close()


class ApiOnDisk(Api):
    mode = "disk"

    def test_acknowledged_writes_survive_kill(self):
        c = Cluster("disk")
        try:
            acked = []
            for i in range(50):
                if c.api("POST", CM, cm("d%d" % i))[0] == 201:
                    acked.append("d%d" % i)
            c.kill(signal.SIGKILL)
            c.start()
            names = {i["metadata"]["name"] for i in c.api("GET", CM)[1]["items"]}
            self.assertTrue(set(acked) <= names)
            self.assertIn("configmaps", c.kubectl("api-resources"))
        finally:
            c.close()


def load_tests(loader, tests, pattern):
    suite = unittest.TestSuite()
    for mode, case in (("memory", Api), ("disk", ApiOnDisk)):
        if mode in MODES:
            suite.addTests(loader.loadTestsFromTestCase(case))
    return suite


if __name__ == "__main__":
    unittest.main(verbosity=1)

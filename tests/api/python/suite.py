"""Kubernetes' Python client against a control plane: what it sends and expects is its own; the tests only
say what a user of it would see on any cluster."""
import datetime
import json
import os
import threading
import unittest
import uuid

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

from cluster import Cluster, FakeNode

NS = "default"


class Suite(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = Cluster(extra=["--disable-admission", "ServiceAccount"])
        cls.node = FakeNode(cls.c.dir + "/node.sock")
        config.load_kube_config(cls.c.kubeconfig)
        cls.core, cls.apps = client.CoreV1Api(), client.AppsV1Api()

    @classmethod
    def tearDownClass(cls):
        cls.node.close()
        cls.c.close()

    def name(self):
        return "n" + uuid.uuid4().hex[:8]

    def deployment(self, name, image="i:1"):
        labels = {"app": name}
        return client.V1Deployment(
            api_version="apps/v1", kind="Deployment", metadata=client.V1ObjectMeta(name=name, labels=labels),
            spec=client.V1DeploymentSpec(
                replicas=2, selector=client.V1LabelSelector(match_labels=labels),
                template=client.V1PodTemplateSpec(
                    metadata=client.V1ObjectMeta(labels=labels),
                    spec=client.V1PodSpec(containers=[client.V1Container(name="a", image=image)]))))

    def refused(self, status, reason, fn, *args, **kw):
        with self.assertRaises(ApiException) as e:
            fn(*args, **kw)
        body = json.loads(e.exception.body)
        self.assertEqual((e.exception.status, body["reason"]), (status, reason))
        return body

    # ---- models ----

    def test_every_list_call_is_answered_in_its_model(self):
        """All typed list calls of the stable APIs: models check what they are made from."""
        calls = 0
        for api in dir(client):
            if not api.endswith("V1Api") and api not in ("AutoscalingV2Api", "CoreV1Api"):
                continue
            a = getattr(client, api)()
            if not hasattr(a, "get_api_resources"):
                continue
            served = {r.name for r in a.get_api_resources().resources}
            for m in dir(a):
                if not m.startswith("list_") or m.endswith("_with_http_info"):
                    continue
                try:
                    getattr(a, m)(*([NS] if "namespaced" in m else []))
                    calls += 1
                except ApiException as e:
                    plural = m.split("list_")[1].replace("namespaced_", "").replace("_for_all_namespaces", "").replace("_", "")
                    self.assertFalse(any(s.startswith(plural) for s in served), "%s.%s: %s" % (api, m, e))
        self.assertGreater(calls, 80)

    def test_a_deployment_is_created_read_replaced_and_deleted(self):
        n = self.name()
        made = self.apps.create_namespaced_deployment(NS, self.deployment(n))
        self.assertIsInstance(made.metadata.creation_timestamp, datetime.datetime)
        self.assertEqual(made.spec.strategy.rolling_update.max_surge, "25%")
        got = self.apps.read_namespaced_deployment(n, NS)
        got.spec.replicas = 3
        self.assertEqual(self.apps.replace_namespaced_deployment(n, NS, got).spec.replicas, 3)
        got.spec.replicas = 4
        self.refused(409, "Conflict", self.apps.replace_namespaced_deployment, n, NS, got)
        scale = self.apps.read_namespaced_deployment_scale(n, NS)
        self.assertEqual((scale.spec.replicas, scale.status.selector), (3, "app=" + n))
        scale.spec.replicas = 1
        self.apps.replace_namespaced_deployment_scale(n, NS, scale)
        self.assertEqual(self.apps.patch_namespaced_deployment_scale(n, NS, {"spec": {"replicas": 5}}).spec.replicas, 5)
        gone = self.apps.delete_namespaced_deployment(n, NS, propagation_policy="Background")
        self.assertEqual(gone.status, "Success")
        self.refused(404, "NotFound", self.apps.read_namespaced_deployment, n, NS)

    def test_mistakes_are_explained(self):
        bad = self.deployment(self.name())
        bad.spec.template.metadata.labels = {"other": "x"}
        body = self.refused(422, "Invalid", self.apps.create_namespaced_deployment, NS, bad)
        self.assertEqual(body["details"]["causes"][0]["field"], "spec.template.metadata.labels")
        self.refused(400, "BadRequest", self.core.create_namespaced_config_map, NS,
                     {"metadata": {"name": "x"}, "data": {"a": 1}})

    # ---- patches ----

    def test_patches_of_every_kind(self):
        n = self.name()
        self.apps.create_namespaced_deployment(NS, self.deployment(n))
        # a dict is a strategic merge patch: containers are merged by name
        p = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "i:2"}]}}}}
        got = self.apps.patch_namespaced_deployment(n, NS, p)
        self.assertEqual(sorted(c.name for c in got.spec.template.spec.containers), ["a", "b"])
        # a list is a JSON patch
        got = self.apps.patch_namespaced_deployment(n, NS, [{"op": "replace", "path": "/spec/replicas", "value": 7}])
        self.assertEqual(got.spec.replicas, 7)
        dyn = dynamic.DynamicClient(client.ApiClient())
        r = dyn.resources.get(api_version="apps/v1", kind="Deployment")
        got = r.patch(name=n, namespace=NS, body={"metadata": {"annotations": {"x": "y"}}},
                      content_type="application/merge-patch+json")
        self.assertEqual(got.metadata.annotations.x, "y")

    def test_server_side_apply(self):
        dyn = dynamic.DynamicClient(client.ApiClient())
        r = dyn.resources.get(api_version="v1", kind="ConfigMap")
        n = self.name()
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}, "data": {"a": "1"}}
        r.server_side_apply(body=body, name=n, namespace=NS, field_manager="one")
        body["data"]["a"] = "2"
        with self.assertRaises(dynamic.exceptions.ConflictError) as e:
            r.server_side_apply(body=body, name=n, namespace=NS, field_manager="two")
        self.assertEqual(json.loads(e.exception.body)["message"], 'Apply failed with 1 conflict: conflict with "one": .data.a')
        got = r.server_side_apply(body=body, name=n, namespace=NS, field_manager="two", force_conflicts=True)
        self.assertEqual(got.data.a, "2")
        managers = {(m.manager, m.operation) for m in got.metadata.managedFields}
        self.assertEqual(managers, {("two", "Apply")})

    # ---- lists and watches ----

    def test_lists_come_in_pages(self):
        prefix = self.name()
        for i in range(7):
            self.core.create_namespaced_config_map(NS, {"metadata": {"name": "%s-%d" % (prefix, i), "labels": {"page": prefix}}})
        names, token = [], None
        while True:
            page = self.core.list_namespaced_config_map(NS, label_selector="page=" + prefix, limit=3, _continue=token)
            names += [o.metadata.name for o in page.items]
            token = page.metadata._continue
            if not token:
                break
        self.assertEqual(names, ["%s-%d" % (prefix, i) for i in range(7)])
        gone = self.core.delete_collection_namespaced_config_map(NS, label_selector="page=" + prefix)
        self.assertEqual(gone.status or "Success", "Success")
        self.assertEqual(self.core.list_namespaced_config_map(NS, label_selector="page=" + prefix).items, [])

    def test_a_watch_sees_every_change_and_goes_on_after_its_end(self):
        n = self.name()
        start = self.core.list_namespaced_config_map(NS).metadata.resource_version
        seen = []

        def change():
            self.core.create_namespaced_config_map(NS, {"metadata": {"name": n}, "data": {"v": "0"}})
            for i in range(1, 4):
                self.core.patch_namespaced_config_map(n, NS, {"data": {"v": str(i)}})
            self.core.delete_namespaced_config_map(n, NS)
        t = threading.Thread(target=change)
        t.start()
        w = watch.Watch()
        for e in w.stream(self.core.list_namespaced_config_map, NS, resource_version=start, timeout_seconds=30):
            if e["object"].metadata.name == n:
                seen.append((e["type"], e["object"].data["v"]))
            if e["type"] == "DELETED":
                w.stop()
        t.join()
        self.assertEqual(seen, [("ADDED", "0"), ("MODIFIED", "1"), ("MODIFIED", "2"), ("MODIFIED", "3"), ("DELETED", "3")])

    # ---- discovery, custom resources, dynamic client ----

    def test_a_definition_and_its_objects(self):
        ext, custom = client.ApiextensionsV1Api(), client.CustomObjectsApi()
        spec = client.V1CustomResourceDefinitionSpec(
            group="py.example.com", scope="Namespaced",
            names=client.V1CustomResourceDefinitionNames(plural="gadgets", singular="gadget", kind="Gadget"),
            versions=[client.V1CustomResourceDefinitionVersion(
                name="v1", served=True, storage=True, subresources=client.V1CustomResourceSubresources(status={}),
                schema=client.V1CustomResourceValidation(open_apiv3_schema=client.V1JSONSchemaProps(
                    type="object", properties={
                        "spec": client.V1JSONSchemaProps(type="object", properties={
                            "size": client.V1JSONSchemaProps(type="integer", minimum=1)}),
                        "status": client.V1JSONSchemaProps(type="object", x_kubernetes_preserve_unknown_fields=True)})))])
        w = watch.Watch()
        ext.create_custom_resource_definition(client.V1CustomResourceDefinition(
            api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition",
            metadata=client.V1ObjectMeta(name="gadgets.py.example.com"), spec=spec))
        for e in w.stream(ext.list_custom_resource_definition, field_selector="metadata.name=gadgets.py.example.com",
                          timeout_seconds=30):
            if any(c.type == "Established" and c.status == "True" for c in e["object"].status.conditions or []):
                w.stop()
        at = ("py.example.com", "v1", NS, "gadgets")
        body = {"apiVersion": "py.example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"size": 3}}
        self.assertEqual(custom.create_namespaced_custom_object(*at, body)["spec"], {"size": 3})
        self.refused(422, "Invalid", custom.create_namespaced_custom_object, *at,
                     dict(body, metadata={"name": "h"}, spec={"size": 0}))
        self.assertEqual(custom.patch_namespaced_custom_object(*at, "g", {"spec": {"size": 4}})["spec"]["size"], 4)
        got = custom.patch_namespaced_custom_object_status(*at, "g", {"status": {"ok": True}})
        self.assertEqual(got["status"], {"ok": True})
        dyn = dynamic.DynamicClient(client.ApiClient())
        r = dyn.resources.get(api_version="py.example.com/v1", kind="Gadget")
        self.assertEqual([o.metadata.name for o in r.get(namespace=NS).items], ["g"])
        self.assertEqual(r.get(name="g", namespace=NS).spec.size, 4)
        r.delete(name="g", namespace=NS)
        ext.delete_custom_resource_definition("gadgets.py.example.com")

    def test_manifests_of_many_documents(self):
        n = self.name()
        docs = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}},
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": n, "namespace": n}, "spec": {"ports": [{"port": 80}]}},
                {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": n, "namespace": n}, "spec": {
                    "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                        "containers": [{"name": "a", "image": "i"}]}}}},
                {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": n, "namespace": n}, "rules": [
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}]
        path = os.path.join(self.c.dir, "all.yaml")
        with open(path, "w") as f:
            yaml.safe_dump_all(docs, f)
        made = utils.create_from_yaml(client.ApiClient(), path)
        self.assertEqual(len(made), 4)
        with self.assertRaises(utils.FailToCreateError):
            utils.create_from_yaml(client.ApiClient(), path)

    # ---- security, logs, leaders ----

    def test_tokens_and_reviews(self):
        n = self.name()
        self.core.create_namespaced_service_account(NS, {"metadata": {"name": n}})
        token = self.core.create_namespaced_service_account_token(
            n, NS, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)))
        review = client.AuthenticationV1Api().create_token_review({"spec": {"token": token.status.token}})
        self.assertEqual(review.status.user.username, "system:serviceaccount:default:" + n)
        conf = client.Configuration.get_default_copy()
        conf.cert_file = conf.key_file = None
        conf.api_key = {"authorization": "Bearer " + token.status.token}
        api = client.ApiClient(conf)
        self.refused(403, "Forbidden", client.CoreV1Api(api).list_namespaced_pod, NS)
        access = client.AuthorizationV1Api(api).create_self_subject_access_review(
            {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": NS}}})
        self.assertFalse(access.status.allowed)
        rbac = client.RbacAuthorizationV1Api()
        rbac.create_namespaced_role(NS, {"metadata": {"name": n}, "rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["watch"]}]})
        rbac.create_namespaced_role_binding(NS, {
            "metadata": {"name": n}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": n},
            "subjects": [{"kind": "ServiceAccount", "name": n, "namespace": NS}]})
        for e in watch.Watch().stream(client.CoreV1Api(api).list_namespaced_pod, NS, timeout_seconds=1):
            pass

    def test_logs_come_from_the_node(self):
        n = self.name()
        self.core.create_node({"metadata": {"name": n}})
        self.core.create_namespaced_pod(NS, {"metadata": {"name": n}, "spec": {
            "nodeName": n, "containers": [{"name": "a", "image": "i"}]}})
        out = self.core.read_namespaced_pod_log(n, NS, tail_lines=3)
        self.assertIn("/containerLogs/default/%s/a?tailLines=3" % n, out)
        r = self.core.read_namespaced_pod_log(n, NS, follow=True, _preload_content=False)
        self.assertIn(b"follow=true", r.read().lower())

    def test_one_of_two_leads(self):
        n, led = self.name(), []
        ready, over = threading.Event(), threading.Event()

        def lead(who):
            def run():
                led.append(who)
                ready.set()
                over.wait(30)
            leaderelection.LeaderElection(electionconfig.Config(
                ConfigMapLock(n, NS, who), lease_duration=17, renew_deadline=15, retry_period=5,
                onstarted_leading=run, onstopped_leading=None)).run()
        for who in ("a", "b"):
            threading.Thread(target=lead, args=(who,), daemon=True).start()
        self.assertTrue(ready.wait(30))
        record = json.loads(self.core.read_namespaced_config_map(n, NS).metadata.annotations["control-plane.alpha.kubernetes.io/leader"])
        self.assertEqual((led, record["holderIdentity"]), ([led[0]], led[0]))
        over.set()


if __name__ == "__main__":
    unittest.main()

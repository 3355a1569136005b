// Kubernetes' JavaScript client against a control plane: what it sends and expects is its own; the tests
// only say what a user of it would see on any cluster.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { after, before, test } from 'node:test';
import * as k8s from '@kubernetes/client-node';

const NS = 'default';
let dir, proc, kc, core, apps;

before(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'th-js-'));
    const binary = process.env.TH_CONTROLPLANE;
    const args = ['--data', dir, '--memory', '--listen', '127.0.0.1:0', '--controllers', 'none', '--disable-admission', 'ServiceAccount'];
    proc = spawn(binary, path.basename(binary) === 'thimbled' ? ['controlplane', ...args] : args, { stdio: ['ignore', 'pipe', 'ignore'] });
    for await (const line of readline.createInterface({ input: proc.stdout })) {
        assert.match(line, /^ready /);
        break;
    }
    kc = new k8s.KubeConfig();
    kc.loadFromFile(path.join(dir, 'admin.kubeconfig'));
    core = kc.makeApiClient(k8s.CoreV1Api);
    apps = kc.makeApiClient(k8s.AppsV1Api);
});

after(async () => {
    proc.kill();
    await new Promise((done) => proc.once('exit', done));
    fs.rmSync(dir, { recursive: true });
});

let count = 0;
const name = () => `n${process.pid}-${count++}`;

function deployment(n) {
    return {
        apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: n },
        spec: {
            replicas: 2, selector: { matchLabels: { app: n } },
            template: { metadata: { labels: { app: n } }, spec: { containers: [{ name: 'a', image: 'i:1' }] } },
        },
    };
}

async function refused(code, reason, call) {
    await assert.rejects(call, (e) => {
        assert.equal(e.code, code);
        assert.equal(JSON.parse(e.body).reason, reason);
        return true;
    });
}

test('the life of a deployment', async () => {
    const n = name();
    const made = await apps.createNamespacedDeployment({ namespace: NS, body: deployment(n) });
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    assert.equal(made.spec.strategy.rollingUpdate.maxSurge, '25%');
    made.spec.replicas = 3;
    const got = await apps.replaceNamespacedDeployment({ name: n, namespace: NS, body: made });
    assert.equal(got.spec.replicas, 3);
    await refused(409, 'Conflict', apps.replaceNamespacedDeployment({ name: n, namespace: NS, body: { ...made, spec: { ...made.spec, replicas: 9 } } }));
    const scale = await apps.readNamespacedDeploymentScale({ name: n, namespace: NS });
    assert.equal(scale.status.selector, `app=${n}`);
    const gone = await apps.deleteNamespacedDeployment({ name: n, namespace: NS });
    assert.equal(gone.status, 'Success');
    await refused(404, 'NotFound', apps.readNamespacedDeployment({ name: n, namespace: NS }));
    const bad = deployment(name());
    bad.spec.template.metadata.labels = {};
    await refused(422, 'Invalid', apps.createNamespacedDeployment({ namespace: NS, body: bad }));
});

test('patches of every kind', async () => {
    const n = name();
    await apps.createNamespacedDeployment({ namespace: NS, body: deployment(n) });
    const patch = (body, kind) => apps.patchNamespacedDeployment(
        { name: n, namespace: NS, body, fieldManager: 'js', force: kind === k8s.PatchStrategy.ServerSideApply ? true : undefined },
        k8s.setHeaderOptions('Content-Type', kind));
    let got = await patch([{ op: 'replace', path: '/spec/replicas', value: 7 }], k8s.PatchStrategy.JsonPatch);
    assert.equal(got.spec.replicas, 7);
    got = await patch({ metadata: { annotations: { x: 'y' } } }, k8s.PatchStrategy.MergePatch);
    assert.equal(got.metadata.annotations.x, 'y');
    got = await patch({ spec: { template: { spec: { containers: [{ name: 'b', image: 'i' }] } } } }, k8s.PatchStrategy.StrategicMergePatch);
    assert.deepEqual(got.spec.template.spec.containers.map((c) => c.name).sort(), ['a', 'b']);
    got = await patch({ apiVersion: 'apps/v1', kind: 'Deployment', spec: { replicas: 1 } }, k8s.PatchStrategy.ServerSideApply);
    assert.equal(got.spec.replicas, 1);
    assert.ok(got.metadata.managedFields.some((m) => m.manager === 'js' && m.operation === 'Apply'));
});

test('objects of any kind', async () => {
    const any = k8s.KubernetesObjectApi.makeApiClient(kc);
    const n = name();
    const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: n, namespace: NS }, data: { a: 'b' } };
    await any.create(body);
    assert.equal((await any.read(body)).data.a, 'b');
    await any.patch({ ...body, data: { c: 'd' } });
    const list = await any.list('v1', 'ConfigMap', NS);
    assert.deepEqual(list.items.find((o) => o.metadata.name === n).data, { a: 'b', c: 'd' });
    await any.delete(body);
    await refused(404, 'NotFound', any.read(body));
});

test('an informer follows what happens', async () => {
    const n = name();
    const list = () => core.listNamespacedConfigMap({ namespace: NS });
    const informer = k8s.makeInformer(kc, `/api/v1/namespaces/${NS}/configmaps`, list);
    const seen = [];
    const deleted = new Promise((done, fail) => {
        const note = (what) => (o) => {
            if (o.metadata.name === n) {
                seen.push([what, o.data.v]);
                if (what === 'delete') done();
            }
        };
        for (const what of ['add', 'update', 'delete']) informer.on(what, note(what));
        informer.on('error', fail);
    });
    await informer.start();
    await core.createNamespacedConfigMap({ namespace: NS, body: { metadata: { name: n }, data: { v: '0' } } });
    await core.replaceNamespacedConfigMap({ name: n, namespace: NS, body: { metadata: { name: n }, data: { v: '1' } } });
    await core.deleteNamespacedConfigMap({ name: n, namespace: NS });
    await deleted;
    await informer.stop();
    assert.deepEqual(seen, [['add', '0'], ['update', '1'], ['delete', '1']]);
});

test('a watch says when it is over, and what it may not see', async () => {
    const watch = new k8s.Watch(kc);
    const start = (await core.listNamespacedSecret({ namespace: NS })).metadata.resourceVersion;
    const ended = await new Promise((done) => {
        watch.watch(`/api/v1/namespaces/${NS}/secrets`, { resourceVersion: start, timeoutSeconds: 1, allowWatchBookmarks: true }, () => {}, done);
    });
    assert.ok(!ended || /premature|aborted/i.test(String(ended)), String(ended));
});

test('definitions and their objects', async () => {
    const ext = kc.makeApiClient(k8s.ApiextensionsV1Api);
    const custom = kc.makeApiClient(k8s.CustomObjectsApi);
    await ext.createCustomResourceDefinition({ body: {
        apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name: 'widgets.js.example.com' },
        spec: {
            group: 'js.example.com', scope: 'Namespaced', names: { plural: 'widgets', singular: 'widget', kind: 'Widget' },
            versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object', properties: {
                spec: { type: 'object', properties: { size: { type: 'integer', minimum: 1 } } } } } } }],
        } } });
    const at = { group: 'js.example.com', version: 'v1', namespace: NS, plural: 'widgets' };
    for (;;) {
        const crd = await ext.readCustomResourceDefinition({ name: 'widgets.js.example.com' });
        if (crd.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True')) break;
    }
    const body = { apiVersion: 'js.example.com/v1', kind: 'Widget', metadata: { name: 'w' }, spec: { size: 2 } };
    await custom.createNamespacedCustomObject({ ...at, body });
    await refused(422, 'Invalid', custom.createNamespacedCustomObject({ ...at, body: { ...body, metadata: { name: 'x' }, spec: { size: 0 } } }));
    const list = await custom.listNamespacedCustomObject(at);
    assert.deepEqual(list.items.map((o) => o.spec.size), [2]);
    await custom.deleteNamespacedCustomObject({ ...at, name: 'w' });
});

test('who asks and what they may', async () => {
    const n = name();
    await core.createNamespacedServiceAccount({ namespace: NS, body: { metadata: { name: n } } });
    const token = await core.createNamespacedServiceAccountToken({ name: n, namespace: NS, body: { spec: { audiences: [], expirationSeconds: 600 } } });
    const other = new k8s.KubeConfig();
    other.loadFromOptions({ clusters: kc.clusters, users: [{ name: 'sa', token: token.status.token }],
        contexts: [{ name: 'c', cluster: kc.clusters[0].name, user: 'sa' }], currentContext: 'c' });
    await refused(403, 'Forbidden', other.makeApiClient(k8s.CoreV1Api).listNamespacedPod({ namespace: NS }));
    const me = await other.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({ body: {} });
    assert.equal(me.status.userInfo.username, `system:serviceaccount:${NS}:${n}`);
});

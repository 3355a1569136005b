package clientgo

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

func deployment(name string) *appsv1.Deployment {
	replicas := int32(2)
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "c", Image: "hello:1.0",
					Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
					Resources: corev1.ResourceRequirements{
						Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}},
					ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
						HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}},
				}}},
			},
		},
	}
}

// Typed clients send protobuf bodies and take JSON or protobuf; both must show the same object.
func TestTypedClientsSeeTheSameInEveryEncoding(t *testing.T) {
	ns := namespace(t)
	var seen []*appsv1.Deployment
	for _, accept := range []string{"", "application/vnd.kubernetes.protobuf", "application/json", "application/yaml"} {
		c := config()
		c.AcceptContentTypes = accept
		if accept != "" && !strings.Contains(accept, "yaml") {
			c.ContentType = accept
		}
		if strings.Contains(accept, "yaml") {
			c.ContentType, c.AcceptContentTypes = "application/yaml", accept
		}
		client, err := kubernetes.NewForConfig(c)
		must(t, err)
		api := client.AppsV1().Deployments(ns)
		if len(seen) == 0 {
			_, err := api.Create(ctx(t), deployment("d"), metav1.CreateOptions{})
			must(t, err)
		}
		d, err := api.Get(ctx(t), "d", metav1.GetOptions{})
		must(t, err)
		list, err := api.List(ctx(t), metav1.ListOptions{})
		must(t, err)
		check(t, len(list.Items) == 1 && list.ResourceVersion != "", "list %+v", list)
		check(t, equality.Semantic.DeepEqual(*d, list.Items[0]), "%q: list and get differ", accept)
		_, err = api.Create(ctx(t), deployment("d"), metav1.CreateOptions{})
		check(t, apierrors.IsAlreadyExists(err), "%q: second create: %v", accept, err)
		seen = append(seen, d)
	}
	for _, d := range seen[1:] {
		check(t, equality.Semantic.DeepEqual(seen[0], d), "encodings differ:\n%+v\n%+v", seen[0], d)
	}
	d := seen[0]
	check(t, *d.Spec.ProgressDeadlineSeconds == 600 && d.Spec.Strategy.RollingUpdate.MaxSurge.StrVal == "25%" &&
		d.Spec.Template.Spec.Containers[0].ReadinessProbe.HTTPGet.Scheme == "HTTP" && d.Generation == 1,
		"defaults are missing: %+v", d.Spec)
}

func TestProtobufWatchFramesAreWhatTheClientDecodes(t *testing.T) {
	ns := namespace(t)
	c := config()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(c)
	must(t, err)
	maps := client.CoreV1().ConfigMaps(ns)
	list, err := maps.List(ctx(t), metav1.ListOptions{})
	must(t, err)
	w, err := maps.Watch(ctx(t), metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: "k=v"})
	must(t, err)
	defer w.Stop()
	m := configMap("m", "a", "b")
	m.Labels = map[string]string{"k": "v"}
	m, err = maps.Create(ctx(t), m, metav1.CreateOptions{})
	must(t, err)
	m.Labels["k"] = "other"
	_, err = maps.Update(ctx(t), m, metav1.UpdateOptions{})
	must(t, err)
	for _, want := range []string{"ADDED", "DELETED"} {
		e := <-w.ResultChan()
		got, ok := e.Object.(*corev1.ConfigMap)
		check(t, ok && string(e.Type) == want && got.Name == "m" && got.Data["a"] == "b" && got.Labels["k"] == "v",
			"want %s, got %+v", want, e)
	}
}

func TestConflictsAreRetriedUntilAllUpdatesArrive(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	_, err := maps.Create(ctx(t), configMap("counter", "n", "0"), metav1.CreateOptions{})
	must(t, err)
	var wait sync.WaitGroup
	c := ctx(t)
	for i := 0; i < 8; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for k := 0; k < 5; k++ {
				err := retry.OnError(retry.DefaultBackoff, func(err error) bool { return true }, func() error {
					return retry.RetryOnConflict(retry.DefaultRetry, func() error {
						m, err := maps.Get(c, "counter", metav1.GetOptions{})
						if err != nil {
							return err
						}
						var n int
						_, _ = fmt.Sscan(m.Data["n"], &n)
						m.Data["n"] = fmt.Sprint(n + 1)
						_, err = maps.Update(c, m, metav1.UpdateOptions{})
						return err
					})
				})
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wait.Wait()
	m, err := maps.Get(ctx(t), "counter", metav1.GetOptions{})
	must(t, err)
	check(t, m.Data["n"] == "40", "40 updates made %s", m.Data["n"])
}

func TestErrorsHaveTheirReasonsAndDetails(t *testing.T) {
	ns := namespace(t)
	c := typed(t)
	_, err := c.CoreV1().Pods(ns).Get(ctx(t), "none", metav1.GetOptions{})
	check(t, apierrors.IsNotFound(err) && err.Error() == `pods "none" not found`, "%v", err)

	m, err := c.CoreV1().ConfigMaps(ns).Create(ctx(t), configMap("m"), metav1.CreateOptions{})
	must(t, err)
	stale := m.DeepCopy()
	m.Data = map[string]string{"a": "1"}
	_, err = c.CoreV1().ConfigMaps(ns).Update(ctx(t), m, metav1.UpdateOptions{})
	must(t, err)
	stale.Data = map[string]string{"a": "2"}
	_, err = c.CoreV1().ConfigMaps(ns).Update(ctx(t), stale, metav1.UpdateOptions{})
	check(t, apierrors.IsConflict(err) && err.Error() == `Operation cannot be fulfilled on configmaps "m": the object `+
		`has been modified; please apply your changes to the latest version and try again`, "%v", err)

	bad := pod("Bad_Name")
	bad.Spec.Containers[0].Image = ""
	bad.Spec.RestartPolicy = "Sometimes"
	_, err = c.CoreV1().Pods(ns).Create(ctx(t), bad, metav1.CreateOptions{})
	check(t, apierrors.IsInvalid(err), "%v", err)
	fields := map[string]bool{}
	for _, cause := range err.(apierrors.APIStatus).Status().Details.Causes {
		fields[cause.Field] = true
	}
	for _, want := range []string{"metadata.name", "spec.containers[0].image", "spec.restartPolicy"} {
		check(t, fields[want], "no cause for %s in %v", want, err)
	}

	_, err = c.CoreV1().ConfigMaps("nowhere").Create(ctx(t), configMap("m"), metav1.CreateOptions{})
	check(t, apierrors.IsNotFound(err), "%v", err)

	uid := types.UID("another")
	err = c.CoreV1().ConfigMaps(ns).Delete(ctx(t), "m", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	check(t, apierrors.IsConflict(err), "%v", err)
}

func TestPatchesOfAllTypes(t *testing.T) {
	ns := namespace(t)
	api := typed(t).AppsV1().Deployments(ns)
	_, err := api.Create(ctx(t), deployment("d"), metav1.CreateOptions{})
	must(t, err)
	patch := func(kind types.PatchType, doc string, subs ...string) *appsv1.Deployment {
		t.Helper()
		d, err := api.Patch(ctx(t), "d", kind, []byte(doc), metav1.PatchOptions{}, subs...)
		must(t, err)
		return d
	}
	d := patch(types.JSONPatchType, `[{"op":"test","path":"/spec/replicas","value":2},
		{"op":"replace","path":"/spec/replicas","value":3},{"op":"add","path":"/metadata/labels","value":{"x/y":"z"}},
		{"op":"copy","from":"/metadata/labels/x~1y","path":"/metadata/labels/w"}]`)
	check(t, *d.Spec.Replicas == 3 && d.Labels["x/y"] == "z" && d.Labels["w"] == "z" && d.Generation == 2, "%+v", d)
	d = patch(types.MergePatchType, `{"metadata":{"labels":{"w":null}},"spec":{"paused":true}}`)
	check(t, d.Spec.Paused && len(d.Labels) == 1, "%+v", d)
	d = patch(types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[
		{"name":"c","env":[{"name":"A","value":"1"}]},{"name":"side","image":"side:1"}]}}}}`)
	check(t, len(d.Spec.Template.Spec.Containers) == 2 && d.Spec.Template.Spec.Containers[0].Image == "hello:1.0",
		"%+v", d.Spec.Template.Spec)
	d = patch(types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"$setElementOrder/containers":
		[{"name":"side"},{"name":"c"}],"containers":[{"$patch":"delete","name":"side"}]}},
		"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`)
	check(t, len(d.Spec.Template.Spec.Containers) == 1 && d.Spec.Strategy.RollingUpdate == nil &&
		d.Spec.Strategy.Type == "Recreate", "%+v", d.Spec)
	d = patch(types.MergePatchType, `{"status":{"replicas":7,"observedGeneration":3}}`, "status")
	check(t, d.Status.Replicas == 7 && *d.Spec.Replicas == 3, "%+v", d.Status)

	_, err = api.Patch(ctx(t), "d", types.JSONPatchType, []byte(`[{"op":"test","path":"/spec/replicas","value":9}]`),
		metav1.PatchOptions{})
	check(t, apierrors.IsInvalid(err), "a failing test: %v", err)
	_, err = api.Patch(ctx(t), "d", types.MergePatchType, []byte(`{"spec":{"replicas":"many"}}`), metav1.PatchOptions{})
	check(t, apierrors.IsBadRequest(err) || apierrors.IsInvalid(err), "a wrong type: %v", err)
	_, err = api.Patch(ctx(t), "d", types.MergePatchType, []byte(`{"metadata":{"resourceVersion":"1"},"spec":{"paused":false}}`),
		metav1.PatchOptions{})
	check(t, apierrors.IsConflict(err), "a stale version: %v", err)
}

func TestDryRunsChangeNothing(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	dry := []string{metav1.DryRunAll}
	made, err := maps.Create(ctx(t), configMap("m", "a", "1"), metav1.CreateOptions{DryRun: dry})
	must(t, err)
	check(t, made.UID != "" && !made.CreationTimestamp.IsZero(), "%+v", made)
	_, err = maps.Get(ctx(t), "m", metav1.GetOptions{})
	check(t, apierrors.IsNotFound(err), "%v", err)
	m, err := maps.Create(ctx(t), configMap("m", "a", "1"), metav1.CreateOptions{})
	must(t, err)
	m.Data["a"] = "2"
	u, err := maps.Update(ctx(t), m, metav1.UpdateOptions{DryRun: dry})
	must(t, err)
	check(t, u.Data["a"] == "2" && u.ResourceVersion == m.ResourceVersion, "%+v", u)
	_, err = maps.Patch(ctx(t), "m", types.MergePatchType, []byte(`{"data":{"a":"3"}}`), metav1.PatchOptions{DryRun: dry})
	must(t, err)
	must(t, maps.Delete(ctx(t), "m", metav1.DeleteOptions{DryRun: dry}))
	must(t, maps.DeleteCollection(ctx(t), metav1.DeleteOptions{DryRun: dry}, metav1.ListOptions{}))
	now, err := maps.Get(ctx(t), "m", metav1.GetOptions{})
	must(t, err)
	check(t, now.Data["a"] == "1" && now.ResourceVersion == m.ResourceVersion, "%+v", now)
}

func TestDeleteCollectionHonoursSelectors(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	for i := 0; i < 6; i++ {
		m := configMap(fmt.Sprintf("m%d", i))
		m.Labels = map[string]string{"parity": []string{"even", "odd"}[i%2]}
		_, err := maps.Create(ctx(t), m, metav1.CreateOptions{})
		must(t, err)
	}
	must(t, maps.DeleteCollection(ctx(t), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "parity in (odd)"}))
	list, err := maps.List(ctx(t), metav1.ListOptions{})
	must(t, err)
	check(t, len(list.Items) == 3, "%d are left", len(list.Items))
	must(t, maps.DeleteCollection(ctx(t), metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=m0"}))
	list, err = maps.List(ctx(t), metav1.ListOptions{LabelSelector: "parity!=odd,parity"})
	must(t, err)
	check(t, len(list.Items) == 2, "%d are left", len(list.Items))
}

func TestPodsAreBoundReportedEvictedAndDeleted(t *testing.T) {
	ns := namespace(t)
	c := typed(t)
	pods := c.CoreV1().Pods(ns)
	_, err := c.CoreV1().Nodes().Create(ctx(t), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-" + ns}},
		metav1.CreateOptions{})
	must(t, err)
	for _, name := range []string{"a", "b"} {
		_, err := pods.Create(ctx(t), pod(name), metav1.CreateOptions{})
		must(t, err)
		must(t, pods.Bind(ctx(t), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name},
			Target: corev1.ObjectReference{Kind: "Node", Name: "node-" + ns}}, metav1.CreateOptions{}))
	}
	err = pods.Bind(ctx(t), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Target: corev1.ObjectReference{Kind: "Node", Name: "other"}}, metav1.CreateOptions{})
	check(t, apierrors.IsConflict(err), "second binding: %v", err)
	list, err := pods.List(ctx(t), metav1.ListOptions{FieldSelector: "spec.nodeName=node-" + ns + ",status.phase=Pending"})
	must(t, err)
	check(t, len(list.Items) == 2, "%d pods on the node", len(list.Items))

	a, err := pods.Get(ctx(t), "a", metav1.GetOptions{})
	must(t, err)
	a.Status.Phase = corev1.PodRunning
	a.Status.Conditions = append(a.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: "True"})
	a.Spec.Containers[0].Image = "ignored:1"
	a, err = pods.UpdateStatus(ctx(t), a, metav1.UpdateOptions{})
	must(t, err)
	check(t, a.Status.Phase == corev1.PodRunning && a.Spec.Containers[0].Image == "hello:1.0", "%+v", a)
	a.Spec.Containers[0].Image = "hello:2.0"
	a, err = pods.Update(ctx(t), a, metav1.UpdateOptions{})
	must(t, err)
	a.Spec.NodeName = "elsewhere"
	_, err = pods.Update(ctx(t), a, metav1.UpdateOptions{})
	check(t, apierrors.IsInvalid(err), "an immutable field: %v", err)

	must(t, pods.EvictV1(ctx(t), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "b"}}))
	b, err := pods.Get(ctx(t), "b", metav1.GetOptions{})
	must(t, err)
	check(t, b.DeletionTimestamp != nil && *b.DeletionGracePeriodSeconds == 30, "%+v", b.ObjectMeta)
	for _, name := range []string{"a", "b"} {
		must(t, pods.Delete(ctx(t), name, *metav1.NewDeleteOptions(0)))
	}
	list, err = pods.List(ctx(t), metav1.ListOptions{})
	must(t, err)
	check(t, len(list.Items) == 0, "%d pods are left", len(list.Items))
}

func TestScaleAndTokens(t *testing.T) {
	ns := namespace(t)
	c := typed(t)
	_, err := c.AppsV1().Deployments(ns).Create(ctx(t), deployment("d"), metav1.CreateOptions{})
	must(t, err)
	s, err := c.AppsV1().Deployments(ns).GetScale(ctx(t), "d", metav1.GetOptions{})
	must(t, err)
	check(t, s.Spec.Replicas == 2 && s.Status.Selector == "app=d", "%+v", s)
	s.Spec.Replicas = 5
	s, err = c.AppsV1().Deployments(ns).UpdateScale(ctx(t), "d", s, metav1.UpdateOptions{})
	must(t, err)
	_, err = c.AppsV1().Deployments(ns).UpdateScale(ctx(t), "d",
		&autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "d", ResourceVersion: "1"}}, metav1.UpdateOptions{})
	check(t, apierrors.IsConflict(err), "%v", err)
	d, err := c.AppsV1().Deployments(ns).Get(ctx(t), "d", metav1.GetOptions{})
	must(t, err)
	check(t, *d.Spec.Replicas == 5 && d.Generation == 2 && s.ResourceVersion == d.ResourceVersion, "%+v", d)

	seconds := int64(3600)
	token, err := c.CoreV1().ServiceAccounts(ns).CreateToken(ctx(t), "default", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	must(t, err)
	check(t, strings.Count(token.Status.Token, ".") == 2 && !token.Status.ExpirationTimestamp.IsZero(), "%+v", token)
	bearer := rest.AnonymousClientConfig(config())
	bearer.BearerToken = token.Status.Token
	who, err := kubernetes.NewForConfig(bearer)
	must(t, err)
	_, err = who.CoreV1().Pods(ns).List(ctx(t), metav1.ListOptions{})
	check(t, apierrors.IsForbidden(err) && strings.Contains(err.Error(), "system:serviceaccount:"+ns+":default"), "%v", err)
	bearer.BearerToken = "nonsense"
	who, err = kubernetes.NewForConfig(bearer)
	must(t, err)
	_, err = who.CoreV1().Pods(ns).List(ctx(t), metav1.ListOptions{})
	check(t, apierrors.IsUnauthorized(err), "%v", err)
}

func TestFieldValidationWarnsAndRefuses(t *testing.T) {
	ns := namespace(t)
	c := config()
	warnings := &warningLog{}
	c.WarningHandler = warnings
	client, err := kubernetes.NewForConfig(c)
	must(t, err)
	body, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "m", "labelz": 1}, "data": map[string]any{"a": "b"}, "spek": true})
	must(t, err)
	post := func(mode string) error {
		return client.CoreV1().RESTClient().Post().Namespace(ns).Resource("configmaps").Param("fieldValidation", mode).
			SetHeader("Content-Type", "application/json").Body(body).Do(ctx(t)).Error()
	}
	err = post("Strict")
	check(t, apierrors.IsBadRequest(err) && strings.Contains(err.Error(),
		`strict decoding error: unknown field "metadata.labelz", unknown field "spek"`), "%v", err)
	must(t, post("Warn"))
	check(t, len(warnings.all) == 2 && warnings.all[1] == `unknown field "spek"`, "%q", warnings.all)
}

type warningLog struct{ all []string }

func (w *warningLog) HandleWarningHeader(code int, agent, text string) { w.all = append(w.all, text) }

func TestLongListsAreCompressedOnTheirWay(t *testing.T) {
	ns := namespace(t)
	c := config()
	c.DisableCompression = true // no Accept-Encoding of its own, and no silent unpacking
	plain, err := kubernetes.NewForConfig(c)
	must(t, err)
	value := strings.Repeat("0123456789", 200)
	for i := 0; i < 120; i++ {
		_, err := plain.CoreV1().ConfigMaps(ns).Create(ctx(t), configMap(fmt.Sprintf("m%03d", i), "k", value), metav1.CreateOptions{})
		must(t, err)
	}
	for _, accept := range []string{"application/json", runtime.ContentTypeProtobuf} {
		get := func(encoding string) *http.Response {
			client, err := rest.HTTPClientFor(c)
			must(t, err)
			q, err := http.NewRequest("GET", c.Host+"/api/v1/namespaces/"+ns+"/configmaps", nil)
			must(t, err)
			q.Header.Set("Accept", accept)
			if encoding != "" {
				q.Header.Set("Accept-Encoding", encoding)
			}
			r, err := client.Do(q)
			must(t, err)
			t.Cleanup(func() { _ = r.Body.Close() })
			return r
		}
		whole, err := io.ReadAll(get("").Body)
		must(t, err)
		r := get("deflate, gzip")
		check(t, r.Header.Get("Content-Encoding") == "gzip" && r.Header.Get("Vary") == "Accept-Encoding", "%v", r.Header)
		z, err := gzip.NewReader(r.Body)
		must(t, err)
		unpacked, err := io.ReadAll(z)
		must(t, err)
		check(t, len(whole) > 200000 && bytes.Equal(whole, unpacked), "%s: %d and %d bytes", accept, len(whole), len(unpacked))
	}
}

package clientgo

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	acappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	acautoscalingv1 "k8s.io/client-go/applyconfigurations/autoscaling/v1"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/util/csaupgrade"
)

func deploymentConfig(ns, image string) *acappsv1.DeploymentApplyConfiguration {
	labels := map[string]string{"app": "d"}
	return acappsv1.Deployment("d", ns).WithSpec(acappsv1.DeploymentSpec().WithReplicas(2).
		WithSelector(acmetav1.LabelSelector().WithMatchLabels(labels)).
		WithTemplate(accorev1.PodTemplateSpec().WithLabels(labels).
			WithSpec(accorev1.PodSpec().WithContainers(accorev1.Container().WithName("c").WithImage(image).
				WithPorts(accorev1.ContainerPort().WithContainerPort(8080))))))
}

func opts(manager string) metav1.ApplyOptions { return metav1.ApplyOptions{FieldManager: manager} }

func owner(fields []metav1.ManagedFieldsEntry, manager, subresource string) *metav1.ManagedFieldsEntry {
	for i := range fields {
		if fields[i].Manager == manager && fields[i].Subresource == subresource {
			return &fields[i]
		}
	}
	return nil
}

func TestApplyCreatesOwnsConflictsAndReleases(t *testing.T) {
	ns := namespace(t)
	api := typed(t).AppsV1().Deployments(ns)
	d, err := api.Apply(ctx(t), deploymentConfig(ns, "hello:1.0"), opts("alice"))
	must(t, err)
	check(t, *d.Spec.Replicas == 2 && owner(d.ManagedFields, "alice", "") != nil, "%+v", d)
	again, err := api.Apply(ctx(t), deploymentConfig(ns, "hello:1.0"), opts("alice"))
	must(t, err)
	check(t, again.ResourceVersion == d.ResourceVersion, "an apply of the same wrote something")

	other := acappsv1.Deployment("d", ns).WithSpec(acappsv1.DeploymentSpec().WithReplicas(4))
	_, err = api.Apply(ctx(t), other, opts("bob"))
	check(t, apierrors.IsConflict(err) && err.Error() ==
		`Apply failed with 1 conflict: conflict with "alice": .spec.replicas`, "%v", err)
	causes := err.(apierrors.APIStatus).Status().Details.Causes
	check(t, len(causes) == 1 && causes[0].Type == metav1.CauseTypeFieldManagerConflict &&
		causes[0].Field == ".spec.replicas" && causes[0].Message == `conflict with "alice"`, "%+v", causes)
	forced := opts("bob")
	forced.Force = true
	d, err = api.Apply(ctx(t), other, forced)
	must(t, err)
	check(t, *d.Spec.Replicas == 4, "%+v", d.Spec)
	check(t, !strings.Contains(string(owner(d.ManagedFields, "alice", "").FieldsV1.Raw), "f:replicas"), "alice still owns replicas")

	// What a manager no longer applies and nobody else owns goes away.
	with := deploymentConfig(ns, "hello:1.0").WithLabels(map[string]string{"tier": "web"})
	with.Spec.Replicas = nil
	d, err = api.Apply(ctx(t), with, opts("alice"))
	must(t, err)
	check(t, d.Labels["tier"] == "web" && *d.Spec.Replicas == 4, "%+v", d)
	without := deploymentConfig(ns, "hello:1.0")
	without.Spec.Replicas = nil
	d, err = api.Apply(ctx(t), without, opts("alice"))
	must(t, err)
	check(t, len(d.Labels) == 0, "%+v", d.Labels)

	extracted, err := acappsv1.ExtractDeployment(d, "bob")
	must(t, err)
	check(t, *extracted.Spec.Replicas == 4 && extracted.Spec.Template == nil, "%+v", extracted)
}

func TestApplyOfListsSharesThemByKey(t *testing.T) {
	ns := namespace(t)
	api := typed(t).CoreV1().Services(ns)
	port := func(name string, n int32) *accorev1.ServicePortApplyConfiguration {
		return accorev1.ServicePort().WithName(name).WithPort(n).WithTargetPort(intstr.FromInt32(n))
	}
	svc := func(ports ...*accorev1.ServicePortApplyConfiguration) *accorev1.ServiceApplyConfiguration {
		return accorev1.Service("s", ns).WithSpec(accorev1.ServiceSpec().WithPorts(ports...))
	}
	_, err := api.Apply(ctx(t), svc(port("a", 80)), opts("alice"))
	must(t, err)
	s, err := api.Apply(ctx(t), svc(port("b", 81)), opts("bob"))
	must(t, err)
	check(t, len(s.Spec.Ports) == 2, "%+v", s.Spec.Ports)
	_, err = api.Apply(ctx(t), svc(accorev1.ServicePort().WithName("x").WithPort(80)), opts("carol"))
	check(t, apierrors.IsConflict(err) && strings.Contains(err.Error(),
		`.spec.ports[port=80,protocol="TCP"].name`), "%v", err)
	s, err = api.Apply(ctx(t), svc(), opts("bob"))
	must(t, err)
	check(t, len(s.Spec.Ports) == 1 && s.Spec.Ports[0].Name == "a", "%+v", s.Spec.Ports)
}

func TestApplyOnSubresources(t *testing.T) {
	ns := namespace(t)
	api := typed(t).AppsV1().Deployments(ns)
	_, err := api.Apply(ctx(t), deploymentConfig(ns, "hello:1.0"), opts("alice"))
	must(t, err)
	d, err := api.ApplyStatus(ctx(t), acappsv1.Deployment("d", ns).WithStatus(acappsv1.DeploymentStatus().WithReplicas(2).
		WithConditions(acappsv1.DeploymentCondition().WithType("Available").WithStatus("True"))), opts("controller"))
	must(t, err)
	check(t, d.Status.Replicas == 2 && owner(d.ManagedFields, "controller", "status") != nil, "%+v", d)

	scale := acautoscalingv1.Scale().WithName("d").WithNamespace(ns).WithSpec(acautoscalingv1.ScaleSpec().WithReplicas(6))
	_, err = api.ApplyScale(ctx(t), "d", scale, opts("scaler"))
	check(t, apierrors.IsConflict(err) && strings.Contains(err.Error(), `conflict with "alice"`), "%v", err)
	forced := opts("scaler")
	forced.Force = true
	s, err := api.ApplyScale(ctx(t), "d", scale, forced)
	must(t, err)
	check(t, s.Spec.Replicas == 6, "%+v", s)
	d, err = api.Get(ctx(t), "d", metav1.GetOptions{})
	must(t, err)
	e := owner(d.ManagedFields, "scaler", "scale")
	check(t, *d.Spec.Replicas == 6 && e != nil && e.APIVersion == "apps/v1" &&
		string(e.FieldsV1.Raw) == `{"f:spec":{"f:replicas":{}}}`, "%+v", d.ManagedFields)
	check(t, !strings.Contains(string(owner(d.ManagedFields, "alice", "").FieldsV1.Raw), "f:replicas"), "alice owns replicas")
}

func TestClientSideAppliersMoveOver(t *testing.T) {
	ns := namespace(t)
	api := typed(t).CoreV1().ConfigMaps(ns)
	m := configMap("m", "a", "1", "b", "2")
	m, err := api.Create(ctx(t), m, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
	must(t, err)
	patch, err := csaupgrade.UpgradeManagedFieldsPatch(m, sets.New("kubectl-client-side-apply"), "kubectl")
	must(t, err)
	m, err = api.Patch(ctx(t), "m", types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: "kubectl"})
	must(t, err)
	e := owner(m.ManagedFields, "kubectl", "")
	check(t, len(m.ManagedFields) == 1 && e != nil && e.Operation == metav1.ManagedFieldsOperationApply, "%+v", m.ManagedFields)
	m, err = api.Apply(ctx(t), accorev1.ConfigMap("m", ns).WithData(map[string]string{"a": "1"}), opts("kubectl"))
	must(t, err)
	check(t, len(m.Data) == 1, "what was not applied any more stayed: %+v", m.Data)

	// What kubectl's own annotation says is no conflict for its first server-side apply, and the
	// annotation follows.
	n := configMap("n", "a", "1", "b", "2")
	n.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": `{"apiVersion":"v1","kind":` +
		`"ConfigMap","metadata":{"annotations":{},"name":"n","namespace":"` + ns + `"},"data":{"a":"1","b":"2"}}`}
	_, err = api.Create(ctx(t), n, metav1.CreateOptions{FieldManager: "kubectl-client-side-apply"})
	must(t, err)
	n, err = api.Apply(ctx(t), accorev1.ConfigMap("n", ns).WithData(map[string]string{"a": "2"}), opts("kubectl"))
	must(t, err)
	check(t, n.Data["a"] == "2" && n.Data["b"] == "2", "%+v", n.Data)
	last := n.Annotations["kubectl.kubernetes.io/last-applied-configuration"]
	check(t, strings.Contains(last, `"data":{"a":"2"}`), "%s", last)

	_, err = api.Apply(ctx(t), accorev1.ConfigMap("n", ns), metav1.ApplyOptions{})
	check(t, err != nil, "apply without a manager")
}

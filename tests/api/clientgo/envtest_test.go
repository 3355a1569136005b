package clientgo

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

func TestEnvtestStartsTheControlPlaneAndInstallsDefinitions(t *testing.T) {
	assets, err := filepath.Abs("../../../controlplane/main/envtest")
	must(t, err)
	preserve := true
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		CRDs: []*apiextensionsv1.CustomResourceDefinition{{
			ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com"},
			Spec: apiextensionsv1.CustomResourceDefinitionSpec{
				Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
				Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Singular: "widget", Kind: "Widget",
					ListKind: "WidgetList"},
				Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
					Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
						Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
							"spec": {Type: "object", XPreserveUnknownFields: &preserve}}}}}},
			},
		}},
	}
	if os.Getenv("USE_EXISTING_CLUSTER") != "" {
		t.Skip("USE_EXISTING_CLUSTER is set: envtest would not start anything")
	}
	cfg, err := env.Start()
	must(t, err)
	defer func() { must(t, env.Stop()) }()
	c, err := client.New(cfg, client.Options{})
	must(t, err)

	// A server alone has the Service of the API and no other, as a kube-apiserver without a cluster.
	services := &corev1.ServiceList{}
	must(t, c.List(ctx(t), services))
	check(t, len(services.Items) == 1 && services.Items[0].Name == "kubernetes", "%+v", services.Items)

	// No ServiceAccount is there, and none is asked for.
	p := pod("p")
	p.Namespace = "default"
	must(t, c.Create(ctx(t), p))
	list := &corev1.PodList{}
	must(t, c.List(ctx(t), list, client.InNamespace("default"), client.MatchingLabels{"app": "p"}))
	check(t, len(list.Items) == 1, "%d pods", len(list.Items))

	w := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"name": "w", "namespace": "default"}, "spec": map[string]any{"size": int64(3)}}}
	must(t, c.Create(ctx(t), w))
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(w.GroupVersionKind())
	must(t, c.Get(ctx(t), client.ObjectKeyFromObject(w), got))
	size, _, _ := unstructured.NestedInt64(got.Object, "spec", "size")
	check(t, size == 3, "%+v", got.Object)
	must(t, c.Delete(ctx(t), w))
	check(t, apierrors.IsNotFound(c.Get(ctx(t), client.ObjectKeyFromObject(w), got)), "the widget is still there")

	user, err := env.AddUser(envtest.User{Name: "somebody", Groups: []string{"nobodies"}}, nil)
	must(t, err)
	theirs, err := client.New(user.Config(), client.Options{Mapper: c.RESTMapper()})
	must(t, err)
	check(t, apierrors.IsForbidden(theirs.List(ctx(t), list)), "a user without rights lists pods")
}

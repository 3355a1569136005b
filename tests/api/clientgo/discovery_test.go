package clientgo

import (
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
)

func TestDiscoveryIsTheSameAggregatedAndNot(t *testing.T) {
	names := func(legacy bool) map[string]string {
		d, err := discovery.NewDiscoveryClientForConfig(config())
		must(t, err)
		d.UseLegacyDiscovery = legacy
		_, lists, err := d.ServerGroupsAndResources()
		must(t, err)
		all := map[string]string{}
		for _, l := range lists {
			for _, r := range l.APIResources {
				singular := r.SingularName
				if strings.Contains(r.Name, "/") {
					singular = "" // client-go fills it in itself from the aggregated form
				}
				all[l.GroupVersion+"/"+r.Name] = strings.Join(r.Verbs, ",") + " " + r.Kind + " " + singular + " " +
					strings.Join(r.ShortNames, ",")
			}
		}
		return all
	}
	aggregated, legacy := names(false), names(true)
	check(t, len(aggregated) > 20 && len(aggregated) == len(legacy), "%d and %d", len(aggregated), len(legacy))
	for k, v := range aggregated {
		check(t, legacy[k] == v, "%s: %q and %q", k, v, legacy[k])
	}
	v, err := discovery.NewDiscoveryClientForConfigOrDie(config()).ServerVersion()
	must(t, err)
	check(t, v.Major == "1" && v.Minor == "36", "%+v", v)
	preferred, err := discovery.NewDiscoveryClientForConfigOrDie(config()).ServerPreferredResources()
	must(t, err)
	check(t, len(preferred) > 3, "%d preferred lists", len(preferred))
	_, err = discovery.NewDiscoveryClientForConfigOrDie(config()).ServerResourcesForGroupVersion("nope/v1")
	check(t, apierrors.IsNotFound(err), "%v", err)
}

func TestDocumentsHaveETags(t *testing.T) {
	client, err := rest.HTTPClientFor(config())
	must(t, err)
	for path, accept := range map[string]string{
		"/apis":              "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
		"/api":               "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
		"/openapi/v2":        "application/json",
		"/openapi/v3":        "application/json",
		"/openapi/v3/api/v1": "application/json",
	} {
		get := func(tag string) *http.Response {
			q, err := http.NewRequest("GET", config().Host+path, nil)
			must(t, err)
			q.Header.Set("Accept", accept)
			if tag != "" {
				q.Header.Set("If-None-Match", tag)
			}
			r, err := client.Do(q)
			must(t, err)
			_ = r.Body.Close()
			return r
		}
		r := get("")
		tag := r.Header.Get("Etag")
		check(t, r.StatusCode == 200 && len(tag) > 10 && strings.HasPrefix(tag, `"`), "%s: %d %q", path, r.StatusCode, tag)
		check(t, get(tag).StatusCode == 304, "%s: no 304", path)
		check(t, get(`"other"`).StatusCode == 200, "%s: 304 for another tag", path)
	}
}

func TestOpenAPIOfBothVersionsIsReadable(t *testing.T) {
	d := discovery.NewDiscoveryClientForConfigOrDie(config())
	v2, err := d.OpenAPISchema() // protobuf
	must(t, err)
	check(t, v2.Swagger == "2.0" && len(v2.Paths.Path) > 10, "%s with %d paths", v2.Swagger, len(v2.Paths.Path))
	found := false
	for _, def := range v2.Definitions.AdditionalProperties {
		if def.Name == "io.k8s.api.core.v1.PodSpec" {
			found = len(def.Value.Properties.AdditionalProperties) > 30 && len(def.Value.Required) == 1
		}
	}
	check(t, found, "PodSpec is not in the v2 document")

	v3 := d.OpenAPIV3()
	paths, err := v3.Paths()
	must(t, err)
	check(t, paths["api/v1"] != nil && paths["apis/apps/v1"] != nil, "%v", paths)
	spec, err := openapi3.NewRoot(v3).GVSpec(schema.GroupVersion{Group: "apps", Version: "v1"})
	must(t, err)
	op := spec.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
	check(t, op != nil && op.Patch != nil, "no patch operation")
	has := false
	for _, p := range op.Patch.Parameters {
		has = has || p.Name == "fieldValidation"
	}
	check(t, has, "PATCH does not name fieldValidation")
}

func mapper() meta.RESTMapper {
	d := discovery.NewDiscoveryClientForConfigOrDie(config())
	return restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))
}

func TestRESTMapperAndScaleClient(t *testing.T) {
	ns := namespace(t)
	m := mapper()
	mapping, err := m.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"})
	must(t, err)
	check(t, mapping.Resource.Resource == "deployments" && mapping.Scope.Name() == meta.RESTScopeNameNamespace, "%+v", mapping)
	gvr, err := restmapper.NewShortcutExpander(m, discovery.NewDiscoveryClientForConfigOrDie(config()), nil).
		ResourceFor(schema.GroupVersionResource{Resource: "cm"})
	must(t, err)
	check(t, gvr.Resource == "configmaps", "%v", gvr)

	_, err = typed(t).AppsV1().Deployments(ns).Create(ctx(t), deployment("d"), metav1.CreateOptions{})
	must(t, err)
	d := discovery.NewDiscoveryClientForConfigOrDie(config())
	sc, err := scale.NewForConfig(config(), m, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(d))
	must(t, err)
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	s, err := sc.Scales(ns).Get(ctx(t), deployments, "d", metav1.GetOptions{})
	must(t, err)
	s.Spec.Replicas = 3
	_, err = sc.Scales(ns).Update(ctx(t), deployments, s, metav1.UpdateOptions{})
	must(t, err)
	s, err = sc.Scales(ns).Patch(ctx(t), mapping.Resource, "d", types.MergePatchType, []byte(`{"spec":{"replicas":4}}`),
		metav1.PatchOptions{})
	must(t, err)
	check(t, s.Spec.Replicas == 4, "%+v", s)
}

func TestDynamicAndMetadataClients(t *testing.T) {
	ns := namespace(t)
	maps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	dyn, err := dynamic.NewForConfig(config())
	must(t, err)
	stop := make(chan struct{})
	defer close(stop)
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(dyn, 0, ns, nil)
	informer := factory.ForResource(maps)
	factoryMeta, err := metadata.NewForConfig(config())
	must(t, err)
	informer.Informer()
	factory.Start(stop)
	check(t, cache.WaitForCacheSync(stop, informer.Informer().HasSynced), "no sync")
	obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"generateName": "m-", "labels": map[string]any{"a": "b"}},
		"data":     map[string]any{"k": "v"}}}
	made, err := dyn.Resource(maps).Namespace(ns).Create(ctx(t), obj, metav1.CreateOptions{})
	must(t, err)
	check(t, strings.HasPrefix(made.GetName(), "m-") && len(made.GetName()) == 7, "%s", made.GetName())
	obj.SetName("applied")
	obj.SetGenerateName("")
	_, err = dyn.Resource(maps).Namespace(ns).Apply(ctx(t), "applied", obj, metav1.ApplyOptions{FieldManager: "x"})
	must(t, err)
	eventually(t, "the informer has both", func() bool { return len(informer.Informer().GetStore().List()) == 2 })

	list, err := factoryMeta.Resource(maps).Namespace(ns).List(ctx(t), metav1.ListOptions{LabelSelector: "a=b"})
	must(t, err)
	check(t, len(list.Items) == 2, "%+v", list)
	w, err := factoryMeta.Resource(maps).Namespace(ns).Watch(ctx(t), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	must(t, err)
	defer w.Stop()
	_, err = factoryMeta.Resource(maps).Namespace(ns).Patch(ctx(t), "applied", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"c":"d"}}}`), metav1.PatchOptions{})
	must(t, err)
	e := <-w.ResultChan()
	p, ok := e.Object.(*metav1.PartialObjectMetadata)
	check(t, ok && p.Labels["c"] == "d" && p.Name == "applied", "%+v", e)
	must(t, factoryMeta.Resource(maps).Namespace(ns).Delete(ctx(t), "applied", metav1.DeleteOptions{}))
	e = <-w.ResultChan()
	check(t, string(e.Type) == "DELETED", "%+v", e)
}

func TestMediaTypesAreRefusedAsUpstreamDoes(t *testing.T) {
	ns := namespace(t)
	c := typed(t).CoreV1().RESTClient()
	err := c.Get().Namespace(ns).Resource("configmaps").SetHeader("Accept", "text/html").Do(ctx(t)).Error()
	check(t, apierrors.ReasonForError(err) == metav1.StatusReasonNotAcceptable, "%v", err)
	err = c.Post().Namespace(ns).Resource("configmaps").SetHeader("Content-Type", "text/plain").Body([]byte("x")).
		Do(ctx(t)).Error()
	check(t, apierrors.IsUnsupportedMediaType(err), "%v", err)
	err = c.Patch(types.PatchType("text/plain")).Namespace(ns).Resource("configmaps").Name("m").Body([]byte("x")).
		Do(ctx(t)).Error()
	check(t, apierrors.IsUnsupportedMediaType(err), "%v", err)
	err = c.Put().Resource("nodes").Do(ctx(t)).Error()
	check(t, apierrors.IsMethodNotSupported(err), "%v", err)

	// Tables, as kubectl asks for them, and their protobuf form is not there.
	raw, err := c.Get().Namespace(ns).Resource("serviceaccounts").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").Do(ctx(t)).Raw()
	must(t, err)
	check(t, strings.Contains(string(raw), `"kind":"Table"`) && strings.Contains(string(raw), `"columnDefinitions":[{`),
		"%s", raw)
}

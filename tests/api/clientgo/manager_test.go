package clientgo

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const holdFinalizer = "thimble.local/hold"

// Makes a ConfigMap for each Deployment, holds the Deployment with a finalizer until it is cleaned
// up, and reports in its status: what operators do.
type copier struct{ client.Client }

func (r *copier) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	d := &appsv1.Deployment{}
	if err := r.Get(ctx, req.NamespacedName, d); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !d.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(d, holdFinalizer) {
			return ctrl.Result{}, r.Update(ctx, d)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(d, holdFinalizer) {
		return ctrl.Result{}, r.Update(ctx, d)
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "copy-" + d.Name, Namespace: d.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, m, func() error {
		m.Data = map[string]string{"image": d.Spec.Template.Spec.Containers[0].Image}
		return controllerutil.SetControllerReference(d, m, r.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	base := d.DeepCopy()
	d.Status.ObservedGeneration = d.Generation
	return ctrl.Result{}, r.Status().Patch(ctx, d, client.MergeFrom(base))
}

func TestAManagerWithItsCacheReconciles(t *testing.T) {
	ns := namespace(t)
	log.SetLogger(logr.Discard())
	mgr, err := ctrl.NewManager(config(), ctrl.Options{
		Metrics: server.Options{BindAddress: "0"}, LeaderElection: true, LeaderElectionID: "copier",
		LeaderElectionNamespace: ns, LeaderElectionReleaseOnCancel: true})
	must(t, err)
	must(t, mgr.GetFieldIndexer().IndexField(context.Background(), &corev1.ConfigMap{}, "image",
		func(o client.Object) []string { return []string{o.(*corev1.ConfigMap).Data["image"]} }))
	must(t, ctrl.NewControllerManagedBy(mgr).For(&appsv1.Deployment{}).Owns(&corev1.ConfigMap{}).
		Complete(&copier{mgr.GetClient()}))
	c, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(c) }()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	check(t, mgr.GetCache().WaitForCacheSync(ctx(t)), "the cache did not sync")

	d := deployment("d")
	d.Namespace = ns
	must(t, mgr.GetClient().Create(ctx(t), d))
	key := client.ObjectKey{Namespace: ns, Name: "copy-d"}
	copied := func(image string) func() bool {
		return func() bool {
			list := &corev1.ConfigMapList{}
			err := mgr.GetClient().List(ctx(t), list, client.InNamespace(ns), client.MatchingFields{"image": image})
			return err == nil && len(list.Items) == 1 && metav1.IsControlledBy(&list.Items[0], d)
		}
	}
	eventually(t, "the copy", copied("hello:1.0"))
	eventually(t, "the status", func() bool {
		now := &appsv1.Deployment{}
		return mgr.GetAPIReader().Get(ctx(t), client.ObjectKeyFromObject(d), now) == nil && now.Status.ObservedGeneration == 1
	})
	base := d.DeepCopy()
	d.Spec.Template.Spec.Containers[0].Image = "hello:2.0"
	must(t, mgr.GetClient().Patch(ctx(t), d, client.StrategicMergeFrom(base)))
	eventually(t, "the copy of the new image", copied("hello:2.0"))
	must(t, mgr.GetClient().Delete(ctx(t), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "copy-d", Namespace: ns}}))
	eventually(t, "the copy comes back", func() bool {
		return mgr.GetAPIReader().Get(ctx(t), key, &corev1.ConfigMap{}) == nil
	})
	must(t, mgr.GetClient().Delete(ctx(t), d))
	eventually(t, "the finalizer is released", func() bool {
		return apierrors.IsNotFound(mgr.GetAPIReader().Get(ctx(t), client.ObjectKeyFromObject(d), &appsv1.Deployment{}))
	})
}

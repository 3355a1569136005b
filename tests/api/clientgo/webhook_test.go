package clientgo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const finalizer = "example.com/cleaned"

// What kubebuilder's scaffolding makes: a defaulter, a validator and a reconciler with a finalizer.
type rules struct{}

func (rules) Default(_ context.Context, cm *corev1.ConfigMap) error {
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	if cm.Data["size"] == "" {
		cm.Data["size"] = "small"
	}
	return nil
}

func (rules) ValidateCreate(_ context.Context, cm *corev1.ConfigMap) (admission.Warnings, error) {
	if cm.Data["size"] == "wrong" {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("ConfigMap").GroupKind(), cm.Name, nil)
	}
	return nil, nil
}

func (rules) ValidateUpdate(_ context.Context, before, now *corev1.ConfigMap) (admission.Warnings, error) {
	if before.Data["size"] != now.Data["size"] {
		return nil, fmt.Errorf("size may not change from %s to %s", before.Data["size"], now.Data["size"])
	}
	return nil, nil
}

func (rules) ValidateDelete(_ context.Context, cm *corev1.ConfigMap) (admission.Warnings, error) {
	if cm.Labels["keep"] != "" {
		return nil, fmt.Errorf("this one is kept")
	}
	return nil, nil
}

type cleaner struct{ client.Client }

func (r cleaner) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	cm := &corev1.ConfigMap{}
	if err := r.Get(ctx, req.NamespacedName, cm); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if cm.Labels["app"] != "operated" {
		return reconcile.Result{}, nil
	}
	changed := controllerutil.AddFinalizer(cm, finalizer)
	if !cm.DeletionTimestamp.IsZero() {
		changed = controllerutil.RemoveFinalizer(cm, finalizer)
	}
	if !changed {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, r.Update(ctx, cm)
}

func hookClient(path string) admissionv1.WebhookClientConfig {
	return admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Name: "hooks", Namespace: "default", Path: &path}}
}

func TestAnOperatorWithWebhooksAndAFinalizer(t *testing.T) {
	if os.Getenv("USE_EXISTING_CLUSTER") != "" {
		t.Skip("USE_EXISTING_CLUSTER is set: envtest would not start anything")
	}
	assets, err := filepath.Abs("../../../controlplane/main/envtest")
	must(t, err)
	none := admissionv1.SideEffectClassNone
	ops := []admissionv1.OperationType{admissionv1.Create, admissionv1.Update, admissionv1.Delete}
	rule := []admissionv1.RuleWithOperations{{Operations: ops[:2], Rule: admissionv1.Rule{APIGroups: []string{""},
		APIVersions: []string{"v1"}, Resources: []string{"configmaps"}}}}
	all := []admissionv1.RuleWithOperations{{Operations: ops, Rule: rule[0].Rule}}
	only := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "operated"}}
	env := &envtest.Environment{
		BinaryAssetsDirectory: assets,
		WebhookInstallOptions: envtest.WebhookInstallOptions{
			MutatingWebhooks: []*admissionv1.MutatingWebhookConfiguration{{
				TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "MutatingWebhookConfiguration"},
				ObjectMeta: metav1.ObjectMeta{Name: "defaults"},
				Webhooks: []admissionv1.MutatingWebhook{{Name: "defaults.example.com", Rules: rule, SideEffects: &none,
					AdmissionReviewVersions: []string{"v1"}, ObjectSelector: only,
					ClientConfig: hookClient("/mutate--v1-configmap")}}}},
			ValidatingWebhooks: []*admissionv1.ValidatingWebhookConfiguration{{
				TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingWebhookConfiguration"},
				ObjectMeta: metav1.ObjectMeta{Name: "rules"},
				Webhooks: []admissionv1.ValidatingWebhook{{Name: "rules.example.com", Rules: all, SideEffects: &none,
					AdmissionReviewVersions: []string{"v1"}, ObjectSelector: only,
					ClientConfig: hookClient("/validate--v1-configmap")}}}},
		},
	}
	cfg, err := env.Start()
	must(t, err)
	defer func() { must(t, env.Stop()) }()

	o := env.WebhookInstallOptions
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer: webhook.NewServer(webhook.Options{Host: o.LocalServingHost, Port: o.LocalServingPort,
			CertDir: o.LocalServingCertDir}),
	})
	must(t, err)
	must(t, ctrl.NewWebhookManagedBy(mgr, &corev1.ConfigMap{}).WithDefaulter(rules{}).WithValidator(rules{}).Complete())
	must(t, ctrl.NewControllerManagedBy(mgr).Named("cleaner").For(&corev1.ConfigMap{}).Complete(cleaner{mgr.GetClient()}))
	run, stop := context.WithCancel(ctx(t))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(run) }()
	defer func() { stop(); must(t, <-ended) }()
	started := mgr.GetWebhookServer().StartedChecker()
	must(t, wait.PollUntilContextTimeout(run, 50*time.Millisecond, 20*time.Second, true,
		func(context.Context) (bool, error) { return started(nil) == nil, nil }))

	c, err := client.New(cfg, client.Options{})
	must(t, err)
	made := func(name, size string) *corev1.ConfigMap {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default",
			Labels: map[string]string{"app": "operated"}}}
		if size != "" {
			cm.Data = map[string]string{"size": size}
		}
		return cm
	}
	cm := made("a", "")
	must(t, c.Create(run, cm))
	check(t, cm.Data["size"] == "small", "the default is missing: %v", cm.Data)
	err = c.Create(run, made("b", "wrong"))
	check(t, apierrors.IsInvalid(err), "create of what is wrong: %v", err)
	must(t, wait.PollUntilContextTimeout(run, 20*time.Millisecond, 20*time.Second, true,
		func(context.Context) (bool, error) {
			err := c.Get(run, client.ObjectKeyFromObject(cm), cm)
			return controllerutil.ContainsFinalizer(cm, finalizer), err
		}))
	cm.Data["size"] = "large"
	err = c.Update(run, cm)
	check(t, apierrors.IsForbidden(err) && strings.Contains(err.Error(),
		`admission webhook "rules.example.com" denied the request: size may not change from small to large`), "update: %v", err)
	must(t, c.Patch(run, made("a", ""), client.RawPatch("application/merge-patch+json",
		[]byte(`{"metadata":{"labels":{"keep":"yes"}}}`))))
	err = c.Delete(run, made("a", ""))
	check(t, apierrors.IsForbidden(err), "delete of what is kept: %v", err)
	must(t, c.Patch(run, made("a", ""), client.RawPatch("application/merge-patch+json",
		[]byte(`{"metadata":{"labels":{"keep":null}}}`))))
	must(t, c.Delete(run, made("a", "")))
	must(t, wait.PollUntilContextTimeout(run, 20*time.Millisecond, 20*time.Second, true,
		func(context.Context) (bool, error) {
			return apierrors.IsNotFound(c.Get(run, client.ObjectKeyFromObject(cm), cm)), nil
		}))
}

package clientgo

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
)

func TestLeaderElectionHandsOver(t *testing.T) {
	ns := namespace(t)
	c := typed(t)
	started := make(chan string, 2)
	run := func(id string) context.CancelFunc {
		lock, err := resourcelock.New(resourcelock.LeasesResourceLock, ns, "lock", c.CoreV1(), c.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: id})
		must(t, err)
		e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			ReleaseOnCancel: true, Name: id,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { started <- id }, OnStoppedLeading: func() {}},
		})
		must(t, err)
		c, cancel := context.WithCancel(context.Background())
		go e.Run(c)
		return cancel
	}
	stopA := run("a")
	check(t, <-started == "a", "a leads")
	stopB := run("b")
	defer stopB()
	stopA()
	check(t, <-started == "b", "b leads after a")
	lease, err := c.CoordinationV1().Leases(ns).Get(ctx(t), "lock", metav1.GetOptions{})
	must(t, err)
	check(t, *lease.Spec.HolderIdentity == "b" && *lease.Spec.LeaseTransitions >= 1, "%+v", lease.Spec)
}

func TestRecordersWriteEventsOfBothGroups(t *testing.T) {
	ns := namespace(t)
	c := typed(t)
	made, err := c.CoreV1().Pods(ns).Create(ctx(t), pod("p"), metav1.CreateOptions{})
	must(t, err)
	old := record.NewBroadcaster()
	defer old.Shutdown()
	old.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.CoreV1().Events(ns)})
	recorder := old.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "tester", Host: "h"})
	recorder.Event(made, corev1.EventTypeWarning, "Odd", "something is odd")
	eventually(t, "the first event", func() bool {
		l, err := c.CoreV1().Events(ns).List(ctx(t), metav1.ListOptions{})
		return err == nil && len(l.Items) == 1
	})
	recorder.Event(made, corev1.EventTypeWarning, "Odd", "something is odd") // counted, not written anew
	eventually(t, "the counted event", func() bool {
		l, err := c.CoreV1().Events(ns).List(ctx(t), metav1.ListOptions{FieldSelector: "involvedObject.name=p,reason=Odd"})
		return err == nil && len(l.Items) == 1 && l.Items[0].Count == 2
	})

	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: c.EventsV1()})
	stop := make(chan struct{})
	defer close(stop)
	b.StartRecordingToSink(stop)
	b.NewRecorder(scheme.Scheme, "tester").Eventf(made, nil, corev1.EventTypeNormal, "Fine", "Looking", "all is %s", "fine")
	eventually(t, "the event of events.k8s.io in both groups", func() bool {
		l, err := c.EventsV1().Events(ns).List(ctx(t), metav1.ListOptions{FieldSelector: "reason=Fine"})
		if err != nil || len(l.Items) != 1 || l.Items[0].Action != "Looking" || l.Items[0].Regarding.Name != "p" {
			return false
		}
		o, err := c.CoreV1().Events(ns).Get(ctx(t), l.Items[0].Name, metav1.GetOptions{})
		return err == nil && o.Message == "all is fine" && o.ReportingController == "tester"
	})
}

func TestFinalizersAndPropagationHoldAndRelease(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	m := configMap("m")
	m.Finalizers = []string{"example.com/hold"}
	_, err := maps.Create(ctx(t), m, metav1.CreateOptions{})
	must(t, err)
	must(t, maps.Delete(ctx(t), "m", metav1.DeleteOptions{}))
	held, err := maps.Get(ctx(t), "m", metav1.GetOptions{})
	must(t, err)
	check(t, held.DeletionTimestamp != nil && *held.DeletionGracePeriodSeconds == 0, "%+v", held.ObjectMeta)
	held.Finalizers = append(held.Finalizers, "example.com/more")
	_, err = maps.Update(ctx(t), held, metav1.UpdateOptions{})
	check(t, apierrors.IsInvalid(err), "a finalizer after the deletion: %v", err)
	held.Finalizers = nil
	_, err = maps.Update(ctx(t), held, metav1.UpdateOptions{})
	must(t, err)
	_, err = maps.Get(ctx(t), "m", metav1.GetOptions{})
	check(t, apierrors.IsNotFound(err), "%v", err)

	for policy, want := range map[metav1.DeletionPropagation]string{
		metav1.DeletePropagationForeground: "foregroundDeletion", metav1.DeletePropagationOrphan: "orphan"} {
		name := "p-" + fmt.Sprint(len(policy))
		_, err := maps.Create(ctx(t), configMap(name), metav1.CreateOptions{})
		must(t, err)
		must(t, maps.Delete(ctx(t), name, metav1.DeleteOptions{PropagationPolicy: &policy}))
		o, err := maps.Get(ctx(t), name, metav1.GetOptions{})
		must(t, err)
		check(t, len(o.Finalizers) == 1 && o.Finalizers[0] == want, "%s: %v", policy, o.Finalizers)
	}
	bad := metav1.DeletionPropagation("Sometimes")
	err = maps.Delete(ctx(t), "x", metav1.DeleteOptions{PropagationPolicy: &bad})
	check(t, apierrors.IsInvalid(err), "%v", err)
}

func TestManyClientsWriteAndWatchTogether(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	list, err := maps.List(ctx(t), metav1.ListOptions{})
	must(t, err)
	const watchers, writers, each = 20, 4, 25
	c := ctx(t)
	var orders atomic.Int64
	done := make(chan string, watchers)
	for i := 0; i < watchers; i++ {
		w, err := maps.Watch(c, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		must(t, err)
		go func() {
			defer w.Stop()
			seen := ""
			for n := 0; n < writers*each; n++ {
				e := <-w.ResultChan()
				m, ok := e.Object.(*corev1.ConfigMap)
				if !ok {
					break
				}
				seen += m.Name + "@" + m.ResourceVersion + " "
			}
			orders.Add(1)
			done <- seen
		}()
	}
	var wait sync.WaitGroup
	for i := 0; i < writers; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for k := 0; k < each; k++ {
				if _, err := maps.Create(c, configMap(fmt.Sprintf("w%d-%d", i, k)), metav1.CreateOptions{}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wait.Wait()
	first := <-done
	for i := 1; i < watchers; i++ {
		check(t, <-done == first, "two watchers saw different orders")
	}
}

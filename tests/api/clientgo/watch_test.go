package clientgo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
	watchtools "k8s.io/client-go/tools/watch"
)

func TestInformersSyncWithWatchListsAndFollow(t *testing.T) {
	ns := namespace(t)
	c := typed(t)
	maps := c.CoreV1().ConfigMaps(ns)
	for i := 0; i < 50; i++ {
		_, err := maps.Create(ctx(t), configMap(fmt.Sprintf("m%02d", i)), metav1.CreateOptions{})
		must(t, err)
	}
	stop := make(chan struct{})
	defer close(stop)
	factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithNamespace(ns))
	informer := factory.Core().V1().ConfigMaps()
	var lock sync.Mutex
	updates, deletes := 0, 0
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(a, b any) { lock.Lock(); updates++; lock.Unlock() },
		DeleteFunc: func(a any) { lock.Lock(); deletes++; lock.Unlock() },
	})
	must(t, err)
	factory.Start(stop)
	check(t, cache.WaitForCacheSync(stop, informer.Informer().HasSynced), "no sync")
	all, err := informer.Lister().ConfigMaps(ns).List(labels.Everything())
	must(t, err)
	check(t, len(all) == 50, "%d after the sync", len(all))
	m, err := maps.Get(ctx(t), "m07", metav1.GetOptions{})
	must(t, err)
	m.Data = map[string]string{"new": "value"}
	_, err = maps.Update(ctx(t), m, metav1.UpdateOptions{})
	must(t, err)
	must(t, maps.Delete(ctx(t), "m08", metav1.DeleteOptions{}))
	_, err = maps.Create(ctx(t), configMap("m99"), metav1.CreateOptions{})
	must(t, err)
	eventually(t, "the cache follows", func() bool {
		got, err := informer.Lister().ConfigMaps(ns).Get("m07")
		_, gone := informer.Lister().ConfigMaps(ns).Get("m08")
		_, come := informer.Lister().ConfigMaps(ns).Get("m99")
		lock.Lock()
		defer lock.Unlock()
		return err == nil && got.Data["new"] == "value" && apierrors.IsNotFound(gone) && come == nil &&
			updates == 1 && deletes == 1
	})
}

func TestWatchesResumeWithoutLossOrRepetition(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	list, err := maps.List(ctx(t), metav1.ListOptions{})
	must(t, err)
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lw := &cache.ListWatch{WatchFuncWithContext: func(c context.Context, o metav1.ListOptions) (watch.Interface, error) {
		seconds := int64(1) // ends often, so that it must resume
		o.TimeoutSeconds = &seconds
		return maps.Watch(c, o)
	}}
	rw, err := watchtools.NewRetryWatcherWithContext(c, list.ResourceVersion, lw)
	must(t, err)
	defer rw.Stop()
	const n = 300
	var wait sync.WaitGroup
	wait.Add(1)
	defer wait.Wait()
	go func() {
		defer wait.Done()
		for i := 0; i < n; i++ {
			if _, err := maps.Create(c, configMap(fmt.Sprintf("m%03d", i)), metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
			if i%100 == 50 {
				time.Sleep(1100 * time.Millisecond) // lets a watch run out
			}
		}
	}()
	for i := 0; i < n; i++ {
		e := <-rw.ResultChan()
		m, ok := e.Object.(*corev1.ConfigMap)
		check(t, ok && e.Type == watch.Added && m.Name == fmt.Sprintf("m%03d", i), "event %d is %+v", i, e)
	}
}

func TestWatchStartsWhereItIsAskedTo(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	old, err := maps.Create(ctx(t), configMap("old"), metav1.CreateOptions{})
	must(t, err)
	first := func(o metav1.ListOptions) string {
		t.Helper()
		w, err := maps.Watch(ctx(t), o)
		must(t, err)
		defer w.Stop()
		_, err = maps.Create(ctx(t), configMap("new"), metav1.CreateOptions{})
		must(t, err)
		defer func() { must(t, maps.Delete(ctx(t), "new", metav1.DeleteOptions{})) }()
		e := <-w.ResultChan()
		return string(e.Type) + " " + e.Object.(metav1.Object).GetName()
	}
	check(t, first(metav1.ListOptions{}) == "ADDED old", "without a version")
	check(t, first(metav1.ListOptions{ResourceVersion: "0"}) == "ADDED old", "from 0")
	check(t, first(metav1.ListOptions{ResourceVersion: old.ResourceVersion}) == "ADDED new", "from a version")
	no := false
	check(t, first(metav1.ListOptions{SendInitialEvents: &no, AllowWatchBookmarks: true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}) == "ADDED new", "from now")

	yes := true
	w, err := maps.Watch(ctx(t), metav1.ListOptions{SendInitialEvents: &yes, AllowWatchBookmarks: true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	must(t, err)
	defer w.Stop()
	e := <-w.ResultChan()
	check(t, e.Type == watch.Added && e.Object.(*corev1.ConfigMap).Name == "old", "%+v", e)
	e = <-w.ResultChan()
	check(t, e.Type == watch.Bookmark && e.Object.(*corev1.ConfigMap).Annotations[metav1.InitialEventsAnnotationKey] ==
		"true", "%+v", e)

	_, err = maps.Watch(ctx(t), metav1.ListOptions{SendInitialEvents: &yes})
	check(t, apierrors.IsInvalid(err) && strings.Contains(err.Error(), "sendInitialEvents"), "%v", err)
	_, err = maps.Watch(ctx(t), metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	check(t, apierrors.IsInvalid(err), "%v", err)
}

func TestListWatchUntilSeesACondition(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	_, err := maps.Create(ctx(t), configMap("m"), metav1.CreateOptions{})
	must(t, err)
	one := fields.OneTermEqualSelector("metadata.name", "m").String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(c context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = one
			return maps.List(c, o)
		},
		WatchFuncWithContext: func(c context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = one
			return maps.Watch(c, o)
		},
	}
	var wait sync.WaitGroup
	wait.Add(1)
	defer wait.Wait()
	go func() {
		defer wait.Done()
		m := configMap("m", "ready", "yes")
		if _, err := maps.Update(ctx(t), m, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	}()
	e, err := watchtools.UntilWithSync(ctx(t), lw, &corev1.ConfigMap{}, nil, func(e watch.Event) (bool, error) {
		return e.Object.(*corev1.ConfigMap).Data["ready"] == "yes", nil
	})
	must(t, err)
	check(t, e.Object.(*corev1.ConfigMap).Name == "m", "%+v", e)
}

func TestPagesShowOneMomentAndExpiredOnesGoOn(t *testing.T) {
	cp, err := startControlPlane("--memory", "--continue-expiry", "300ms")
	must(t, err)
	defer func() { must(t, cp.stop()) }()
	c, err := kubernetes.NewForConfig(cp.config)
	must(t, err)
	maps := c.CoreV1().ConfigMaps("default")
	const n = 25
	for i := 0; i < n; i++ {
		_, err := maps.Create(ctx(t), configMap(fmt.Sprintf("m%02d", i)), metav1.CreateOptions{})
		must(t, err)
	}
	page, err := maps.List(ctx(t), metav1.ListOptions{Limit: 10})
	must(t, err)
	check(t, len(page.Items) == 10 && page.Continue != "" && *page.RemainingItemCount == n-10, "%+v", page.ListMeta)
	must(t, maps.Delete(ctx(t), "m24", metav1.DeleteOptions{}))
	_, err = maps.Create(ctx(t), configMap("m99"), metav1.CreateOptions{})
	must(t, err)
	second, err := maps.List(ctx(t), metav1.ListOptions{Limit: 100, Continue: page.Continue})
	must(t, err)
	check(t, len(second.Items) == 15 && second.Items[14].Name == "m24" && second.ResourceVersion == page.ResourceVersion &&
		second.Continue == "" && second.RemainingItemCount == nil, "%+v", second.ListMeta)

	var expired error
	eventually(t, "the token expires", func() bool {
		_, expired = maps.List(ctx(t), metav1.ListOptions{Limit: 10, Continue: page.Continue})
		return expired != nil
	})
	check(t, apierrors.IsResourceExpired(expired), "%v", expired)
	token := expired.(apierrors.APIStatus).Status().ListMeta.Continue
	check(t, token != "", "no token to go on with: %+v", expired)
	rest, err := maps.List(ctx(t), metav1.ListOptions{Limit: 100, Continue: token})
	must(t, err)
	check(t, len(rest.Items) == 15 && rest.Items[14].Name == "m99", "%d items", len(rest.Items))

	count := 0
	p := pager.New(func(c context.Context, o metav1.ListOptions) (runtime.Object, error) { return maps.List(c, o) })
	p.PageSize = 4
	must(t, p.EachListItem(ctx(t), metav1.ListOptions{}, func(o runtime.Object) error { count++; return nil }))
	check(t, count == n, "%d objects in pages", count)
}

func TestListVersions(t *testing.T) {
	ns := namespace(t)
	maps := typed(t).CoreV1().ConfigMaps(ns)
	a, err := maps.Create(ctx(t), configMap("a"), metav1.CreateOptions{})
	must(t, err)
	_, err = maps.Create(ctx(t), configMap("b"), metav1.CreateOptions{})
	must(t, err)
	list, err := maps.List(ctx(t), metav1.ListOptions{ResourceVersion: a.ResourceVersion,
		ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	must(t, err)
	check(t, len(list.Items) == 1 && list.ResourceVersion == a.ResourceVersion, "exact: %+v", list)
	list, err = maps.List(ctx(t), metav1.ListOptions{ResourceVersion: a.ResourceVersion,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	must(t, err)
	check(t, len(list.Items) == 2, "not older: %+v", list)
	_, err = maps.List(ctx(t), metav1.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	check(t, apierrors.IsInvalid(err), "%v", err)
	short, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = maps.List(short, metav1.ListOptions{ResourceVersion: "999999999"})
	check(t, err != nil, "a version of the future was listed")
	_, err = maps.List(ctx(t), metav1.ListOptions{ResourceVersion: "x"})
	check(t, apierrors.IsInvalid(err) || apierrors.IsBadRequest(err), "%v", err)
	_, err = maps.List(ctx(t), metav1.ListOptions{Continue: "nonsense"})
	check(t, apierrors.IsBadRequest(err), "%v", err)
	_, err = maps.List(ctx(t), metav1.ListOptions{LabelSelector: "a in ("})
	check(t, apierrors.IsBadRequest(err), "%v", err)
	_, err = maps.List(ctx(t), metav1.ListOptions{FieldSelector: "spec.x=y"})
	check(t, apierrors.IsBadRequest(err), "%v", err)
}

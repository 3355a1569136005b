// Package clientgo drives a control plane with Kubernetes' own Go clients: client-go's typed,
// dynamic, metadata, scale and discovery clients, its informers, leader election and recorders, and
// a controller-runtime manager. What they send and expect is theirs; the tests only say what a user
// of them would see on any cluster.
package clientgo

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// A control plane process in a folder of its own.
type controlPlane struct {
	dir    string
	cmd    *exec.Cmd
	config *rest.Config
}

func startControlPlane(extra ...string) (*controlPlane, error) {
	binary := os.Getenv("TH_CONTROLPLANE")
	if binary == "" {
		return nil, fmt.Errorf("TH_CONTROLPLANE does not name the control plane's binary")
	}
	dir, err := os.MkdirTemp("", "th-clientgo-")
	if err != nil {
		return nil, err
	}
	args := []string{"--data", dir, "--listen", "127.0.0.1:0", "--controllers", "none"}
	if filepath.Base(binary) == "thimbled" {
		args = append([]string{"controlplane"}, args...)
	}
	p := &controlPlane{dir: dir, cmd: exec.Command(binary, append(args, extra...)...)}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready ") {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		return nil, fmt.Errorf("the control plane did not start: %q %v\n%s", line, err, text)
	}
	p.config, err = clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	p.config.QPS = -1 // no throttling in the client
	return p, nil
}

func (p *controlPlane) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	err := p.cmd.Wait()
	text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	_ = os.RemoveAll(p.dir)
	if err != nil || strings.Contains(string(text), "Sanitizer") {
		if len(text) > 8000 {
			text = text[len(text)-8000:]
		}
		return fmt.Errorf("the control plane ended badly: %v\n%s", err, text)
	}
	return nil
}

var shared *controlPlane

func TestMain(m *testing.M) {
	var err error
	if shared, err = startControlPlane(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func config() *rest.Config { return rest.CopyConfig(shared.config) }

func typed(t *testing.T) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(config())
	must(t, err)
	return c
}

// A context that ends with the test, or after a minute.
func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, ok bool, format string, args ...any) {
	t.Helper()
	if !ok {
		t.Fatalf(format, args...)
	}
}

// Waits until done says true; the condition is what is tested, the time is only a limit.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("not within 30 s: %s", what)
}

var lastNamespace atomic.Int64

// A namespace with the account that pods run as (no controller makes it here).
func namespace(t *testing.T) string {
	t.Helper()
	c := typed(t)
	name := fmt.Sprintf("t%d", lastNamespace.Add(1))
	_, err := c.CoreV1().Namespaces().Create(ctx(t), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		metav1.CreateOptions{})
	must(t, err)
	_, err = c.CoreV1().ServiceAccounts(name).Create(ctx(t),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	must(t, err)
	return name
}

func configMap(name string, data ...string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		m.Data[data[i]] = data[i+1]
	}
	return m
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "hello:1.0"}}},
	}
}

// Command pbcheck compares Thimble's protobuf, JSON decoding and type tables with Kubernetes' own
// packages. It fills objects of every kind with pseudo-random values, lets upstream encode them,
// and asks pbtool (the argument) to read and write the same.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"reflect"
	"sort"
	"strings"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// The group versions that Thimble serves.
var served = map[string]bool{
	"v1": true, "admissionregistration.k8s.io/v1": true, "apiextensions.k8s.io/v1": true,
	"apps/v1": true, "authentication.k8s.io/v1": true, "authorization.k8s.io/v1": true,
	"autoscaling/v1": true, "autoscaling/v2": true, "batch/v1": true, "certificates.k8s.io/v1": true,
	"coordination.k8s.io/v1": true, "discovery.k8s.io/v1": true, "events.k8s.io/v1": true,
	"flowcontrol.apiserver.k8s.io/v1": true, "networking.k8s.io/v1": true, "node.k8s.io/v1": true,
	"policy/v1": true, "rbac.authorization.k8s.io/v1": true, "resource.k8s.io/v1": true,
	"scheduling.k8s.io/v1": true, "storage.k8s.io/v1": true,
}

type filler struct {
	r     *rand.Rand
	depth int
}

func (f *filler) word() string {
	words := []string{"a", "web", "kube-system", "nginx:1.27", "ReadWriteOnce", "x/y", "äöü", "\"q\"", "0"}
	return words[f.r.Intn(len(words))]
}

func (f *filler) fill(v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		p.Time = time.Unix(f.r.Int63n(4e9), 0).Local()
		return
	case *metav1.MicroTime:
		p.Time = time.Unix(f.r.Int63n(4e9), f.r.Int63n(1e6)*1000).Local()
		return
	case *metav1.Duration:
		p.Duration = time.Duration(f.r.Int63n(1e15))
		return
	case *resource.Quantity:
		texts := []string{"1", "500m", "1Gi", "0", "1500m", "3e3", "128Mi", "12k", "-1"}
		*p = resource.MustParse(texts[f.r.Intn(len(texts))])
		return
	case *intstr.IntOrString:
		if f.r.Intn(2) == 0 {
			*p = intstr.FromInt32(f.r.Int31n(65536) - 5)
		} else {
			*p = intstr.FromString(f.word())
		}
		return
	case *runtime.RawExtension:
		p.Raw = []byte(`{"a":[1,"b",null,{"c":true}]}`)
		return
	case *metav1.FieldsV1:
		p.SetRawBytes([]byte(`{"f:metadata":{"f:labels":{}}}`))
		return
	case *apiextensions.JSON:
		p.Raw = []byte(`{"k":[1,2.5,"v"]}`)
		return
	case *apiextensions.JSONSchemaPropsOrBool:
		p.Allows = true
		if f.r.Intn(2) == 0 {
			p.Schema = &apiextensions.JSONSchemaProps{Type: "string"}
		}
		return
	case *apiextensions.JSONSchemaPropsOrArray:
		if f.r.Intn(2) == 0 {
			p.Schema = &apiextensions.JSONSchemaProps{Type: "string"}
		} else {
			p.JSONSchemas = []apiextensions.JSONSchemaProps{{Type: "a"}, {Format: "b"}}
		}
		return
	case *apiextensions.JSONSchemaPropsOrStringArray:
		if f.r.Intn(2) == 0 {
			p.Schema = &apiextensions.JSONSchemaProps{Type: "string"}
		} else {
			p.Property = []string{"x", "y"}
		}
		return
	case *metav1.TypeMeta:
		return
	}
	f.depth++
	defer func() { f.depth-- }()
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.word())
	case reflect.Bool:
		v.SetBool(f.r.Intn(2) == 0)
	case reflect.Int32:
		v.SetInt(int64(int32(f.r.Uint32())) >> uint(f.r.Intn(32)))
	case reflect.Int64:
		v.SetInt(int64(f.r.Uint64()) >> uint(f.r.Intn(64)))
	case reflect.Float64:
		v.SetFloat(float64(f.r.Intn(100)) / 8)
	case reflect.Ptr:
		if f.depth > 14 || f.r.Intn(4) == 0 {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, 1+f.r.Intn(9))
			f.r.Read(b)
			v.SetBytes(b)
			return
		}
		n := f.r.Intn(3)
		if f.depth > 14 || n == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := 0; i < n; i++ {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		n := f.r.Intn(3)
		if f.depth > 14 || n == 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for i := 0; i < n; i++ {
			key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key)
			f.fill(val)
			if val.Kind() == reflect.Slice && val.IsNil() {
				continue
			}
			v.SetMapIndex(key, val)
		}
	case reflect.Struct:
		for i := 0; i < v.NumField(); i++ {
			if v.Type().Field(i).PkgPath == "" {
				f.fill(v.Field(i))
			}
		}
	}
}

type tool struct {
	in  io.Writer
	out *bufio.Reader
}

func (t *tool) ask(mode string, arg []byte) (string, error) {
	if _, err := fmt.Fprintf(t.in, "%s %s\n", mode, arg); err != nil {
		return "", err
	}
	line, err := t.out.ReadString('\n')
	line = strings.TrimSuffix(line, "\n")
	if err == nil && strings.HasPrefix(line, "ERROR ") {
		err = fmt.Errorf("pbtool: %s", line)
	}
	return line, err
}

func check(t *tool, s *runtime.Scheme, gvk schema.GroupVersionKind, seed int64) error {
	obj, err := s.New(gvk)
	if err != nil {
		return err
	}
	f := &filler{r: rand.New(rand.NewSource(seed))}
	f.fill(reflect.ValueOf(obj).Elem())
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	text, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	ser := protobuf.NewSerializer(s, s)
	var wire bytes.Buffer
	if err := ser.Encode(obj, &wire); err != nil {
		return err
	}
	// upstream's protobuf, read by us, must be upstream's JSON
	got, err := t.ask("D", []byte(base64.StdEncoding.EncodeToString(wire.Bytes())))
	if err != nil {
		return fmt.Errorf("reading protobuf: %w", err)
	}
	if got != string(text) {
		return fmt.Errorf("reading protobuf:\n got  %s\n want %s", got, text)
	}
	// upstream's JSON, decoded and written by us, must not change
	if got, err = t.ask("N", text); err != nil {
		return fmt.Errorf("decoding JSON: %w", err)
	}
	if got != string(text) {
		return fmt.Errorf("decoding JSON:\n got  %s\n want %s", got, text)
	}
	// our protobuf, read by upstream, must be the same object
	if got, err = t.ask("E", text); err != nil {
		return fmt.Errorf("writing protobuf: %w", err)
	}
	raw, err := base64.StdEncoding.DecodeString(got)
	if err != nil {
		return err
	}
	back, _, err := ser.Decode(raw, nil, nil)
	if err != nil {
		return fmt.Errorf("upstream reading ours: %w", err)
	}
	back.GetObjectKind().SetGroupVersionKind(gvk)
	if !equality.Semantic.DeepEqual(obj, back) {
		again, _ := json.Marshal(back)
		if string(again) != string(text) {
			return fmt.Errorf("upstream reading ours:\n got  %s\n want %s", again, text)
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pbcheck PBTOOL")
		os.Exit(2)
	}
	cmd := exec.Command(os.Args[1])
	cmd.Stderr = os.Stderr
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	t := &tool{in, bufio.NewReaderSize(out, 1<<20)}
	s := scheme.Scheme
	if err := apiextensions.AddToScheme(s); err != nil {
		panic(err)
	}
	var kinds []schema.GroupVersionKind
	for gvk := range s.AllKnownTypes() {
		// a watch event's object is bytes that only the stream's own framing writes
		if served[gvk.GroupVersion().String()] && gvk.Kind != "WatchEvent" {
			kinds = append(kinds, gvk)
		}
	}
	sort.Slice(kinds, func(i, j int) bool { return kinds[i].String() < kinds[j].String() })
	failed, done := 0, 0
	for _, gvk := range kinds {
		for seed := int64(1); seed <= 20; seed++ {
			if err := check(t, s, gvk, seed); err != nil {
				fmt.Printf("FAIL %s seed %d: %v\n", gvk, seed, err)
				failed++
				break
			}
			done++
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		fmt.Println("FAIL pbtool:", err)
		failed++
	}
	fmt.Printf("%d kinds, %d objects compared, %d kinds failed\n", len(kinds), done, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// box is what the pods of the tests run beside busybox: a server with the faults that probes and hooks
// look for, and a program that eats memory.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	t := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &t, &t, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// health is grpc.health.v1.Health/Check by hand: one message each way, the status in the trailers.
// The service "sick" does not serve, "unknown" is not known.
func health(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	service := ""
	if len(body) > 7 {
		service = string(body[7:])
	}
	fmt.Printf("grpc %s service=%q agent=%s\n", r.URL.Path, service, r.UserAgent())
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	switch {
	case r.URL.Path != "/grpc.health.v1.Health/Check":
		w.Header().Set("Grpc-Status", "12")
	case service == "unknown":
		w.Header().Set("Grpc-Status", "5")
		w.Header().Set("Grpc-Message", "unknown service")
	case service == "sick":
		w.Write([]byte{0, 0, 0, 0, 2, 8, 2})
		w.(http.Flusher).Flush()
		w.Header().Set("Grpc-Status", "0")
	default:
		w.Write([]byte{0, 0, 0, 0, 2, 8, 1})
		w.(http.Flusher).Flush()
		w.Header().Set("Grpc-Status", "0")
	}
}

func serve() {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if exists("/tmp/sick") {
			http.Error(w, "sick", 500)
		}
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/healthz", 302)
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.example/", 302)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { time.Sleep(3 * time.Second) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("request %s %s host=%s agent=%s x=%s\n", r.Method, r.URL, r.Host, r.UserAgent(),
			r.Header.Get("X-Test"))
		fmt.Fprintf(w, "hello from %s\n", os.Getenv("HOSTNAME"))
	})
	go func() {
		l, err := net.Listen("tcp", ":8443")
		if err != nil {
			panic(err)
		}
		s := http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate()}}}
		panic(s.ServeTLS(l, "", ""))
	}()
	go func() {
		var p http.Protocols
		p.SetUnencryptedHTTP2(true)
		s := http.Server{Addr: ":9090", Handler: http.HandlerFunc(health), Protocols: &p}
		panic(s.ListenAndServe())
	}()
	go func() { // echo, for port-forward
		l, err := net.Listen("tcp", ":7000")
		if err != nil {
			panic(err)
		}
		for {
			c, err := l.Accept()
			if err != nil {
				panic(err)
			}
			go func() {
				io.Copy(c, c)
				c.(*net.TCPConn).CloseWrite()
				c.Close()
			}()
		}
	}()
	fmt.Println("box serves")
	panic(http.ListenAndServe(":8080", mux))
}

func eat(mib int) {
	var all [][]byte
	for i := 0; i < mib; i++ {
		b := make([]byte, 1<<20)
		for k := range b {
			b[k] = byte(k)
		}
		all = append(all, b)
	}
	fmt.Println("ate", len(all))
}

// api asks the cluster's API server as the pod's ServiceAccount.
func api(path string) {
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	ca, err := os.ReadFile(dir + "ca.crt")
	if err != nil {
		panic(err)
	}
	token, err := os.ReadFile(dir + "token")
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	r, _ := http.NewRequest("GET", "https://kubernetes.default.svc"+path, nil)
	r.Header.Set("Authorization", "Bearer "+string(token))
	a, err := c.Do(r)
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(a.Body)
	fmt.Println(a.StatusCode, string(body))
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve()
	case len(os.Args) == 3 && os.Args[1] == "eat":
		n, _ := strconv.Atoi(os.Args[2])
		eat(n)
	case len(os.Args) == 3 && os.Args[1] == "api":
		api(os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: box serve | box eat MIB | box api PATH")
		os.Exit(2)
	}
}

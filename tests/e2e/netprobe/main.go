// netprobe is both ends of the network tests.
//
//	netprobe serve [PORT...]   TCP and UDP servers that answer "HOSTNAME CLIENT-IP PORT"
//	netprobe probe [limit=1s] SPEC...
//	                           one line per SPEC: "SPEC => RESULT"; limit is when to give up
//
// SPEC is one of
//
//	tcp:IP:PORT                "ok HOSTNAME CLIENT-IP PORT", "refused", "timeout" or another error
//	udp:IP:PORT
//	udpfrom:PORT:IP:PORT       the same from a port of one's own: one flow for several probes
//	http:URL                   status and body in one line
//	lookup:NAME                addresses by the resolver and resolv.conf of this machine
//	dns:SERVER:NAME:TYPE[:OPT] rcode, flags and records; OPT: tcp, edns=SIZE, v=EDNS-VERSION
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

var limit = 2 * time.Second

func serve(ports []string) {
	host, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	if len(ports) == 0 {
		ports = []string{"8080"}
	}
	for _, port := range ports {
		port := port
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					log.Fatal(err)
				}
				go func() {
					defer c.Close()
					ip, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					fmt.Fprintf(c, "%s %s %s\n", host, strings.TrimPrefix(ip, "::ffff:"), port)
				}()
			}
		}()
		u, err := net.ListenPacket("udp4", ":"+port)
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			buf := make([]byte, 2048)
			for {
				_, from, err := u.ReadFrom(buf)
				if err != nil {
					log.Fatal(err)
				}
				ip, _, _ := net.SplitHostPort(from.String())
				u.WriteTo([]byte(fmt.Sprintf("%s %s %s\n", host, ip, port)), from)
			}
		}()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
}

func describe(err error) string {
	var t net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPERM):
		return "refused" // a datagram that the own machine's rules refuse is EPERM to its sender
	case errors.As(err, &t) && t.Timeout():
		return "timeout"
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

func talk(network, addr, from string) string {
	dialer := net.Dialer{Timeout: limit}
	if from != "" {
		local, err := net.ResolveUDPAddr(network, "0.0.0.0:"+from)
		if err != nil {
			return describe(err)
		}
		dialer.LocalAddr = local
	}
	c, err := dialer.Dial(network, addr)
	if err != nil {
		return describe(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	if network == "udp4" {
		if _, err := c.Write([]byte("hello")); err != nil {
			return describe(err)
		}
	}
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if n == 0 && err != nil {
		return describe(err)
	}
	return "ok " + strings.TrimSpace(string(buf[:n]))
}

func get(url string) string {
	client := http.Client{Timeout: limit}
	resp, err := client.Get(url)
	if err != nil {
		return describe(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.Join(strings.Fields(string(body)), ""))
}

func lookup(name string) string {
	ips, err := net.LookupHost(name)
	if err != nil {
		return describe(err)
	}
	return strings.Join(ips, " ")
}

func probe(spec string) string {
	kind, rest := spec, ""
	if i := strings.IndexByte(spec, ':'); i > 0 {
		kind, rest = spec[:i], spec[i+1:]
	}
	switch kind {
	case "tcp":
		return talk("tcp4", rest, "")
	case "udp":
		return talk("udp4", rest, "")
	case "udpfrom":
		from := strings.SplitN(rest, ":", 2)
		return talk("udp4", from[len(from)-1], from[0])
	case "http":
		return get(rest)
	case "lookup":
		return lookup(rest)
	case "dns":
		return dns(rest)
	}
	return "unknown spec"
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		serve(os.Args[2:])
		return
	}
	if len(os.Args) < 3 || os.Args[1] != "probe" {
		log.Fatal("netprobe serve [PORT...] | netprobe probe [limit=1s] SPEC...")
	}
	specs := os.Args[2:]
	if strings.HasPrefix(specs[0], "limit=") {
		d, err := time.ParseDuration(specs[0][len("limit="):])
		if err != nil {
			log.Fatal(err)
		}
		limit, specs = d, specs[1:]
	}
	results := make([]string, len(specs))
	var wg sync.WaitGroup
	for i := range specs {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			results[i] = probe(specs[i])
		}(i)
	}
	wg.Wait()
	for i, s := range specs {
		fmt.Printf("%s => %s\n", s, results[i])
	}
}

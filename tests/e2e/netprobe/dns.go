package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"
)

var types = map[string]uint16{"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "TXT": 16, "AAAA": 28, "SRV": 33}
var rcodes = []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}

func typeName(t uint16) string {
	for k, v := range types {
		if v == t {
			return k
		}
	}
	return strconv.Itoa(int(t))
}

func query(name string, qtype uint16, edns, version int) []byte {
	b := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, l := range strings.Split(strings.TrimSuffix(name, "."), ".") {
		b = append(b, byte(len(l)))
		b = append(b, l...)
	}
	b = append(b, 0, byte(qtype>>8), byte(qtype), 0, 1)
	if edns > 0 {
		b[11] = 1
		b = append(b, 0, 0, 41, byte(edns>>8), byte(edns), 0, byte(version), 0, 0, 0, 0)
	}
	return b
}

// name reads a name at off: its text and where it ends.
func name(m []byte, off int) (string, int) {
	var parts []string
	end := -1
	for hops := 0; hops < 100 && off < len(m); hops++ {
		n := int(m[off])
		if n >= 0xc0 && off+1 < len(m) {
			if end < 0 {
				end = off + 2
			}
			off = (n&0x3f)<<8 | int(m[off+1])
			continue
		}
		off++
		if n == 0 || off+n > len(m) {
			break
		}
		parts = append(parts, string(m[off:off+n]))
		off += n
	}
	if end < 0 {
		end = off
	}
	return strings.Join(parts, ".") + ".", end
}

func rdata(m []byte, t uint16, off, n int) string {
	d := m[off : off+n]
	switch {
	case t == 1 && n == 4, t == 28 && n == 16:
		return net.IP(d).String()
	case t == 2 || t == 5 || t == 12 || t == 6:
		s, _ := name(m, off)
		return s
	case t == 33 && n > 6:
		s, _ := name(m, off+6)
		return fmt.Sprintf("%d %d %d %s", binary.BigEndian.Uint16(d), binary.BigEndian.Uint16(d[2:]),
			binary.BigEndian.Uint16(d[4:]), s)
	case t == 16 && n > 1:
		return strconv.Quote(string(d[1:]))
	}
	return fmt.Sprintf("%x", d)
}

func parse(m []byte) string {
	if len(m) < 12 {
		return "short"
	}
	code := int(m[3] & 15)
	off := 12
	for i := 0; i < int(binary.BigEndian.Uint16(m[4:])); i++ {
		_, off = name(m, off)
		off += 4
	}
	var sections [3][]string
	edns := ""
	for s := 0; s < 3; s++ {
		for i := 0; i < int(binary.BigEndian.Uint16(m[6+2*s:])); i++ {
			owner, at := name(m, off)
			if at+10 > len(m) {
				return "broken"
			}
			t := binary.BigEndian.Uint16(m[at:])
			n := int(binary.BigEndian.Uint16(m[at+8:]))
			off = at + 10 + n
			if off > len(m) {
				return "broken"
			}
			if t == 41 {
				edns = fmt.Sprintf(" edns=%d", binary.BigEndian.Uint16(m[at+2:]))
				code |= int(m[at+4]) << 4
				if n > 6 {
					edns += fmt.Sprintf(" ede=%d %q", binary.BigEndian.Uint16(m[at+14:]), m[at+16:at+10+n])
				}
				continue
			}
			sections[s] = append(sections[s], fmt.Sprintf("%s %s %s", owner, typeName(t), rdata(m, t, at+10, n)))
		}
		sort.Strings(sections[s])
	}
	out := strconv.Itoa(code)
	if code < len(rcodes) {
		out = rcodes[code]
	}
	if m[2]&4 != 0 {
		out += " aa"
	}
	if m[2]&2 != 0 {
		out += " tc"
	}
	for s, label := range []string{"", " authority", " additional"} {
		if len(sections[s]) > 0 {
			out += label + " [" + strings.Join(sections[s], ", ") + "]"
		}
	}
	return out + edns
}

// dns asks one server: "SERVER:NAME:TYPE[:OPT...]".
func dns(spec string) string {
	f := strings.Split(spec, ":")
	if len(f) < 3 || types[f[2]] == 0 {
		return "unknown spec"
	}
	network, edns, version := "udp", 0, 0
	for _, opt := range f[3:] {
		switch {
		case opt == "tcp":
			network = "tcp"
		case strings.HasPrefix(opt, "edns="):
			edns, _ = strconv.Atoi(opt[5:])
		case strings.HasPrefix(opt, "v="):
			version, _ = strconv.Atoi(opt[2:])
		}
	}
	c, err := net.DialTimeout(network, f[0]+":53", limit)
	if err != nil {
		return describe(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * limit))
	q := query(f[1], types[f[2]], edns, version)
	m := make([]byte, 65535)
	n := 0
	if network == "tcp" {
		c.Write(append([]byte{byte(len(q) >> 8), byte(len(q))}, q...))
		if _, err = io.ReadFull(c, m[:2]); err == nil {
			n = int(binary.BigEndian.Uint16(m))
			_, err = io.ReadFull(c, m[:n])
		}
	} else {
		c.Write(q)
		n, err = c.Read(m)
	}
	if err != nil {
		return describe(err)
	}
	return parse(m[:n])
}

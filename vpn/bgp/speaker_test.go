package bgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"ripstop/vpn"
)

// A speaker of raw bytes: what no router would say.

const (
	open         = 1
	update       = 2
	notification = 3
	keepalive    = 4
)

// message is a BGP message (RFC 4271 section 4.1).
func message(kind byte, body []byte) []byte {
	out := bytes.Repeat([]byte{0xff}, 16)
	out = binary.BigEndian.AppendUint16(out, uint16(19+len(body)))
	return append(append(out, kind), body...)
}

func openMessage(asn uint16, hold uint16, parameters []byte) []byte {
	b := []byte{4}
	b = binary.BigEndian.AppendUint16(b, asn)
	b = binary.BigEndian.AppendUint16(b, hold)
	b = append(b, 10, 30, 0, 254, byte(len(parameters)))
	return message(open, append(b, parameters...))
}

// capabilities is one optional parameter for each (RFC 5492): the address families.
func capabilities() []byte {
	return []byte{2, 6, 1, 4, 0, 1, 0, 1}
}

// updateMessage is withdrawn routes, path attributes and announced prefixes.
func updateMessage(withdrawn, attributes, nlri []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(withdrawn)))
	b = append(b, withdrawn...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(attributes)))
	return message(update, append(append(b, attributes...), nlri...))
}

func attribute(flags, kind byte, value ...byte) []byte {
	return append([]byte{flags, kind, byte(len(value))}, value...)
}

// wellFormed is ORIGIN, AS_PATH 64514 and NEXT_HOP 10.30.0.254.
func wellFormed() []byte {
	return bytes.Join([][]byte{attribute(0x40, 1, 0), attribute(0x40, 2, 2, 1, 0xfc, 0x02), attribute(0x40, 3, 10, 30, 0, 254)}, nil)
}

// dial connects to the host out of the speaker's namespace, from one of its addresses.
func dial(t *testing.T, from netip.Addr) net.Conn {
	t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		h, err := netns.GetFromName("raw")
		if err == nil {
			defer h.Close()
			err = netns.Set(h)
		}
		if err != nil {
			done <- result{nil, err}
			return
		}
		d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		c, err := d.Dial("tcp", "10.30.0.1:179")
		done <- result{c, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.c
}

// read is the next message, its kind and its body.
func read(c net.Conn) (byte, []byte, error) {
	c.SetReadDeadline(time.Now().Add(limit))
	head := make([]byte, 19)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[16:])-19)
	_, err := io.ReadFull(c, body)
	return head[18], body, err
}

// session makes a connection established, trying again while the host still
// clears the last one away.
func (l *lab) session(from netip.Addr) net.Conn {
	l.Helper()
	deadline := time.Now().Add(limit)
	for {
		c := dial(l.T, from)
		c.Write(append(openMessage(64514, 90, capabilities()), message(keepalive, nil)...)) // its failure is the read's
		for {
			kind, _, err := read(c)
			if err != nil || kind == notification {
				break
			}
			if kind == keepalive {
				return c
			}
		}
		c.Close()
		if time.Now().After(deadline) {
			l.Fatalf("no session from %s within %v", from, limit)
		}
		time.Sleep(50 * time.Millisecond) // the poll interval of a condition
	}
}

// raw is the address of the speaker that is the neighbor "raw" and a number.
func raw(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 30, 1 + byte(i/200), 1 + byte(i%200)}) }

// rawLab is a host with an FRR that must notice nothing, and n raw speakers at one
// link: who broke a session is not listened to for a while.
func rawLab(t *testing.T, n int, limit uint32) (*lab, time.Time) {
	return rawLabWith(t, Options{}, n, limit)
}

func rawLabWith(t *testing.T, o Options, n int, limit uint32) (*lab, time.Time) {
	t.Helper()
	hostLink(t, "blue", "tor1", "10.10.0.1/24", "10.10.0.254/24", "10.50.0.1/32")
	hostLink(t, "san", "raw", "10.30.0.1/16", "10.30.0.254/16")
	neighbors := map[string]vpn.Neighbor{"tor1": {Address: addr("10.10.0.254"), ASN: 64513}}
	batch := ""
	for i := range n {
		neighbors[fmt.Sprint("raw", i)] = vpn.Neighbor{Address: raw(i), ASN: 64514, PrefixLimit: limit}
		batch += fmt.Sprintf("address add %s/16 dev eth0\n", raw(i))
	}
	cmd := exec.Command("ip", "-n", "raw", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l := &lab{T: t}
	l.begin(o)
	l.apply(host(neighbors, accept("10.0.0.0/8", 32)))
	startFRR(t, "tor1", strings.Join([]string{
		"router bgp 64513", "bgp router-id 10.10.0.254", "no bgp ebgp-requires-policy", "neighbor 10.10.0.1 remote-as 64512", "neighbor 10.10.0.1 timers connect 1",
		"address-family ipv4 unicast", "network 10.50.0.1/32", ""}, "\n"))
	l.established("tor1")
	l.kernelHas("10.50.0.1/32", "main", "via 10.10.0.254")
	return l, l.neighbor("tor1").Session.Since
}

// unharmed demands that the other neighbor's session and route are what they were.
func (l *lab) unharmed(since time.Time, after string) {
	l.Helper()
	if s := l.neighbor("tor1").Session; s.State != vpn.Established || !s.Since.Equal(since) {
		l.Fatalf("after %s the other session is %+v, and was established %v", after, s, since)
	}
	if kernelRoute(l.T, "10.50.0.1/32", "main") == "" {
		l.Fatalf("after %s the other neighbor's route has gone", after)
	}
}

// TestMalformed sends a table of broken messages, those of known advisories of
// gobgp among them. After each one the speaker lives and takes a new session of
// the same neighbor, and the other neighbor has noticed nothing.
func TestMalformed(t *testing.T) {
	ok, net16 := wellFormed(), []byte{16, 10, 60}
	with := func(more ...[]byte) []byte { return bytes.Join(append([][]byte{ok}, more...), nil) }
	long := func(kind byte, n int) []byte {
		b := binary.BigEndian.AppendUint16([]byte{0x50, kind}, uint16(n))
		return append(b, make([]byte, n)...)
	}
	reach := func(value ...byte) []byte { return attribute(0x80, 14, value...) }
	tests := map[string][]byte{
		"marker":                     append(make([]byte, 16), 0, 19, 4),
		"length 0":                   append(bytes.Repeat([]byte{0xff}, 16), 0, 0, 2),
		"length 18":                  append(bytes.Repeat([]byte{0xff}, 16), 0, 18, 2),
		"length 65535":               append(bytes.Repeat([]byte{0xff}, 16), 0xff, 0xff, 2),
		"unknown kind":               message(9, nil),
		"kind 0":                     message(0, []byte{1, 2, 3}),
		"second open":                openMessage(64514, 90, capabilities()),
		"keepalive with a body":      message(keepalive, []byte{1}),
		"notification without body":  message(notification, nil),
		"update of no bytes":         message(update, nil),
		"update of one byte":         message(update, []byte{0}),
		"withdrawn beyond the end":   message(update, []byte{0xff, 0xff, 0, 0}),
		"attributes beyond the end":  message(update, []byte{0, 0, 0xff, 0xff}),
		"attribute beyond the end":   updateMessage(nil, []byte{0x40, 1, 200, 0}, net16),
		"attribute header cut":       updateMessage(nil, []byte{0x40}, net16),
		"attribute length cut":       updateMessage(nil, []byte{0x50, 1, 0}, net16),
		"prefix of 33 bits":          updateMessage(nil, ok, []byte{33, 10, 60, 0, 0, 0}),
		"prefix of 255 bits":         updateMessage(nil, ok, []byte{255, 10}),
		"prefix cut":                 updateMessage(nil, ok, []byte{24, 10}),
		"withdrawn prefix cut":       updateMessage([]byte{24, 10}, nil, nil),
		"no attributes":              updateMessage(nil, nil, net16),
		"no next hop":                updateMessage(nil, ok[:11], net16),
		"origin 7":                   updateMessage(nil, append(attribute(0x40, 1, 7), ok[4:]...), net16),
		"origin of no bytes":         updateMessage(nil, append(attribute(0x40, 1), ok[4:]...), net16),
		"next hop of 3 bytes":        updateMessage(nil, append(ok[:11:11], attribute(0x40, 3, 10, 30, 0)...), net16),
		"next hop 0.0.0.0":           updateMessage(nil, append(ok[:11:11], attribute(0x40, 3, 0, 0, 0, 0)...), net16),
		"next hop multicast":         updateMessage(nil, append(ok[:11:11], attribute(0x40, 3, 224, 0, 0, 1)...), net16),
		"next hop twice":             updateMessage(nil, with(attribute(0x40, 3, 10, 30, 0, 9)), net16),
		"path segment beyond":        updateMessage(nil, append(append(ok[:4:4], attribute(0x40, 2, 2, 255, 1)...), ok[11:]...), net16),
		"path segment of 0":          updateMessage(nil, append(append(ok[:4:4], attribute(0x40, 2, 2, 0)...), ok[11:]...), net16),
		"path segment kind 9":        updateMessage(nil, append(append(ok[:4:4], attribute(0x40, 2, 9, 1, 0, 1)...), ok[11:]...), net16),
		"path with the host":         updateMessage(nil, append(append(ok[:4:4], attribute(0x40, 2, 2, 1, 0xfc, 0)...), ok[11:]...), net16),
		"MED of 1 byte":              updateMessage(nil, with(attribute(0x80, 4, 1)), net16),
		"local pref of no bytes":     updateMessage(nil, with(attribute(0x40, 5)), net16),
		"atomic with a value":        updateMessage(nil, with(attribute(0x40, 6, 1)), net16),
		"aggregator of 1 byte":       updateMessage(nil, with(attribute(0xc0, 7, 1)), net16),
		"communities of 3 bytes":     updateMessage(nil, with(attribute(0xc0, 8, 1, 2, 3)), net16),
		"originator of 3 bytes":      updateMessage(nil, with(attribute(0x80, 9, 1, 2, 3)), net16),
		"cluster list of 3 bytes":    updateMessage(nil, with(attribute(0x80, 10, 1, 2, 3)), net16),
		"extended communities cut":   updateMessage(nil, with(attribute(0xc0, 16, 1, 2, 3)), net16),
		"AS4 path cut":               updateMessage(nil, with(attribute(0xc0, 17, 2, 9, 0)), net16),
		"AS4 aggregator cut":         updateMessage(nil, with(attribute(0xc0, 18, 1)), net16),
		"PMSI of no bytes":           updateMessage(nil, with(attribute(0xc0, 22)), net16),
		"tunnel encapsulation cut":   updateMessage(nil, with(attribute(0xc0, 23, 0, 8, 0, 200, 1)), net16),
		"tunnel encapsulation sub":   updateMessage(nil, with(attribute(0xc0, 23, 0, 8, 0, 2, 1, 200)), net16),
		"IPv6 extended cut":          updateMessage(nil, with(attribute(0xc0, 25, 1)), net16),
		"AIGP cut":                   updateMessage(nil, with(attribute(0x80, 26, 1, 0, 3)), net16),
		"AIGP of no bytes":           updateMessage(nil, with(attribute(0x80, 26)), net16),
		"AIGP length 0":              updateMessage(nil, with(attribute(0x80, 26, 1, 0, 0)), net16),
		"large communities cut":      updateMessage(nil, with(attribute(0xc0, 32, 1, 2, 3)), net16),
		"link state cut":             updateMessage(nil, with(attribute(0x80, 29, 4, 2, 0, 200)), net16),
		"prefix SID cut":             updateMessage(nil, with(attribute(0xc0, 40, 5, 0, 200)), net16),
		"prefix SID sub cut":         updateMessage(nil, with(attribute(0xc0, 40, 5, 0, 4, 0, 1, 0, 200)), net16),
		"unknown well-known":         updateMessage(nil, with(attribute(0x40, 250, 1)), net16),
		"unknown optional":           updateMessage(nil, with(attribute(0xc0, 250, 1)), net16),
		"flags of origin wrong":      updateMessage(nil, append(attribute(0xc0, 1, 0), ok[4:]...), net16),
		"zeroes of 4000 bytes":       updateMessage(nil, long(250, 4000), nil),
		"reach of no bytes":          updateMessage(nil, with(reach()), nil),
		"reach of 3 bytes":           updateMessage(nil, with(reach(0, 1, 1)), nil),
		"reach hop beyond the end":   updateMessage(nil, with(reach(0, 2, 1, 200, 1)), nil),
		"reach hop of 1 byte":        updateMessage(nil, with(reach(0, 2, 1, 1, 1, 0, 64)), nil),
		"reach of another family":    updateMessage(nil, with(reach(0, 25, 70, 4, 10, 30, 0, 254, 0, 2, 33)), nil),
		"reach EVPN cut":             updateMessage(nil, with(reach(0, 25, 70, 4, 10, 30, 0, 254, 0, 2, 2, 1)), nil),
		"reach flow spec cut":        updateMessage(nil, with(reach(0, 1, 133, 0, 0, 0xf0, 0xff)), nil),
		"reach flow spec of 0":       updateMessage(nil, with(reach(0, 1, 133, 0, 0, 0)), nil),
		"reach VPN cut":              updateMessage(nil, with(reach(0, 1, 128, 12, 0, 0, 0, 0, 0, 0, 0, 0, 10, 30, 0, 254, 0, 112, 1)), nil),
		"reach labels without end":   updateMessage(nil, with(reach(0, 1, 4, 4, 10, 30, 0, 254, 0, 200, 0, 0, 0, 0, 0, 0)), nil),
		"reach link state cut":       updateMessage(nil, with(reach(0x40, 4, 71, 4, 10, 30, 0, 254, 0, 0, 1, 0, 200)), nil),
		"reach SR policy cut":        updateMessage(nil, with(reach(0, 1, 73, 4, 10, 30, 0, 254, 0, 96, 1)), nil),
		"reach MUP cut":              updateMessage(nil, with(reach(0, 1, 85, 4, 10, 30, 0, 254, 0, 1, 0, 1, 200)), nil),
		"reach RTC of 3 bits":        updateMessage(nil, with(reach(0, 1, 132, 4, 10, 30, 0, 254, 0, 3)), nil),
		"unreach of 2 bytes":         updateMessage(nil, with(attribute(0x80, 15, 0, 1)), nil),
		"unreach cut":                updateMessage(nil, attribute(0x80, 15, 0, 2, 1, 128, 1), nil),
		"route refresh of 1 byte":    message(5, []byte{1}),
		"route refresh of no family": message(5, []byte{0xff, 0xff, 0xff, 0xff}),
		"route refresh with ORF":     message(5, []byte{0, 1, 0, 1, 1, 64, 0xff, 0xff, 1}),
	}
	l, since := rawLab(t, len(tests)+1, 1000)
	next := 0
	for name, text := range tests {
		c := l.session(raw(next))
		next++
		c.Write(text) // the host may have closed already: what counts is that it lives
		// A good update is either taken or finds the session ended; then it is over.
		c.Write(updateMessage(nil, ok, []byte{24, 10, 70, 7}))
		c.Write(message(notification, []byte{6, 4}))
		for {
			if _, _, err := read(c); err != nil {
				var late net.Error
				if errors.As(err, &late) && late.Timeout() {
					t.Errorf("%s: the session hangs", name)
				}
				break
			}
		}
		c.Close()
		l.unharmed(since, name)
	}
	// Broken OPENs, without a session.
	for i, text := range [][]byte{
		openMessage(64999, 90, capabilities()), openMessage(64514, 1, nil), openMessage(64514, 90, []byte{2, 200, 1}),
		openMessage(64514, 90, []byte{2, 6, 1, 200, 0, 1, 0, 1}), openMessage(64514, 90, []byte{2, 2, 64, 0}), openMessage(64514, 90, []byte{255, 255, 2, 0}),
		openMessage(64514, 90, []byte{2, 4, 65, 2, 0, 1}), openMessage(64514, 90, []byte{2, 3, 73, 1, 200}), openMessage(64514, 90, []byte{2, 6, 69, 4, 0, 1, 1, 9}),
		message(open, nil), message(open, []byte{3, 0xfc, 2, 0, 90, 1, 2, 3, 4, 0}), message(open, []byte{4, 0xfc, 2, 0, 90, 0, 0, 0, 0, 0}),
		[]byte("GET / HTTP/1.1\r\nHost: here\r\n\r\n"), {0},
	} {
		c := dial(t, raw(next))
		c.Write(text) // see above
		c.Close()
		l.unharmed(since, fmt.Sprint("open ", i))
	}
	for _, i := range []int{0, next} { // one that misbehaved, and one that only said hello wrongly
		c := l.session(raw(i))
		defer c.Close()
		if _, err := c.Write(updateMessage(nil, ok, []byte{16, 10, 60 + byte(i)})); err != nil {
			t.Fatal(err)
		}
		l.kernelHas(fmt.Sprintf("10.%d.0.0/16", 60+i), "main", "via 10.30.0.254")
	}
}

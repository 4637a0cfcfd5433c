package fabric

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/internal/rawbgp"
)

// hostile is neighbors of host b in the namespace box that keep no rule of BGP.
type hostile struct {
	t    *testing.T
	next int // which of them has not spoken yet: who broke a session is not listened to for a while
}

func (h *hostile) address() netip.Addr { return netip.AddrFrom4([4]byte{10, 30, 0, byte(10 + h.next)}) }

func (h *hostile) dial() net.Conn {
	h.t.Helper()
	c, err := rawbgp.Dial("box", h.address(), "10.30.0.1:179", limit)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// session is one of the next neighbor.
func (h *hostile) session() (c net.Conn) {
	h.t.Helper()
	nettest.Eventually(h.t, limit, "a session of "+h.address().String(), func() bool {
		if c = h.dial(); rawbgp.Establish(c, limit) {
			return true
		}
		c.Close()
		return false
	})
	return c
}

// missing is which numbers of a ping have no answer; those after the last answer were on
// their way when it ended.
func missing(log string) (lost []int) {
	answered, last := map[int]bool{}, 0
	for _, line := range strings.Split(log, "\n") {
		if _, after, ok := strings.Cut(line, "icmp_seq="); ok && strings.Contains(line, " bytes from ") {
			var n int
			fmt.Sscan(after, &n)
			answered[n], last = true, max(last, n)
		}
	}
	for n := 1; n < last; n++ {
		if !answered[n] {
			lost = append(lost, n)
		}
	}
	if last == 0 {
		lost = append(lost, 1)
	}
	return lost
}

// TestHostileNeighbors has neighbors of a host say by BGP whatever is wrong, and come and go,
// while a machine elsewhere works on its LUN, and another one pings through both switches and
// the tunnel: none of them may notice.
func TestHostileNeighbors(t *testing.T) {
	w, a, b, _, file := hosts(t, "full")
	broken, opens := rawbgp.Broken(), rawbgp.BrokenOpens()
	const (
		storms, again = 20, 3 // each neighbor's session, and how often
		flaps         = 300
		most          = 512 << 20 // bytes; it is 200 MiB
	)
	h := &hostile{t: t}
	var neighbors strings.Builder
	own := []string{"10.30.0.2/24", "10.30.0.254/24"}
	for i := range len(broken) + 1 + storms + 1 {
		h.next = i
		fmt.Fprintf(&neighbors, "    n%d: {address: %s, asn: %d, prefix-limit: 1000}\n", i, h.address(), rawbgp.ASN)
		own = append(own, h.address().String()+"/24")
	}
	h.next = 0
	file = strings.Replace(file, "netns: box, address: 10.30.0.2/24", "netns: box, address: ["+strings.Join(own, ", ")+"]", 1)
	b.apply(file + "bgp:\n  on: b\n  asn: 64512\n  import: [{accept: 10.0.0.0/8}]\n  neighbors:\n" + neighbors.String())

	d := newDisk(t, "web", lun)
	d.goes("at first")
	reaches(t, "web", "10.30.0.2")
	ping := nettest.Start(t, "ip", "netns", "exec", "web", "ping", "-n", "-i", "0.02", "-W", "10", "10.30.0.2")

	ok := rawbgp.WellFormed()
	for name, text := range broken {
		c := h.session()
		c.Write(text)                                                  // the host may have closed already: what counts is that it lives
		c.Write(rawbgp.Message(rawbgp.KindNotification, []byte{6, 4})) // else this ends it
		for err := error(nil); err == nil; _, _, err = rawbgp.Read(c, limit) {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Errorf("%s: the session hangs", name)
			}
		}
		c.Close()
		h.next++
	}
	d.goes("after broken messages")
	for _, text := range opens {
		c := h.dial()
		c.Write(text) // as above
		c.Close()
	}
	h.next++
	d.goes("after broken beginnings")

	many := func(first, n int) (nlri []byte) {
		for i := first; i < first+n; i++ {
			nlri = append(nlri, 24, 10, byte(100+i/256), byte(i))
		}
		return nlri
	}
	first := h.next
	for range again {
		for h.next = first; h.next < first+storms; h.next++ {
			c := h.session()
			c.Write(rawbgp.Update(nil, ok, many(0, 400))) // it breaks right after
			c.Close()
		}
	}
	d.goes("after a storm of sessions")
	c := h.session()
	defer c.Close()
	for i := range flaps {
		if _, err := c.Write(append(rawbgp.Update(nil, ok, many(i%2*400, 400)), rawbgp.Update(many(i%2*400, 400), nil, nil)...)); err != nil {
			t.Fatal(err)
		}
	}
	d.goes("after flapping routes")
	// What remains is right: a route that lies about its next hop is not taken, and the others are.
	for _, u := range [][]byte{rawbgp.Update(nil, rawbgp.WithHop(10, 99, 0, 1), []byte{16, 10, 61}), rawbgp.Update(nil, ok, many(800, 400))} {
		if _, err := c.Write(u); err != nil {
			t.Fatal(err)
		}
	}
	nettest.Eventually(t, limit, "the last routes are in the kernel", func() bool {
		out := nettest.Run(t, "ip", "-n", "b", "route", "show", "proto", "115")
		return strings.Contains(out, "10.104.175.0/24 via 10.30.0.254") && strings.Count(out, "\n") == 400
	})
	if got := b.ripstop("get", "route"); !strings.Contains(got, "not on the neighbor's link") {
		t.Errorf("no route is refused for its next hop:\n%s", got)
	}
	d.goes("in the end")
	d.end()
	if took := b.memory(); took > most {
		t.Errorf("the daemon of host b took %d MiB", took>>20)
	}
	ping.End(syscall.SIGINT)
	if lost := missing(ping.Log()); len(lost) > 0 {
		t.Errorf("no answer to the pings %v: %s", lost, ping.LogEnd(300))
	}
	for _, h := range []*host{a, b} {
		if h.proc.Gone() {
			t.Errorf("the daemon of host %s is gone", h.name)
		}
	}
	w.clean()
}

package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ripstop/internal/rawbgp"
	"ripstop/vpn"
)

// dial connects to the host out of the speaker's namespace, from one of its addresses.
func dial(t *testing.T, from netip.Addr) net.Conn {
	t.Helper()
	c, err := rawbgp.Dial("raw", from, "10.30.0.1:179", limit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// session makes a connection established, trying again while the host still
// clears the last one away.
func (l *lab) session(from netip.Addr) net.Conn {
	l.Helper()
	deadline := time.Now().Add(limit)
	for {
		c := dial(l.T, from)
		if rawbgp.Establish(c, limit) {
			return c
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
	ok := rawbgp.WellFormed()
	tests := rawbgp.Broken()
	l, since := rawLab(t, len(tests)+1, 1000)
	next := 0
	for name, text := range tests {
		c := l.session(raw(next))
		next++
		c.Write(text) // the host may have closed already: what counts is that it lives
		// A good update is either taken or finds the session ended; then it is over.
		c.Write(rawbgp.Update(nil, ok, []byte{24, 10, 70, 7}))
		c.Write(rawbgp.Message(rawbgp.KindNotification, []byte{6, 4}))
		for {
			if _, _, err := rawbgp.Read(c, limit); err != nil {
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
	for i, text := range rawbgp.BrokenOpens() {
		c := dial(t, raw(next))
		c.Write(text) // see above
		c.Close()
		l.unharmed(since, fmt.Sprint("open ", i))
	}
	for _, i := range []int{0, next} { // one that misbehaved, and one that only said hello wrongly
		c := l.session(raw(i))
		defer c.Close()
		if _, err := c.Write(rawbgp.Update(nil, ok, []byte{16, 10, 60 + byte(i)})); err != nil {
			t.Fatal(err)
		}
		l.kernelHas(fmt.Sprintf("10.%d.0.0/16", 60+i), "main", "via 10.30.0.254")
	}
}

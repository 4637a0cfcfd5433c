//go:build !race

package bgp

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/internal/rawbgp"
	"ripstop/vpn"
)

// TestStorm: sessions that come, announce and break as fast as they can, floods of
// changing routes, and more prefixes than the limit.
func TestStorm(t *testing.T) {
	l, since := rawLab(t, 31, 500)
	attributes := rawbgp.WellFormed()
	many := func(first, n int) []byte {
		var nlri []byte
		for i := first; i < first+n; i++ {
			nlri = append(nlri, 24, 10, byte(100+i/256), byte(i))
		}
		return nlri
	}
	for range 3 { // no more: gobgp does not speak for 5 s with a neighbor whose session broke
		for i := range 30 {
			c := l.session(raw(i))
			c.Write(rawbgp.Update(nil, attributes, many(0, 50+i))) // it breaks right after
			c.Close()
		}
	}
	l.unharmed(since, "many resets")

	c := l.session(raw(30))
	for range 100 {
		c.Write(append(rawbgp.Update(nil, attributes, many(0, 400)), rawbgp.Update(many(0, 400), nil, nil)...))
	}
	if _, err := c.Write(rawbgp.Update(nil, attributes, many(7, 3))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what is left of the flood is in the kernel", func() (bool, string) {
		out, err := exec.Command("ip", "route", "show", "proto", fmt.Sprint(vpn.BGPRouteProtocol), "via", "10.30.0.254").Output()
		return err == nil && strings.Count(string(out), "\n") == 3, string(out)
	})
	l.unharmed(since, "a flood")

	// A next hop that lies: nothing of it reaches the kernel.
	lie := append(attributes[:11:11], rawbgp.Attribute(0x40, 3, 10, 10, 0, 254)...)
	if _, err := c.Write(rawbgp.Update(nil, lie, []byte{16, 10, 61})); err != nil {
		t.Fatal(err)
	}
	l.route("10.61.0.0/16", "raw30", "not on the neighbor's link")
	l.kernelHas("10.61.0.0/16", "main")

	// The limit ends the session; a higher one lets it come back.
	c.Write(append(rawbgp.Update(nil, attributes, many(0, 400)), rawbgp.Update(nil, attributes, many(400, 101))...)) // ends the session
	l.waits("raw30", "more than 500 prefixes: raise prefix-limit")
	c.Close()
	eventually(t, "the routes go with the session", func() (bool, string) {
		out := nettest.Run(t, "ip", "route", "show", "proto", fmt.Sprint(vpn.BGPRouteProtocol))
		return strings.Count(out, "\n") == 1, out
	})
	l.unharmed(since, "the limit")
	want := l.want.Clone()
	n := want.Neighbors["raw30"]
	n.PrefixLimit = 1000
	want.Neighbors["raw30"] = n
	l.apply(want)
	c = l.session(raw(30))
	defer c.Close()
	for _, u := range [][]byte{many(0, 400), many(400, 101)} {
		if _, err := c.Write(rawbgp.Update(nil, attributes, u)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are there", func() (bool, string) {
		out := nettest.Run(t, "ip", "route", "show", "proto", fmt.Sprint(vpn.BGPRouteProtocol))
		return strings.Count(out, "\n") == 502, fmt.Sprint(strings.Count(out, "\n"))
	})
	l.unharmed(since, "a higher limit")
}

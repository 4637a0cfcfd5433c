package wg

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// benchPeers is how many peers a tunnel gets between two measurements.
const benchPeers = 1000

// BenchmarkPeers gives a tunnel of this process 1,000 peers with a route each, and
// changes one of them. The metric ms/peers is the steps that make all of them,
// ms/change those that change one, and ms/look is a pass that finds nothing to do.
func BenchmarkPeers(b *testing.B) {
	nettest.Namespace(b, "bench")
	d, err := New(slog.New(slog.DiscardHandler), Options{Engine: vpn.Process})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	}()
	site := spec{Name: "site", Key: newKeys(b).private, Addresses: []string{"10.99.0.1/24"}}
	for i := range benchPeers {
		var k vpn.Key
		if _, err := rand.Read(k[:]); err != nil {
			b.Fatal(err)
		}
		site.Peers = append(site.Peers, peerSpec{Name: fmt.Sprintf("p%d", i), Key: k.String(), Allowed: []string{fmt.Sprintf("10.100.%d.%d/32", i>>8, i&0xff)}})
	}
	empty := site
	empty.Peers = nil
	var all, change, look time.Duration
	for b.Loop() {
		steps(b, d, empty)
		all += steps(b, d, site)
		site.Peers[0].Allowed = append(site.Peers[0].Allowed, "10.101.0.0/32")
		change += steps(b, d, site)
		site.Peers[0].Allowed = site.Peers[0].Allowed[:1]
		began := time.Now()
		if _, err := d.Observe(b.Context()); err != nil {
			b.Fatal(err)
		}
		look += time.Since(began)
	}
	per := func(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(per(all), "ms/peers")
	b.ReportMetric(per(change), "ms/change")
	b.ReportMetric(per(look), "ms/look")
}

// steps makes the tunnels these, and tells how long the steps to that take.
func steps(b *testing.B, d *Driver, specs ...spec) time.Duration {
	b.Helper()
	have, err := d.Observe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	todo := vpn.Diff(want(specs...), have)
	began := time.Now()
	for _, s := range todo {
		if err := d.Do(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}

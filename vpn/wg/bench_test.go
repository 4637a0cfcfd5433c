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
// changes one of them. The metric ms/peers is the steps that make the peers, ms/all
// with those that make the routes, ms/change those that change one peer, and ms/look
// what it takes to look at all.
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
	var only, all, change, look time.Duration
	for b.Loop() {
		steps(b, d, empty)
		p, a := steps(b, d, site)
		only, all = only+p, all+a
		site.Peers[0].Allowed = append(site.Peers[0].Allowed, "10.101.0.0/32")
		_, a = steps(b, d, site)
		change += a
		site.Peers[0].Allowed = site.Peers[0].Allowed[:1]
		began := time.Now()
		if _, err := d.Observe(b.Context()); err != nil {
			b.Fatal(err)
		}
		look += time.Since(began)
	}
	per := func(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(per(only), "ms/peers")
	b.ReportMetric(per(all), "ms/all")
	b.ReportMetric(per(change), "ms/change")
	b.ReportMetric(per(look), "ms/look")
}

// steps makes the tunnels these, and tells how long the steps of peers take, and all.
func steps(b *testing.B, d *Driver, specs ...spec) (peers, all time.Duration) {
	b.Helper()
	have, err := d.Observe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range vpn.Diff(want(specs...), have) {
		began := time.Now()
		if err := d.Do(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		if _, ok := s.(vpn.AddPeer); ok {
			peers += took
		}
		all += took
	}
	return peers, all
}

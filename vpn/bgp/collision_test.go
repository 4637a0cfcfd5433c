package bgp

import (
	"net"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"ripstop/internal/rawbgp"
)

// TestCollision has host and neighbor connect to each other at one time, and each hold on
// to the connection that the other lets go. gobgp then waits without a timer: at a
// connection that says nothing more, or at one that has not said anything.
func TestCollision(t *testing.T) {
	l, since := rawLabWith(t, Options{patience: patience{bgp.BGP_FSM_OPENSENT: 3 * time.Second, bgp.BGP_FSM_OPENCONFIRM: 3 * time.Second}}, 2, 1000)
	for i, both := range []bool{true, false} {
		ln, err := rawbgp.Listen("raw", raw(i).String()+":179")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ln.(*net.TCPListener).SetDeadline(time.Now().Add(limit))
		var in, out net.Conn
		for in == nil {
			in = dial(t, raw(i))
			if kind, _, err := rawbgp.Read(in, limit); err != nil || kind != rawbgp.KindOpen {
				in.Close() // the host does not listen to the neighbor yet
				in = nil
			}
		}
		out, err = ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if kind, _, err := rawbgp.Read(out, limit); err != nil || kind != rawbgp.KindOpen {
			t.Fatalf("got %d, %v", kind, err)
		}
		out.Write(rawbgp.Open(64514, 90, rawbgp.Capabilities())) // its failure is the next read's
		if both {
			if kind, _, err := rawbgp.Read(out, limit); err != nil || kind != rawbgp.KindKeepalive {
				t.Fatalf("got %d, %v", kind, err)
			}
			in.Write(rawbgp.Open(64514, 90, rawbgp.Capabilities()))
		}
		again, err := ln.Accept() // with what came until now the host does nothing
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
		ln.Close()
		c := l.session(raw(i))
		l.established([]string{"raw0", "raw1"}[i])
		c.Close()
		in.Close()
		out.Close()
	}
	l.unharmed(since, "collisions")
}

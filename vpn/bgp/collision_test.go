package bgp

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/vishvananda/netns"
)

// listenRaw takes what the host connects to an address of the raw speaker.
func listenRaw(t *testing.T, at string) net.Listener {
	t.Helper()
	var l net.Listener
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		h, err := netns.GetFromName("raw")
		if err == nil {
			defer h.Close()
			err = netns.Set(h)
		}
		if err == nil {
			l, err = net.Listen("tcp", at)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.(*net.TCPListener).SetDeadline(time.Now().Add(limit))
	return l
}

// TestCollision has host and neighbor connect to each other at one time, and each hold on
// to the connection that the other lets go. gobgp then waits without a timer: at a
// connection that says nothing more, or at one that has not said anything.
func TestCollision(t *testing.T) {
	l, since := rawLabWith(t, Options{patience: patience{bgp.BGP_FSM_OPENSENT: 3 * time.Second, bgp.BGP_FSM_OPENCONFIRM: 3 * time.Second}}, 2, 1000)
	for i, both := range []bool{true, false} {
		ln := listenRaw(t, raw(i).String()+":179")
		var in, out net.Conn
		for in == nil {
			in = dial(t, raw(i))
			if kind, _, err := read(in); err != nil || kind != open {
				in.Close() // the host does not listen to the neighbor yet
				in = nil
			}
		}
		out, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if kind, _, err := read(out); err != nil || kind != open {
			t.Fatalf("got %d, %v", kind, err)
		}
		out.Write(openMessage(64514, 90, capabilities())) // its failure is the next read's
		if both {
			if kind, _, err := read(out); err != nil || kind != keepalive {
				t.Fatalf("got %d, %v", kind, err)
			}
			in.Write(openMessage(64514, 90, capabilities()))
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

package ebpf

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// TestGroupsChangeAtOnce lets a station send without a pause while the groups of
// the receiver change: what it sends after a change is judged by the new ones,
// though the switch hands its packets over by what the old ones said.
func TestGroupsChangeAtOnce(t *testing.T) {
	d := newDriver(t)
	in17 := vswitch.FilterRule{Direction: vswitch.In, Protocol: 17, Last: 65535, Group: "g"}
	out17 := vswitch.FilterRule{Direction: vswitch.Out, Protocol: 17, Last: 65535, Group: "g"}
	open := vswitch.NewPolicy([]string{"g"}, false, []vswitch.FilterRule{in17, out17})
	shut := vswitch.NewPolicy([]string{"g"}, false, []vswitch.FilterRule{out17})
	want := func(p *vswitch.Policy) vswitch.State {
		s := house()
		for name, f := range map[string]*vswitch.Policy{"web": open, "db": p} {
			port := s.Switches["lab"].Ports[name]
			port.Filters = map[uint16]*vswitch.Policy{10: f}
			s.Switches["lab"].Ports[name] = port
		}
		return s
	}
	converge(t, d, want(open))
	out, in := datagrams(t, "db", "10.0.0.2:4001")
	mark, marks := datagrams(t, "", "10.0.0.254:4002")
	var sent atomic.Uint64
	var came [1 << 24]atomic.Bool
	var marking atomic.Bool
	go func() {
		runtime.LockOSThread() // so that what it sends keeps its order
		var one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &one); err != nil {
			t.Error(err)
		}
		for cpu := 0; one.Count() > 1; cpu++ {
			one.Clear(cpu)
		}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			t.Error(err)
		}
		for b := make([]byte, 100); ; {
			to := mark
			if !marking.Load() {
				to = out
				binary.BigEndian.PutUint64(b, sent.Add(1))
			}
			if _, err := to.Write(b); errors.Is(err, net.ErrClosed) || sent.Load() >= uint64(len(came))-1 {
				return
			}
		}
	}()
	go func() {
		for b := make([]byte, 100); ; {
			if _, err := in.Read(b); errors.Is(err, net.ErrClosed) {
				return
			}
			came[binary.BigEndian.Uint64(b)].Store(true)
		}
	}()
	// judged waits until nothing that was sent is on its way any more.
	judged := func() {
		marking.Store(true)
		b := make([]byte, 100)
		if err := marks.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for binary.BigEndian.Uint64(b) < sent.Load() { // a mark has the number of the last datagram
			if _, err := marks.Read(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	passes := func() {
		t.Helper()
		from := sent.Load()
		nettest.Eventually(t, 10*time.Second, "something comes through groups that allow it", func() bool {
			for n := from; n <= sent.Load(); n++ {
				if came[n].Load() {
					return true
				}
			}
			return false
		})
	}
	var closed [][2]uint64 // what was sent meanwhile may not have come
	for range 10 {
		passes()
		apply(t, d, want(shut))
		from := sent.Load() + 1 // the one before is on its way
		nettest.Eventually(t, 5*time.Second, "the station goes on", func() bool { return sent.Load() > from+1000 })
		judged()
		closed = append(closed, [2]uint64{from, sent.Load()})
		apply(t, d, want(open))
		marking.Store(false)
	}
	passes()
	for i, span := range closed {
		for n := span[0] + 1; n <= span[1]; n++ {
			if came[n].Load() {
				t.Fatalf("change %d: datagram %d came, %d after the groups denied it", i, n, n-span[0])
			}
		}
	}
	p := d.planes["lab"]
	handed, err := p.handed()
	if err != nil {
		t.Fatal(err)
	}
	if handed[p.slots[index(t, "db")]].Frames == 0 {
		t.Error("no packet of a known connection was handed over to a port with groups")
	}
}

// datagrams are two ends of a UDP flow from web to an address in a namespace, "" for
// the host.
func datagrams(t *testing.T, netns, address string) (out, in *net.UDPConn) {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address))
	open := func(at string, f func() error) {
		t.Helper()
		run := func(f func() error) error { return f() }
		if at != "" {
			ns, err := link.OpenNamespace(at)
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			run = ns.Run
		}
		if err := run(f); err != nil {
			t.Fatal(err)
		}
	}
	open(netns, func() (err error) { in, err = net.ListenUDP("udp4", to); return err })
	open("web", func() (err error) { out, err = net.DialUDP("udp4", nil, to); return err })
	t.Cleanup(func() { out.Close(); in.Close() })
	return out, in
}

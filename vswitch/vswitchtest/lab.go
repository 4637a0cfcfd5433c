package vswitchtest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/reconcile"
	"ripstop/vswitch"
)

var broadcast = vswitch.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// quiet is how long nothing may arrive before a case believes that nothing will:
// a frame crosses a switch of veth pairs in microseconds.
const quiet = 20 * time.Millisecond

// arrival bounds the wait for a frame that must arrive, on a machine under load.
const arrival = 3 * time.Second

// lab is one switch with stations at its ports.
type lab struct {
	t        *testing.T
	plane    vswitch.Dataplane
	open     func(t *testing.T) vswitch.Driver
	driver   vswitch.Driver
	want     vswitch.State
	stations map[string]*station
	count    uint32
}

type ports = map[string]vswitch.Port

// access is a port of one VLAN into a namespace of the port's name.
func access(vid uint16, netns string, addresses ...string) vswitch.Port {
	p := vswitch.Port{Kind: vswitch.Veth, Netns: netns, PVID: vid}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParsePrefix(a))
	}
	return p
}

// trunk carries the tagged VLANs, and pvid untagged unless it is 0.
func trunk(netns string, pvid uint16, tagged ...uint16) vswitch.Port {
	return vswitch.Port{Kind: vswitch.Veth, Netns: netns, PVID: pvid, Tagged: tagged}
}

func (s suite) lab(t *testing.T, p ports) *lab {
	t.Helper()
	l := &lab{t: t, plane: s.plane, open: s.open, stations: map[string]*station{}}
	l.driver = s.open(t)
	t.Cleanup(l.down)
	l.want = vswitch.State{Switches: map[string]vswitch.Switch{
		"lab": {Dataplane: s.plane, Ports: p, Gateways: map[string]vswitch.Gateway{}},
	}}
	l.apply()
	for name, port := range p {
		if port.Kind == vswitch.Veth {
			l.station(name)
		}
	}
	return l
}

// station is the socket at the far end of a veth port.
func (l *lab) station(name string) *station {
	l.t.Helper()
	if s, ok := l.stations[name]; ok {
		return s
	}
	dev := "eth0"
	p := l.ports()[name]
	if p.IfName != "" {
		dev = p.IfName
	}
	s := openStation(l.t, name, p.Netns, dev)
	l.stations[name] = s
	if !p.Down {
		s.running(l.t)
	}
	return s
}

func (l *lab) ports() ports { return l.want.Switches["lab"].Ports }

// set changes one port of the wanted state and applies it.
func (l *lab) set(name string, change func(*vswitch.Port)) {
	l.t.Helper()
	p := l.ports()[name]
	change(&p)
	l.ports()[name] = p
	l.apply()
}

// apply makes the wanted state, and demands that there is nothing left to do.
func (l *lab) apply() {
	l.t.Helper()
	l.pass()
	if left := l.diff(); len(left) > 0 {
		l.t.Fatalf("a second pass has steps:\n%s", text(left))
	}
	for name, s := range l.stations {
		if p, ok := l.ports()[name]; ok && !p.Down {
			s.running(l.t)
		}
	}
}

func (l *lab) pass() {
	l.t.Helper()
	steps := l.diff()
	for _, o := range reconcile.Run(l.t.Context(), l.driver, steps, map[string]error{}) {
		if o.Err != nil {
			l.t.Fatalf("%s:\n%s\n%v", o.Step.Object(), o.Step, o.Err)
		}
	}
	if err := l.driver.Commit(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// diff is what is left to do. A fault is nothing that can be done.
func (l *lab) diff() []vswitch.Step {
	l.t.Helper()
	return slices.DeleteFunc(l.differences(), func(s vswitch.Step) bool {
		_, fault := s.(vswitch.Refuse)
		return fault
	})
}

func (l *lab) differences() []vswitch.Step {
	l.t.Helper()
	have, err := l.driver.Observe(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return vswitch.Diff(l.want, have)
}

func text(steps []vswitch.Step) string {
	var out []string
	for _, s := range steps {
		out = append(out, fmt.Sprintf("%T %s\n%s", s, s.Object(), s))
	}
	return strings.Join(out, "\n")
}

// down removes everything and closes the driver. Cleanups run after the test's
// context has ended, so that they need one of their own.
func (l *lab) down() {
	l.want = vswitch.State{}
	ctx := contextWithout(l.t)
	have, err := l.driver.Observe(ctx)
	if err != nil {
		l.t.Error(err)
		return
	}
	for _, o := range reconcile.Run(ctx, l.driver, vswitch.Diff(l.want, have), map[string]error{}) {
		if o.Err != nil {
			l.t.Errorf("%s: %v", o.Step, o.Err)
		}
	}
	if err := l.driver.Commit(ctx); err != nil {
		l.t.Error(err)
	}
	if have, err = l.driver.Observe(ctx); err != nil || len(vswitch.Diff(l.want, have)) > 0 {
		l.t.Errorf("after removing everything there is still %v, %v", have, err)
	}
	l.close()
}

// close lets go of a driver as a daemon that ends.
func (l *lab) close() {
	if c, ok := l.driver.(io.Closer); ok {
		if err := c.Close(); err != nil {
			l.t.Error(err)
		}
	}
}

// restart is a new daemon that finds what the one before left.
func (l *lab) restart() {
	l.t.Helper()
	l.close()
	l.driver = l.open(l.t)
	if left := l.diff(); len(left) > 0 {
		l.t.Errorf("after a restart there are steps:\n%s", text(left))
	}
	l.pass()
}

// frame is a new test frame from a station to an address.
func (l *lab) frame(from string, to vswitch.MAC) frame {
	l.count++
	return frame{dst: to, src: l.stations[from].mac, kind: etherTest, payload: id(l.count)}
}

// sends sends one frame and demands that exactly want arrives: by station, the
// tags of the frame that it sees.
func (l *lab) sends(from string, f frame, want map[string][]tag) {
	l.t.Helper()
	mark := f.payload
	if len(mark) > 64 {
		mark = mark[:64]
	}
	l.stations[from].send(l.t, f)
	got := l.collect(mark, len(want))
	for _, name := range slices.Sorted(maps.Keys(l.stations)) {
		tags, expected := want[name]
		wire := f.with(tags...).bytes()
		switch seen := got[name]; {
		case !expected && len(seen) > 0:
			l.t.Errorf("from %s, tags %v: %s sees\n%x\nand must not", from, f.tags, name, seen[0])
		case expected && len(seen) != 1:
			l.t.Errorf("from %s, tags %v: %s sees it %d times, want once", from, f.tags, name, len(seen))
		case expected && !bytes.Equal(seen[0], wire):
			l.t.Errorf("from %s, tags %v: %s sees\n%x, want\n%x", from, f.tags, name, seen[0], wire)
		}
	}
}

// collect gathers the frames that carry mark, by station, until enough stations
// saw one and no more come.
func (l *lab) collect(mark []byte, enough int) map[string][][]byte {
	l.t.Helper()
	all := slices.Collect(maps.Values(l.stations))
	got := map[string][][]byte{}
	deadline := time.Now().Add(arrival)
	for {
		if !wait(all, unix.POLLIN, quiet) && (len(got) >= enough || time.Now().After(deadline)) {
			return got
		}
		for _, s := range all {
			for b := s.receive(l.t); b != nil; b = s.receive(l.t) {
				if bytes.Contains(b, mark) {
					got[s.name] = append(got[s.name], b)
				}
			}
		}
	}
}

// learn makes the switch know where stations are: each sends a broadcast.
func (l *lab) learn(names ...string) {
	l.t.Helper()
	for _, n := range names {
		f := l.frame(n, broadcast)
		l.stations[n].send(l.t, f)
		l.collect(f.payload, 1)
	}
}

// none and untagged say what stations see.
var none = map[string][]tag{}

func untagged(names ...string) map[string][]tag {
	m := map[string][]tag{}
	for _, n := range names {
		m[n] = nil
	}
	return m
}

// and adds a station that sees tags.
func and(m map[string][]tag, name string, tags ...tag) map[string][]tag {
	m = maps.Clone(m)
	m[name] = tags
	return m
}

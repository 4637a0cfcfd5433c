package bgp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// limit is how long a condition may take on a loaded machine.
const limit = 120 * time.Second // a machine with much else to do takes its time under -race

// The lab is the host, which is the test's own namespace, and routers:
//
//	host blue 10.10.0.1/24 ── tor1 10.10.0.254/24, lo 10.50.0.1/32
//	host san  10.30.0.1/24 ── tor2 10.30.0.254/24, lo 10.50.0.1/32
type lab struct {
	*testing.T
	driver *Driver
	want   vpn.BGP
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// hostLink makes a veth from the host into a router's namespace, both with addresses.
func hostLink(t *testing.T, device, netns string, host, router string, more ...string) {
	t.Helper()
	nettest.Namespace(t, netns)
	nettest.Run(t, "ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", netns)
	t.Cleanup(func() { exec.Command("ip", "link", "del", device).Run() }) // it may have gone with its namespace
	nettest.Run(t, "ip", "link", "set", device, "up")
	nettest.Run(t, "ip", "-n", netns, "link", "set", "eth0", "up")
	for _, p := range strings.Fields(host) {
		nettest.Run(t, "ip", "address", "add", p, "dev", device, "nodad")
	}
	for _, p := range strings.Fields(router) {
		nettest.Run(t, "ip", "-n", netns, "address", "add", p, "dev", "eth0", "nodad")
	}
	for _, p := range more {
		nettest.Run(t, "ip", "-n", netns, "address", "add", p, "dev", "lo")
	}
}

// speak starts a driver and its loop.
func speak(t *testing.T, want vpn.BGP) *lab {
	t.Helper()
	l := &lab{T: t}
	l.begin(Options{})
	l.apply(want)
	return l
}

// begin starts a driver, which ends with the test. The devices that it has made by then
// go with a test that fails, so that it alone fails.
func (l *lab) begin(o Options) (end func()) {
	l.Helper()
	nettest.SweepLinks(l.T)
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = l.Output()
	}
	d, err := New(slog.New(slog.NewTextHandler(out, nil)), o)
	if err != nil {
		l.Fatal(err)
	}
	l.driver = d
	ctx, cancel := context.WithCancel(l.Context())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, func() {}) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.Error(err)
		}
		if err := d.Close(); err != nil {
			l.Error(err)
		}
	})
	l.Cleanup(end)
	return end
}

// apply does all steps to a wanted state.
func (l *lab) apply(want vpn.BGP) {
	l.Helper()
	have, err := l.driver.Observe(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	for _, s := range vpn.DiffBGP(want, have) {
		if err := l.driver.Do(l.Context(), s); err != nil {
			l.Fatalf("%s: %v", s, err)
		}
	}
	have, err = l.driver.Observe(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	if left := vpn.DiffBGP(want, have); len(left) > 0 {
		l.Fatalf("after all steps these are left: %v", left)
	}
	l.want = want
}

func (l *lab) neighbor(name string) vpn.NeighborStats {
	l.Helper()
	all, err := l.driver.Neighbors(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	for _, n := range all {
		if n.Name == name {
			return n
		}
	}
	l.Fatalf("no neighbor %s in %v", name, all)
	return vpn.NeighborStats{}
}

func (l *lab) established(names ...string) {
	l.Helper()
	for _, name := range names {
		eventually(l.T, "a session with "+name, func() (bool, string) {
			s := l.neighbor(name).Session
			return s.State == vpn.Established, fmt.Sprintf("%+v", s)
		})
	}
}

// waits demands that a neighbor has no session, and that its reason says so.
func (l *lab) waits(name, reason string) {
	l.Helper()
	eventually(l.T, name+" waits: "+reason, func() (bool, string) {
		s := l.neighbor(name).Session
		return s.State != vpn.Established && strings.Contains(s.Reason, reason), fmt.Sprintf("%+v", s)
	})
}

// route waits until a path of a neighbor has become what is demanded: "used", or
// a part of why it is not.
func (l *lab) route(p, neighbor, what string) {
	l.Helper()
	eventually(l.T, fmt.Sprintf("%s of %s is %s", p, neighbor, what), func() (bool, string) {
		for _, v := range l.driver.Routes() {
			if v.Prefix == prefix(p) && v.Neighbor == neighbor {
				if what == "used" {
					return v.Used && v.Why == "", fmt.Sprintf("%+v", v)
				}
				return !v.Used && strings.Contains(v.Why, what), fmt.Sprintf("%+v", v)
			}
		}
		return false, "it is not there"
	})
}

// kernelHas waits until the kernel's table has, or has not, a learned route.
func (l *lab) kernelHas(p, table string, words ...string) {
	l.Helper()
	eventually(l.T, fmt.Sprintf("%s in table %s with %v", p, table, words), func() (bool, string) {
		out := kernelRoute(l.T, p, table)
		if len(words) == 0 {
			return out == "", out
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				return false, out
			}
		}
		return true, out
	})
}

func kernelRoute(t testing.TB, p, table string) string {
	family := "-4"
	if strings.Contains(p, ":") {
		family = "-6"
	}
	out, err := exec.Command("ip", family, "route", "show", p, "table", table, "proto", fmt.Sprint(vpn.BGPRouteProtocol)).CombinedOutput()
	if err != nil && strings.Contains(string(out), "table does not exist") {
		return ""
	}
	if err != nil {
		t.Fatalf("ip route show %s: %v\n%s", p, err, out)
	}
	return strings.TrimSpace(string(out))
}

// eventually waits for a condition; its text is shown when it does not come.
func eventually(t testing.TB, what string, cond func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		ok, text := cond()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %s", limit, what, text)
		}
		time.Sleep(20 * time.Millisecond) // the poll interval of a condition
	}
}

// frr is an FRR beside the host.
type frr struct {
	*nettest.FRR
	t *testing.T
}

func startFRR(t *testing.T, netns, config string) *frr {
	t.Helper()
	return &frr{nettest.StartFRR(t, netns, config), t}
}

// show is what bgpd says.
func (f *frr) show(commands ...string) string { return f.Show("bgpd", commands...) }

// process runs a program until the test ends.
func process(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := nettest.Begin(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	return cmd
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill() // it may have ended already
	cmd.Wait()
}

// learned is the prefixes of a family that FRR has from the host.
func (f *frr) learned(family string) map[string]bool {
	var out struct{ Routes map[string]json.RawMessage }
	got := map[string]bool{}
	if json.Unmarshal([]byte(f.show("show bgp "+family+" unicast json")), &out) != nil {
		return got
	}
	for p, r := range out.Routes {
		if strings.Contains(string(r), `"path":"64512"`) {
			got[p] = true
		}
	}
	return got
}

func (f *frr) learns(family string, prefixes ...string) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("FRR learns %v", prefixes), func() (bool, string) {
		got := f.learned(family)
		for _, p := range prefixes {
			if !got[p] {
				return false, fmt.Sprint(got)
			}
		}
		return len(got) == len(prefixes), fmt.Sprint(got)
	})
}

// startBIRD runs BIRD in a namespace.
func startBIRD(t *testing.T, netns, config string) (show func(command ...string) string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bird.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "ctl")
	process(t, "ip", "netns", "exec", netns, "bird", "-f", "-c", filepath.Join(dir, "bird.conf"), "-s", socket, "-P", filepath.Join(dir, "pid"))
	show = func(command ...string) string {
		out, _ := exec.Command("birdc", append([]string{"-s", socket}, command...)...).CombinedOutput()
		return string(out)
	}
	nettest.Eventually(t, limit, "BIRD listens", func() bool { return strings.Contains(show("show", "status"), "Daemon is up") })
	return show
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return nettest.Run(t, name, args...)
}

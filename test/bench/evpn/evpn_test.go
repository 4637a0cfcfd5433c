// Package evpn measures how soon a host knows of another's stations by EVPN: two daemons
// in namespaces of their own, and stations that all begin to speak at once.
package evpn

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
)

// program is ripstop.
var program string

func TestMain(m *testing.M) { nettest.Main(nettest.Program{M: m, Path: &program}) }

// limit is how long a condition may take on a loaded machine.
const limit = 20 * time.Second

// host is a daemon in a namespace.
type host struct {
	t         testing.TB
	netns     string
	dir, sock string
}

func start(t testing.TB, netns, address string) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t, netns, dir, filepath.Join(dir, "sock")}
	nettest.Run(t, "ip", "-n", netns, "address", "add", address+"/24", "dev", "wire")
	nettest.Run(t, "ip", "-n", netns, "link", "set", "wire", "up")
	nettest.Run(t, "ip", "-n", netns, "link", "set", "lo", "up")
	cmd := exec.Command("nsenter", "--net=/run/netns/"+netns, program, "--state", dir, "--socket", h.sock, "serve")
	if err := nettest.Begin(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.apply("version: 1\n")
		cmd.Process.Signal(os.Interrupt) // its failure is the wait's
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	nettest.Eventually(t, limit, netns+" answers", func() bool {
		return exec.Command(program, "--socket", h.sock, "status").Run() == nil
	})
	return h
}

func (h *host) apply(config string) {
	h.t.Helper()
	name := filepath.Join(h.dir, "file.yaml")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		h.t.Fatal(err)
	}
	nettest.Run(h.t, program, "--socket", h.sock, "apply", name)
}

func config(self, other int, port string) string {
	return fmt.Sprintf(`version: 1
vlans: {blue: {id: 10, vni: 10010, gateway: 10.10.0.1/16, anycast: true}}
switches:
  lab:
    dataplane: ebpf
    vxlan: {address: 192.0.2.%d}
    ports: {%s}
bgp:
  asn: 64512
  router-id: 192.0.2.%d
  evpn: true
  neighbors: {other: {address: 192.0.2.%d, asn: 64512}}
`, self, port, self, other)
}

// count is how many stations of the other host a host's VXLAN device knows.
func count(t testing.TB, s *link.Space) int {
	t.Helper()
	l, err := s.Link("vx10010")
	if err != nil {
		t.Fatal(err)
	}
	all, err := link.Dump(func() ([]netlink.Neigh, error) {
		return s.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(l.Attrs().Index)})
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range all {
		if e.LinkIndex == l.Attrs().Index && len(e.HardwareAddr) == 6 && e.HardwareAddr[0] == 2 && e.HardwareAddr[1] == 0xee {
			n++
		}
	}
	return n
}

// speak has n stations send a broadcast each out of a namespace, with ARP of theirs when
// they have addresses.
func speak(t testing.TB, netns string, n int, round byte) {
	t.Helper()
	s, err := link.OpenNamespace(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Run(func() error {
		l, err := s.Link("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range n {
			mac := []byte{2, 0xee, round, 0, byte(i >> 8), byte(i)}
			ip := []byte{10, 10, byte(64 + i>>8), byte(i)}
			frame := slices.Concat(bytes.Repeat([]byte{0xff}, 6), mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac, ip, make([]byte, 6), ip, make([]byte, 18))
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}); err != nil {
				return err
			}
			if i%256 == 255 {
				time.Sleep(time.Millisecond) // the kernel's queue holds 1000 frames, and none is sent again
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

const (
	web     = `web: {vlan: blue, netns: web, mac-limit: 65535}`
	nothing = ``
)

// TestConvergence has stations begin to speak on one host, and then go, until the other
// knows. RIPSTOP_STATIONS of them, RIPSTOP_ROUNDS times; with RIPSTOP_DOCS the table goes
// there.
func TestConvergence(t *testing.T) {
	n, rounds := 500, 1
	if v := os.Getenv("RIPSTOP_STATIONS"); v != "" {
		fmt.Sscan(v, &n)
	}
	if v := os.Getenv("RIPSTOP_ROUNDS"); v != "" {
		fmt.Sscan(v, &rounds)
	}
	nettest.Namespace(t, "hosta")
	nettest.Namespace(t, "hostb")
	nettest.Run(t, "ip", "link", "add", "wire", "netns", "hosta", "type", "veth", "peer", "name", "wire", "netns", "hostb")
	a, b := start(t, "hosta", "192.0.2.1"), start(t, "hostb", "192.0.2.2")
	a.apply(config(1, 2, web))
	b.apply(config(2, 1, nothing))
	space, err := link.OpenNamespace("hostb")
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	nettest.Eventually(t, limit, "a session", func() bool {
		out, _ := exec.Command(program, "--socket", a.sock, "get", "neighbor").CombinedOutput()
		return strings.Contains(string(out), "established")
	})
	var learned, forgotten []time.Duration
	last := 0
	defer func() {
		if t.Failed() {
			out, _ := exec.Command(program, "--socket", a.sock, "get", "fdb").CombinedOutput()
			t.Logf("the other host knows %d, this one %d", last, bytes.Count(out, []byte("02:ee:")))
		}
	}()
	for round := range rounds {
		speak(t, "web", n, byte(round))
		learned = append(learned, until(t, fmt.Sprint(n, " stations"), func() bool { last = count(t, space); return last == n }))
		a.apply(config(1, 2, nothing))
		forgotten = append(forgotten, until(t, "no station", func() bool { return count(t, space) == 0 }))
		a.apply(config(1, 2, web))
	}
	report(t, n, learned, forgotten)
}

// until is how long a condition takes.
func until(t testing.TB, what string, cond func() bool) time.Duration {
	t.Helper()
	from := time.Now()
	for !cond() {
		if time.Since(from) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond) // the poll interval of a condition: listings of 10,000 stations take from what is measured
	}
	return time.Since(from)
}

func report(t *testing.T, n int, learned, forgotten []time.Duration) {
	t.Helper()
	text := fmt.Sprintf(`| %d stations | owed | median | all rounds |
|---|---|---|---|
| from the last one's first frame until the other host's FDB has all | ≤ 1 s | %s | %s |
| from the end of the apply that removes their port until it has none | – | %s | %s |
`, n, middle(learned), spread(learned), middle(forgotten), spread(forgotten))
	t.Log("\n" + text)
	docs := os.Getenv("RIPSTOP_DOCS")
	if docs == "" {
		return
	}
	page, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- figures -->\n", "<!-- end of figures -->\n"
	head, rest, ok := strings.Cut(string(page), begin)
	_, tail, there := strings.Cut(rest, end)
	if !ok || !there {
		t.Fatalf("%s has no place for figures", docs)
	}
	if err := os.WriteFile(docs, []byte(head+begin+text+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func middle(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2].Round(time.Millisecond).String()
}

func spread(all []time.Duration) string {
	sorted := slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%s–%s (%d)", sorted[0].Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond), len(sorted))
}

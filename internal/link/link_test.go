package link

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func open(t *testing.T) *Space {
	t.Helper()
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s) })
	return s
}

func closed(t *testing.T, s *Space) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNamespaceLife(t *testing.T) {
	far, err := EnsureNamespace("web")
	must(t, err)
	if out := nettest.Run(t, "ip", "-n", "web", "link", "show", "lo"); !strings.Contains(out, "UP") {
		t.Errorf("ip sees %s", out)
	}
	host := open(t)
	must(t, host.AddVeth(Veth{Name: "web", Group: Group("lab"), Far: far, FarName: "eth0"}))
	if err := host.AddVeth(Veth{Name: "web", Far: far, FarName: "eth1"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the second of a name: %v", err)
	}
	near, err := host.Link("web")
	must(t, err)
	if !HalfMade(near, "lab") || HalfMade(near, "dmz") {
		t.Errorf("a new link has group %#x", near.Attrs().Group)
	}
	must(t, ReleaseNamespace("web")) // stays: eth0 stands in it
	if names, err := OwnNamespaces(); err != nil || !slices.Equal(names, []string{"web"}) {
		t.Errorf("own namespaces %v, %v", names, err)
	}
	must(t, DeleteGroup(Group("lab")))
	closed(t, far)
	must(t, ReleaseNamespace("web"))
	if _, err := OpenNamespace("web"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its release: %v", err)
	}
	must(t, ReleaseNamespace("web")) // once more is no error
}

func TestForeignNamespaceStays(t *testing.T) {
	nettest.Namespace(t, "mine")
	s, err := EnsureNamespace("mine")
	must(t, err)
	closed(t, s)
	must(t, ReleaseNamespace("mine"))
	if _, err := os.Stat("/run/netns/mine"); err != nil {
		t.Error(err)
	}
}

func TestNamespaceNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b"} {
		if _, err := EnsureNamespace(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	// A name left without its namespace is used again.
	must(t, os.WriteFile("/run/netns/stale", nil, 0o444))
	s, err := EnsureNamespace("stale")
	must(t, err)
	closed(t, s)
	must(t, ReleaseNamespace("stale"))
}

func TestRunComesBack(t *testing.T) {
	before, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	s, err := EnsureNamespace("web")
	must(t, err)
	inside := ""
	must(t, s.Run(func() (err error) { inside, err = os.Readlink("/proc/thread-self/ns/net"); return err }))
	must(t, Scratch(func() error {
		now, err := os.Readlink("/proc/thread-self/ns/net")
		if now == before || now == inside {
			t.Error("Scratch is not a namespace of its own")
		}
		return err
	}))
	after, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	if inside == before || after != before {
		t.Errorf("before %s, inside %s, after %s", before, inside, after)
	}
	closed(t, s)
	must(t, ReleaseNamespace("web"))
}

func TestAddresses(t *testing.T) {
	host := open(t)
	nettest.Run(t, "ip", "link", "add", "d0", "type", "bridge")
	defer nettest.Run(t, "ip", "link", "del", "d0")
	nettest.Run(t, "ip", "link", "set", "d0", "up")
	l, err := host.Link("d0")
	must(t, err)
	set := func(texts ...string) {
		t.Helper()
		var want []netip.Prefix
		for _, s := range texts {
			want = append(want, netip.MustParsePrefix(s))
		}
		must(t, host.SetAddresses(l, want))
		all, err := host.Addresses()
		must(t, err)
		if got := all[l.Attrs().Index]; !slices.Equal(got, want) {
			t.Errorf("addresses %v, want %v", got, want)
		}
	}
	set("10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "fd00::1/64", "fe80::1/64")
	set("10.0.0.2/24", "10.0.0.3/24", "fd00::1/64") // the primary goes, its secondaries stay
	set("10.0.0.2/25", "10.0.0.3/24")
	set()
}

func TestTap(t *testing.T) {
	host := open(t)
	mark := Alias{Switch: "lab", Port: "vm1"}
	must(t, host.AddTap(Tap{Name: "vm1", Owner: 1000, Group: Group("lab"), Alias: mark}))
	l, err := host.Link("vm1")
	must(t, err)
	tap, ok := l.(*netlink.Tuntap)
	if !ok || tap.Owner != 1000 || tap.NonPersist || l.Attrs().Alias != mark.String() || l.Attrs().Group != Group("lab") {
		t.Errorf("made %+v", l)
	}
	must(t, host.SetUp(l, true))
	queues, err := host.QdiscList(l)
	if err != nil || len(queues) != 1 || queues[0].Type() != "noqueue" {
		t.Errorf("its queueing disciplines are %v, %v; want noqueue", queues, err)
	}
	if err := host.AddTap(Tap{Name: "vm1", Alias: mark}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the second of a name: %v", err)
	}
	must(t, host.Delete(l))
	must(t, host.Delete(l))
}

// TestTapOfSeveralQueues opens a tap as QEMU does: once for each queue, or not at
// all where it is of the other kind.
func TestTapOfSeveralQueues(t *testing.T) {
	host := open(t)
	for _, several := range []bool{false, true} {
		must(t, host.AddTap(Tap{Name: "vm1", Group: Group("lab"), MultiQueue: several, Alias: Alias{Switch: "lab", Port: "vm1"}}))
		l, err := host.Link("vm1")
		must(t, err)
		must(t, host.SetUp(l, true))
		kinds := map[bool]uint16{true: unix.IFF_MULTI_QUEUE}
		if err := openQueue(t, "vm1", kinds[!several]); !errors.Is(err, unix.EINVAL) {
			t.Errorf("several %v: the other kind: %v, want EINVAL", several, err)
		}
		first, second := openQueue(t, "vm1", kinds[several]), openQueue(t, "vm1", kinds[several])
		if first != nil || (second == nil) != several {
			t.Errorf("several %v: the first queue: %v, the second: %v", several, first, second)
		}
		l, err = host.Link("vm1")
		must(t, err)
		if tap := l.(*netlink.Tuntap); several && tap.Queues != 2 {
			t.Errorf("%d queues are open, want 2", tap.Queues)
		}
		queues, err := host.QdiscList(l)
		if err != nil || len(queues) != 1 || queues[0].Type() != "noqueue" {
			t.Errorf("several %v: its queueing disciplines are %v, %v; want noqueue", several, queues, err)
		}
		must(t, host.Delete(l))
	}
}

// openQueue opens a tap until the test ends.
func openQueue(t *testing.T, name string, kind uint16) error {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	req, err := unix.NewIfreq(name)
	must(t, err)
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | kind)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
}

func TestLongAlias(t *testing.T) {
	host := open(t)
	nettest.Run(t, "ip", "link", "add", "d0", "type", "bridge")
	defer nettest.Run(t, "ip", "link", "del", "d0")
	l, err := host.Link("d0")
	must(t, err)
	if err := host.SetAlias(l, Alias{Switch: strings.Repeat("x", 250)}); err == nil || !strings.Contains(err.Error(), "shorten") {
		t.Errorf("266 bytes: %v", err)
	}
	must(t, host.SetAlias(l, Alias{Switch: strings.Repeat("x", 240)}))
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wake := Watch(ctx, slog.New(slog.DiscardHandler))
	woken := func(what string) {
		t.Helper()
		select {
		case <-wake:
		case <-time.After(5 * time.Second):
			t.Fatal("no wake after " + what)
		}
	}
	woken("the subscription")
	nettest.Run(t, "ip", "link", "add", "d0", "type", "bridge")
	woken("a link came")
	nettest.Run(t, "ip", "link", "del", "d0")
	woken("a link went")
	cancel()
	nettest.Eventually(t, 5*time.Second, "the channel to close", func() bool {
		select {
		case _, open := <-wake:
			return !open
		default:
			return false
		}
	})
}

// TestWatchInside changes what only the namespace behind a veth pair sees.
func TestWatchInside(t *testing.T) {
	nettest.Namespace(t, "web")
	nettest.Run(t, "ip", "link", "add", "web", "type", "veth", "peer", "name", "eth0", "netns", "web")
	defer nettest.Run(t, "ip", "link", "del", "web")
	nettest.Run(t, "ip", "-n", "web", "link", "set", "eth0", "up")
	host := open(t)
	if _, err := host.Links(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{"address add 10.0.0.1/24 dev eth0", "address del 10.0.0.1/24 dev eth0", "link set eth0 mtu 1400"} {
		t.Run(change, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			wake := Watch(ctx, slog.New(slog.DiscardHandler))
			for still(wake) {
			}
			nettest.Run(t, "ip", append([]string{"-n", "web"}, strings.Fields(change)...)...)
			select {
			case <-wake:
			case <-time.After(5 * time.Second):
				t.Error("no wake")
			}
		})
	}
}

// still tells whether a wake comes before it has been quiet for a while.
func still(wake <-chan struct{}) bool {
	select {
	case <-wake:
		return true
	case <-time.After(300 * time.Millisecond):
		return false
	}
}

func TestClsact(t *testing.T) {
	host := open(t)
	nettest.Run(t, "ip", "link", "add", "d0", "type", "bridge")
	l, err := host.Link("d0")
	must(t, err)
	index := l.Attrs().Index
	for _, want := range []bool{true, false} {
		if fresh, err := host.AddClsact(index); err != nil || fresh != want {
			t.Errorf("fresh is %t, %v; want %t", fresh, err, want)
		}
	}
	for _, side := range []string{"ingress", "egress"} {
		nettest.Run(t, "tc", "filter", "add", "dev", "d0", side, "pref", "7", "u32", "match", "u32", "0", "0")
		must(t, host.RemoveClsact(index))
		if out := nettest.Run(t, "tc", "filter", "show", "dev", "d0", side); !strings.Contains(out, "pref 7") {
			t.Errorf("the foreign filter at %s went: %s", side, out)
		}
		nettest.Run(t, "tc", "filter", "del", "dev", "d0", side)
	}
	must(t, host.RemoveClsact(index))
	must(t, host.RemoveClsact(index))
	if out := nettest.Run(t, "tc", "qdisc", "show", "dev", "d0"); strings.Contains(out, "clsact") {
		t.Errorf("clsact is still there: %s", out)
	}
	nettest.Run(t, "ip", "link", "del", "d0")
	if list, err := host.Filters(index); err != nil || len(list) > 0 {
		t.Errorf("a link that is gone has %v, %v", list, err)
	}
}

func TestDump(t *testing.T) {
	calls := 0
	got, err := Dump(func() (int, error) {
		calls++
		if calls < 3 {
			return 0, netlink.ErrDumpInterrupted
		}
		return calls, nil
	})
	if got != 3 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := Dump(func() (int, error) { return 0, netlink.ErrDumpInterrupted }); !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Errorf("a dump that never ends well: %v", err)
	}
}

// TestLinksOf compares the dumps with each other and with what was made.
func TestLinksOf(t *testing.T) {
	host := open(t)
	nettest.Run(t, "ip", "link", "add", "br7", "type", "bridge")
	nettest.Run(t, "ip", "link", "set", "br7", "alias", "mine")
	nettest.Run(t, "ip", "link", "add", "v7", "type", "veth", "peer", "name", "v8")
	names := func(links []netlink.Link, err error) []string {
		must(t, err)
		var out []string
		for _, l := range links {
			out = append(out, l.Attrs().Name+" "+l.Type()+" "+l.Attrs().Alias)
		}
		slices.Sort(out)
		return out
	}
	if got := names(host.LinksOf("bridge")); !slices.Equal(got, []string{"br7 bridge mine"}) {
		t.Errorf("bridges: %q", got)
	}
	if got := names(host.LinksOf("wireguard")); len(got) > 0 {
		t.Errorf("of a kind of which there are none: %q", got)
	}
	all, counted := names(host.Links()), names(host.Counted())
	if !slices.Equal(all, counted) || !slices.Contains(all, "v8 veth ") {
		t.Errorf("links %q, with counters %q", all, counted)
	}
	nettest.Run(t, "ip", "link", "del", "br7")
	nettest.Run(t, "ip", "link", "del", "v7")
}

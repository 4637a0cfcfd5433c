package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/link"
)

// The dataplanes that are compared.
const (
	plain  = "bridge" // the kernel's bridge, which knows no VLANs
	vlan   = "vlan"   // the same with VLAN filtering
	ours   = "ebpf"
	owned  = "ripstop-bridge" // the bridge as ripstop has it, with its guard
	direct = "direct"         // a veth pair with nothing between its ends
)

var planes = []string{plain, vlan, ours, owned, direct}

// leastPorts is how many ports the switches of most cells have.
const leastPorts = 10

// VLAN of all ports.
const vid = 10

// lab is one switch with stations at its ports. The far ends of port 0 and 1 are
// alone in their namespaces, those of all others share one.
//
//	a ─ 0 ┐        ┌ 1 ─ b
//	      ├ switch ┤ 2… ─ x
//	t0, t1┘        └ t2 ─ relay ─ eth0 in g
type lab struct {
	name     string
	plane    string
	filtered bool // by groups of ripstop
	mixed    bool // each port 0 and 1 has a tap at its other end
	passed   bool // what enters port 0 leaves through port 1
	cloned   bool // what enters port 0 is cloned to all others
	ports    int
	far      []string // names of the veths' far ends
	stations []*station
	out      *ring    // sends from the first of them
	taps     []int    // files of t0 and t1
	requests [][]byte // from each of them to the other
	spaces   map[string]*link.Space
}

// labName is that of the lab for a cell. Filters of bridges are made and removed
// with each measurement: they are those of all bridges of a namespace.
func (c Cell) labName(plane string) string {
	short := map[string]string{plain: "b", vlan: "v", ours: "e", owned: "r", direct: "d"}
	name := fmt.Sprintf("%s%d", short[plane], c.Ports)
	switch {
	case c.filtered() && (plane == ours || plane == owned):
		name += "f"
	case plane == direct && strings.Contains(c.Ends, "-"):
		name += "m"
	case plane == direct && c.Load == "fdb":
		name += "p"
	case plane == direct && c.floods():
		name += "c"
	}
	return name
}

// Names of a port's device, of its far end, and of the namespace of that.
func (l *lab) port(i int) string { return fmt.Sprintf("%s-%d", l.name, i) }

func (l *lab) space(i int) string {
	switch i {
	case 0:
		return l.name + "a"
	case 1:
		return l.name + "b"
	}
	return l.name + "x"
}

func (l *lab) tap(i int) string { return fmt.Sprintf("%st%d", l.name, i) }
func (l *lab) guest() string    { return l.name + "g" }

// address is that of a port's far end; only 0, 1 and the guest have one.
func address(i int) [4]byte { return [4]byte{10, 1, 0, byte(i + 1)} }

func addressText(i int) string {
	a := address(i)
	return fmt.Sprintf("%d.%d.%d.%d/24", a[0], a[1], a[2], a[3])
}

const guestStation = 100

// host is the namespace of the ports' near ends. The kernel finds a device by its number
// in a table of 256 chains (net/core/dev.c), which a program that names receivers waits
// for and a bridge does not: so a large lab is alone, as the switch of a host is.
func (l *lab) host() string {
	if l.plane == ours || l.plane == owned || l.ports == leastPorts || !l.cloned && l.plane == direct {
		return "" // with those of ripstop's daemon
	}
	return l.name + "h"
}

func (l *lab) hasTaps() bool { return l.ports == leastPorts && !l.filtered && !l.cloned && !l.passed }

// bench is all labs.
type bench struct {
	options
	planes []string // that this kernel has
	labs   map[string]*lab
	daemon *exec.Cmd
}

// build makes the switches that the cells need.
func (b *bench) build(ctx context.Context, list []Cell) error {
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return err
	}
	if err := errors.Join(quietIPv6(), bareBridges()); err != nil {
		return err
	}
	b.planes = strings.Split(b.options.planes, ",")
	if !filters() {
		fmt.Println("this kernel's bridge has no VLAN filtering: nothing to measure there")
		b.planes = slices.DeleteFunc(b.planes, func(p string) bool { return p == vlan || p == owned })
	}
	var file strings.Builder
	fmt.Fprintf(&file, "version: 1\nvlans:\n  blue: {id: %d}\nswitches:\n", vid)
	for _, plane := range b.planes {
		for _, c := range list {
			name := c.labName(plane)
			if b.labs[name] != nil || plane == direct && !c.direct() {
				continue
			}
			l := &lab{name: name, plane: plane, filtered: strings.HasSuffix(name, "f"), mixed: strings.HasSuffix(name, "m"),
				cloned: strings.HasSuffix(name, "c"), passed: strings.HasSuffix(name, "p"), ports: c.Ports,
				spaces: map[string]*link.Space{}}
			b.labs[name] = l
			if err := l.make(ctx, b.Dir, &file); err != nil {
				return fmt.Errorf("%s with %d ports: %w", plane, c.Ports, err)
			}
		}
	}
	file.WriteString(groups)
	if err := b.start(ctx, file.String()); err != nil {
		return err
	}
	for _, l := range b.labs {
		if err := l.open(ctx); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// quietIPv6 keeps new links of this namespace from speaking on their own.
func quietIPv6() error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// bareBridges keeps bridges from calling iptables where the kernel has
// br_netfilter, which costs them more than they cost themselves.
func bareBridges() error {
	err := os.WriteFile(callsIP, []byte("0"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// filters tells whether this kernel's bridge knows VLANs.
func filters() bool {
	if exec.Command("ip", "link", "add", "try", "type", "bridge", "vlan_filtering", "1").Run() != nil {
		return false
	}
	return exec.Command("ip", "link", "del", "try").Run() == nil
}

// make makes a lab, or writes it into ripstop's file.
func (l *lab) make(ctx context.Context, dir string, file *strings.Builder) error {
	names := []string{l.space(0), l.space(1), l.space(2)}
	if l.hasTaps() {
		names = append(names, l.guest())
	}
	if l.host() != "" {
		names = append(names, l.host())
	}
	for _, name := range names {
		if err := batch(ctx, "", "netns add "+name+"\n"); err != nil { // one that ripstop makes, it also removes
			return err
		}
		space, err := link.OpenNamespace(name)
		if err != nil {
			return err
		}
		l.spaces[name] = space
		if err := space.Run(func() error { return errors.Join(quietIPv6(), bareBridges()) }); err != nil {
			return err
		}
	}
	for i := range l.ports {
		l.far = append(l.far, l.port(i))
	}
	switch l.plane {
	case direct:
		if l.cloned {
			return l.makeClones(ctx, dir)
		}
		return l.makeDirect(ctx, dir)
	case ours:
		l.declare(file, "ebpf")
		return nil
	case owned:
		l.declare(file, "bridge")
		return nil
	}
	return l.makeBridge(ctx, l.plane == vlan)
}

// makeDirect makes a veth pair, and devices of which each gets what another one
// sends, by the least that the kernel has for it: a program that does nothing but
// bpf_redirect.
func (l *lab) makeDirect(ctx context.Context, dir string) error {
	l.far = l.far[:2]
	pairs := [][2]string{{l.tap(0), l.tap(1)}, {l.tap(1), l.tap(0)}} // of which the second gets what enters the first
	lines := fmt.Sprintf("link add %s netns %s type veth peer name %s netns %s\n", l.port(0), l.space(0), l.port(1), l.space(1))
	if l.mixed || l.passed {
		pairs, lines = [][2]string{{l.tap(0), l.port(1)}, {l.port(0), l.tap(1)}}, ""
		if l.passed {
			pairs = [][2]string{{l.port(0), l.port(1)}}
		}
		for i := range 2 {
			lines += fmt.Sprintf("link add %s type veth peer name %s netns %s\nlink set %[1]s up\n", l.port(i), l.port(i), l.space(i))
		}
	}
	for i := range 2 {
		lines += fmt.Sprintf("tuntap add dev %s mode tap vnet_hdr\nlink set %s up\n", l.tap(i), l.tap(i))
	}
	if err := batch(ctx, "", lines); err != nil {
		return err
	}
	for _, pair := range pairs {
		to, err := net.InterfaceByName(pair[1])
		if err != nil {
			return err
		}
		if err := runClones(ctx, dir, pair[0], []int{to.Index}); err != nil {
			return err
		}
	}
	return nil
}

// declare is the lab in ripstop's words.
func (l *lab) declare(file *strings.Builder, dataplane string) {
	fmt.Fprintf(file, "  %s:\n    dataplane: %s\n    ports:\n", l.name, dataplane)
	for i := range l.ports {
		more := ""
		if l.filtered {
			more = ", groups: load"
		}
		fmt.Fprintf(file, "      %s: {vlan: blue, netns: %s, ifname: %s%s}\n", l.port(i), l.space(i), l.port(i), more)
	}
	if l.hasTaps() {
		for i := range 3 {
			fmt.Fprintf(file, "      %s: {vlan: blue, tap: {user: root}}\n", l.tap(i))
		}
	}
}

func (l *lab) makeBridge(ctx context.Context, filter bool) error {
	var s strings.Builder
	fmt.Fprintf(&s, "link add %s type bridge mcast_snooping 0\n", l.name)
	if filter {
		s.Reset()
		fmt.Fprintf(&s, "link add %s type bridge mcast_snooping 0 vlan_filtering 1 vlan_default_pvid %d\n", l.name, vid)
	}
	fmt.Fprintf(&s, "link set %s up\n", l.name)
	for i := range l.ports {
		fmt.Fprintf(&s, "link add %s type veth peer name %s netns %s\n", l.port(i), l.port(i), l.space(i))
	}
	if l.hasTaps() {
		for i := range 3 {
			if err := batch(ctx, "", fmt.Sprintf("tuntap add dev %s mode tap vnet_hdr\n", l.tap(i))); err != nil {
				return err
			}
			fmt.Fprintf(&s, "link set %s master %s\nlink set %s up\n", l.tap(i), l.name, l.tap(i))
		}
	}
	for i := range l.ports {
		fmt.Fprintf(&s, "link set %s master %s\nlink set %s up\n", l.port(i), l.name, l.port(i))
	}
	return batch(ctx, l.host(), s.String())
}

// batch runs ip with lines of commands, in a namespace unless space is "".
func batch(ctx context.Context, space, lines string) error {
	words := []string{"-batch", "-"}
	if space != "" {
		words = append([]string{"-n", space}, words...)
	}
	cmd := exec.CommandContext(ctx, "ip", words...)
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w: %s", err, out)
	}
	return nil
}

// start runs ripstop with a file until it is ready.
func (b *bench) start(ctx context.Context, file string) error {
	if !strings.Contains(file, "dataplane") {
		return nil
	}
	config := filepath.Join(b.Dir, "bench.yaml")
	if err := os.WriteFile(config, []byte(file), 0o644); err != nil {
		return err
	}
	state := filepath.Join(b.Dir, "state")
	if err := os.RemoveAll(state); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(b.Dir, "ripstop.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	b.daemon = exec.CommandContext(ctx, b.ripstop, "--state", state, "--socket", filepath.Join(b.Dir, "socket"), "up", config)
	b.daemon.Stderr = log
	b.daemon.Cancel = func() error { return b.daemon.Process.Signal(syscall.SIGTERM) }
	out, err := b.daemon.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.daemon.Start(); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for seen := ""; !strings.Contains("\n"+seen, "\nready"); {
		n, err := out.Read(buf)
		if err != nil {
			return fmt.Errorf("ripstop up ended before it was ready: see %s", log.Name())
		}
		seen += string(buf[:n])
	}
	return nil
}

func (b *bench) close() error {
	if b.daemon == nil || b.daemon.Process == nil {
		return nil
	}
	if err := b.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return b.daemon.Wait()
}

// open brings the far ends up and opens sockets on them, and the taps.
func (l *lab) open(ctx context.Context) error {
	for i, name := range l.far {
		space := l.spaces[l.space(i)]
		far, err := space.Link(name)
		if err != nil {
			return err
		}
		if err := space.SetUp(far, true); err != nil {
			return err
		}
		s := &station{index: far.Attrs().Index, fd: -1}
		copy(s.mac[:], far.Attrs().HardwareAddr)
		l.stations = append(l.stations, s)
		if err := space.Run(func() (err error) { s.fd, err = packetSocket(s.index); return err }); err != nil {
			return err
		}
		if i > 1 {
			continue
		}
		if i == 0 {
			if err := space.Run(func() (err error) { l.out, err = newRing(s.index); return err }); err != nil {
				return err
			}
		}
		if err := batch(ctx, l.space(i), fmt.Sprintf("address add %s dev %s\n", addressText(i), name)); err != nil {
			return err
		}
	}
	if !l.mixed && !l.passed {
		if err := l.settle(); err != nil || !l.hasTaps() {
			return err
		}
	}
	for i := range 2 {
		fd, err := openTap(l.tap(i), unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		l.taps = append(l.taps, fd)
		l.requests = append(l.requests, withHeader(small(tapMAC(1-i), tapMAC(i))))
	}
	if l.plane == direct {
		return nil
	}
	return l.openGuest(ctx)
}

// openGuest plays a VM with a kernel of its own: the frames of a tap in its
// namespace, virtio headers included, are carried to and from the switch's tap.
func (l *lab) openGuest(ctx context.Context) error {
	outer, err := openTap(l.tap(2), 0)
	if err != nil {
		return err
	}
	inner := -1
	if err := l.spaces[l.guest()].Run(func() (err error) { inner, err = openTap("eth0", 0); return err }); err != nil {
		return err
	}
	if err := batch(ctx, l.guest(), fmt.Sprintf("address add %s dev eth0\nlink set eth0 up\n", addressText(guestStation))); err != nil {
		return err
	}
	go carry(outer, inner)
	go carry(inner, outer)
	return nil
}

// settle waits until the links carry frames, which the kernel does not tell.
func (l *lab) settle() error {
	f := l.harmless(small(broadcast, l.stations[0].mac))
	start, err := l.came()
	for deadline := time.Now().Add(time.Minute); err == nil && time.Now().Before(deadline); {
		var now uint64
		if _, err := unix.Write(l.stations[0].fd, f); err != nil && !errors.Is(err, unix.ENETDOWN) {
			return err
		}
		if now, err = l.came(); now-start >= uint64(len(l.far)-1) {
			return err
		}
		start = now
	}
	return errors.Join(err, errors.New("a broadcast did not reach all ports in a minute"))
}

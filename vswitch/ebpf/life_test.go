package ebpf

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	ebpflink "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// objectsOf is the ids of everything that a switch has in the kernel.
func objectsOf(t *testing.T, p *plane) (ebpf.ProgramID, []ebpf.MapID) {
	t.Helper()
	info, err := p.prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	ids, ok := info.MapIDs()
	if !ok || len(ids) != len(p.maps.byName()) {
		t.Fatalf("the program has the maps %v", ids)
	}
	return programID(t, p.prog), ids
}

// vanish waits until the kernel has freed a switch.
func vanish(t *testing.T, prog ebpf.ProgramID, ids []ebpf.MapID) {
	t.Helper()
	nettest.Eventually(t, 10*time.Second, "the kernel frees the switch", func() bool {
		p, err := ebpf.NewProgramFromID(prog)
		if err == nil {
			p.Close()
			return false
		}
		for _, id := range ids {
			if m, err := ebpf.NewMapFromID(id); err == nil {
				m.Close()
				return false
			}
		}
		return errors.Is(err, fs.ErrNotExist)
	})
}

func TestNothingLeft(t *testing.T) {
	tests := []struct {
		name   string
		remove func(*testing.T, *Driver)
	}{
		{"by a step", func(t *testing.T, d *Driver) { apply(t, d, vswitch.State{}) }},
		{"port by port", func(t *testing.T, d *Driver) {
			apply(t, d, lab(nil, nil))
			apply(t, d, vswitch.State{})
		}},
		{"behind the daemon's back", func(t *testing.T, d *Driver) {
			if err := d.planes["lab"].close(); err != nil {
				t.Fatal(err)
			}
			clear(d.planes)
			nettest.Run(t, "sh", "-ec", "for l in web db red blue; do ip link del $l; done")
			if err := d.devices.Sweep(); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t)
			converge(t, d, house())
			prog, ids := objectsOf(t, d.planes["lab"])
			tt.remove(t, d)
			vanish(t, prog, ids)
		})
	}
}

func TestForeignFilters(t *testing.T) {
	nettest.Run(t, "ip", "link", "add", "nic", "type", "veth", "peer", "name", "cable")
	defer nettest.Run(t, "ip", "link", "del", "nic")
	d := newDriver(t)
	nettest.Run(t, "sh", "-ec", "tc qdisc add dev nic clsact; tc filter add dev nic ingress pref 40000 u32 match u32 0 0; tc filter add dev nic egress pref 7 u32 match u32 0 0")
	show := func() string {
		return nettest.Run(t, "sh", "-ec", "tc qdisc show dev nic clsact; tc filter show dev nic ingress pref 40000; tc filter show dev nic egress")
	}
	before := show()
	want := lab(map[string]vswitch.Port{"up": {Kind: vswitch.Device, Device: "nic", PVID: 10}}, nil)
	converge(t, d, want)
	if !strings.Contains(nettest.Run(t, "tc", "filter", "show", "dev", "nic", "ingress"), filterName) {
		t.Error("our filter is not beside the others")
	}
	if now := show(); now != before {
		t.Errorf("others' filters were\n%s\nand are\n%s", before, now)
	}
	apply(t, d, lab(nil, nil))
	if now := show(); now != before {
		t.Errorf("others' filters were\n%s\nand are, after the port,\n%s", before, now)
	}
	if strings.Contains(nettest.Run(t, "tc", "filter", "show", "dev", "nic", "ingress"), filterName) {
		t.Error("our filter is left on the lent interface")
	}
	nettest.Run(t, "sh", "-ec", "tc filter del dev nic ingress; tc filter del dev nic egress; tc qdisc del dev nic clsact")
	converge(t, d, want)
	apply(t, d, vswitch.State{})
	if out := nettest.Run(t, "tc", "qdisc", "show", "dev", "nic"); strings.Contains(out, "clsact") {
		t.Errorf("our qdisc is left on the lent interface: %s", out)
	}
}

// TestBefore puts others' programs before the switch's: they stay, and it is said.
func TestBefore(t *testing.T) {
	d := newDriver(t)
	converge(t, d, house())
	web := int(index(t, "web"))
	faults := func(want string) {
		t.Helper()
		steps := planned(t, d, house())
		if want == "" {
			if len(steps) != 0 {
				t.Errorf("there is %v", steps)
			}
			return
		}
		if len(steps) != 1 || steps[0].Object() != "port/lab/web" || !strings.Contains(steps[0].String(), want) {
			t.Errorf("there is %v, want one that says %q", steps, want)
		}
	}
	nettest.Run(t, "tc", "filter", "add", "dev", "web", "ingress", "pref", "7", "u32", "match", "u32", "0", "0")
	faults("a filter of priority 7 (u32) comes before the switch's")
	nettest.Run(t, "tc", "filter", "del", "dev", "web", "ingress", "pref", "7")
	faults("")
	nettest.Run(t, "tc", "filter", "add", "dev", "web", "ingress", "pref", "40000", "u32", "match", "u32", "0", "0")
	faults("")
	// A copy of all frames for a monitor: by itself it keeps them from the switch,
	// and told to continue it does not.
	nettest.Run(t, "ip", "link", "add", "monitor", "type", "veth", "peer", "name", "screen")
	defer nettest.Run(t, "ip", "link", "del", "monitor")
	mirror := []string{"filter", "add", "dev", "web", "ingress", "pref", "7", "u32", "match", "u32", "0", "0", "action", "mirred", "egress", "mirror", "dev", "monitor"}
	nettest.Run(t, "tc", mirror...)
	faults("a filter of priority 7 (u32) comes before the switch's")
	if ping("web", "10.0.0.2") {
		t.Error("a frame reaches the switch past a filter that ends in pipe")
	}
	nettest.Run(t, "tc", "filter", "del", "dev", "web", "ingress", "pref", "7")
	nettest.Run(t, "tc", append(mirror, "continue")...)
	faults("")
	inhabited(t)
	nettest.Run(t, "tc", "filter", "del", "dev", "web", "ingress", "pref", "7")
	looks := foreign(t, asm.Mov.Imm(asm.R0, -1), asm.Return())
	keeps := foreign(t, // some, by their length
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word), asm.Mov.Imm(asm.R0, -1), asm.JGT.Imm(asm.R1, 1000, "end"),
		asm.Mov.Imm(asm.R0, 0), asm.Return().WithSymbol("end"))
	for _, c := range []struct {
		prog *ebpf.Program
		want string
	}{{looks, ""}, {keeps, "a filter of priority 7 (bpf) comes before the switch's"}} {
		at := filterOf(web)
		at.Priority = 7
		f := &netlink.BpfFilter{FilterAttrs: at, Fd: c.prog.FD(), Name: "others", DirectAction: true}
		if err := d.host.FilterReplace(f); err != nil {
			t.Fatal(err)
		}
		faults(c.want)
		if c.want == "" {
			inhabited(t)
		}
		if err := d.host.FilterDel(f); err != nil {
			t.Fatal(err)
		}
	}
	monitor, err := ebpflink.AttachTCX(ebpflink.TCXOptions{Interface: web, Program: looks, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Log("this kernel has no tcx, so that nothing comes before filters")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer monitor.Close()
	faults("")
	inhabited(t)
	taker, err := ebpflink.AttachTCX(ebpflink.TCXOptions{Interface: web, Program: keeps, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	faults("on tcx comes before the switch's")
	if err := taker.Close(); err != nil {
		t.Fatal(err)
	}
	faults("")
	inhabited(t)
}

// foreign is a program of somebody else's.
func foreign(t *testing.T, code ...asm.Instruction) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "others", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: code})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

func TestAlwaysHandsOn(t *testing.T) {
	next := asm.Mov.Imm(asm.R0, -1)
	for _, c := range []struct {
		name string
		code asm.Instructions
		want bool
	}{
		{"next", asm.Instructions{next, asm.Return()}, true},
		{"next, in 32 bits", asm.Instructions{asm.Mov.Imm32(asm.R0, -1), asm.Return()}, true},
		{"next at both ends", asm.Instructions{{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.JEq).SetSource(asm.ImmSource), Dst: asm.R1, Offset: 2}, next, asm.Return(), next, asm.Return()}, true},
		{"next, but another one by a jump", asm.Instructions{{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.JEq).SetSource(asm.ImmSource), Dst: asm.R1, Offset: 1}, next, asm.Return()}, false},
		{"ok", asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, false},
		{"another register", asm.Instructions{asm.Mov.Imm(asm.R1, -1), asm.Return()}, false},
		{"another program's verdict", asm.Instructions{asm.FnTailCall.Call(), next, asm.Return()}, false},
		{"one end of two", asm.Instructions{next, asm.Return(), asm.Mov.Imm(asm.R0, 2), asm.Return()}, false},
		{"nothing", nil, false},
	} {
		if got := alwaysHandsOn(c.code); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
}

// planned is what a pass would do.
func planned(t *testing.T, d *Driver, want vswitch.State) []vswitch.Step {
	t.Helper()
	have, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return vswitch.Diff(want, have)
}

func TestPlaceTaken(t *testing.T) {
	nettest.Run(t, "ip", "link", "add", "nic", "type", "veth", "peer", "name", "cable")
	defer nettest.Run(t, "ip", "link", "del", "nic")
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "others", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	d := newDriver(t)
	nic := int(index(t, "nic"))
	if _, err := d.host.AddClsact(nic); err != nil {
		t.Fatal(err)
	}
	err = d.host.FilterAdd(&netlink.BpfFilter{FilterAttrs: filterOf(nic), Fd: prog.FD(), Name: "others", DirectAction: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Do(t.Context(), vswitch.AddSwitch{Name: "lab"}); err != nil {
		t.Fatal(err)
	}
	var taken *takenError
	port := vswitch.Port{Kind: vswitch.Device, Device: "nic", PVID: 10}
	if err := d.Do(t.Context(), vswitch.AddPort{Switch: "lab", Name: "up", Port: port}); !errors.As(err, &taken) {
		t.Errorf("a port whose place is taken: %v", err)
	}
	if _, err := d.Observe(t.Context()); err != nil {
		t.Errorf("observing it: %v", err)
	}
	if out := nettest.Run(t, "tc", "filter", "show", "dev", "nic", "ingress"); !strings.Contains(out, "others") {
		t.Errorf("the other filter is gone: %s", out)
	}
	apply(t, d, vswitch.State{})
	if out := nettest.Run(t, "tc", "filter", "show", "dev", "nic", "ingress"); !strings.Contains(out, "others") {
		t.Errorf("the other filter went with the port: %s", out)
	}
}

// TestCrash stops the making of a port between any two of its steps.
func TestCrash(t *testing.T) {
	port := into("web", 10, "10.0.0.1/24")
	tests := []struct {
		name string
		make func(*testing.T, *Driver)
	}{
		{"before the mark", func(t *testing.T, d *Driver) {
			far, err := link.EnsureNamespace("web")
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			err = d.host.AddVeth(link.Veth{Name: "web", Group: link.Group("lab"), Far: far, FarName: "eth0"})
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"before the entry", func(t *testing.T, d *Driver) { create(t, d, port) }},
		{"before the filter", func(t *testing.T, d *Driver) {
			l := create(t, d, port)
			if _, err := d.planes["lab"].put(member{ifindex: l.Attrs().Index, mtu: 1500, pvid: 10}); err != nil {
				t.Fatal(err)
			}
		}},
		{"before it is up", func(t *testing.T, d *Driver) {
			if err := d.joinPort(d.planes["lab"], create(t, d, port), "web", port); err != nil {
				t.Fatal(err)
			}
		}},
		{"gateway before the mark", func(t *testing.T, d *Driver) {
			if err := d.delGateway("lab", "blue"); err != nil {
				t.Fatal(err)
			}
			if err := d.host.AddVeth(link.Veth{Name: "blue", Group: link.Group("lab"), FarName: "lab.10"}); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		for _, wanted := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, wanted %t", tt.name, wanted), func(t *testing.T) {
				d := newDriver(t)
				rest := house()
				delete(rest.Switches["lab"].Ports, "web")
				converge(t, d, rest)
				tt.make(t, d)
				next := newDriver(t)
				if !wanted {
					converge(t, next, vswitch.State{})
					return
				}
				converge(t, next, house())
				inhabited(t)
			})
		}
	}
}

func create(t *testing.T, d *Driver, p vswitch.Port) netlink.Link {
	t.Helper()
	p.IfName = "eth0"
	l, err := d.devices.Create("lab", "web", p)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestUpgradeUnderTraffic replaces process and program while a station sends,
// and demands every answer.
func TestUpgradeUnderTraffic(t *testing.T) {
	d := newDriver(t)
	converge(t, d, house())
	inhabited(t)
	var out bytes.Buffer
	sender := exec.Command("ip", "netns", "exec", "web", "ping", "-q", "-i", "0.002", "-c", "500", "-W", "2", "10.0.0.2")
	sender.Stdout = &out
	if err := sender.Start(); err != nil {
		t.Fatal(err)
	}
	before := d
	for i := range 5 {
		next := newDriver(t)
		prog := next.spec.Programs[planeProgRipstopSwitch]
		for range i + 1 {
			prog.Instructions = slices.Insert(prog.Instructions, 1, asm.Mov.Imm(asm.R0, 0))
		}
		id := programID(t, before.planes["lab"].prog)
		for _, p := range before.planes {
			if err := p.close(); err != nil {
				t.Fatal(err)
			}
		}
		clear(before.planes)
		if steps := apply(t, next, house()); len(steps) != 0 {
			t.Errorf("an upgrade does %v", steps)
		}
		if programID(t, next.planes["lab"].prog) == id {
			t.Error("the program is the same as before")
		}
		if again := apply(t, next, house()); len(again) != 0 {
			t.Errorf("after an upgrade there is %v", again)
		}
		before = next
	}
	if err := sender.Wait(); err != nil || !strings.Contains(out.String(), " 0% packet loss") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestHalfUpgraded finds filters with two programs over the same maps.
func TestHalfUpgraded(t *testing.T) {
	d := newDriver(t)
	converge(t, d, house())
	p := d.planes["lab"]
	prog := d.spec.Programs[planeProgRipstopSwitch]
	prog.Instructions = slices.Insert(prog.Instructions, 1, asm.Mov.Imm(asm.R0, 0))
	if changed, err := p.upgrade(d.spec); err != nil || !changed {
		t.Fatal(changed, err)
	}
	if err := d.attach(p, int(index(t, "web")), p.slots[index(t, "web")]); err != nil {
		t.Fatal(err)
	}
	next := newDriver(t)
	if steps := apply(t, next, house()); len(steps) != 0 {
		t.Errorf("there is %v to do", steps)
	}
	id := programID(t, next.planes["lab"].prog)
	for _, dev := range []string{"web", "db", "red", "lab.10"} {
		if h, ok, _, err := find(next.host, int(index(t, dev)), nil); err != nil || !ok || h.program != id {
			t.Errorf("%s has program %d, %v; want %d", dev, h.program, err, id)
		}
	}
	inhabited(t)
}

// aged gives a switch's maps another layout's number and takes it from its
// driver, as a process that ends does.
func aged(t *testing.T, d *Driver) {
	t.Helper()
	p := d.planes["lab"]
	var id planeIdentity
	if err := p.maps.Self.Lookup(uint32(0), &id); err != nil {
		t.Fatal(err)
	}
	id.Layout = planeLayoutLAYOUT + 1
	if err := p.maps.Self.Put(uint32(0), &id); err != nil {
		t.Fatal(err)
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	clear(d.planes)
}

// TestOtherLayout takes over a switch whose maps are of another layout while a
// station sends, and demands every answer.
func TestOtherLayout(t *testing.T) {
	want := house()
	web := want.Switches["lab"].Ports["web"]
	web.Limit = vswitch.Limit{Send: 1e9, Receive: 1e9}
	want.Switches["lab"].Ports["web"] = web
	d := newDriver(t)
	converge(t, d, want)
	inhabited(t)
	prog, ids := objectsOf(t, d.planes["lab"])
	var out bytes.Buffer
	sender := exec.Command("ip", "netns", "exec", "web", "ping", "-q", "-i", "0.002", "-c", "300", "-W", "2", "10.0.0.2")
	sender.Stdout = &out
	if err := sender.Start(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		aged(t, d)
		d = newDriver(t)
		if steps := converge(t, d, want); len(steps) != 0 {
			t.Errorf("a program of another layout is replaced by %v", steps)
		}
		if d.planes["lab"].fresh != nil {
			t.Error("the old maps are kept")
		}
	}
	if err := sender.Wait(); err != nil || !strings.Contains(out.String(), " 0% packet loss") {
		t.Errorf("%v: %s", err, out.String())
	}
	vanish(t, prog, ids)
	inhabited(t)
	fdb, err := d.FDB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(fdb, func(e vswitch.FDBEntry) bool { return e.Port == "red" }) {
		t.Error("a station that sends no more was forgotten")
	}
}

// TestHalfInherited finds ports at programs of two layouts, as a crash between
// the two leaves them, and they reach each other.
func TestHalfInherited(t *testing.T) {
	d := newDriver(t)
	converge(t, d, house())
	inhabited(t)
	aged(t, d)
	half := newDriver(t)
	if _, err := half.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := half.planes["lab"]
	if err := errors.Join(p.inherit(half.spec), p.commit(), half.attach(p, int(index(t, "web")), p.slots[index(t, "web")])); err != nil {
		t.Fatal(err)
	}
	inhabited(t)
	next := newDriver(t)
	if steps := converge(t, next, house()); len(steps) != 0 {
		t.Errorf("there is %v to do", steps)
	}
	id := programID(t, next.planes["lab"].prog)
	for _, dev := range []string{"web", "db", "red", "lab.10"} {
		if h, ok, _, err := find(next.host, int(index(t, dev)), nil); err != nil || !ok || h.program != id {
			t.Errorf("%s has program %d, %v; want %d", dev, h.program, err, id)
		}
	}
	inhabited(t)
}

// TestFloodToMany has VLANs whose members are up to the end of a piece of the flood list,
// one less and one more, the sender among them, and several pieces.
func TestFloodToMany(t *testing.T) {
	for _, many := range []int{pieceLen - 2, pieceLen - 1, pieceLen, 2*pieceLen - 1, 200} {
		t.Run(fmt.Sprint(many), func(t *testing.T) { floodTo(t, many) })
	}
}

func floodTo(t *testing.T, many int) {
	d := newDriver(t)
	ports := map[string]vswitch.Port{"sender": into("sender", 10, "10.0.0.1/24")}
	for i := range many {
		p := vswitch.Port{Kind: vswitch.Veth, Netns: "many", IfName: fmt.Sprintf("e%d", i), PVID: 10}
		if i%3 == 0 { // gets it with a tag
			p.PVID, p.Tagged = 0, []uint16{10}
		}
		ports[fmt.Sprintf("p%d", i)] = p
	}
	converge(t, d, lab(ports, nil))
	receiver, sender := packets(t, "many", ""), packets(t, "sender", "eth0")
	frame := ether(broadcast, macA, experimental)
	if _, err := unix.Write(sender, frame); err != nil {
		t.Fatal(err)
	}
	seen := map[int]int{}
	buf := make([]byte, 100)
	for range many {
		n, from, err := unix.Recvfrom(receiver, buf, 0)
		if err != nil {
			t.Fatalf("after %d of %d copies: %v", len(seen), many, err)
		}
		if !bytes.Equal(buf[:n], frame) {
			t.Fatalf("a copy is %x, want %x", buf[:n], frame)
		}
		seen[from.(*unix.SockaddrLinklayer).Ifindex]++
	}
	if n, _, err := unix.Recvfrom(receiver, buf, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) || len(seen) != many {
		t.Errorf("%d stations got a copy, and there is one more of %d bytes, %v", len(seen), n, err)
	}
}

// experimental is IEEE 802's EtherType for local experiments.
const experimental = 0x88b5

// packets is a socket for frames of the experimental EtherType on one or on all
// interfaces of a namespace.
func packets(t *testing.T, netns, dev string) int {
	t.Helper()
	ns, err := link.OpenNamespace(netns)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	const network = experimental<<8&0xff00 | experimental>>8 // in network byte order
	at := &unix.SockaddrLinklayer{Protocol: network}
	if dev != "" {
		l, err := ns.Link(dev)
		if err != nil {
			t.Fatal(err)
		}
		at.Ifindex = l.Attrs().Index
	}
	var s int
	err = ns.Run(func() (err error) {
		s, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, network)
		return err
	})
	if err == nil {
		t.Cleanup(func() { unix.Close(s) })
		err = unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	}
	if err == nil {
		err = unix.Bind(s, at)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestInspect(t *testing.T) {
	d := newDriver(t)
	converge(t, d, house())
	inhabited(t)
	fdb, err := d.FDB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	where := map[string]uint16{}
	for _, e := range fdb {
		where[e.Port] = e.VLAN
		if e.Switch != "lab" || e.Age > time.Minute || e.Static != (e.Port == "blue") {
			t.Errorf("entry %+v", e)
		}
	}
	if want := map[string]uint16{"web": 10, "db": 10, "red": 20, "blue": 10}; !maps.Equal(where, want) {
		t.Errorf("stations are behind %v, want %v", where, want)
	}
	c, err := d.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range c.Ports {
		names = append(names, p.Port)
		if p.RxFrames == 0 || p.Port != "red" && p.TxFrames == 0 || p.Port == "red" && p.Drops["no-destination"] == 0 {
			t.Errorf("counters are %+v", p)
		}
	}
	if !slices.Equal(names, []string{"blue", "db", "red", "web"}) || len(c.VLANs) != 2 || c.VLANs[0].VLAN != 10 || c.VLANs[0].Bytes < 42*c.VLANs[0].Frames {
		t.Errorf("counters are of %v, %+v", names, c.VLANs)
	}
	p := d.planes["lab"]
	old := planeStation{Vid: 10, Mac: [6]byte(macA)}
	if err := p.maps.Fdb.Put(&old, &planeSighting{Slot: 1, Ifindex: index(t, "db")}); err != nil {
		t.Fatal(err)
	}
	p.ageing = 0 // every entry is too old
	if n, err := d.Expire(t.Context()); err != nil || n < 4 {
		t.Errorf("%d stations aged out, %v; want all that were learned", n, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	d := newDriver(t)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for _, read := range []func() error{
		func() error { _, err := d.FDB(t.Context()); return err },
		func() error { _, err := d.Counters(t.Context()); return err },
		func() error { _, err := d.Expire(t.Context()); return err },
		func() error { _, err := d.Observe(t.Context()); return err },
	} {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := read(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 5 {
		converge(t, d, house())
		apply(t, d, vswitch.State{})
	}
	close(stop)
	readers.Wait()
}

func TestVLANOf(t *testing.T) {
	name := vswitch.Gateway{VLAN: 4094}.PortName("a-very-long-one")
	if got := vlanOf(name); got != 4094 || vlanOf("eth0") != 0 {
		t.Errorf("the VLAN in %q is %d", name, got)
	}
}

// TestGatewayTCP lets the host and a station send whole segments to each other,
// with the checksums and the segmentation that their veth pairs leave open.
func TestGatewayTCP(t *testing.T) {
	d := newDriver(t)
	converge(t, d, house())
	web, err := link.OpenNamespace("web")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	here := func(f func() error) error { return f() }
	carry(t, web.Run, here, "10.0.0.254:7000")
	carry(t, here, web.Run, "10.0.0.1:7000")
}

// carry sends random bytes from one namespace to another and compares.
func carry(t *testing.T, from, to func(func() error) error, address string) {
	t.Helper()
	var l net.Listener
	var out, in net.Conn
	var err error
	if e := to(func() error { l, err = net.Listen("tcp", address); return err }); e != nil {
		t.Fatal(e)
	}
	defer l.Close()
	if e := from(func() error { out, err = net.DialTimeout("tcp", address, 5*time.Second); return err }); e != nil {
		t.Fatal(e)
	}
	defer out.Close()
	if in, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	sent := make([]byte, 16<<20)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := out.Write(sent)
		done <- errors.Join(err, out.(*net.TCPConn).CloseWrite())
	}()
	if err := in.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(in)
	if err := errors.Join(err, <-done); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("to %s: %v, and %d bytes of %d came, or other ones", address, err, len(got), len(sent))
	}
}

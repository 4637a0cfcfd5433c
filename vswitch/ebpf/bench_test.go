package ebpf

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// benchPorts is how many ports are made between two measurements.
const benchPorts = 1000

// BenchmarkPorts makes ports in one namespace, and the same devices with ip
// -batch and tc -batch, in turn. The metric x/batch is the quotient; ms/again is a
// pass that finds nothing to do, and ms/removal all of them going. The far ends
// speak no IPv6: a thousand stations that look for their neighbors at once load
// the switch for seconds, which measures floods, and only ours carries them.
func BenchmarkPorts(b *testing.B) {
	nettest.Namespace(b, "bench")
	nettest.Run(b, "ip", "netns", "exec", "bench", "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
	d, err := New(quiet, "here")
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	var ours, again, removal, theirs time.Duration
	for b.Loop() {
		ours += makePorts(b, d)
		again += lookAgain(b, d)
		start := time.Now()
		if err := d.Do(b.Context(), vswitch.DelSwitch{Name: "lab", Dataplane: vswitch.EBPF}); err != nil {
			b.Fatal(err)
		}
		removal += time.Since(start)
		theirs += batchPorts(b)
	}
	b.ReportMetric(float64(ours)/float64(theirs), "x/batch")
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N*benchPorts), "µs/port")
	b.ReportMetric(float64(again.Milliseconds())/float64(b.N), "ms/again")
	b.ReportMetric(float64(removal.Milliseconds())/float64(b.N), "ms/removal")
}

// lookAgain is how long a pass takes that finds everything as it is wanted.
func lookAgain(b *testing.B, d *Driver) time.Duration {
	b.Helper()
	start := time.Now()
	have, err := d.Observe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if steps := vswitch.Diff(have, have); len(steps) > 0 || len(have.Switches["lab"].Ports) != benchPorts {
		b.Fatalf("of %d ports there is %v to do", len(have.Switches["lab"].Ports), steps)
	}
	if err := d.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// makePorts is how long the steps of a switch with its ports take.
func makePorts(b *testing.B, d *Driver) time.Duration {
	b.Helper()
	start := time.Now()
	do := func(s vswitch.Step) {
		if err := d.Do(b.Context(), s); err != nil {
			b.Fatalf("%s: %v", s, err)
		}
	}
	do(vswitch.AddSwitch{Name: "lab", Dataplane: vswitch.EBPF})
	for i := range benchPorts {
		p := vswitch.Port{Kind: vswitch.Veth, Netns: "bench", IfName: fmt.Sprintf("e%d", i), PVID: 10}
		do(vswitch.AddPort{Switch: "lab", Dataplane: vswitch.EBPF, Name: fmt.Sprintf("p%d", i), Port: p})
	}
	if err := d.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// batchPorts is how long ip and tc take for devices of the same kind: both ends
// up, and the place for a filter.
func batchPorts(b *testing.B) time.Duration {
	b.Helper()
	var near, far, filters strings.Builder
	for i := range benchPorts {
		fmt.Fprintf(&near, "link add p%d group 9 type veth peer name e%d netns bench\nlink set p%d up\n", i, i, i)
		fmt.Fprintf(&far, "link set e%d up\n", i)
		fmt.Fprintf(&filters, "qdisc add dev p%d clsact\n", i)
	}
	start := time.Now()
	for _, c := range []struct{ command, lines string }{
		{"ip -batch -", near.String()}, {"tc -batch -", filters.String()}, {"ip -n bench -batch -", far.String()},
	} {
		words := strings.Fields(c.command)
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Stdin = strings.NewReader(c.lines)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s: %v\n%s", c.command, err, out)
		}
	}
	took := time.Since(start)
	nettest.Run(b, "ip", "link", "del", "group", "9")
	return took
}

// BenchmarkProgram is what the program takes for a packet between two stations
// that it knows, without the kernel's own way to it and from it.
func BenchmarkProgram(b *testing.B) {
	spec, err := loadPlane()
	if err != nil {
		b.Fatal(err)
	}
	p, err := newPlane(spec, planeProgRipstopSwitch, "bench")
	if err != nil {
		b.Fatal(err)
	}
	var try struct {
		Prog *ebpf.Program `ebpf:"ripstop_try"`
	}
	if err := spec.LoadAndAssign(&try, &ebpf.CollectionOptions{MapReplacements: p.maps.byName()}); err != nil {
		b.Fatal(err)
	}
	defer try.Prog.Close()
	defer p.close()
	var slots []uint32
	to, from := vswitch.MAC{2, 0, 0, 0, 0, 2}, vswitch.MAC{2, 0, 0, 0, 0, 1}
	for i := range 2 {
		slot, err := p.put(member{ifindex: lo + i, mtu: 1500, pvid: 10, far: to})
		if err != nil {
			b.Fatal(err)
		}
		slots = append(slots, slot)
	}
	if err := p.commit(); err != nil {
		b.Fatal(err)
	}
	if err := p.maps.Fdb.Put(&planeStation{Vid: 10, Mac: to}, &planeSighting{Slot: slots[1], Ifindex: lo + 1, Seen: ^uint64(0)}); err != nil {
		b.Fatal(err)
	}
	f := make([]byte, 60)
	copy(f, to[:])
	copy(f[6:], from[:])
	f[12], f[14], f[23] = 8, 0x45, 17
	const packets = 100_000
	for b.Loop() {
		verdict, err := try.Prog.Run(&ebpf.RunOptions{Data: f, Repeat: packets, Context: tryContext{Ifindex: lo, CB: [5]uint32{slots[0]}}})
		if err != nil || verdict != redirect {
			b.Fatalf("verdict %d, %v", verdict, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/packets, "ns/packet")
}

// BenchmarkAllVLANs makes ports that each carry all VLANs: taps, so that no station
// speaks in them. ms/ports is all of them made, ms/again a pass that finds nothing to
// do, and ms/change one of them losing a VLAN.
func BenchmarkAllVLANs(b *testing.B) {
	all := make([]uint16, 4094)
	for i := range all {
		all[i] = uint16(i + 1)
	}
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d, err := New(quiet, "here")
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			laps := map[string]time.Duration{}
			last := time.Now()
			lap := func(what string, steps ...vswitch.Step) {
				for _, s := range steps {
					if err := d.Do(b.Context(), s); err != nil {
						b.Fatal(err)
					}
				}
				if err := d.Commit(b.Context()); err != nil {
					b.Fatal(err)
				}
				laps[what] += time.Since(last)
				last = time.Now()
			}
			for b.Loop() {
				port := vswitch.Port{Kind: vswitch.Tap, Tagged: all}
				steps := []vswitch.Step{vswitch.AddSwitch{Name: "lab", Dataplane: vswitch.EBPF}}
				for i := range n {
					steps = append(steps, vswitch.AddPort{Switch: "lab", Dataplane: vswitch.EBPF, Name: fmt.Sprint("p", i), Port: port})
				}
				last = time.Now()
				lap("ms/ports", steps...)
				have, err := d.Observe(b.Context())
				if err != nil || len(have.Switches["lab"].Ports) != n {
					b.Fatalf("there are %d of %d ports, %v", len(have.Switches["lab"].Ports), n, err)
				}
				lap("ms/again")
				less := port
				less.Tagged = all[:4093]
				lap("ms/change", vswitch.SetPort{Switch: "lab", Dataplane: vswitch.EBPF, Name: "p0", From: port, To: less})
				if err := d.Do(b.Context(), vswitch.DelSwitch{Name: "lab", Dataplane: vswitch.EBPF}); err != nil {
					b.Fatal(err)
				}
			}
			for what, took := range laps {
				b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), what)
			}
		})
	}
}

package vswitchtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"ripstop/vswitch"
)

// Random makes random switches, sends random frames while they change and their
// driver restarts, and demands of each frame that it goes where a model says: to
// all whom it is for, and to nobody else, and that a trace says so beforehand. Each seed is one switch, from
// 0 to before the end, unless RIPSTOP_SEEDS says which: "200-300" are those from 200 to 299. Open is as Suite wants it.
func Random(t *testing.T, plane vswitch.Dataplane, open func(t *testing.T) vswitch.Driver, end uint64) {
	t.Helper()
	first := uint64(0)
	if s := os.Getenv("RIPSTOP_SEEDS"); s != "" {
		if n, err := fmt.Sscanf(s, "%d-%d", &first, &end); n != 2 {
			t.Fatalf("RIPSTOP_SEEDS=%s: %v: give FIRST-END", s, err)
		}
	}
	for seed := first; seed < end; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := roulette{rand.New(rand.NewPCG(seed, 77))}
			p := ports{}
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				p[name] = r.port(name)
			}
			r.unique(p)
			l := suite{plane, open}.lab(t, p)
			l.silence()
			m := &model{known: map[seat]string{}}
			m.change(l.ports())
			for n := range 50 {
				switch {
				case n%12 == 11:
					r.change(l)
					m.change(l.ports())
				case n == 30:
					l.restart()
				}
				from := r.name()
				f := r.frame(l, from)
				want := m.deliver(from, f)
				if n%4 == 0 {
					l.traces(from, f, want)
				}
				if t.Failed() {
					t.Fatalf("frame %d from %s: to %s, source %s, tags %v; the ports are\n%v", n, from, f.dst, f.src, f.tags, l.want.Describe())
				}
				if l.sends(from, f, want); t.Failed() {
					t.Fatalf("frame %d from %s: to %s, source %s, tags %v; the model says %v; the ports are\n%v", n, from, f.dst, f.src, f.tags, want, l.want.Describe())
				}
			}
		})
	}
}

// roulette chooses among few values, so that they meet often.
type roulette struct{ *rand.Rand }

func (r roulette) name() string { return string(rune('a' + r.IntN(5))) }

func (r roulette) vid() uint16 { return uint16(10 * (1 + r.IntN(3))) }

func (r roulette) mac() vswitch.MAC { return vswitch.MAC{2, 0, 0, 0, 0x77, byte(r.IntN(6))} }

// port is an access, trunk or hybrid port.
func (r roulette) port(netns string) vswitch.Port {
	p := access(r.vid(), netns)
	if r.IntN(2) == 0 {
		p.PVID = uint16(10 * r.IntN(4))
		for vid := uint16(10); vid <= 30; vid += 10 {
			if vid != p.PVID && r.IntN(2) == 0 {
				p.Tagged = append(p.Tagged, vid)
			}
		}
		if p.PVID == 0 && len(p.Tagged) == 0 {
			p.PVID = 10
		}
	}
	p.Isolated = r.IntN(3) == 0
	p.Down = r.IntN(12) == 0
	for range r.IntN(8) / 5 { // 0, 0, 0, 0, 0, 1, 1, 1
		p.Security.AllowedMACs = append(p.Security.AllowedMACs, r.mac())
	}
	return p
}

// unique lets an address belong to one port only, as a configuration must.
func (r roulette) unique(p ports) {
	seen := map[vswitch.MAC]bool{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		q := p[name]
		if macs := q.Security.AllowedMACs; len(macs) > 0 && seen[macs[0]] {
			q.Security.AllowedMACs = nil
		} else if len(macs) > 0 {
			seen[macs[0]] = true
		}
		p[name] = q
	}
}

// change makes one port another, in place.
func (r roulette) change(l *lab) {
	l.t.Helper()
	name := r.name()
	next := r.port(name)
	l.ports()[name] = next
	r.unique(l.ports())
	l.apply()
}

func (r roulette) frame(l *lab, from string) frame {
	f := l.frame(from, r.mac())
	f.src = r.mac()
	switch r.IntN(8) {
	case 0, 1:
		f.dst = broadcast
	case 2:
		f.dst = vswitch.MAC{1, 0, 0x5e, 0, 0, byte(r.IntN(3))}
	case 3:
		f.dst = vswitch.MAC{1, 0x80, 0xc2, 0, 0, byte(r.IntN(16))}
	}
	kinds := []uint16{cTag, cTag, sTag}
	for range []int{0, 0, 0, 1, 1, 1, 1, 2, 2}[r.IntN(9)] {
		vid := r.vid()
		if r.IntN(6) == 0 {
			vid = []uint16{0, 4095}[r.IntN(2)]
		}
		f.tags = append(f.tags, tag{kinds[r.IntN(len(kinds))], vid})
	}
	return f
}

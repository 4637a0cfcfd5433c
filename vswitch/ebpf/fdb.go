package ebpf

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// isStatic is the time of an entry that does not age.
const isStatic = ^uint64(0)

// isTold is the time of an entry of a station on another host: it does not age
// either, but moves where the station is seen here.
const isTold = ^uint64(1)

// fdbChunk is how many entries one system call reads; a bucket of the kernel's
// hash table has to fit.
const fdbChunk = 4096

// station is one entry of a switch's FDB.
type station struct {
	planeStation
	planeSighting
	static bool
	told   bool
	age    time.Duration
}

// stations reads the FDB as it is, with what has aged out or gone stale.
func (p *plane) stations() ([]station, error) {
	now, err := clock()
	if err != nil {
		return nil, err
	}
	var out []station
	var cursor ebpf.MapBatchCursor
	keys, values := make([]planeStation, fdbChunk), make([]planeSighting, fdbChunk)
	for done := false; !done; {
		n, err := p.maps.Fdb.BatchLookup(&cursor, keys, values, nil)
		done = errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !done {
			return nil, fmt.Errorf("read map %q of switch %q: %w", planeMapFdb, p.name, err)
		}
		for i := range n {
			s := station{planeStation: keys[i], planeSighting: values[i], static: values[i].Seen == isStatic, told: values[i].Seen == isTold}
			if !s.static && !s.told {
				s.age = max(now-time.Duration(s.Seen), 0) // seen after now was read
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// lives tells whether the program still sends frames by the entry.
func (p *plane) lives(s station) bool {
	return s.age <= p.ageing && s.Slot < maxPorts && p.ports[s.Slot].Ifindex == s.Ifindex && p.member(s.Slot, s.Vid)
}

// expire removes the entries that the program does not use any more, addresses that
// nobody says any more among them, and makes the static ones be those of the ports'
// own addresses.
func (p *plane) expire() (int, error) {
	all, err := p.stations()
	if err != nil {
		return 0, err
	}
	var gone []planeStation
	var live []station
	static := p.static()
	for _, s := range all {
		want, ok := static[s.planeStation]
		switch {
		case ok && want == s.planeSighting:
			delete(static, s.planeStation)
		case ok: // is written below
		case s.static || !p.lives(s):
			gone = append(gone, s.planeStation)
		default:
			live = append(live, s)
		}
	}
	for key, value := range static {
		if err := p.maps.Fdb.Put(&key, &value); err != nil {
			return 0, fmt.Errorf("write map %q of switch %q: %w", planeMapFdb, p.name, err)
		}
	}
	for _, key := range gone {
		// Should a frame refresh the entry just now, the next one brings it back.
		if err := p.maps.Fdb.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return 0, fmt.Errorf("write map %q of switch %q: %w", planeMapFdb, p.name, err)
		}
	}
	if err := p.wrote(); err != nil {
		return 0, err
	}
	if err := p.recount(live); err != nil {
		return 0, err
	}
	silent, err := p.expireHeard()
	return len(gone) + silent, err
}

// wrote has the program look at the FDB again for stations that it has just seen.
func (p *plane) wrote() error {
	p.self.Written++
	if err := p.maps.Self.Put(uint32(0), &p.self); err != nil {
		return fmt.Errorf("write map %q of switch %q: %w", planeMapSelf, p.name, err)
	}
	return nil
}

// clock is the time that the program writes down for a frame.
func clock() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

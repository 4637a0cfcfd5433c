package ebpf

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// probesAtOnce is how many VLANs of a port are probed in one round; those of a
// larger trunk take turns.
const probesAtOnce = 64

// probeTo is where probes go: a group address that bridges forward, and the
// EtherType behind it, as in switch.c.
var probeTo = [6]byte{0x03, 'r', 'i', 'p', 's', 't'}

const etherProbe = 0x88b6

// DetectLoops sends probes to all ports with loop detection, and tells whether
// since the last call a port was shut, or has opened again. The program sees the
// probes that come back, and shuts ports by itself.
func (d *Driver) DetectLoops(context.Context) (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.planes)) {
		p := d.planes[name]
		errs = append(errs, d.probe(p))
		other, err := p.noteShut(d)
		changed = changed || other
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

// probe sends a round of probes.
func (d *Driver) probe(p *plane) error {
	var flagged []uint32
	for _, slot := range p.slots {
		if f := p.ports[slot].Flags; f&planePortFlagPORT_LOOP_DETECTION != 0 && f&planePortFlagPORT_DOWN == 0 {
			flagged = append(flagged, slot)
		}
	}
	if len(flagged) == 0 {
		return nil
	}
	p.round++
	return d.host.Run(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		var errs []error
		for _, slot := range flagged {
			if err := p.probe(fd, slot); err != nil {
				errs = append(errs, fmt.Errorf("probe port %q of switch %q: %w", p.places[p.ports[slot].Ifindex].name, p.name, err))
			}
		}
		return errors.Join(append(errs, unix.Close(fd))...)
	})
}

func (p *plane) probe(fd int, slot uint32) error {
	port, trunk := p.ports[slot], p.trunks[slot]
	nonce, err := p.nonce(slot)
	if err != nil {
		return err
	}
	vids := trunk.list()
	if n := len(vids); n > probesAtOnce {
		from := p.round * probesAtOnce % n
		vids = append(vids[from:], vids[:from]...)[:probesAtOnce]
	}
	if port.Pvid != 0 {
		vids = append(vids, port.Pvid)
	}
	src := vswitch.MAC{2, byte(nonce >> 8), byte(nonce >> 16), byte(nonce >> 24), byte(nonce >> 32), byte(nonce >> 40)}
	for _, vid := range vids {
		frame := probeFrame(src, vid, vid != port.Pvid, slot, nonce)
		err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(port.Ifindex)})
		switch err {
		case nil, unix.ENETDOWN, unix.ENXIO, unix.ENODEV: // the next pass has a word to say
		case unix.ENOBUFS, unix.EAGAIN: // the next round sends it
		default:
			return err
		}
	}
	return nil
}

// probeFrame is struct probe of switch.c on the wire.
func probeFrame(src vswitch.MAC, vid uint16, tagged bool, slot uint32, nonce uint64) []byte {
	b := append(probeTo[:], src[:]...)
	if tagged {
		b = binary.BigEndian.AppendUint16(b, unix.ETH_P_8021Q)
		b = binary.BigEndian.AppendUint16(b, vid)
	}
	b = binary.BigEndian.AppendUint16(b, etherProbe)
	b = binary.NativeEndian.AppendUint64(b, nonce)
	b = binary.NativeEndian.AppendUint32(b, slot)
	b = binary.NativeEndian.AppendUint16(b, vid)
	const shortest = 60 // IEEE 802.3, without FCS
	return append(b, make([]byte, shortest-len(b))...)
}

// nonce is what the probes of a slot carry, random for each process.
func (p *plane) nonce(slot uint32) (uint64, error) {
	if n, ok := p.nonces[slot]; ok {
		return n, nil
	}
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("read random bytes: %w", err)
	}
	n := binary.NativeEndian.Uint64(b[:]) | 1 // not 0, which is none
	if err := p.maps.Nonces.Put(slot, n); err != nil {
		return 0, fmt.Errorf("write map %q: %w", planeMapNonces, err)
	}
	if p.nonces == nil {
		p.nonces = map[uint32]uint64{}
	}
	p.nonces[slot] = n
	return n, nil
}

// forgetNonce has nobody be taken for a slot's next port.
func (p *plane) forgetNonce(slot uint32) error {
	delete(p.nonces, slot)
	return p.maps.Nonces.Put(slot, uint64(0))
}

// noteShut tells whether other ports are shut than before, and logs which.
func (p *plane) noteShut(d *Driver) (changed bool, err error) {
	now, err := clock()
	if err != nil {
		return false, err
	}
	shut := map[uint32]string{}
	for ifindex, slot := range p.slots {
		why, err := p.shut(slot, now)
		if err != nil {
			return false, err
		}
		if why != "" {
			shut[ifindex] = why
		}
	}
	for ifindex, why := range shut {
		if p.closed[ifindex] != why {
			d.log.Warn("port shut", "switch", p.name, "port", p.places[ifindex].name, "because", why)
			changed = true
		}
	}
	for ifindex := range p.closed {
		if _, still := shut[ifindex]; !still {
			d.log.Info("port open again", "switch", p.name, "port", p.places[ifindex].name)
			changed = true
		}
	}
	p.closed = shut
	return changed, nil
}

// DetectLoops is as Driver.DetectLoops. Looped is the devices, by ifindex, of the
// ports that are shut by a loop, to which nothing must be sent.
func (g *Guard) DetectLoops(ctx context.Context) (looped map[int]bool, changed bool, err error) {
	if changed, err = g.d.DetectLoops(ctx); err != nil {
		return nil, changed, err
	}
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	now, err := clock()
	if err != nil {
		return nil, changed, err
	}
	looped = map[int]bool{}
	for _, p := range g.d.planes {
		for ifindex := range p.closed {
			a, closed, err := p.activity(p.slots[ifindex], now)
			if err != nil {
				return nil, changed, err
			}
			if closed && a.Looped != 0 {
				looped[int(ifindex)] = true
			}
		}
	}
	return looped, changed, nil
}

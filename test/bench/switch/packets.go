package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/test/bench/traffic"
)

// vnetHeader is the bytes of struct virtio_net_hdr before each frame of a tap.
const vnetHeader = 10

// burst is how many frames go into one system call, or through taps before
// they are fetched.
const burst = 64

var broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Stations behind the taps and further ones behind a port.
func tapMAC(i int) [6]byte { return [6]byte{2, 0x7a, 0, 0, 0, byte(i)} }
func manyMAC(i int) (m [6]byte) {
	m[0] = 2
	binary.BigEndian.PutUint32(m[2:], uint32(i))
	return m
}

// small is a frame of 60 bytes, 64 with its checksum: a UDP packet whose receiver
// drops it at once, because the sum of its IP header is wrong.
func small(to, from [6]byte) []byte {
	f := make([]byte, 60)
	copy(f, to[:])
	copy(f[6:], from[:])
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 46, 64, unix.IPPROTO_UDP
	a, b := address(0), address(1)
	copy(ip[12:], a[:])
	copy(ip[16:], b[:])
	binary.BigEndian.PutUint16(ip[20:], 4000)
	binary.BigEndian.PutUint16(ip[22:], 4001)
	binary.BigEndian.PutUint16(ip[24:], 26)
	return f
}

// martian is a small frame whose receiver drops it because its source is a group's
// address: filters of IP want the sum to be right (RFC 1071).
func martian(f []byte) []byte {
	ip := f[14:34]
	copy(ip[12:], []byte{224, 0, 0, 9})
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
	return f
}

// unknownKind makes a receiver drop a frame that is for everybody at once.
func unknownKind(f []byte) []byte {
	binary.BigEndian.PutUint16(f[12:], 0x88b5) // IEEE 802, for experiments
	return f
}

// harmless is a frame that every switch forwards, whatever its filters, and no
// receiver answers.
func (l *lab) harmless(f []byte) []byte {
	f = unknownKind(f)
	if l.filtered {
		binary.BigEndian.PutUint16(f[12:], unix.ETH_P_ARP) // of no kind of address
	}
	return f
}

const (
	segment  = 1448
	segments = 44
)

// large is a TCP packet of many segments with its virtio header, whose sums the
// receiver's device is to fill in.
func large(to, from [6]byte) []byte {
	f := make([]byte, vnetHeader+14+20+20+segment*segments)
	f[0], f[1] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_TCPV4
	binary.NativeEndian.PutUint16(f[2:], 14+20+20)
	binary.NativeEndian.PutUint16(f[4:], segment)
	binary.NativeEndian.PutUint16(f[6:], 14+20)
	binary.NativeEndian.PutUint16(f[8:], 16)
	copy(f[vnetHeader:], small(to, from)[:14+20])
	ip := f[vnetHeader+14:]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[9] = unix.IPPROTO_TCP
	ip[20+12], ip[20+13] = 5<<4, 0x10 // ACK
	return f
}

func withHeader(f []byte) []byte { return append(make([]byte, vnetHeader), f...) }

// teach makes the switch know the stations at all ports, and those behind each
// of them, of which there are many in all.
func (l *lab) teach(many int) error {
	to := l.stations[0].mac
	if _, err := unix.Write(l.stations[0].fd, l.harmless(small(broadcast, to))); err != nil {
		return fmt.Errorf("teach: %w", err)
	}
	for i, s := range l.stations {
		frames := [][]byte{l.harmless(small(to, s.mac))}
		for m := i; m < many && i > 0; m += len(l.stations) {
			frames = append(frames, l.harmless(small(to, manyMAC(m))))
		}
		out := traffic.NewBatch(s.fd, frames, burst)
		for sent := 0; sent < len(frames); {
			n, err := out.Send()
			if err != nil {
				return err
			}
			sent += n
		}
	}
	for i, fd := range l.taps {
		if _, err := unix.Write(fd, withHeader(l.harmless(small(to, tapMAC(i))))); err != nil {
			return fmt.Errorf("teach: %w", err)
		}
	}
	return nil
}

// came is how many packets the far ends of all veth ports but the first have got.
func (l *lab) came() (uint64, error) {
	var sum uint64
	for name, s := range l.spaces {
		if name == l.space(0) || name == l.guest() || name == l.host() {
			continue
		}
		links, err := s.Counted()
		if err != nil {
			return 0, err
		}
		for _, link := range links {
			if link.Type() == "veth" {
				sum += link.Attrs().Statistics.RxPackets
			}
		}
	}
	return sum, nil
}

// arrivals calls f and tells how many packets came meanwhile, per second of the
// time that f tells.
func (l *lab) arrivals(f func() (time.Duration, error)) (Sample, error) {
	before, err := l.came()
	if err != nil {
		return Sample{}, err
	}
	var took time.Duration
	if err := traffic.OnCPU(0, func() (err error) { took, err = f(); return err }); err != nil {
		return Sample{}, err
	}
	after, err := l.came()
	return Sample{Rate: float64(after-before) / took.Seconds()}, err
}

// packetCell sends to all stations of the kind in turn.
func packetCell(c Cell, l *lab, d time.Duration) (Sample, error) {
	if err := l.teach(0); err != nil {
		return Sample{}, err
	}
	from := l.stations[0].mac
	switch c.Ends {
	case "veth":
		var frames [][]byte
		for _, s := range l.stations[1:] {
			f := small(s.mac, from)
			if c.filtered() {
				f = martian(f)
			}
			frames = append(frames, f)
		}
		return l.sendAll(frames, d)
	case "tap-veth":
		f := withHeader(small(l.stations[1].mac, tapMAC(0)))
		return l.arrivals(func() (time.Duration, error) {
			start := time.Now()
			for time.Since(start) < d {
				for range burst {
					if err := write(l.taps[0], f); err != nil {
						return 0, err
					}
				}
			}
			return time.Since(start), nil
		})
	case "veth-tap":
		out := newCycle([][]byte{small(tapMAC(1), from)}, burst)
		return l.fetch(d, 60, func() (int, error) { return burst, l.out.send(out.next()) })
	}
	f, many := withHeader(small(tapMAC(1), tapMAC(0))), burst
	if c.Load == "gso" {
		f, many = large(tapMAC(1), tapMAC(0)), 4
	}
	s, err := l.fetch(d, len(f)-vnetHeader, func() (int, error) {
		for i := range many {
			if err := write(l.taps[0], f); err != nil {
				return i, err
			}
		}
		return many, nil
	})
	if c.Load == "gso" {
		s.Rate *= 8 * segment * segments
	}
	return s, err
}

// sendAll sends frames in turn, in bursts.
func (l *lab) sendAll(frames [][]byte, d time.Duration) (Sample, error) {
	out := newCycle(frames, burst)
	return l.arrivals(func() (time.Duration, error) { return l.out.sendFor(out, d) })
}

// fetch sends and reads what comes out of the second tap, on one thread, and
// tells how many frames a second came. Size tells them from others.
func (l *lab) fetch(d time.Duration, size int, send func() (int, error)) (s Sample, err error) {
	err = traffic.OnCPU(0, func() error {
		buf := make([]byte, 1<<17)
		_, _, _ = drain(l.taps[1], buf, size)
		start, got := time.Now(), 0
		for time.Since(start) < d {
			if _, err := send(); err != nil {
				return err
			}
			n, _, err := drain(l.taps[1], buf, size)
			if err != nil {
				return err
			}
			got += n
		}
		s.Rate = float64(got) / time.Since(start).Seconds()
		return nil
	})
	return s, err
}

// drain reads a tap until it is empty and counts the frames of a size.
func drain(fd int, buf []byte, size int) (frames, others int, err error) {
	for {
		n, err := read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return frames, others, nil
		case err != nil:
			return frames, others, err
		case n == vnetHeader+size:
			frames++
		default:
			others++
		}
	}
}

// many is how many stations the cell of a large FDB has.
const many = 100_000

// fdbCell sends to stations of a large FDB in random order.
func fdbCell(_ Cell, l *lab, d time.Duration) (Sample, error) {
	if err := l.teach(many); err != nil {
		return Sample{}, err
	}
	var frames [][]byte
	r := rand.New(rand.NewPCG(1, 2))
	for _, i := range r.Perm(many) {
		if i%l.ports != 0 {
			frames = append(frames, small(manyMAC(i), l.stations[0].mac))
		}
	}
	return l.sendAll(frames, d)
}

// floodCell sends one frame in each system call to everybody.
func floodCell(c Cell, l *lab, d time.Duration) (Sample, error) {
	if err := l.teach(0); err != nil {
		return Sample{}, err
	}
	to := broadcast
	if c.Load == "unknown" {
		to = [6]byte{2, 0xff}
	}
	out := newCycle([][]byte{unknownKind(small(to, l.stations[0].mac))}, 1)
	s, err := l.arrivals(func() (time.Duration, error) { return l.out.sendFor(out, d) })
	for _, fd := range l.taps { // what came there, too, would be in the way
		_, _, err2 := drain(fd, make([]byte, 1<<17), 60)
		err = errors.Join(err, err2)
	}
	return s, err
}

package ebpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Probe tells whether this kernel can forward with this dataplane, by letting
// it forward: in a network namespace that exists no longer than the call, a
// frame has to reach its own VLAN and must not reach another. A nil error means
// that it can.
func Probe(ctx context.Context) error {
	err := inScratch(func() error { return tryForwarding(ctx) })
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("dataplane ebpf: %w: run as root, or with CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF", err)
	}
	if err != nil {
		return fmt.Errorf("dataplane ebpf: %w: it needs Linux 5.18 or newer with BPF, clsact and veth", err)
	}
	return nil
}

// inScratch calls f in a new network namespace.
func inScratch(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("make namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave namespace: %w", back)) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// experimental is IEEE 802's EtherType for local experiments.
const experimental = 0x88b5

func tryForwarding(ctx context.Context) (err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	spec, err := loadPlane()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	p, err := newPlane(spec, "probe")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	var stations []int // sockets of the stations behind the ports
	defer func() {
		for _, s := range stations {
			err = errors.Join(err, unix.Close(s))
		}
	}()
	for i, vid := range []uint16{10, 10, 10, 20} {
		s, err := probePort(h, p, fmt.Sprintf("p%d", i), vid)
		if err != nil {
			return fmt.Errorf("make port: %w", err)
		}
		stations = append(stations, s)
	}
	if err := p.commit(); err != nil {
		return err
	}
	return exchange(ctx, stations)
}

// probePort makes a port and gives a socket of the station behind it.
func probePort(h *netlink.Handle, p *plane, name string, vid uint16) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "s" + name}); err != nil {
		return 0, fmt.Errorf("make veth: %w", err)
	}
	near, err := h.LinkByName(name)
	if err != nil {
		return 0, err
	}
	far, err := h.LinkByName("s" + name)
	if err != nil {
		return 0, err
	}
	slot, err := p.put(member{ifindex: near.Attrs().Index, mtu: near.Attrs().MTU, pvid: vid})
	if err != nil {
		return 0, err
	}
	if err := attach(h, near.Attrs().Index, p.prog, slot); err != nil {
		return 0, err
	}
	if err := errors.Join(h.LinkSetUp(near), h.LinkSetUp(far)); err != nil {
		return 0, err
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open packet socket: %w", err)
	}
	err = unix.Bind(s, &unix.SockaddrLinklayer{Protocol: bigEndian(experimental), Ifindex: far.Attrs().Index})
	if err == nil {
		err = unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(s))
	}
	return s, nil
}

// exchange sends two frames from the first station. All have them but the last,
// which has nothing when whatever the first frame caused is done.
func exchange(ctx context.Context, stations []int) error {
	buf := make([]byte, 128)
	for i := range byte(2) {
		if err := ctx.Err(); err != nil {
			return err
		}
		frame := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, experimental>>8, experimental&0xff, i)
		frame = append(frame, make([]byte, 45)...)
		if _, err := unix.Write(stations[0], frame); err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
		for _, s := range stations[1 : len(stations)-1] {
			n, err := unix.Read(s, buf)
			if err != nil {
				return fmt.Errorf("a frame does not reach its VLAN: %w", err)
			}
			if !bytes.Equal(buf[:n], frame) {
				return fmt.Errorf("a frame is not the same in its VLAN: %x became %x", frame, buf[:n])
			}
		}
	}
	n, _, err := unix.Recvfrom(stations[len(stations)-1], buf, unix.MSG_DONTWAIT)
	if !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("a frame of %d bytes reaches another VLAN: %v", n, err)
	}
	return nil
}

func bigEndian(v uint16) uint16 { return v<<8 | v>>8 }

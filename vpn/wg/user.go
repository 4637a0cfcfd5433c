package wg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.zx2c4.com/wireguard/tun"

	"ripstop/vpn"
)

// users is the tunnels that have no device: WireGuard in this process, and a
// network stack of its own at the end of each.
type users struct {
	*processEngine
	stacks map[string]*stackTun
}

func newUsers(e *processEngine) *users {
	u := &users{processEngine: e, stacks: map[string]*stackTun{}}
	e.open = func(name string, mtu int) (tun.Device, error) {
		t, err := newStackTun(name, mtu)
		if err != nil {
			return nil, err
		}
		u.stacks[name] = t
		return t, nil
	}
	return u
}

// has tells whether a tunnel is one of them.
func (u *users) has(name string) bool { return u.devices[name] != nil }

func (u *users) remove(name string) error {
	err := u.processEngine.remove(name)
	delete(u.stacks, name)
	return err
}

// doUser carries out a step of a tunnel without a device; ok is false for others.
func (d *Driver) doUser(step vpn.Step) (ok bool, err error) {
	switch s := step.(type) {
	case vpn.AddTunnel:
		if !s.Tunnel.User {
			return false, nil
		}
		return true, d.addUser(s.Name, s.Tunnel)
	case vpn.SetTunnel:
		if !s.To.User {
			return false, nil
		}
		return true, d.setUser(s.Name, s.To)
	case vpn.DelTunnel:
		if !d.user.has(s.Name) {
			return false, nil
		}
		d.memory.drop(s.Name)
		d.memory.forget(s.Name)
		return true, d.user.remove(s.Name)
	}
	return false, nil
}

func (d *Driver) addUser(name string, t vpn.Tunnel) error {
	if d.user.has(name) {
		return d.setUser(name, t)
	}
	if err := d.user.make(name, defaultMTU); err != nil {
		return err
	}
	d.memory.start(name)
	err := d.setUser(name, t)
	if err != nil {
		d.memory.drop(name)
		err = errors.Join(err, d.user.remove(name))
	}
	return err
}

// setUser is setTunnel without links.
func (d *Driver) setUser(name string, t vpn.Tunnel) error {
	is, err := d.user.device(name)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("tunnel %s: %w", name, errGone)
	}
	if err != nil {
		return err
	}
	if err := d.setPort(d.user, is, t); err != nil {
		return err
	}
	stack := d.user.stacks[name]
	if err := stack.setAddresses(t.Addresses); err != nil {
		return fmt.Errorf("tunnel %s: %w", name, err)
	}
	d.memory.setMTU(name, t.MTU)
	mtu := t.MTU
	if mtu == 0 {
		mtu = d.fits(seen{name: name, user: stack, device: is, addresses: t.Addresses})
		d.memory.fitted(name, mtu)
	}
	stack.setMTU(mtu)
	return d.openPort(d.user, name, t.Listen)
}

// seenUsers reads the tunnels without a device.
func (d *Driver) seenUsers(name string) (seen, bool, error) {
	w, err := d.user.device(name)
	if errors.Is(err, os.ErrNotExist) {
		return seen{}, false, nil
	}
	if err != nil {
		return seen{}, false, err
	}
	stack := d.user.stacks[name]
	return seen{name: name, user: stack, device: w, addresses: stack.addresses()}, true, nil
}

// Listen listens at an address of a tunnel that has no device. The listener ends
// with the tunnel.
func (d *Driver) Listen(tunnel string, at netip.AddrPort) (net.Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return nil, errClosed
	}
	stack := d.user.stacks[tunnel]
	if stack == nil {
		return nil, fmt.Errorf("listen on %s inside tunnel %s: %w", at, tunnel, errGone)
	}
	l, err := stack.listen(at)
	if err != nil {
		return nil, fmt.Errorf("listen on %s inside tunnel %s: %w", at, tunnel, err)
	}
	return l, nil
}

// mtu is the tunnel's as it is.
func (s seen) mtu() int {
	if s.user != nil {
		return s.user.mtu()
	}
	return s.link.Attrs().MTU
}

// index is the device's, 0 of a tunnel without one.
func (s seen) index() int {
	if s.user != nil {
		return 0
	}
	return s.link.Attrs().Index
}

// engine is what carries the tunnel.
func (s seen) engine() vpn.Engine {
	switch {
	case s.user != nil:
		return vpn.User
	case isKernel(s.link):
		return vpn.Kernel
	}
	return vpn.Process
}

var _ engine = (*users)(nil)

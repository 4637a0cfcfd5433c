// Package wg makes WireGuard tunnels real: it observes the ones that are there
// and does the steps of package vpn. The kernel's WireGuard carries them where
// this host has it, else golang.zx2c4.com/wireguard does so in this process; one
// set of words, wgctrl's, serves both.
//
//	vpn.Step ─► Driver ─┬─ links ──► device, alias, addresses, MTU, routes
//	                    ├─ engine ─┬─ kernel ──► wgctrl
//	                    │          └─ process ─► tun device ◄─ wg show (/run/wireguard/NAME.sock)
//	                    │           └ users: tun.Device ─► TCP/IP of this process, no device on the host
//	                    └─ memory ─► names and endpoints of peers, in a file
//
// A tunnel's device carries the alias "ripstop tunnel=NAME"; devices without it,
// and routes with another protocol number than vpn.RouteProtocol, belong to
// others and are neither seen nor touched.
//
// # Endpoints
//
// Peers roam, so where a peer is does not tell what was configured. The driver
// keeps the configured endpoints in Options.Memory, beside the kernel's devices
// which outlive it. Without that memory the endpoint of a peer whose last
// handshake is younger than vpn.Silence is left as it is. The name of a peer that
// is silent is resolved again, and the peer is sent where the name points now.
//
// # Next keys
//
// A peer goes over to another key without that anybody tells us when. Its next key
// is a WireGuard peer of its own, without allowed IPs and with a pre-shared key that
// nobody knows, so that its handshakes come in and are not finished. The first one
// tells that the far end has changed its key, and keeps what it sends until a
// handshake is finished, at most 128 packets (MAX_STAGED_PACKETS of the kernel's
// queueing.h, QueueStagedSize of wireguard-go). Serve sees it within 20 ms, gives the
// next key the peer's allowed IPs and the right pre-shared key, and shakes hands.
//
// # Caveats
//
// A tunnel in this process ends with the process, and a panic in one of
// WireGuard's goroutines ends the process: it cannot be recovered from outside.
//
// wg(8) finds the tunnels of processes in one directory for all network
// namespaces. Where another process has the name, its tunnel is what wg shows;
// ours works all the same, and the log says so.
//
// When a peer loses allowed IPs, the kernel's interface takes all of the peer's
// away and gives it those that stay, in one call: a packet to them may be
// refused in between. The peer's session goes on.
//
// A route into a tunnel that leads to the endpoint of one of its peers turns the
// tunnel's packets back into the tunnel. Allowed IPs that contain an endpoint
// need a more specific route to it.
package wg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/vpn"
)

// Options are what a Driver may be told.
type Options struct {
	// Engine is what new tunnels are made of; "" takes the kernel's WireGuard
	// where it works and this process where it does not. Tunnels that are there
	// stay what they are.
	Engine vpn.Engine
	// Memory is a file that keeps over a restart of the daemon what WireGuard
	// itself does not: the names of peers, their endpoints as configured, and
	// whether an MTU was chosen. It holds no secret. "" keeps it in this process
	// alone.
	Memory string
}

// engine is what carries tunnels. Its methods may be called by one goroutine at
// a time.
type engine interface {
	// make makes a device of the name that is down and has no alias.
	make(name string, mtu int) error
	// device is os.ErrNotExist where the engine does not carry the tunnel.
	device(name string) (*wgtypes.Device, error)
	configure(name string, cfg wgtypes.Config) error
	// up opens the UDP port of a tunnel whose device has been set up.
	up(name string) error
	// remove waits until the device is gone; one that is none of the engine's is
	// left alone.
	remove(name string) error
}

// Driver is the target of the steps of package vpn. It works in the network
// namespace of its process and is safe for concurrent use.
type Driver struct {
	log     *slog.Logger
	choice  vpn.Engine
	resolve *resolver
	now     func() time.Time

	mu      sync.Mutex
	links   *links
	kernel  *kernelEngine // nil where the kernel has no WireGuard
	process *processEngine
	user    *users
	memory  *memory
	own     map[string]vpn.Key  // public keys of tunnels, as far as they were set or looked for
	waiting map[next]vpn.Secret // next keys of peers, and the pre-shared keys that go with them
	awaits  chan struct{}       // something waits that did not

	paths     map[way]path
	unclamped string // why this kernel did not clamp TCP when it was told to
}

// New finds out what WireGuard this host has and is ready for work. It fails
// where Options.Engine does not work here.
func New(log *slog.Logger, o Options) (*Driver, error) {
	l, err := openLinks()
	if err != nil {
		return nil, err
	}
	d := &Driver{
		log: log, choice: o.Engine, resolve: newResolver(), now: time.Now, links: l,
		own: map[string]vpn.Key{}, waiting: map[next]vpn.Secret{}, awaits: make(chan struct{}, 1), paths: map[way]path{},
		process: &processEngine{log: log, open: tun.CreateTUN, devices: map[string]*processDevice{}},
		user:    newUsers(&processEngine{log: log, devices: map[string]*processDevice{}}),
	}
	if err := d.choose(); err != nil {
		l.close()
		return nil, err
	}
	m, spoilt := load(o.Memory)
	if spoilt != nil {
		log.Warn("memory of tunnels is spoilt", "file", o.Memory, "error", spoilt)
	}
	d.memory = m
	return d, nil
}

// choose opens the kernel's WireGuard where it works, and settles what new
// tunnels are made of.
func (d *Driver) choose() error {
	none := probeKernel()
	if none == nil {
		k, err := newKernelEngine(d.links)
		if err != nil {
			return err
		}
		d.kernel = k
	}
	switch d.choice {
	case vpn.Kernel:
		if none != nil {
			return fmt.Errorf("the kernel's wireguard: %w: load its module or let this process carry the tunnels", none)
		}
	case "":
		d.choice = vpn.Kernel
		if none != nil {
			d.log.Debug("the kernel has no wireguard", "error", none)
			d.choice = vpn.Process
		}
	case vpn.Process:
	default:
		return fmt.Errorf("engine %q: there are %q and %q", d.choice, vpn.Kernel, vpn.Process)
	}
	return nil
}

// Engine is what new tunnels are made of.
func (d *Driver) Engine() vpn.Engine { return d.choice }

// chosen is the engine of new tunnels.
func (d *Driver) chosen() engine {
	if d.choice == vpn.Kernel {
		return d.kernel
	}
	return d.process
}

// of is the engine that carries a device.
func (d *Driver) of(link netlink.Link) engine {
	if isKernel(link) && d.kernel != nil {
		return d.kernel
	}
	return d.process
}

// device is what an engine knows of a marked device; ok is false when none
// carries it: another process's, or one whose process has died.
func (d *Driver) device(link netlink.Link) (w *wgtypes.Device, ok bool, err error) {
	w, err = d.of(link).device(link.Attrs().Name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	return w, err == nil, err
}

// Commit computes the MTU of tunnels again, for their peers may have moved, and
// writes the memory.
func (d *Driver) Commit(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return errClosed
	}
	return errors.Join(d.fitMTUs(), d.memory.save())
}

// Close removes every tunnel that ripstop made and waits until this process
// carries none.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return nil
	}
	all, err := d.marked()
	for name, link := range all {
		if isKernel(link) {
			err = errors.Join(err, d.links.remove(link))
			d.memory.drop(name)
		}
	}
	return errors.Join(err, d.links.dropGuards(), dropReaches(), dropClamps(), d.end())
}

// Release ends this process's part and leaves kernel tunnels at work, which the
// next Driver finds again; those in this process end with it. Guards stay.
func (d *Driver) Release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.end()
}

// end closes what this process has; a second time there is nothing left to do.
func (d *Driver) end() error {
	if d.links == nil {
		return nil
	}
	var err error
	for name := range d.process.devices {
		if is, seeErr := d.process.device(name); seeErr == nil {
			d.memory.saw(name, is.Peers)
		}
		err = errors.Join(err, d.process.remove(name))
		d.memory.drop(name)
	}
	for name := range d.user.devices {
		if is, seeErr := d.user.device(name); seeErr == nil {
			d.memory.saw(name, is.Peers)
		}
		err = errors.Join(err, d.user.remove(name))
		d.memory.drop(name)
	}
	err = errors.Join(err, d.memory.save())
	if d.kernel != nil {
		err = errors.Join(err, d.kernel.client.Close())
	}
	d.links.close()
	d.links = nil
	return err
}

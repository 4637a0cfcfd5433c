// Package device makes, changes, finds and removes the kernel devices behind
// the ports of a switch: veth pairs into namespaces, taps, and interfaces that
// the host lends. It knows nothing of VLANs: the dataplanes above it join the
// devices to their switches.
//
//	vswitch/bridge   vswitch/ebpf
//	       └──── device ────┘
//	          internal/link
//
// # Caveats
//
// A port's device gets its alias last. What a crash leaves without one is known
// by its link group and is made anew, never taken for complete.
//
// A device that ripstop did not make is never taken over, except an interface
// that the configuration names as `device`, which is given back as it was, and a
// tap of a port's name, user and kind of queues that nobody has marked or put into a bridge:
// hypervisors make the port's tap again where theirs is gone.
//
// MAC addresses come from the identity that New is given. Two hosts that have
// the same one, as copies of a machine may, must not meet in a VLAN.
package device

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/vishvananda/netlink"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

// Devices is the devices of one host. It is safe for concurrent use; work on one
// port is to be done one after the other.
type Devices struct {
	host     *link.Space
	identity string
	swept    atomic.Bool
}

// New is the devices of the namespace that host is open on; host stays the
// caller's. Identity is what makes the devices' MAC addresses differ from those
// of other hosts; it is to be the same every time.
func New(host *link.Space, identity string) *Devices {
	return &Devices{host: host, identity: identity}
}

// Create makes the device of a port, marks it and sets up its far end, and
// leaves the near end down: Start brings it up when it is a member of its
// switch. A device that is there already is brought to p.
func (d *Devices) Create(sw, name string, p vswitch.Port) (netlink.Link, error) {
	var l netlink.Link
	var err error
	switch p.Kind {
	case vswitch.Veth:
		l, err = d.createVeth(sw, name, p)
	case vswitch.Tap:
		l, err = d.createTap(sw, name, p)
	case vswitch.Device:
		l, err = d.borrow(sw, name, p)
	case vswitch.VXLAN:
		l, err = d.createVXLAN(sw, name, p)
	default:
		err = fmt.Errorf("kind %q is unknown: it is veth, tap, device or vxlan", p.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", name, err)
	}
	return l, nil
}

// Start brings the near end up, or down when the port is Down.
func (d *Devices) Start(l netlink.Link, p vswitch.Port) error { return d.host.SetUp(l, !p.Down) }

// Update changes what a port's device has of its setting: MAC, MTU, addresses,
// up or down. VLANs are the dataplane's.
func (d *Devices) Update(sw, name string, p vswitch.Port) (netlink.Link, error) {
	l, err := d.Find(sw, name, p)
	if err == nil && l == nil {
		err = errors.New("its device is gone: it is made again by the next pass")
	}
	if err == nil {
		err = d.configure(l, p)
	}
	if err == nil {
		err = d.Start(l, p)
	}
	if err != nil {
		return nil, fmt.Errorf("port %q: %w", name, err)
	}
	return l, nil
}

// Delete removes what was made for a port, with its namespace when ripstop made
// that one, too, and nothing else stands in it. A lent interface is given back.
// A device that is gone, or has become another's, is no error.
func (d *Devices) Delete(sw, name string, p vswitch.Port) error {
	l, err := d.Find(sw, name, p)
	space := p.Netns
	if err == nil && l != nil {
		if a, ok := link.ParseAlias(l.Attrs().Alias); ok {
			space = a.Netns
		}
		err = d.remove(l)
	}
	if err == nil && space != "" {
		err = link.ReleaseNamespace(space)
	}
	if err != nil {
		return fmt.Errorf("port %q: %w", name, err)
	}
	return nil
}

func (d *Devices) remove(l netlink.Link) error {
	if a, ok := link.ParseAlias(l.Attrs().Alias); ok && a.Lent != nil {
		return d.giveBack(l, *a.Lent)
	}
	return d.host.Delete(l)
}

// DeleteSwitch removes everything that was made for a switch, in few messages.
func (d *Devices) DeleteSwitch(sw string) error {
	links, err := d.host.Links()
	if err != nil {
		return err
	}
	var made, lent []netlink.Link
	var spaces []string
	alone := true // nobody else's link is in the group
	for _, l := range links {
		a, ok := link.ParseAlias(l.Attrs().Alias)
		ours := ok && a.Switch == sw || link.HalfMade(l, sw)
		switch {
		case ours && a.Lent != nil:
			lent = append(lent, l)
		case ours:
			made = append(made, l)
			spaces = append(spaces, a.Netns)
		case l.Attrs().Group == link.Group(sw):
			alone = false
		}
	}
	var errs []error
	for _, l := range lent {
		errs = append(errs, d.remove(l))
	}
	if alone && len(made) > 0 {
		errs = append(errs, link.DeleteGroup(link.Group(sw)))
	}
	// What a group deletion does not reach: links whose group somebody changed.
	errs = append(errs, d.removeRest(made))
	slices.Sort(spaces)
	for _, s := range slices.Compact(spaces) {
		if s != "" {
			errs = append(errs, link.ReleaseNamespace(s))
		}
	}
	return errors.Join(errs...)
}

func (d *Devices) removeRest(made []netlink.Link) error {
	links, err := d.host.Links()
	if err != nil {
		return err
	}
	here := map[int]string{}
	for _, l := range links {
		here[l.Attrs().Index] = l.Attrs().Name
	}
	var errs []error
	for _, l := range made {
		if here[l.Attrs().Index] == l.Attrs().Name {
			errs = append(errs, d.host.Delete(l))
		}
	}
	return errors.Join(errs...)
}

// Sweep removes namespaces that a crash left behind: made by ripstop, with no
// device in them yet, or no more. Only the first call of a Devices looks.
func (d *Devices) Sweep() error {
	if d.swept.Load() {
		return nil
	}
	names, err := link.OwnNamespaces()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := link.ReleaseNamespace(n); err != nil {
			return err
		}
	}
	d.swept.Store(true)
	return nil
}

// Find is the near end of a port, by name or else by alias; nil when there is none.
func (d *Devices) Find(sw, name string, p vswitch.Port) (netlink.Link, error) {
	l, err := d.host.Link(p.DeviceName(name))
	if err == nil && (isPort(l, sw, name) || p.Kind != vswitch.Device && link.HalfMade(l, sw)) {
		return l, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	links, err := d.host.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if isPort(l, sw, name) {
			return l, nil
		}
	}
	return nil, nil
}

func isPort(l netlink.Link, sw, name string) bool {
	a, ok := link.ParseAlias(l.Attrs().Alias)
	return ok && a.Switch == sw && a.Port == name
}

// room makes sure that a device of this name can be made: it gives back the one
// that is complete already, removes a half made one, and refuses any other.
func (d *Devices) room(sw, name string) (netlink.Link, error) {
	l, err := d.host.Link(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	switch {
	case err != nil:
		return nil, err
	case isPort(l, sw, name):
		return l, nil
	case link.HalfMade(l, sw):
		return nil, d.host.Delete(l)
	}
	return nil, Foreign(l)
}

// Foreign is the error about a link that stands where ripstop would make its own.
func Foreign(l netlink.Link) error {
	name := l.Attrs().Name
	if a, ok := link.ParseAlias(l.Attrs().Alias); ok {
		return fmt.Errorf("interface %q exists and serves ripstop as %q: use a name once on a host", name, a)
	}
	return fmt.Errorf("interface %q exists and is not ripstop's: choose another name, or remove it (ip link del dev %s)", name, name)
}

// configure sets what a link and its far end have of a port's setting.
func (d *Devices) configure(l netlink.Link, p vswitch.Port) error {
	switch p.Kind {
	case vswitch.Veth:
		return d.configureVeth(l, p)
	case vswitch.Device:
		return d.configureLent(l, p)
	case vswitch.VXLAN:
		return d.configureVXLAN(l, p)
	}
	return d.host.SetMTU(l, mtu(p))
}

func mtu(p vswitch.Port) int {
	if p.MTU == 0 {
		return vswitch.DefaultMTU
	}
	return p.MTU
}

func (d *Devices) createTap(sw, name string, p vswitch.Port) (netlink.Link, error) {
	l, err := d.adoptTap(sw, name, p)
	if l == nil && err == nil {
		l, err = d.room(sw, name)
	}
	if err != nil {
		return nil, err
	}
	if l == nil {
		if l, err = d.makeTap(sw, name, p); err != nil {
			return nil, err
		}
	}
	return l, d.configure(l, p)
}

// adoptTap is the tap that somebody else made for the port, nil when there is none.
func (d *Devices) adoptTap(sw, name string, p vswitch.Port) (netlink.Link, error) {
	l, err := d.host.Link(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	tap, ok := l.(*netlink.Tuntap)
	if !ok || tap.Mode != netlink.TUNTAP_MODE_TAP || tap.Alias != "" || tap.MasterIndex != 0 || link.HalfMade(l, sw) ||
		strconv.FormatUint(uint64(tap.Owner), 10) != cmp.Or(p.User, "0") || isMultiQueue(tap) != p.MultiQueue {
		return nil, nil
	}
	if err := d.host.LinkSetGroup(l, int(link.Group(sw))); err != nil {
		return nil, fmt.Errorf("set group of tap %q: %w", name, err)
	}
	if err := link.DisableIPv6(name); err != nil {
		return nil, err
	}
	if err := d.host.SetAlias(l, link.Alias{Switch: sw, Port: name}); err != nil {
		return nil, err
	}
	return d.host.Link(name)
}

func isMultiQueue(tap *netlink.Tuntap) bool { return tap.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 }

func (d *Devices) makeTap(sw, name string, p vswitch.Port) (netlink.Link, error) {
	uid := uint64(0)
	var err error
	if p.User != "" {
		if uid, err = strconv.ParseUint(p.User, 10, 32); err != nil {
			return nil, fmt.Errorf("user %q is not a numeric uid: %w", p.User, err)
		}
	}
	alias := link.Alias{Switch: sw, Port: name}
	t := link.Tap{Name: name, Owner: uint32(uid), Group: link.Group(sw), MultiQueue: p.MultiQueue, Alias: alias}
	if err := d.host.AddTap(t); err != nil {
		return nil, err
	}
	if err := link.DisableIPv6(name); err != nil {
		return nil, err
	}
	return d.host.Link(name)
}

// SetGatewayMAC gives a gateway's device an Ethernet address, or the host's own again.
func (d *Devices) SetGatewayMAC(l netlink.Link, mac vswitch.MAC) error {
	if mac == (vswitch.MAC{}) {
		a, ok := link.ParseAlias(l.Attrs().Alias)
		if !ok || a.Gateway == "" {
			return nil // it is new and has it
		}
		if !vswitch.MAC(l.Attrs().HardwareAddr).IsAnycast() {
			return nil
		}
		mac = d.gatewayMAC(l, a)
	}
	return setMAC(d.host, l, mac)
}

// gatewayMAC is the address with which a gateway's device is made: one of its own,
// or the bridge's on which it stands.
func (d *Devices) gatewayMAC(l netlink.Link, a link.Alias) vswitch.MAC {
	if _, ok := l.(*netlink.Vlan); ok {
		return vswitch.MAC(d.MAC("switch", a.Switch, ""))
	}
	return vswitch.MAC(d.MAC("gateway", a.Switch, a.Gateway))
}

// SetGateway brings a gateway's device to g (but its VLAN), up, and marks it.
func (d *Devices) SetGateway(l netlink.Link, mark link.Alias, g vswitch.Gateway) error {
	if err := d.host.SetMTU(l, mtu(vswitch.Port{MTU: g.MTU})); err != nil {
		return err
	}
	if err := d.SetGatewayMAC(l, g.MAC); err != nil {
		return err
	}
	if err := d.host.SetUp(l, true); err != nil {
		return err
	}
	if err := d.host.SetAddresses(l, g.Addresses); err != nil {
		return err
	}
	return d.host.SetAlias(l, mark)
}

package bridge

import (
	"context"
	"net/netip"

	"github.com/vishvananda/netlink"

	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// Guard drops what a port may not send before the bridge sees it: tags that the
// port does not carry, frames of the bridges' own protocols, forged addresses,
// floods (vswitch.Security). It is at work wherever SetPort put it, also after
// the process has ended. The whole of a Guard is one host's.
type Guard interface {
	// Observe is the ports of a switch as the guard treats them, the PVID being
	// vswitch.NotAttached where it does not, and the gateways that it knows.
	Observe(sw string, found device.Switch) (ports map[string]vswitch.Port, gateways map[string]bool, err error)
	// Prepare has a port that is about to join VLANs follow its groups there.
	Prepare(sw, name string, l netlink.Link, p vswitch.Port) error
	// SetPort guards a port's device from now on as p says.
	SetPort(sw, name string, l netlink.Link, p vswitch.Port) error
	// SetGateway has no port send from the device's address in the VLAN.
	SetGateway(sw, name string, l netlink.Link, vid uint16) error
	// Release leaves the interface lent to a port, or with no name all that were
	// lent to the switch.
	Release(sw, name string) error
	// Forget, ForgetGateway and ForgetSwitch follow when the devices are gone.
	Forget(sw, name string) error
	ForgetGateway(sw, name string) error
	ForgetSwitch(sw string) error
	// News is another number when Heard may be another.
	News(ctx context.Context) (uint64, error)
	// Heard is the addresses of a switch's stations by the index of their port's device,
	// and by VLAN (in the place of the VNI) and Ethernet address, each list sorted.
	Heard(ctx context.Context, sw string) (map[int]map[vswitch.StationKey][]netip.Addr, error)
	// Neighbors adds to out for whom ports of a VLAN get answers, under its VNI; Tell
	// changes that.
	Neighbors(ctx context.Context, sw string, vni uint32, vlan uint16, out map[vswitch.AddressKey]vswitch.MAC) error
	Tell(ctx context.Context, sw string, vni uint32, vlan uint16, add, gone map[vswitch.AddressKey]vswitch.MAC) error
	// Commit writes what the steps of a pass have in common.
	Commit(ctx context.Context) error
	// Admit traces a frame from a port up to where the guard passes it on.
	Admit(ctx context.Context, port string, frame []byte) (vswitch.Trace, error)
	// Depart adds to a trace what the groups and limits of its receivers say.
	Depart(ctx context.Context, t vswitch.Trace, frame []byte) (vswitch.Trace, error)
	// DetectLoops sends probes, and tells whether ports were shut or have opened
	// again, and which are in a loop, by ifindex: to these nothing must be sent.
	DetectLoops(ctx context.Context) (looped map[int]bool, changed bool, err error)
	// Counters is of every guarded port, and of the VLANs.
	Counters(ctx context.Context) (vswitch.Counters, error)
}

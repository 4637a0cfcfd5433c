package bridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
)

// Port states of linux/if_bridge.h. One that is set to blocking forwards again at
// once where no STP runs (br_port_state_selection of net/bridge/br_stp.c).
const (
	disabled   = 0
	forwarding = 3
)

// DetectLoops has the guard look for loops, tells whether ports were shut by it or
// have opened again, and has the bridge send nothing to those in a loop: the guard
// alone would leave the loop's other direction.
func (d *Driver) DetectLoops(ctx context.Context) (changed bool, err error) {
	looped, changed, err := d.guard.DetectLoops(ctx)
	if err != nil || !changed && len(looped) == 0 && d.settled.Load() {
		return changed, err
	}
	found, err := d.devices.Observe(ctx)
	if err != nil {
		return changed, err
	}
	members, err := d.memberships()
	if err != nil {
		return changed, err
	}
	for _, sw := range found {
		for name, p := range sw.Ports {
			index := p.Link.Attrs().Index
			want := byte(forwarding)
			if looped[index] {
				want = disabled
			}
			m, ok := members[index]
			if !ok || m.state == want { // of another dataplane, or right
				continue
			}
			// The kernel itself disables ports without a carrier, and keeps them so.
			if err := setState(index, want); err != nil && !link.Gone(err) && !errors.Is(err, unix.ENETDOWN) {
				return changed, fmt.Errorf("port %q: set its bridge's state of it: %w", name, err)
			}
		}
	}
	d.settled.Store(true)
	return changed, nil
}

// setState sets IFLA_BRPORT_STATE.
func setState(index int, state byte) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{state})
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

package vswitch

// Diff is the steps that turn have into want, sorted: first what goes, so that
// its names are free, then switches, ports and gateways as they come or change.
// A port that changes its Kind, Netns, IfName, User, MultiQueue, Device or Overlay (but
// the Peers of it) is removed and made again, and so is a gateway that changes its VLAN and everything of a
// switch that changes its dataplane; every other change is made in place.
//
// A port with a fault and no other difference has a Refuse, so that the fault is
// not overlooked.
//
// What want leaves open is no difference: a MAC that it does not choose, and the
// addresses of a port for which it names none, which are somebody else's matter
// (an operator's, a DHCP client's).
func Diff(want, have State) []Step {
	want, have = want.Canonical(), have.Canonical()
	d := differ{wanted: want.wantedNames()}
	for _, name := range names(have.Switches) {
		to, ok := want.Switches[name]
		from := have.Switches[name]
		if !ok || to.Dataplane != from.Dataplane {
			d.removeSwitch(name, from)
			delete(have.Switches, name)
			continue
		}
		d.removeParts(name, to, from)
	}
	for _, name := range names(want.Switches) {
		to := want.Switches[name]
		from, ok := have.Switches[name]
		if !ok {
			d.steps = append(d.steps, AddSwitch{name, to.Dataplane})
		}
		d.makePorts(name, to, from)
		d.makeGateways(name, to, from)
	}
	return d.steps
}

type differ struct {
	wanted map[string]bool
	steps  []Step
}

// removeSwitch takes a switch away. Ports and gateways whose names are wanted
// elsewhere go on their own, so that who orders removals sees that they make room.
func (d *differ) removeSwitch(name string, from Switch) {
	del := DelSwitch{Name: name, Dataplane: from.Dataplane}
	for _, p := range names(from.Ports) {
		if d.wanted[p] {
			d.steps = append(d.steps, DelPort{Switch: name, Dataplane: from.Dataplane, Name: p, Port: from.Ports[p]})
			continue
		}
		del.Ports = append(del.Ports, p)
	}
	for _, g := range names(from.Gateways) {
		if d.wanted[g] {
			d.steps = append(d.steps, DelGateway{name, from.Dataplane, g, from.Gateways[g]})
			continue
		}
		del.Gateways = append(del.Gateways, g)
	}
	d.steps = append(d.steps, del)
}

// removeParts takes away what a switch loses or what has to be made again, and
// forgets it in from.
func (d *differ) removeParts(name string, to, from Switch) {
	for _, n := range names(from.Ports) {
		p, ok := to.Ports[n]
		if ok && p.identity() == from.Ports[n].identity() {
			continue
		}
		del := DelPort{Switch: name, Dataplane: from.Dataplane, Name: n, Port: from.Ports[n]}
		if p.Kind == Device && del.Port.Kind == Device && p.Device != del.Port.Device {
			del.Next = p.Device
		}
		d.steps = append(d.steps, del)
		delete(from.Ports, n)
	}
	for _, n := range names(from.Gateways) {
		g, ok := to.Gateways[n]
		if ok && g.VLAN == from.Gateways[n].VLAN {
			continue
		}
		d.steps = append(d.steps, DelGateway{name, from.Dataplane, n, from.Gateways[n]})
		delete(from.Gateways, n)
	}
}

func (d *differ) makePorts(name string, to, from Switch) {
	for _, n := range names(to.Ports) {
		p := to.Ports[n]
		q, ok := from.Ports[n]
		if !ok {
			d.steps = append(d.steps, AddPort{name, to.Dataplane, n, p})
			continue
		}
		if p.MAC == (MAC{}) {
			p.MAC = q.MAC
		}
		if len(p.Addresses) == 0 {
			p.Addresses = q.Addresses
		}
		if !p.same(q) {
			d.steps = append(d.steps, SetPort{name, to.Dataplane, n, q, p})
		} else if q.Fault != "" {
			d.steps = append(d.steps, Refuse{name, to.Dataplane, n, q.Fault})
		}
	}
}

func (d *differ) makeGateways(name string, to, from Switch) {
	for _, n := range names(to.Gateways) {
		g := to.Gateways[n]
		h, ok := from.Gateways[n]
		if !ok {
			d.steps = append(d.steps, AddGateway{name, to.Dataplane, n, g})
			continue
		}
		if !g.same(h) {
			d.steps = append(d.steps, SetGateway{name, to.Dataplane, n, h, g})
		}
	}
}

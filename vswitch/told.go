package vswitch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
)

// StationKey is a station of a VNI.
type StationKey struct {
	VNI uint32
	MAC MAC
}

// AddressKey is an IP address in a VNI.
type AddressKey struct {
	VNI uint32
	IP  netip.Addr
}

// FloodKey is a VTEP that gets what is for all of a VNI, and for nobody known.
type FloodKey struct {
	VNI  uint32
	VTEP netip.Addr
}

// Station is a station of this host in a VNI whose Overlay is Told.
type Station struct {
	StationKey
	IPs   []netip.Addr // as ARP and neighbor discovery said, sorted
	Fixed bool         // its address belongs to a port or a gateway
}

// MaxHeard is how many IP addresses are known of the stations at one port. What it
// says of further ones is not taken down, so that it cannot push out another port's.
const MaxHeard = 4096

// Told is what the switches are told of stations on other hosts.
type Told struct {
	Stations  map[StationKey]netip.Addr // and their VTEPs
	Addresses map[AddressKey]MAC        // for which the switches answer
	Floods    map[FloodKey]bool
}

// NewTold is one that tells nothing.
func NewTold() Told {
	return Told{map[StationKey]netip.Addr{}, map[AddressKey]MAC{}, map[FloodKey]bool{}}
}

// Teller is a Driver whose switches can be told who is on other hosts.
type Teller interface {
	// News is another number when Stations may be others than before.
	News(ctx context.Context) (uint64, error)
	// Stations is those behind ports and gateways, but an anycast one's own address.
	Stations(ctx context.Context) ([]Station, error)
	// Told is what the switches know.
	Told(ctx context.Context) (Told, error)
	// Tell changes that. A station that is seen here meanwhile stays here where it is
	// gone there. What is told of VNIs that this dataplane has not is no error.
	Tell(ctx context.Context, add, gone Told) error
}

func (m *Mux) tellers(f func(Teller) error) error {
	var errs []error
	for _, plane := range m.planes() {
		if t, ok := m.drivers[plane].(Teller); ok {
			if err := f(t); err != nil {
				errs = append(errs, fmt.Errorf("dataplane %s: %w", plane, err))
			}
		}
	}
	return errors.Join(errs...)
}

// News is the sum over all drivers that are Tellers.
func (m *Mux) News(ctx context.Context) (sum uint64, err error) {
	err = m.tellers(func(t Teller) error {
		n, err := t.News(ctx)
		sum += n
		return err
	})
	return sum, err
}

// Stations is those of all drivers that are Tellers.
func (m *Mux) Stations(ctx context.Context) (all []Station, err error) {
	err = m.tellers(func(t Teller) error {
		list, err := t.Stations(ctx)
		all = append(all, list...)
		return err
	})
	return all, err
}

// Told merges what all drivers know that are Tellers.
func (m *Mux) Told(ctx context.Context) (Told, error) {
	all := NewTold()
	err := m.tellers(func(t Teller) error {
		told, err := t.Told(ctx)
		maps.Copy(all.Stations, told.Stations)
		maps.Copy(all.Addresses, told.Addresses)
		maps.Copy(all.Floods, told.Floods)
		return err
	})
	return all, err
}

// Tell tells all drivers that are Tellers.
func (m *Mux) Tell(ctx context.Context, add, gone Told) error {
	return m.tellers(func(t Teller) error { return t.Tell(ctx, add, gone) })
}

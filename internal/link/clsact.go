package link

import (
	"errors"
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddClsact gives a link the place for filters, tc-clsact(8), and tells whether
// there was none before.
func (s *Space) AddClsact(ifindex int) (fresh bool, err error) {
	err = s.QdiscAdd(clsact(ifindex))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return false, fmt.Errorf("add clsact: %w", err)
	}
	return err == nil, nil
}

func clsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(math.MaxUint16, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// Filters is the filters at a link's ingress; none when there is no place for
// them, or no link.
func (s *Space) Filters(ifindex int) ([]netlink.Filter, error) {
	return s.filtersAt(ifindex, netlink.HANDLE_MIN_INGRESS)
}

// FiltersOut is the same at the link's egress.
func (s *Space) FiltersOut(ifindex int) ([]netlink.Filter, error) {
	return s.filtersAt(ifindex, netlink.HANDLE_MIN_EGRESS)
}

func (s *Space) filtersAt(ifindex int, parent uint32) ([]netlink.Filter, error) {
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	list, err := Dump(func() ([]netlink.Filter, error) { return s.FilterList(l, parent) })
	if Gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	return list, nil
}

// RemoveClsact takes the place for filters away, unless there are filters in it.
func (s *Space) RemoveClsact(ifindex int) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		left, err := s.filtersAt(ifindex, parent)
		if err != nil || len(left) > 0 {
			return err
		}
	}
	if err := s.QdiscDel(clsact(ifindex)); err != nil && !Gone(err) {
		return fmt.Errorf("remove clsact: %w", err)
	}
	return nil
}

// Gone tells of a tc or bridge command's error that what it names, or the link
// under it, is not there.
func Gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

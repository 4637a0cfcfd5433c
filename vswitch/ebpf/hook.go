package ebpf

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What marks a filter as ours. Others' filters run before those of a higher
// priority number, so there is room on both sides.
const (
	filterPriority = 0x7270
	filterHandle   = 1
	filterName     = "ripstop"
)

// hook is our filter on a device, as it was seen.
type hook struct {
	program ebpf.ProgramID
	slot    uint32
}

// filterOf is our filter's place on a device.
func filterOf(ifindex int) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: ifindex,
		Handle:    filterHandle,
		Parent:    netlink.HANDLE_MIN_INGRESS,
		Priority:  filterPriority,
		Protocol:  unix.ETH_P_ALL,
	}
}

// attach makes the program see every frame that enters through the device. The
// filter that was there before, if it is ours, is replaced in one step.
func attach(h *netlink.Handle, ifindex int, prog *ebpf.Program, slot uint32) error {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(math.MaxUint16, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := h.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	if _, _, err := find(h, ifindex); err != nil {
		return err
	}
	err := h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: filterOf(ifindex), ClassId: slot, Fd: prog.FD(), Name: filterName, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// find looks for our filter on a device.
func find(h *netlink.Handle, ifindex int) (hook, bool, error) {
	all, err := h.FilterList(linkAt(ifindex), netlink.HANDLE_MIN_INGRESS)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return hook{}, false, nil // no qdisc, or no device any more
	}
	if err != nil {
		return hook{}, false, fmt.Errorf("list filters: %w", err)
	}
	for _, f := range all {
		a := f.Attrs()
		if a.Priority != filterPriority || a.Handle != filterHandle {
			continue
		}
		b, ok := f.(*netlink.BpfFilter)
		if !ok || b.Name != filterName {
			return hook{}, false, fmt.Errorf("filter with priority %d: it is not ripstop's: give it another priority", filterPriority)
		}
		return hook{ebpf.ProgramID(b.Id), b.ClassId}, true, nil
	}
	return hook{}, false, nil
}

// detach takes our filter from a device, and the qdisc when nothing else is in it.
func detach(h *netlink.Handle, ifindex int) error {
	_, ok, err := find(h, ifindex)
	if err != nil || !ok {
		return err
	}
	if err := h.FilterDel(&netlink.BpfFilter{FilterAttrs: filterOf(ifindex)}); err != nil && !gone(err) {
		return fmt.Errorf("remove filter: %w", err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		others, err := h.FilterList(linkAt(ifindex), parent)
		if gone(err) {
			return nil
		}
		if err != nil || len(others) > 0 {
			return err
		}
	}
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(math.MaxUint16, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := h.QdiscDel(qdisc); err != nil && !gone(err) {
		return fmt.Errorf("remove clsact: %w", err)
	}
	return nil
}

func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

func linkAt(ifindex int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
}

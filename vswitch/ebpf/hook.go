package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
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
	before  string // others' program that gets frames before it and may keep them, empty for none
}

// takenError says that another's filter stands where ours belongs.
type takenError struct{}

// Error is what, why and what to do.
func (*takenError) Error() string {
	return fmt.Sprintf("filter of priority %d: it is not ripstop's: give it another priority", filterPriority)
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
func attach(h *link.Space, ifindex int, prog *ebpf.Program, slot uint32) error {
	fresh, err := h.AddClsact(ifindex)
	if err != nil {
		return err
	}
	if !fresh { // what is new is empty
		if _, _, _, err := find(h, ifindex, nil); err != nil {
			return err
		}
	}
	err = h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: filterOf(ifindex), ClassId: slot, Fd: prog.FD(), Name: filterName, DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// find looks for our filter on a device, and gives all at ingress. What it learns of
// others' programs it adds to known, which may be nil.
func find(h *link.Space, ifindex int, known verdicts) (hook, bool, []netlink.Filter, error) {
	all, err := h.Filters(ifindex)
	if err != nil {
		return hook{}, false, nil, err
	}
	for _, f := range all {
		a := f.Attrs()
		if a.Priority != filterPriority || a.Handle != filterHandle {
			continue
		}
		b, ok := f.(*netlink.BpfFilter)
		if !ok || b.Name != filterName {
			return hook{}, false, all, &takenError{}
		}
		before, err := known.before(ifindex, all)
		return hook{ebpf.ProgramID(b.Id), b.ClassId, before}, true, all, err
	}
	return hook{}, false, all, nil
}

// detach takes our filter from a device, and the qdisc when nothing else is in it.
func detach(h *link.Space, ifindex int) error {
	_, ok, _, err := find(h, ifindex, nil)
	var taken *takenError
	if errors.As(err, &taken) {
		return nil
	}
	if err != nil || !ok {
		return err
	}
	if err := h.FilterDel(&netlink.BpfFilter{FilterAttrs: filterOf(ifindex)}); err != nil && !link.Gone(err) {
		return fmt.Errorf("remove filter: %w", err)
	}
	return h.RemoveClsact(ifindex)
}

func isUp(l *netlink.LinkAttrs) bool { return l.RawFlags&unix.IFF_UP != 0 }

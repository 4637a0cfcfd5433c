package ebpf

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	ebpflink "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// verdicts remembers of others' programs whether they hand on all frames. One of
// them often stands at all devices.
type verdicts map[ebpf.ProgramID]bool

// before names what gets a device's frames before our filter and may keep them, ""
// for nothing. All are the filters at ingress.
func (v verdicts) before(ifindex int, all []netlink.Filter) (string, error) {
	own := map[uint16]bool{
		fromPriority: hookAt(all, fromPriority, fromName).program != 0,
		sendPriority: hookAt(all, sendPriority, sendName).program != 0,
	}
	for _, f := range all {
		a := f.Attrs()
		if a.Priority >= filterPriority || own[a.Priority] {
			continue
		}
		looks, err := v.looksOnly(f)
		if err != nil {
			return "", err
		}
		if !looks {
			return fmt.Sprintf("a filter of priority %d (%s)", a.Priority, f.Type()), nil
		}
	}
	return v.onTCX(ifindex)
}

// looksOnly tells of a filter whether it hands all frames on to those after it: its
// actions end in "continue". Those that end in "pipe", as mirred's do unless told
// otherwise, end the walk over the filters, too (tcf_classify of
// net/sched/cls_api.c), and so does a match without an action.
func (v verdicts) looksOnly(f netlink.Filter) (bool, error) {
	var actions []netlink.Action
	switch f := f.(type) {
	case *netlink.U32:
		if f.Sel == nil {
			return true, nil // a table of it
		}
		actions = f.Actions
	case *netlink.MatchAll:
		actions = f.Actions
	case *netlink.Flower:
		actions = f.Actions
	case *netlink.BpfFilter:
		if !f.DirectAction {
			return false, nil
		}
		return v.handsOn(ebpf.ProgramID(f.Id))
	}
	for i, a := range actions {
		verdict := a.Attrs().Action
		if verdict == netlink.TC_ACT_PIPE && i < len(actions)-1 {
			continue
		}
		if verdict != netlink.TC_ACT_UNSPEC {
			return false, nil
		}
	}
	return len(actions) > 0, nil
}

// onTCX names a program on the device's tcx hook, which comes before all filters,
// unless each hands on all frames. A kernel before 6.6 has no such hook.
func (v verdicts) onTCX(ifindex int) (string, error) {
	r, err := ebpflink.QueryPrograms(ebpflink.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list programs on tcx: %w", err)
	}
	for _, p := range r.Programs {
		if on, err := v.handsOn(p.ID); err != nil || !on {
			return fmt.Sprintf("program %d on tcx", p.ID), err
		}
	}
	return "", nil
}

func (v verdicts) handsOn(id ebpf.ProgramID) (bool, error) {
	if on, known := v[id]; known {
		return on, nil
	}
	prog, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // gone since it was seen
	}
	if err != nil {
		return false, fmt.Errorf("open program %d: %w", id, err)
	}
	info, err := prog.Info()
	if err = errors.Join(err, prog.Close()); err != nil {
		return false, fmt.Errorf("read program %d: %w", id, err)
	}
	code, err := info.Instructions()
	on := err == nil && alwaysHandsOn(code) // who may not read it does not know
	if v != nil {
		v[id] = on
	}
	return on, nil
}

// alwaysHandsOn tells of a program on tc whether it does nothing but look: each way
// to its end sets the verdict "unspec" (tcx: "next") just before. It is false for some
// of which that is true.
func alwaysHandsOn(code asm.Instructions) bool {
	targets := map[asm.RawInstructionOffset]bool{}
	for at := code.Iterate(); at.Next(); {
		in := at.Ins
		op := in.OpCode.JumpOp()
		switch {
		case !in.OpCode.Class().IsJump() || op == asm.Exit:
		case op == asm.Call:
			if in.Src == asm.R0 && in.Constant == int64(asm.FnTailCall) {
				return false
			}
		case in.OpCode.Class() == asm.Jump32Class && op == asm.Ja:
			targets[at.Offset+1+asm.RawInstructionOffset(in.Constant)] = true
		default:
			targets[at.Offset+1+asm.RawInstructionOffset(in.Offset)] = true
		}
	}
	var last asm.Instruction
	ends := false
	for at := code.Iterate(); at.Next(); last = *at.Ins {
		if !at.Ins.OpCode.Class().IsJump() || at.Ins.OpCode.JumpOp() != asm.Exit {
			continue
		}
		set := last.OpCode == asm.Mov.Op(asm.ImmSource) || last.OpCode == asm.Mov.Op32(asm.ImmSource)
		if !set || last.Dst != asm.R0 || int32(last.Constant) != netlinkUnspec || targets[at.Offset] {
			return false
		}
		ends = true
	}
	return ends
}

// netlinkUnspec is TC_ACT_UNSPEC of linux/pkt_cls.h, and TCX_NEXT of linux/bpf.h.
const netlinkUnspec = -1

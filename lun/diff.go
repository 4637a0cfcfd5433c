package lun

import (
	"fmt"
	"maps"
	"slices"
)

// Diff is the steps that turn have into want: LUNs and then pools out of
// service, then pools and then LUNs into service or changed, each sorted by
// name. What a file cannot change is a Refuse.
func Diff(want, have State) []Step {
	var out []Step
	for _, name := range slices.Sorted(maps.Keys(have.LUNs)) {
		if _, ok := want.LUNs[name]; !ok {
			out = append(out, CloseLUN{name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.Pools)) {
		if _, ok := want.Pools[name]; !ok {
			out = append(out, ClosePool{name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.Pools)) {
		to := want.Pools[name]
		from, ok := have.Pools[name]
		switch {
		case !ok:
			out = append(out, OpenPool{name, to})
		case from.Fault != "":
			out = append(out, Refuse{"pool/" + name, from.Fault})
		case from.Path != to.Path:
			out = append(out, refusePath(name, from.Path, to.Path))
		case from.Kind != to.Kind:
			out = append(out, refuseKind(name, from.Kind, to.Kind))
		case from != to:
			out = append(out, SetPool{name, from, to})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.LUNs)) {
		from, ok := have.LUNs[name]
		if !ok {
			if why := want.LUNs[name].Encryption.Missing; why != "" {
				out = append(out, Refuse{"lun/" + name, "LUN " + name + ": " + why})
				continue
			}
			out = append(out, OpenLUN{name, want.LUNs[name]})
			continue
		}
		out = append(out, Change(name, from, want.LUNs[name])...)
	}
	return out
}

// Change is the steps for a LUN that stays in service. No step mends a fault, but
// as a Refuse it is not overlooked. What is kept for it is let go before it grows,
// and asked for after.
func Change(name string, from, to LUN) []Step {
	if from.Fault != "" {
		return []Step{Refuse{"lun/" + name, from.Fault}}
	}
	if from.Pool != to.Pool && from.Ready == to.Pool {
		return []Step{SwitchLUN{name, from.Pool, to.Pool}}
	}
	steps, placed := changeLegs(name, from, to)
	if err := Unchangeable(name, placed, to); err != nil {
		return []Step{Refuse{"lun/" + name, "LUN " + name + ": " + err.Error()}}
	}
	if from.Encryption != to.Encryption {
		steps = append(steps, RekeyLUN{name, from.Encryption, to.Encryption})
	}
	if from.Thick && !to.Thick {
		steps = append(steps, ReserveLUN{name, to.Size, false})
	}
	if from.Size < to.Size {
		steps = append(steps, GrowLUN{name, from.Size, to.Size})
	}
	if to.Thick && !from.Thick {
		steps = append(steps, ReserveLUN{name, to.Size, true})
	}
	if placed.Away != "" {
		steps = append(steps, ReturnLeg{name, placed.Away})
	}
	return steps
}

// Unchangeable is why the LUN as it is cannot become the LUN as wanted without
// the operator's own hand: it lies in another pool, has other blocks, would
// shrink, or is encrypted otherwise. It is nil when growing is enough. The text does not name the LUN first.
func Unchangeable(name string, is, want LUN) error {
	switch {
	case is.Pool != want.Pool:
		return fmt.Errorf("its data are in pool %s and do not move to pool %s by a file: "+
			"`ripstop lun move %s --pool %s` moves them while they are in use; until then write `pool: %s`",
			is.Pool, want.Pool, name, want.Pool, is.Pool)
	case is.Block != want.Block:
		return fmt.Errorf("its blocks have %d bytes, and %d would make its data unreadable: "+
			"write `block: %d`, or copy the data to a new LUN", is.Block, want.Block, is.Block)
	case is.Size > want.Size:
		return fmt.Errorf("it has %s and does not shrink to %s, which would cut off data: "+
			"write `size: %s`, or copy the data to a smaller LUN",
			bytesText(is.Size), bytesText(want.Size), bytesText(is.Size))
	}
	return is.Encryption.Unchangeable(want.Encryption)
}

func refusePath(name, from, to string) Step {
	return Refuse{"pool/" + name, fmt.Sprintf("pool %s: it is in service at %s and does not move to %s by a file: "+
		"stop ripstop and move the directory, or give the new pool another name", name, from, to)}
}

func refuseKind(name string, from, to Kind) Step {
	return Refuse{"pool/" + name, fmt.Sprintf("pool %s: it is %s and does not become %s: write `kind: %s`, "+
		"or make a %s pool in another place and copy the data", name, from, to, from, to)}
}

func (p Pool) limits() string {
	past := ""
	if p.Direct {
		past = " past the page cache"
	}
	return fmt.Sprintf("%s, %s%s, promised up to %g times", p.Kind, bytesText(p.Size), past, p.Overcommit)
}

// Waiting is the LUNs of which a leg is being brought up to date, by "lun/NAME".
func (s State) Waiting() map[string]string {
	out := map[string]string{}
	for name, l := range s.LUNs {
		if l.Syncing != "" {
			out["lun/"+name] = "its leg in pool " + l.Syncing + " is being brought up to date: `ripstop get lun " + name + "` says how far that is"
		}
	}
	return out
}

// Describe is one line for each object, by "pool/NAME" and "lun/NAME".
func (s State) Describe() map[string]string {
	out := make(map[string]string, len(s.Pools)+len(s.LUNs))
	for name, p := range s.Pools {
		out["pool/"+name] = fmt.Sprintf("%s in %s", p.limits(), p.Path)
	}
	for name, l := range s.LUNs {
		more := ""
		if l.Thick {
			more = ", thick"
		}
		if l.Encryption.On() {
			more += ", encrypted"
		}
		in := "pool " + l.Pool
		if l.Mirror != "" {
			in = "pools " + l.Pool + " and " + l.Mirror
		}
		out["lun/"+name] = fmt.Sprintf("%s in %s, %d-byte blocks%s", bytesText(l.Size), in, l.Block, more)
	}
	return out
}

// bytesText is n in the largest unit of the file that divides it.
func bytesText(n int64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; i < len(units)-1 && n != 0 && n%1024 == 0; i++ {
		n /= 1024
	}
	return fmt.Sprintf("%d%s", n, units[i])
}

package main

import (
	"context"
	"net/http"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/lun"
)

// copyLUNNow brings a LUN up to date elsewhere.
func (d *daemon) copyLUNNow(ctx context.Context, ask v1.CopyLUN) (v1.CopiedLUN, error) {
	if _, err := d.knownLUN("copy", ask.Name); err != nil {
		return v1.CopiedLUN{}, err
	}
	c := d.config().LUNs[ask.Name].Copy
	if c == nil {
		return v1.CopiedLUN{}, refused(http.StatusConflict, "copy LUN %s: the file does not say where to: give the LUN a `copy:` there", ask.Name)
	}
	if err := d.freeOfMoves("copy", ask.Name); err != nil {
		return v1.CopiedLUN{}, err
	}
	lag, err := d.drivers.copies.Now(ctx, ask.Name, ask.Resync)
	if err != nil {
		return v1.CopiedLUN{}, refused(http.StatusConflict, "copy LUN %s: %v", ask.Name, err)
	}
	return v1.CopiedLUN{Name: ask.Name, Target: c.Target, Snapshot: lag.Snapshot, Taken: lag.Taken.UTC()}, nil
}

// copied is how the copies of LUNs stand, by LUN.
func (i inventory) copied(ctx context.Context, now time.Time) (map[string]*v1.LUNCopy, error) {
	all, err := i.drivers.copies.Observe(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]*v1.LUNCopy{}
	for name, c := range all.Of {
		seen := all.Seen[name]
		x := &v1.LUNCopy{
			Portal: c.Portal, Target: c.Target, LUNs: []int{}, Every: c.Interval(),
			Snapshot: seen.Snapshot, Taken: sometime(seen.Taken.UTC()), Behind: seen.Behind, Left: seen.Left, Trouble: seen.Trouble,
		}
		for _, n := range c.LUNs {
			x.LUNs = append(x.LUNs, int(n))
		}
		if x.Taken != nil {
			x.Lag = max(0, now.Sub(*x.Taken).Seconds())
		}
		out[name] = x
	}
	return out, nil
}

// copies is the LUNs and snapshots here that are copies of LUNs of other hosts, as
// they say themselves.
func (i inventory) copies(ctx context.Context) ([]v1.Copy, error) {
	var names []string
	for _, l := range i.drivers.lun.Stats().LUNs {
		names = append(names, l.Name)
		for _, s := range i.drivers.lun.SnapshotsOf(l.Name) {
			names = append(names, s)
		}
	}
	var out []v1.Copy
	for _, name := range names {
		v, err := i.drivers.lun.Volume(name)
		if err != nil {
			continue // it went out of service a moment ago
		}
		c, ok, err := copyIn(ctx, v)
		if err != nil { // the others can be read
			out = append(out, v1.Copy{Name: name, Problem: "its label cannot be read: " + err.Error()})
			continue
		}
		if ok {
			c.Name = name
			out = append(out, c)
		}
	}
	return out, nil
}

// copyIn is what a LUN says that it is a copy of.
func copyIn(ctx context.Context, v lun.Volume) (v1.Copy, bool, error) {
	l, ok, err := readLabel(ctx, v)
	if err != nil || !ok {
		return v1.Copy{}, false, err
	}
	return v1.Copy{Of: l.LUN, OfID: l.ID, Host: l.Host, Size: l.Size, Whole: l.Whole, Taken: l.Snapshot.Taken, Written: l.Written}, true, nil
}

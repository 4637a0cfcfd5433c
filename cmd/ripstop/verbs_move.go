package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	v1 "ripstop/api/v1"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/lun"
)

// moveLUN begins a move, or ends one, and waits for what comes of it if asked to. A
// move does not end with who asked for it.
func (d *daemon) moveLUN(ctx context.Context, ask v1.MoveLUN) (v1.MovedLUN, error) {
	if ask.Cancel {
		return d.cancelMove(ctx, ask)
	}
	x, m, err := d.beginMove(ctx, ask)
	if err != nil {
		return v1.MovedLUN{}, err
	}
	out := v1.MovedLUN{Name: ask.Name, From: m.From, Pool: m.To, Notes: []string{}}
	if !ask.Wait {
		return out, nil
	}
	select {
	case <-x.decided:
	case <-ctx.Done():
		return v1.MovedLUN{}, ctx.Err()
	}
	if x.err != nil {
		return v1.MovedLUN{}, moveRefusal(x.err, m)
	}
	out.Moved = true
	if p, stale := d.made().Stale(d.config())[ask.Name]; stale {
		out.Notes = append(out.Notes, "the file says pool "+p.Said+": write `pool: "+p.Is+"` there")
	}
	return out, nil
}

// beginMove records a move, or finds the same one under way.
func (d *daemon) beginMove(ctx context.Context, ask v1.MoveLUN) (*movement, beside.Move, error) {
	d.change.Lock()
	defer d.change.Unlock()
	l, err := d.knownLUN("move", ask.Name)
	if err != nil {
		return nil, beside.Move{}, err
	}
	made := d.made()
	if m, under := made.Moves[ask.Name]; under && m.Phase == beside.Copying && m.To == ask.Pool {
		return d.movement(ask.Name, ask.Mark), m, nil
	}
	if err := d.movable(ctx, ask, l); err != nil {
		return nil, beside.Move{}, err
	}
	m := beside.Move{From: l.Pool, To: ask.Pool, Phase: beside.Copying, Alone: ask.Alone}
	if err := d.save(made.WithMove(ask.Name, m)); err != nil {
		return nil, beside.Move{}, err
	}
	x := d.movement(ask.Name, ask.Mark)
	select {
	case d.moveWake <- struct{}{}:
	default: // somebody looks soon
	}
	d.log.Info("a move begins", "lun", ask.Name, "from", m.From, "pool", m.To)
	return x, m, nil
}

// movable refuses what cannot be moved, before anything is done for it.
func (d *daemon) movable(ctx context.Context, ask v1.MoveLUN, l lun.LUNStats) error {
	name, pools := ask.Name, d.config().Pools
	_, known := pools[ask.Pool]
	switch {
	case ask.Pool == "":
		return refused(http.StatusUnprocessableEntity, "move LUN %s: name the pool that it shall be in", name)
	case !known:
		return refused(http.StatusNotFound, "move LUN %s: there is no pool %q%s", name, ask.Pool, hintOr(ask.Pool, slices.Collect(maps.Keys(pools)), "pool"))
	case ask.Pool == l.Pool:
		return refused(http.StatusConflict, "move LUN %s: it is in pool %s: name another pool", name, l.Pool)
	case !d.drivers.lun.HasPool(ask.Pool):
		return refused(http.StatusConflict, "move LUN %s: pool %s is out of service: %s", name, ask.Pool, d.reason("pool/"+ask.Pool))
	}
	if _, unfinished := d.made().Unfinished[name]; unfinished {
		return refused(http.StatusConflict, "move LUN %s: a disk is being imported into it: wait until that is done", name)
	}
	if d.isExported(name) { // who reads it would have it closed when the LUN is there
		return refused(http.StatusConflict, "move LUN %s: it is being exported: wait until that is done", name)
	}
	if err := d.freeOfMoves("move", name); err != nil {
		return err
	}
	if len(l.Legs) > 0 {
		return refused(http.StatusConflict, "move LUN %s: the LUN is mirrored: write the new pool in its `pools:` instead of the one that it shall leave", name)
	}
	if err := d.serveNoSnapshots(ctx, name); err != nil {
		return refused(http.StatusConflict, "move LUN %s: %v", name, err)
	}
	past, used := d.snapshotsOf(name), l.Used
	if len(past) > lun.MostMoved {
		return refused(http.StatusConflict, "move LUN %s: it has %d snapshots, and moves with at most %d, also where they are left behind: delete some", name, len(past), lun.MostMoved)
	}
	for _, s := range d.drivers.lun.Snapshots() {
		if of, _, _ := lun.SplitSnapshot(s.Name); of == name && !ask.Alone {
			used += s.Exclusive // at least
		}
	}
	for _, p := range d.drivers.lun.Stats().Pools {
		if p.Name == ask.Pool && p.Kind == lun.Raw && d.config().LUNs[name].Snapshots.Every > 0 {
			return refused(http.StatusConflict, "move LUN %s: the file has snapshots made of it, and pool %s is raw and takes none: take `snapshots:` out of the file first, or name a pool of kind thin", name, p.Name)
		}
		if p.Name == ask.Pool && p.Kind == lun.Raw && d.config().LUNs[name].Copy != nil {
			return refused(http.StatusConflict, "move LUN %s: the file has it copied elsewhere, and pool %s is raw and takes no snapshots, of which copies are made: take `copy:` out of the file first, or name a pool of kind thin", name, p.Name)
		}
		if p.Name == ask.Pool && p.Kind == lun.Raw && len(past) > 0 && !ask.Alone {
			return refused(http.StatusConflict, "move LUN %s: it has snapshots, and pool %s is raw and takes none: %s: name a pool of kind thin, or leave them behind, which deletes them: `ripstop lun move %s --pool %s --without-snapshots`", name, p.Name, strings.Join(past, ", "), name, p.Name)
		}
		if room := p.Size - p.Used - p.Reserved; p.Name == ask.Pool && used > room {
			return refused(http.StatusInsufficientStorage, "move LUN %s: it has %s of data and pool %s room for %s: delete LUNs or snapshots there, or give the pool more size", name, size(used), p.Name, size(max(0, room)))
		}
	}
	return nil
}

// serveNoSnapshots refuses to move a LUN of which a target serves a snapshot: that would
// be another disk for who has it in use.
func (d *daemon) serveNoSnapshots(ctx context.Context, name string) error {
	for _, s := range d.snapshotsOf(name) {
		if f := d.commit.Former(); f != nil && names(f, s) {
			return fmt.Errorf("a target of revision %d serves its snapshot %s, and comes back without a confirm: run `ripstop confirm` first", d.commit.Now().Trial.Former, s)
		}
		at, err := d.servedAt(ctx, s)
		if err != nil {
			return err
		}
		if len(at) > 0 {
			return fmt.Errorf("target %s serves its snapshot %s: take that out of the file's target, or serve a clone: `ripstop lun clone %s NEW`", strings.Join(at, ", "), s, s)
		}
	}
	return nil
}

// serveNoMoving refuses a file that has a target serve a snapshot of a LUN on its way, other
// than the file that runs: when the LUN is there it would be another disk. A daemon that
// starts with such a file has the move end instead.
func serveNoMoving(next, runs *config.Config, moves map[string]beside.Move) error {
	for _, iqn := range slices.Sorted(maps.Keys(next.Targets)) {
		luns := next.Targets[iqn].LUNs
		for _, n := range slices.Sorted(maps.Keys(luns)) {
			of, _, snapshot := lun.SplitSnapshot(luns[n])
			m, moving := moves[of]
			_, goesOn := runs.Pools[m.To]
			if snapshot && moving && m.Phase == beside.Copying && goesOn && !names(runs, luns[n]) {
				return refused(http.StatusConflict, "target %s, LUN %d: it is snapshot %s, and LUN %s is being moved to pool %s: wait until that is done, or end it with `ripstop lun move %s --cancel`, or serve a clone", iqn, n, luns[n], of, m.To, of)
			}
		}
	}
	return nil
}

// freeOfMoves refuses a verb that a move does not bear. What is left to delete of one
// that was done bears all but the next move.
func (d *daemon) freeOfMoves(verb, name string) error {
	m, ok := d.made().Moves[name]
	switch {
	case !ok:
		return nil
	case m.Phase == beside.Copying:
		return refused(http.StatusConflict, "%s LUN %s: it is being moved to pool %s: wait until that is done, or end it with `ripstop lun move %s --cancel`", verb, name, m.To, name)
	case m.Phase == beside.Undoing:
		return refused(http.StatusConflict, "%s LUN %s: what a move that was ended left in pool %s is being deleted: wait until that is done, which takes the pool in service", verb, name, m.To)
	case verb != "move":
		return nil
	}
	return refused(http.StatusConflict, "move LUN %s: what it left in pool %s when it was moved to pool %s is being deleted: wait until that is done, which takes both pools in service", name, m.From, m.To)
}

// cancelMove ends a move and waits until the LUN is known to stay.
func (d *daemon) cancelMove(ctx context.Context, ask v1.MoveLUN) (v1.MovedLUN, error) {
	d.change.Lock()
	m, ok := d.made().Moves[ask.Name]
	var x *movement
	if ok {
		x = d.movement(ask.Name, "")
		x.close.Do(func() { close(x.cancel) })
	}
	d.change.Unlock()
	switch {
	case !ok:
		if _, err := d.knownLUN("move", ask.Name); err != nil {
			return v1.MovedLUN{}, err
		}
		return v1.MovedLUN{}, refused(http.StatusConflict, "cancel the move of LUN %s: it is not being moved: `ripstop get lun` says where it is", ask.Name)
	case m.Phase == beside.Done:
		return v1.MovedLUN{}, refused(http.StatusConflict, "cancel the move of LUN %s: it is in pool %s already: move it back with `ripstop lun move %s --pool %s`", ask.Name, m.To, ask.Name, m.From)
	}
	select {
	case <-x.decided:
	case <-ctx.Done():
		return v1.MovedLUN{}, ctx.Err()
	}
	if x.err == nil {
		return v1.MovedLUN{}, refused(http.StatusConflict, "cancel the move of LUN %s: it had just been done: it is in pool %s", ask.Name, m.To)
	}
	if !errors.Is(x.err, errCancelled) && !errors.Is(x.err, errEnded) {
		return v1.MovedLUN{}, moveRefusal(x.err, m)
	}
	return v1.MovedLUN{Name: ask.Name, From: m.From, Pool: m.From, Notes: []string{}}, nil
}

// moveRefusal gives an error of a move the status of what it says.
func moveRefusal(err error, m beside.Move) error {
	stays := "; the LUN stays in pool " + m.From
	switch {
	case errors.Is(err, lun.ErrNoSpace):
		return refused(http.StatusInsufficientStorage, "%v: delete LUNs or snapshots of pool %s, or give it more size%s", err, m.To, stays)
	case errors.Is(err, errCancelled):
		return refused(http.StatusConflict, "%v%s", err, stays)
	case errors.Is(err, errStops):
		return refused(http.StatusServiceUnavailable, "%v", err)
	}
	return refused(http.StatusConflict, "%v%s", err, stays)
}

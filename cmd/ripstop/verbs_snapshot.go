package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/controller/config"
	"ripstop/iscsi"
	"ripstop/lun"
)

// known finds a LUN in service, or says which it may be.
func (d *daemon) knownLUN(verb, name string) (lun.LUNStats, error) {
	all := d.drivers.lun.Stats().LUNs
	names := make([]string, len(all))
	for i, l := range all {
		if l.Name == name {
			return l, nil
		}
		names[i] = l.Name
	}
	for _, l := range d.drivers.lun.Retained() {
		if l.Name == name {
			return l, refused(http.StatusConflict, "%s LUN %s: it is out of service, pool %s keeps its data: name it in the file to have it back", verb, name, l.Pool)
		}
	}
	return lun.LUNStats{}, unknownLUN(verb, name, names)
}

// knownSnapshot finds "LUN@SNAPSHOT", or says which it may be.
func (d *daemon) knownSnapshot(verb, ref string) (lun.SnapshotStats, error) {
	of, _, ok := lun.SplitSnapshot(ref)
	if !ok {
		return lun.SnapshotStats{}, refused(http.StatusUnprocessableEntity, "%s %s: it is no snapshot: write LUN@SNAPSHOT, `ripstop get snapshot` lists them", verb, ref)
	}
	var names []string
	for _, s := range d.drivers.lun.Snapshots() {
		if s.Name == ref {
			return s, nil
		}
		names = append(names, s.Name)
	}
	if own := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, of+"@") }); len(own) > 0 {
		names = own
	}
	return lun.SnapshotStats{}, refused(http.StatusNotFound, "%s %s: there is no such snapshot%s", verb, ref, hintOr(ref, names, "snapshot"))
}

// newSnapshotName refuses what is no name, and those that schedules give.
func newSnapshotName(name string) error {
	if err := config.CheckName(name); err != nil {
		return refused(http.StatusUnprocessableEntity, "snapshot: %v", err)
	}
	if strings.HasPrefix(name, lun.ScheduledPrefix) {
		return refused(http.StatusUnprocessableEntity, "snapshot %s: names that begin with %s are those of schedules, which delete them: choose another name", name, lun.ScheduledPrefix)
	}
	if lun.IsCopyName(name) {
		return refused(http.StatusUnprocessableEntity, "snapshot %s: such names are those of copies, which delete them: choose another name", name)
	}
	return nil
}

// snapshotLUNs keeps the present of LUNs. It changes nothing that is applied, so
// a disk that hangs holds up no apply.
func (d *daemon) snapshotLUNs(ctx context.Context, ask v1.NewSnapshot) ([]v1.Snapshot, error) {
	if err := newSnapshotName(ask.Name); err != nil {
		return nil, err
	}
	if len(ask.LUNs) == 0 {
		return nil, refused(http.StatusUnprocessableEntity, "snapshot %s: name the LUNs that it is of", ask.Name)
	}
	for i, name := range ask.LUNs {
		if strings.Contains(name, "@") {
			return nil, refused(http.StatusUnprocessableEntity, "snapshot %s: a snapshot does not change and needs no snapshot: name its LUN, or make a clone of it", name)
		}
		if _, err := d.knownLUN("snapshot", name); err != nil {
			return nil, err
		}
		if err := d.freeOfMoves("snapshot", name); err != nil {
			return nil, err
		}
		if slices.Contains(ask.LUNs[:i], name) {
			return nil, refused(http.StatusUnprocessableEntity, "snapshot %s: LUN %s is named twice", ask.Name, name)
		}
		if slices.Contains(d.snapshotsOf(name), name+"@"+ask.Name) {
			return nil, refused(http.StatusConflict, "snapshot %s@%s: it exists: choose another name", name, ask.Name)
		}
	}
	if err := d.drivers.lun.Snapshot(ctx, ask.Name, ask.LUNs...); err != nil {
		return nil, snapshotRefusal(err)
	}
	d.log.Info("snapshot made", "luns", strings.Join(ask.LUNs, ","), "snapshot", ask.Name)
	d.drivers.awake()
	i := inventory{d.drivers, d.host, d.config, d.made, d.ctl.Status}
	all, err := i.snapshots(ctx)
	return slices.DeleteFunc(all, func(s v1.Snapshot) bool { return s.Name != ask.Name || !slices.Contains(ask.LUNs, s.LUN) }), err
}

// snapshotRefusal gives an engine's error the status of what it says.
func snapshotRefusal(err error) error {
	switch {
	case errors.Is(err, lun.ErrExists):
		return refused(http.StatusConflict, "%v: choose another name", err)
	case errors.Is(err, lun.ErrUnknown), errors.Is(err, lun.ErrClosed):
		return refused(http.StatusNotFound, "%v", err)
	case errors.Is(err, lun.ErrNoSpace):
		return refused(http.StatusInsufficientStorage, "%v: delete LUNs or snapshots, or give the pool more size", err)
	case errors.Is(err, lun.ErrHangs):
		return refused(http.StatusServiceUnavailable, "%v", err)
	case errors.Is(err, lun.ErrNoSnapshots), errors.Is(err, lun.ErrMoves):
		return refused(http.StatusConflict, "%v", err)
	}
	return err
}

// cloneLUN makes a LUN beside the file's that begins as a snapshot.
func (d *daemon) cloneLUN(ctx context.Context, ask v1.NewClone) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	if _, err := d.knownSnapshot("clone", ask.Snapshot); err != nil {
		return v1.Applied{}, err
	}
	if err := d.freeLUN("clone "+ask.Snapshot+" to", ask.Name); err != nil {
		return v1.Applied{}, err
	}
	// The clone is whole in the pool before anything speaks of it: a crash in
	// between leaves it to `lun delete`, as data that nothing names.
	brief, cancel := bounded(ctx)
	defer cancel()
	l, err := d.drivers.lun.Clone(brief, ask.Snapshot, ask.Name)
	if err != nil {
		return v1.Applied{}, snapshotRefusal(err)
	}
	made := d.made().WithLUN(ask.Name, config.LUN{Pool: l.Pool, Size: l.Size, Block: l.Block, Encryption: d.encryptionOf(ask.Snapshot)})
	done, err := d.make(ctx, "clone "+ask.Snapshot+" to "+ask.Name, made)
	if err != nil {
		_, undone := briefly(ctx, d.drivers.deleteLUN, ask.Name)
		return v1.Applied{}, joined(err, undone)
	}
	d.log.Info("clone made", "snapshot", ask.Snapshot, "lun", ask.Name)
	return done, nil
}

// encryptionOf is that of a snapshot's LUN, which its clones share.
func (d *daemon) encryptionOf(snapshot string) *config.Encryption {
	of, _, _ := lun.SplitSnapshot(snapshot)
	all, _ := d.made().Merge(d.config())
	l := all.LUNs[of]
	if l.Encryption == nil && all.Pools[l.Pool].Encryption == (config.Encryption{}) {
		return &config.Encryption{} // also when the pool gets a key later
	}
	return l.Encryption
}

// joined keeps what a client is to be told as it is, unless something was added.
func joined(err, more error) error {
	if more == nil {
		return err
	}
	return errors.Join(err, more)
}

// restoreLUN makes a LUN what it was. Who has it in use would go on with what it
// remembers of it, and destroy both.
func (d *daemon) restoreLUN(ctx context.Context, ask v1.RestoreLUN) (v1.RestoredLUN, error) {
	if _, err := d.knownLUN("restore", ask.Name); err != nil {
		return v1.RestoredLUN{}, err
	}
	if _, err := d.knownSnapshot("restore", ask.Name+"@"+ask.Snapshot); err != nil {
		return v1.RestoredLUN{}, err
	}
	release, users := d.drivers.iscsi.Withhold(ask.Name)
	defer release()
	if len(users) > 0 {
		return v1.RestoredLUN{}, refused(http.StatusConflict,
			"restore LUN %s: in use by %s: unmount it there and log out, or take it out of the target, and restore it then", ask.Name, describeUsers(users))
	}
	keep := d.freeSnapshot(ask.Name, time.Now())
	// Nobody sees the LUN until it has ended, whether or not the client waits.
	if err := d.drivers.lun.Restore(context.WithoutCancel(ctx), ask.Name, ask.Snapshot, keep); err != nil {
		return v1.RestoredLUN{}, snapshotRefusal(err)
	}
	d.log.Info("LUN restored", "lun", ask.Name, "snapshot", ask.Snapshot, "kept", keep)
	return v1.RestoredLUN{Name: ask.Name, Snapshot: ask.Snapshot, Kept: ask.Name + "@" + keep}, nil
}

// freeSnapshot is a name for what a LUN was before it is restored.
func (d *daemon) freeSnapshot(name string, now time.Time) string {
	taken := map[string]bool{}
	for _, s := range d.drivers.lun.Snapshots() {
		taken[s.Name] = true
	}
	for {
		keep := now.UTC().Format("before-restore-20060102T150405Z")
		if !taken[name+"@"+keep] {
			return keep
		}
		now = now.Add(time.Second)
	}
}

// describeUsers is sessions that see a LUN, for people.
func describeUsers(sessions []iscsi.SessionInfo) string {
	var all []string
	for _, s := range sessions {
		for _, n := range s.LUNs {
			all = append(all, fmt.Sprintf("initiator %s from %s (target %s, LUN %d)", s.Initiator, s.Remote.Addr(), s.Target, n))
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// servedAt is where targets serve a LUN or snapshot, by the file or still, as
// IQN:NUMBER.
func (d *daemon) servedAt(ctx context.Context, name string) ([]string, error) {
	serving, err := d.drivers.iscsi.Observe(ctx)
	if err != nil {
		return nil, err
	}
	at := map[string]bool{}
	note := func(iqn string, luns map[uint16]string) {
		for n, of := range luns {
			if of == name {
				at[fmt.Sprintf("%s:%d", iqn, n)] = true
			}
		}
	}
	for iqn, t := range serving.Targets {
		note(iqn, t.LUNs)
	}
	for iqn, t := range d.config().Targets {
		note(iqn, t.LUNs)
	}
	return slices.Sorted(maps.Keys(at)), nil
}

// freeOfTargets refuses to delete what a target serves.
func (d *daemon) freeOfTargets(ctx context.Context, ref string) error {
	if f := d.commit.Former(); f != nil && names(f, ref) {
		return refused(http.StatusConflict, "delete %s: a target of revision %d serves it, which comes back without a confirm: run `ripstop confirm` first", ref, d.commit.Now().Trial.Former)
	}
	at, err := d.servedAt(ctx, ref)
	if err == nil && len(at) > 0 {
		err = refused(http.StatusConflict, "delete %s: target %s serves it: take it out of the file's target, apply that, and delete it then", ref, strings.Join(at, ", "))
	}
	return err
}

// deleteSnapshot destroys a snapshot. The caller holds d.change.
func (d *daemon) deleteSnapshot(ctx context.Context, ref string) (v1.DeletedLUN, error) {
	s, err := d.knownSnapshot("delete", ref)
	if err != nil {
		return v1.DeletedLUN{}, err
	}
	if err := d.freeOfTargets(ctx, ref); err != nil {
		return v1.DeletedLUN{}, err
	}
	gone, err := briefly(ctx, d.drivers.deleteSnapshot, ref)
	if err != nil {
		return v1.DeletedLUN{}, snapshotRefusal(err)
	}
	d.log.Info("snapshot deleted", "snapshot", ref, "pool", s.Pool, "freed", gone.Freed)
	d.drivers.awake()
	return v1.DeletedLUN{Name: ref, Pool: s.Pool, Freed: gone.Freed, Snapshots: []string{}}, nil
}

// snapshotsOf is the snapshots of a LUN, oldest first.
func (d *daemon) snapshotsOf(name string) []string {
	return d.drivers.lun.SnapshotsOf(name)
}

// snapshots is what the pools keep of LUNs as they were.
func (i inventory) snapshots(ctx context.Context) ([]v1.Snapshot, error) {
	serving, err := i.drivers.iscsi.Observe(ctx)
	if err != nil {
		return nil, err
	}
	at := servedBy(serving)
	var all []v1.Snapshot
	for _, s := range i.drivers.lun.Snapshots() {
		of, name, _ := lun.SplitSnapshot(s.Name)
		out := v1.Snapshot{
			Name: name, LUN: of, Pool: s.Pool, Since: s.Created.UTC(), Size: s.Size,
			Used: s.Used, Exclusive: s.Exclusive, Shared: s.Used - s.Exclusive,
			ID: hex.EncodeToString(s.ID[:]), Origin: v1.FromVerb, Targets: append([]string{}, at[s.Name]...),
		}
		if lun.IsScheduled(name) || lun.IsCopyName(name) {
			out.Origin = v1.FromTime
		}
		slices.Sort(out.Targets)
		all = append(all, out)
	}
	slices.SortStableFunc(all, func(a, b v1.Snapshot) int { return strings.Compare(a.LUN, b.LUN) })
	return all, nil
}

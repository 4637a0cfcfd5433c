package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/lun"
	"ripstop/vswitch"
)

// refused is the answer to a verb that is not carried out.
func refused(status int, format string, args ...any) error {
	return &v1.Error{Title: "refused", Status: status, Detail: fmt.Sprintf(format, args...)}
}

// verbWait is how long a verb waits for a disk while it holds up every other change.
const verbWait = 10 * time.Second

// bounded is for what a disk has to do while d.change is held: whether or not the
// client goes away it has so long, and then goes on by itself.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), verbWait, lun.ErrHangs)
}

// briefly deletes something, bounded.
func briefly(ctx context.Context, remove func(context.Context, string) (lun.Deleted, error), name string) (lun.Deleted, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return remove(ctx, name)
}

// createLUN makes a LUN beside those of the file.
func (d *daemon) createLUN(ctx context.Context, ask v1.NewLUN) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	l, err := d.newLUN("create", ask)
	if err != nil {
		return v1.Applied{}, err
	}
	return d.make(ctx, "create LUN "+ask.Name, d.made().WithLUN(ask.Name, l))
}

// newLUN is what a verb is to make beside the file, or why it is not made.
func (d *daemon) newLUN(verb string, ask v1.NewLUN) (config.LUN, error) {
	if err := d.freeLUN(verb, ask.Name); err != nil {
		return config.LUN{}, err
	}
	pools := d.config().Pools
	if ask.Block == 0 {
		ask.Block = 4096
	}
	_, pool := pools[ask.Pool]
	switch {
	case !pool:
		return config.LUN{}, refused(http.StatusNotFound, "%s LUN %s: there is no pool %q%s", verb, ask.Name, ask.Pool, hintOr(ask.Pool, slices.Collect(maps.Keys(pools)), "pool"))
	case ask.Block != 512 && ask.Block != 4096:
		return config.LUN{}, refused(http.StatusUnprocessableEntity, "%s LUN %s: block %d is neither 512 nor 4096", verb, ask.Name, ask.Block)
	case ask.Size <= 0 || ask.Size%int64(ask.Block) != 0:
		return config.LUN{}, refused(http.StatusUnprocessableEntity, "%s LUN %s: %d bytes are not a positive multiple of the block of %d", verb, ask.Name, ask.Size, ask.Block)
	}
	l := config.LUN{Pool: ask.Pool, Size: ask.Size, Block: ask.Block, Thick: ask.Thick}
	if pools[ask.Pool].Encryption == (config.Encryption{}) {
		l.Encryption = &config.Encryption{} // also when the pool gets a key later
	}
	return l, nil
}

// freeLUN refuses what is no name for a new LUN, or is taken.
func (d *daemon) freeLUN(verb, name string) error {
	if err := config.CheckName(name); err != nil {
		return refused(http.StatusUnprocessableEntity, "%s LUN: %v", verb, err)
	}
	if _, named := d.config().LUNs[name]; named {
		return refused(http.StatusConflict, "%s LUN %s: the file has one of this name: choose another name", verb, name)
	}
	if _, unfinished := d.made().Unfinished[name]; unfinished {
		return refused(http.StatusConflict, "%s LUN %s: an import into it is not finished: choose another name, or wait until that is done or deleted", verb, name)
	}
	if m, moves := d.made().Moves[name]; moves && m.Phase != beside.Done {
		return refused(http.StatusConflict, "%s LUN %s: a move of a LUN of this name from pool %s to pool %s is not over: choose another name, or wait for it", verb, name, m.From, m.To)
	}
	if _, there := d.made().LUNs[name]; there {
		return refused(http.StatusConflict, "%s LUN %s: it exists: choose another name, or make it larger with `ripstop lun resize`", verb, name)
	}
	for _, l := range d.drivers.lun.Retained() {
		if l.Name == name {
			return refused(http.StatusConflict,
				"%s LUN %s: pool %s keeps data of this name: delete them with `ripstop lun delete %s`, name the LUN in the file to have them back, or choose another name",
				verb, name, l.Pool, name)
		}
	}
	return nil
}

// resizeLUN makes a LUN larger that a verb made.
func (d *daemon) resizeLUN(ctx context.Context, ask v1.LUNSize) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	made := d.made()
	if _, named := d.config().LUNs[ask.Name]; named {
		return v1.Applied{}, refused(http.StatusConflict, "resize LUN %s: the file says its size: change it there and apply", ask.Name)
	}
	l, ok := made.LUNs[ask.Name]
	if !ok {
		return v1.Applied{}, unknownLUN("resize", ask.Name, slices.Collect(maps.Keys(made.LUNs)))
	}
	if _, unfinished := made.Unfinished[ask.Name]; unfinished {
		return v1.Applied{}, refused(http.StatusConflict, "resize LUN %s: a disk is being imported into it: wait until that is done", ask.Name)
	}
	to := l
	to.Size = ask.Size
	if ask.Size%int64(l.Block) != 0 {
		return v1.Applied{}, refused(http.StatusUnprocessableEntity, "resize LUN %s: %d bytes are not a multiple of its block of %d", ask.Name, ask.Size, l.Block)
	}
	if ask.Size < l.Size {
		return v1.Applied{}, refused(http.StatusUnprocessableEntity, "resize LUN %s: it has %d bytes and does not shrink to %d, which would cut off data: copy the data to a smaller LUN", ask.Name, l.Size, ask.Size)
	}
	return d.make(ctx, "resize LUN "+ask.Name, made.WithLUN(ask.Name, to))
}

// unknownLUN says which one may be meant.
func unknownLUN(verb, name string, names []string) error {
	return refused(http.StatusNotFound, "%s LUN %s: there is none%s", verb, name, hintOr(name, names, "lun"))
}

// hintOr is the name that is near, or else the command that lists all of a kind.
func hintOr(name string, names []string, kind string) string {
	if near := config.Nearest(name, names); near != "" {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	return ": `ripstop get " + kind + "` lists them"
}

// make carries out what verbs want beside the file, and keeps it. The caller
// holds d.change. A client that goes away does not leave half of it done.
func (d *daemon) make(ctx context.Context, what string, next beside.Objects) (v1.Applied, error) {
	ctx = context.WithoutCancel(ctx)
	file, former := d.config(), d.made()
	rep := d.apply(ctx, file, next, controller.GoBack)
	if rep.RolledBack {
		return v1.Applied{}, refused(http.StatusConflict, "%s: %v", what, rep.Error())
	}
	if err := d.beside.Save(next); err != nil {
		back := d.apply(ctx, file, former, controller.Keep)
		return v1.Applied{}, fmt.Errorf("%s: %w", what, errors.Join(err, back.Error()))
	}
	a := applied(rep)
	a.Revision = d.commit.Now().Revision
	return a, nil
}

// deleteLUN destroys the data of a LUN that the file does not name, or a snapshot.
func (d *daemon) deleteLUN(ctx context.Context, ask v1.DeleteLUN) (v1.DeletedLUN, error) {
	d.change.Lock()
	defer d.change.Unlock()
	if _, _, snapshot := lun.SplitSnapshot(ask.Name); snapshot {
		return d.deleteSnapshot(ctx, ask.Name)
	}
	if _, named := d.config().LUNs[ask.Name]; named {
		return v1.DeletedLUN{}, refused(http.StatusConflict, "delete LUN %s: the file names it: take it out of the file, apply that, and delete it then", ask.Name)
	}
	if f := d.commit.Former(); f != nil && names(f, ask.Name) {
		return v1.DeletedLUN{}, refused(http.StatusConflict, "delete LUN %s: revision %d names it, which comes back without a confirm: run `ripstop confirm` first", ask.Name, d.commit.Now().Trial.Former)
	}
	if _, unfinished := d.made().Unfinished[ask.Name]; unfinished {
		return v1.DeletedLUN{}, refused(http.StatusConflict, "delete LUN %s: an import into it is not finished: end that with Ctrl-C, which deletes it", ask.Name)
	}
	if err := d.freeOfMoves("delete", ask.Name); err != nil {
		return v1.DeletedLUN{}, err
	}
	snapshots := d.snapshotsOf(ask.Name)
	if len(snapshots) > 0 && !ask.Snapshots {
		return v1.DeletedLUN{}, refused(http.StatusConflict, "delete LUN %s: it has snapshots: %s: delete them first, or all of it with --snapshots", ask.Name, strings.Join(snapshots, ", "))
	}
	for _, s := range snapshots {
		if err := d.freeOfTargets(ctx, s); err != nil {
			return v1.DeletedLUN{}, err
		}
	}
	made := d.made()
	if _, ok := made.LUNs[ask.Name]; ok {
		if _, err := d.make(ctx, "delete LUN "+ask.Name, made.WithoutLUN(ask.Name)); err != nil {
			return v1.DeletedLUN{}, err
		}
	}
	out := v1.DeletedLUN{Name: ask.Name, Snapshots: []string{}}
	for _, s := range snapshots {
		gone, err := briefly(ctx, d.drivers.deleteSnapshot, s)
		if err != nil {
			return v1.DeletedLUN{}, snapshotRefusal(err)
		}
		out.Freed, out.Snapshots = out.Freed+gone.Freed, append(out.Snapshots, s)
	}
	gone, err := briefly(ctx, d.drivers.deleteLUN, ask.Name)
	if errors.Is(err, lun.ErrUnknown) {
		return v1.DeletedLUN{}, unknownLUN("delete", ask.Name, d.lunNames())
	}
	if err != nil {
		return v1.DeletedLUN{}, snapshotRefusal(err)
	}
	if err := d.save(d.made().Forget(ask.Name)); err != nil {
		return v1.DeletedLUN{}, err
	}
	out.Pool, out.Freed = gone.Pool, out.Freed+gone.Freed
	d.log.Info("LUN deleted", "lun", ask.Name, "pool", gone.Pool, "snapshots", len(snapshots), "freed", out.Freed)
	return out, nil
}

// lunNames is every LUN, in service or not.
func (d *daemon) lunNames() []string {
	var names []string
	for _, l := range slices.Concat(d.drivers.lun.Stats().LUNs, d.drivers.lun.Retained()) {
		names = append(names, l.Name)
	}
	return names
}

// attachPort makes a port beside those of the file. A port that is there as
// asked is no error: hooks are run twice.
func (d *daemon) attachPort(ctx context.Context, ask v1.NewPort) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	p, err := portOfVerb(ask)
	if err != nil {
		return v1.Applied{}, refused(http.StatusUnprocessableEntity, "attach port %s: %v", ask.Name, err)
	}
	file, made := d.config(), d.made()
	have, there := made.Ports[ask.Name]
	if there && have.Switch == ask.Switch && reflect.DeepEqual(have.Port, p) {
		return d.make(ctx, "attach port "+ask.Name, made)
	}
	if there {
		return v1.Applied{}, refused(http.StatusConflict, "attach port %s: it is attached otherwise: run `ripstop port detach %s` first", ask.Name, ask.Name)
	}
	all, _ := made.Merge(file)
	if err := config.CheckPort(all, ask.Switch, ask.Name, p); err != nil {
		return v1.Applied{}, refused(http.StatusUnprocessableEntity, "attach port %s: %v", ask.Name, err)
	}
	return d.make(ctx, "attach port "+ask.Name, made.WithPort(ask.Name, beside.Port{Switch: ask.Switch, Port: p}))
}

// portOfVerb is a port in the words of the file.
func portOfVerb(ask v1.NewPort) (config.Port, error) {
	p := config.Port{VLAN: ask.VLAN, TapUser: ask.User, MultiQueue: ask.Queues > 1, Netns: ask.Netns, IfName: ask.IfName, Device: ask.Device}
	kinds := 0
	if ask.Tap {
		kinds, p.Kind = kinds+1, vswitch.Tap
	}
	if ask.Netns != "" {
		kinds, p.Kind, p.IfName = kinds+1, vswitch.Veth, cmp.Or(ask.IfName, "eth0")
	}
	if ask.Device != "" {
		kinds, p.Kind = kinds+1, vswitch.Device
	}
	switch {
	case kinds != 1:
		return p, errors.New("it needs exactly one of tap, netns and device")
	case ask.User != "" && !ask.Tap:
		return p, errors.New("a user is of use only with a tap")
	case ask.Queues != 0 && !ask.Tap:
		return p, errors.New("queues are of use only with a tap")
	case ask.Queues < 0 || ask.Queues > 256:
		return p, fmt.Errorf("%d queues: a tap has 1 to 256", ask.Queues)
	case ask.Netns == "" && (ask.IfName != "" || len(ask.Addresses) > 0):
		return p, errors.New("ifname and address are of use only with netns")
	}
	for _, text := range ask.Addresses {
		a, err := netip.ParsePrefix(text)
		if err != nil {
			return p, fmt.Errorf("address %q: write it with its length, as 10.0.0.2/24", text)
		}
		p.Addresses = append(p.Addresses, a)
	}
	slices.SortFunc(p.Addresses, netip.Prefix.Compare)
	return p, nil
}

// detachPort takes away a port that attach made. One that is not there is no
// error, for the same reason; one of the file is.
func (d *daemon) detachPort(ctx context.Context, ask v1.Name) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	made := d.made()
	if _, there := made.Ports[ask.Name]; !there {
		for sw, s := range d.config().Switches {
			if _, named := s.Ports[ask.Name]; named {
				return v1.Applied{}, refused(http.StatusConflict, "detach port %s: the file has it in switch %s: take it out there and apply", ask.Name, sw)
			}
		}
	}
	return d.make(ctx, "detach port "+ask.Name, made.WithoutPort(ask.Name))
}

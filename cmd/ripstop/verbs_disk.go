package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/internal/run"
	"ripstop/lun"
)

const (
	diskPiece  = 1 << 20  // bytes that go into one record
	diskWindow = 64 << 20 // bytes that are looked at for what is mapped at once

	// tidyEvery is how often what verbs left behind is looked for. It waits for
	// pools that are out of service.
	tidyEvery = 2 * time.Second
)

// save keeps what verbs made, where no pass has anything to do for it. The
// caller holds d.change.
func (d *daemon) save(o beside.Objects) error {
	if err := d.beside.Save(o); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.objects = o
	return nil
}

// importLUN makes a LUN of a disk. Until all of it is there the LUN is unfinished:
// no file may name it, and whatever ends the import early deletes it.
func (d *daemon) importLUN(ctx context.Context, ask v1.ImportLUN, in *v1.DiskReader) (v1.Applied, error) {
	done, err := d.beginImport(ctx, ask)
	if err != nil {
		return v1.Applied{}, err
	}
	defer d.underway(ask.Name, false)
	err = d.fill(ctx, ask, in)
	d.change.Lock()
	defer d.change.Unlock()
	if err == nil {
		err = d.save(d.made().Finished(ask.Name))
	}
	if err != nil {
		d.log.Info("import ended early, the LUN is deleted", "lun", ask.Name, "because", err)
		return v1.Applied{}, joined(err, d.dropUnfinished(ctx, ask.Name))
	}
	d.log.Info("LUN imported", "lun", ask.Name, "pool", ask.Pool, "size", ask.Size)
	return done, nil
}

// underway notes that a verb works on an unfinished object, or does not any more.
func (d *daemon) underway(name string, is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.working == nil {
		d.working = map[string]bool{}
	}
	d.working[name] = is
	if !is {
		delete(d.working, name)
	}
}

// abandoned tells whether nobody works on an unfinished object.
func (d *daemon) abandoned(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.working[name]
}

func (d *daemon) beginImport(ctx context.Context, ask v1.ImportLUN) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	l, err := d.newLUN("import", ask.NewLUN)
	if err != nil {
		return v1.Applied{}, err
	}
	if e := ask.Encryption; e != nil {
		l.Encryption = &config.Encryption{Key: e.Key, Former: e.Former}
	}
	d.underway(ask.Name, true)
	done, err := d.make(ctx, "import LUN "+ask.Name, d.made().WithLUN(ask.Name, l).Begun(ask.Name, l.Pool))
	if err != nil {
		d.underway(ask.Name, false)
	}
	return done, err
}

// fill writes a disk into a LUN.
func (d *daemon) fill(ctx context.Context, ask v1.ImportLUN, in *v1.DiskReader) error {
	v, err := d.drivers.lun.Volume(ask.Name)
	if err != nil {
		return err
	}
	o, end := d.work.begin("import", ask.Name, ask.Mark, ask.Size)
	defer end()
	for {
		p, err := in.Piece()
		if errors.Is(err, io.EOF) {
			return v.Flush(ctx)
		}
		if err != nil {
			return refused(http.StatusBadRequest, "import LUN %s: %v", ask.Name, err)
		}
		switch {
		case p.Keep != nil:
			err = d.keepImported(ctx, ask.Name, *p.Keep)
		case p.Anew:
			err = v.Unmap(ctx, p.Off, p.N)
		default:
			err = v.WriteAt(ctx, p.Data, p.Off, false)
		}
		var refusal *v1.Error
		switch {
		case errors.As(err, &refusal):
			return err
		case errors.Is(err, lun.ErrNoSpace):
			return refused(http.StatusInsufficientStorage, "import LUN %s: %v: delete LUNs or snapshots of pool %s, or give it more size", ask.Name, err, ask.Pool)
		case errors.Is(err, lun.ErrRange):
			return refused(http.StatusUnprocessableEntity, "import LUN %s: %d bytes at %d: %v", ask.Name, p.N, p.Off, err)
		case err != nil:
			return fmt.Errorf("import LUN %s: %w", ask.Name, err)
		}
		o.done.Store(max(o.done.Load(), p.Off+p.N))
	}
}

// keepImported keeps what an unfinished LUN has so far as its snapshot, and gives it the
// size that it has from then on. The name may be one that schedules give: it is of the LUN
// that is brought.
func (d *daemon) keepImported(ctx context.Context, name string, s v1.DiskSnapshot) error {
	if err := config.CheckName(s.Name); err != nil {
		return refused(http.StatusUnprocessableEntity, "import LUN %s: snapshot: %v", name, err)
	}
	if err := d.drivers.lun.Snapshot(ctx, s.Name, name); err != nil {
		return snapshotRefusal(err)
	}
	d.change.Lock()
	defer d.change.Unlock()
	made := d.made()
	l := made.LUNs[name]
	if s.Size < l.Size || s.Size%int64(l.Block) != 0 {
		return refused(http.StatusUnprocessableEntity, "import LUN %s: after snapshot %s it has %d bytes, and had %d in blocks of %d: a LUN does not shrink", name, s.Name, s.Size, l.Size, l.Block)
	}
	if s.Size == l.Size {
		return nil
	}
	l.Size = s.Size
	_, err := d.make(ctx, "import LUN "+name, made.WithLUN(name, l))
	return err
}

// dropUnfinished deletes what a verb made and did not finish. What of it fails is
// done by tidy. The caller holds d.change.
func (d *daemon) dropUnfinished(ctx context.Context, name string) error {
	ctx = context.WithoutCancel(ctx)
	made := d.made()
	remove := d.drivers.deleteLUN
	pool := made.Unfinished[name]
	if _, _, snapshot := lun.SplitSnapshot(name); snapshot {
		remove = d.drivers.deleteSnapshot
	} else if other := d.drivers.lun.Other(pool, name); other != "" { // names are deleted whatever pool they are in
		if d.drivers.lun.Has(pool, name) {
			return fmt.Errorf("LUN %s: pool %s has what an import into it left, and pool %s another one of its name: take pool %s out of service until that is deleted", name, pool, other, other)
		}
		return d.save(made.WithoutLUN(name).Finished(name))
	} else {
		if _, err := d.make(ctx, "end the import of LUN "+name, made.WithoutLUN(name)); err != nil {
			return err
		}
		for _, s := range d.snapshotsOf(name) { // that the import made
			if _, err := briefly(ctx, d.drivers.deleteSnapshot, s); err != nil && !errors.Is(err, lun.ErrUnknown) {
				return err
			}
		}
	}
	if _, err := briefly(ctx, remove, name); err != nil && !errors.Is(err, lun.ErrUnknown) {
		return err
	}
	return d.save(d.made().Finished(name))
}

// tidy deletes what verbs of a daemon that ended could not finish.
func (d *daemon) tidy() run.Task {
	return run.Task{Name: "what verbs left", Run: func(ctx context.Context, ready func()) error {
		ready()
		d.tidyOnce(ctx)
		return every(ctx, tidyEvery, func() { d.tidyOnce(ctx) })
	}}
}

func (d *daemon) tidyOnce(ctx context.Context) {
	all := d.made().Unfinished
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !d.abandoned(name) || !d.drivers.lun.HasPool(all[name]) {
			continue
		}
		d.change.Lock()
		err := d.dropUnfinished(ctx, name)
		d.change.Unlock()
		d.log.Info("what a verb did not finish is deleted", "name", name, "error", err)
	}
}

// withoutUnfinished is c without the LUNs that are not whole, and says so of those
// that the file names.
func (d *daemon) withoutUnfinished(all, file *config.Config, o beside.Objects) []beside.Missing {
	var missing []beside.Missing
	for _, name := range slices.Sorted(maps.Keys(o.Unfinished)) {
		_, named := file.LUNs[name]
		if named {
			missing = append(missing, beside.Missing{Object: "lun/" + name, Err: errors.New("an import into it is not finished, and what there is of it is no disk: it is deleted soon; import it again")})
		}
		if named || d.abandoned(name) {
			delete(all.LUNs, name)
		}
	}
	return missing
}

// nameNoUnfinished refuses a file that names a LUN into which is imported.
func (d *daemon) nameNoUnfinished(c *config.Config) error {
	for _, name := range slices.Sorted(maps.Keys(d.made().Unfinished)) {
		if _, named := c.LUNs[name]; named {
			return refused(http.StatusConflict, "apply: the file names LUN %s, into which a disk is being imported: wait until that is done, `ripstop get task` shows it", name)
		}
	}
	return nil
}

// exportLUN writes what a LUN or snapshot holds. Of a LUN in a thin pool it is
// what it holds when the export begins.
func (d *daemon) exportLUN(ctx context.Context, ask v1.ExportLUN, out *v1.DiskWriter) error {
	ref := ask.Name
	of, _, snapshot := lun.SplitSnapshot(ref)
	if !snapshot {
		of = ref
	}
	end, err := d.beginExport(of)
	if err != nil {
		return err
	}
	defer end()
	if snapshot {
		if _, err := d.knownSnapshot("export", ref); err != nil {
			return err
		}
		if ask.Since != "" {
			return d.streamChanges(ctx, ask, out)
		}
		return d.stream(ctx, ask, ref, out)
	}
	if ask.Since != "" {
		return refused(http.StatusUnprocessableEntity, "export LUN %s since %s: only a snapshot is compared with another: make one of the LUN first", ref, ask.Since)
	}
	l, err := d.knownLUN("export", ref)
	if err != nil {
		return err
	}
	if _, unfinished := d.made().Unfinished[ref]; unfinished {
		return refused(http.StatusConflict, "export LUN %s: a disk is being imported into it: wait until that is done", ref)
	}
	have, err := d.drivers.lun.Observe(ctx)
	if err != nil {
		return err
	}
	if have.Pools[l.Pool].Kind != lun.Thin {
		return d.streamUnused(ctx, ask, "its pool is raw, which takes no snapshots", out)
	}
	if len(l.Legs) > 0 {
		return d.streamUnused(ctx, ask, "it is mirrored and takes no snapshots", out)
	}
	kept, err := d.keepForNow(ctx, l)
	if err != nil {
		return err
	}
	err = d.stream(ctx, ask, kept, out)
	d.change.Lock()
	defer d.change.Unlock()
	defer d.underway(kept, false)
	return joined(err, d.dropUnfinished(ctx, kept))
}

// beginExport notes that a LUN, or a snapshot of it, is exported, until end is called. It
// refuses that of one on its way.
func (d *daemon) beginExport(name string) (end func(), err error) {
	d.change.Lock() // no move begins in between
	defer d.change.Unlock()
	if err := d.freeOfMoves("export", name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exports == nil {
		d.exports = map[string]int{}
	}
	d.exports[name]++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.exports[name]--; d.exports[name] == 0 {
			delete(d.exports, name)
		}
	}, nil
}

// isExported tells whether a LUN or a snapshot of it is exported, or has a snapshot left of
// an export.
func (d *daemon) isExported(name string) bool {
	for ref := range d.made().Unfinished {
		if of, _, snapshot := lun.SplitSnapshot(ref); snapshot && of == name {
			return true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.exports[name] > 0
}

// keepForNow makes a snapshot that nothing but an export needs.
func (d *daemon) keepForNow(ctx context.Context, l lun.LUNStats) (ref string, err error) {
	name := "export-" + strings.ToLower(rand.Text())
	ref = l.Name + "@" + name
	d.underway(ref, true)
	d.change.Lock()
	err = d.save(d.made().Begun(ref, l.Pool))
	d.change.Unlock()
	if err == nil {
		// It is waited for, or else there would be nobody to delete it.
		if err = d.drivers.lun.Snapshot(context.WithoutCancel(ctx), name, l.Name); err != nil {
			d.change.Lock()
			err = joined(snapshotRefusal(err), d.save(d.made().Finished(ref)))
			d.change.Unlock()
		}
	}
	if err != nil {
		d.underway(ref, false)
	}
	return ref, err
}

// streamUnused writes a LUN that takes no snapshots for the reason given, if nobody sees it,
// and lets nobody in that would see it until all is written.
func (d *daemon) streamUnused(ctx context.Context, ask v1.ExportLUN, why string, out *v1.DiskWriter) error {
	release, users := d.drivers.iscsi.Withhold(ask.Name)
	defer release()
	if len(users) > 0 {
		return refused(http.StatusConflict, "export LUN %s: in use by %s, and %s: log out there first, or keep the LUN in one pool of `kind: thin`",
			ask.Name, describeUsers(users), why)
	}
	return d.stream(ctx, ask, ask.Name, out)
}

// stream writes all data of a LUN or snapshot.
func (d *daemon) stream(ctx context.Context, ask v1.ExportLUN, ref string, out *v1.DiskWriter) error {
	v, err := d.drivers.lun.Volume(ref)
	if err != nil {
		return fmt.Errorf("export %s: %w", ask.Name, err)
	}
	return d.windows(ask, v, out, func(off, n int64) error { return sendData(ctx, v, off, n, out) })
}

// windows writes a stream of what each calls window after window of a volume.
func (d *daemon) windows(ask v1.ExportLUN, v lun.Volume, out *v1.DiskWriter, each func(off, n int64) error) error {
	i := v.Info()
	o, end := d.work.begin("export", ask.Name, ask.Mark, i.Size)
	defer end()
	if err := out.Head(v1.Disk{Size: i.Size, Block: i.BlockSize, ID: hex.EncodeToString(i.ID[:])}); err != nil {
		return err
	}
	for off := int64(0); off < i.Size; off += diskWindow {
		n := min(diskWindow, i.Size-off)
		if err := each(off, n); err != nil {
			return fmt.Errorf("export %s: %w", ask.Name, err)
		}
		o.done.Store(off + n)
	}
	return out.End()
}

// sendData writes what is mapped of n bytes.
func sendData(ctx context.Context, v lun.Volume, off, n int64, out *v1.DiskWriter) error {
	buf := make([]byte, min(diskPiece, n))
	var wrong error
	err := v.Extents(ctx, off, n, func(off, n int64, mapped bool) bool {
		for ; mapped && n > 0 && wrong == nil; off, n = off+diskPiece, n-diskPiece {
			p := buf[:min(n, diskPiece)]
			if wrong = v.ReadAt(ctx, p, off); wrong == nil {
				wrong = out.Data(off, p)
			}
		}
		return wrong == nil
	})
	return errors.Join(err, wrong)
}

// streamChanges writes what may differ between two snapshots.
func (d *daemon) streamChanges(ctx context.Context, ask v1.ExportLUN, out *v1.DiskWriter) error {
	if ask.Align < 4096 || ask.Align > 4<<20 || ask.Align&(ask.Align-1) != 0 {
		return refused(http.StatusUnprocessableEntity, "export %s: align is %d: it is a power of two from 4096 to 4 MiB", ask.Name, ask.Align)
	}
	if _, err := d.knownSnapshot("export "+ask.Name+" since", ask.Since); err != nil {
		return err
	}
	v, err := d.drivers.lun.Volume(ask.Name)
	if err != nil {
		return fmt.Errorf("export %s: %w", ask.Name, err)
	}
	since, err := d.drivers.lun.Volume(ask.Since)
	if err != nil {
		return fmt.Errorf("export %s since %s: %w", ask.Name, ask.Since, err)
	}
	if id := since.Info().ID; ask.SinceID != hex.EncodeToString(id[:]) {
		return refused(http.StatusConflict, "export %s since %s: that is another snapshot than was meant: export all of it", ask.Name, ask.Since)
	}
	c, ok := v.(lun.Comparer)
	if ok {
		err = c.ChangedSince(ctx, since, 0, 0, func(int64, int64, bool) bool { return true })
	}
	if !ok || err != nil {
		return refused(http.StatusConflict, "export %s since %s: the pool cannot compare them: export all of it", ask.Name, ask.Since)
	}
	return d.windows(ask, v, out, func(off, n int64) error { return sendChanges(ctx, c, since, off, n, ask.Align, out) })
}

// sendChanges writes what may differ within n bytes, widened to multiples of align,
// which off is.
func sendChanges(ctx context.Context, v lun.Comparer, since lun.Volume, off, n, align int64, out *v1.DiskWriter) error {
	var from, to, end int64 // of what is widened, and the end of the window
	var wrong error
	end = off + n
	send := func() bool {
		if from < to {
			wrong = out.Anew(from, to-from)
			if wrong == nil {
				wrong = sendData(ctx, v, from, to-from, out)
			}
		}
		return wrong == nil
	}
	err := v.ChangedSince(ctx, since, off, n, func(off, n int64, changed bool) bool {
		if !changed {
			return true
		}
		low, high := off/align*align, min(end, (off+n+align-1)/align*align)
		if low <= to && to > from {
			to = max(to, high)
			return true
		}
		if !send() {
			return false
		}
		from, to = low, high
		return true
	})
	if err == nil && wrong == nil {
		send()
	}
	return errors.Join(err, wrong)
}

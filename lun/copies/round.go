package copies

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"ripstop/internal/zeros"
	"ripstop/lun"
)

const (
	piece  = 256 << 10 // bytes that are brought at once
	depth  = 8         // pieces under way
	window = 64 << 20  // bytes between two notes of how far it is
)

// leg is one LUN elsewhere in one round.
type leg struct {
	number uint16
	far    Far
	label  Label
	is     bool // there is a label
}

// round is one try to bring a LUN elsewhere up to date.
type round struct {
	w       *worker
	session Session
	legs    []*leg
	info    lun.Info // of the LUN here
	force   bool
}

// where names a leg in errors.
func (r *round) where(l *leg) string {
	return fmt.Sprintf("LUN %d of %s", l.number, r.w.copy.Target)
}

// look opens the legs, reads what they say, and claims them.
func (r *round) look(ctx context.Context) error {
	for _, n := range r.w.copy.LUNs {
		far, err := r.session.Open(ctx, n)
		if err != nil {
			return fmt.Errorf("%s: %w", r.w.copy.Target, err)
		}
		l := &leg{number: n, far: far}
		if err := r.read(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", r.where(l), err)
		}
		r.legs = append(r.legs, l)
	}
	for _, l := range r.legs {
		if err := r.claim(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", r.where(l), err)
		}
	}
	return nil
}

// read takes the label of a leg, and refuses what is not ours.
func (r *round) read(ctx context.Context, l *leg) (err error) {
	i := r.info
	if need := i.Size; room(l.far.Size()) < need {
		return fmt.Errorf("it has %d bytes, and a copy needs those of the LUN and 1 MiB for its label: give it %d or more, and keep it that much larger", l.far.Size(), need+Room)
	}
	if l.far.Block() > labelSize {
		return fmt.Errorf("its blocks have %d bytes, and %d are the most: take a LUN with smaller ones", l.far.Block(), labelSize)
	}
	l.label, l.is, err = ReadLabel(ctx, l.far, l.far.Size())
	if errors.Is(err, ErrDamaged) {
		if r.force {
			l.is, err = false, nil
			return nil
		}
		return fmt.Errorf("%w, so nobody knows what is there: `ripstop lun copy %s --resync` compares all of it and brings what differs", err, r.w.name)
	}
	if err != nil {
		return err
	}
	if !l.is {
		if err := r.grown(ctx, l); err != nil || l.is {
			return err
		}
	}
	if id := hexID(i.ID); l.is && l.label.ID != id && !r.force {
		return fmt.Errorf("it is the copy of LUN %s of host %s: take another LUN, or `ripstop lun copy %s --resync` to overwrite that copy", l.label.LUN, l.label.Host, r.w.name)
	}
	if seen := r.w.seen(l.number); l.is && seen.Seq > 0 && l.label.Seq > seen.Seq && l.label.Host != r.w.driver.host {
		return fmt.Errorf("host %s has written to it since this one did: one LUN is copied by one host; if that is this one, `ripstop lun copy %s --resync`", l.label.Host, r.w.name)
	}
	return nil
}

// grown finds the label of a leg that was made larger where it was before.
func (r *round) grown(ctx context.Context, l *leg) error {
	was := r.w.seen(l.number).Size
	if was == 0 || was >= l.far.Size() {
		return nil
	}
	label, ok, err := ReadLabel(ctx, l.far, was)
	if err != nil || !ok || label.ID != r.w.id {
		return err
	}
	l.label, l.is = label, true
	return nil
}

// claim has nobody else write to a leg. Where somebody could have, nothing is
// overwritten unasked.
func (r *round) claim(ctx context.Context, l *leg) error {
	h, err := l.far.Held(ctx)
	if err != nil {
		return err
	}
	key := r.w.key
	ours := h.Reserved && h.By == key && slices.Contains(h.Keys, key)
	switch {
	case h.Reserved && h.By != key && !r.force:
		return fmt.Errorf("%w (key %#x): end that there, or `ripstop lun copy %s --resync` to take it over and overwrite what differs", ErrTaken, h.By, r.w.name)
	case l.is && !ours && !r.force:
		return fmt.Errorf("the reservation that this host had is gone, so somebody may have written to it: if nothing there is wanted, `ripstop lun copy %s --resync` compares all of it and brings what differs", r.w.name)
	case !l.is && !r.force:
		if err := r.blank(ctx, l); err != nil {
			return err
		}
	}
	if err := l.far.Register(ctx, key); err != nil {
		return err
	}
	err = l.far.Reserve(ctx, key)
	if errors.Is(err, ErrTaken) && (r.force || h.By == key) { // ours, under a former name of this host
		err = l.far.Preempt(ctx, key, h.By)
	}
	if err != nil || !r.force {
		return err
	}
	// Anything may be there, and that must be known before it is compared.
	i := r.info
	return r.label(ctx, l, Label{Seq: l.label.Seq, LUN: r.w.name, ID: r.w.id, Host: r.w.driver.host, Size: i.Size, Block: i.BlockSize})
}

// blank refuses a LUN that holds data which are no copy, and makes sure that all of it
// is zeros. What is mapped is read before a LUN of somebody is reserved, and again when
// nobody else can write any more.
func (r *round) blank(ctx context.Context, l *leg) error {
	if err := r.sift(ctx, l, func(int64, int64) error { return nil }); err != nil {
		return err
	}
	if err := l.far.Register(ctx, r.w.key); err != nil {
		return err
	}
	if err := l.far.Reserve(ctx, r.w.key); err != nil {
		return err
	}
	return r.sift(ctx, l, func(off, n int64) error { return l.far.Zero(ctx, off, n) })
}

// sift refuses what holds other bytes than zeros, and calls unmapped for what is not
// mapped. Runs are not gathered: the target says how many there are.
func (r *round) sift(ctx context.Context, l *leg, unmapped func(off, n int64) error) error {
	b := make([]byte, piece)
	var bad error
	err := l.far.Extents(ctx, func(off, n int64, mapped bool) bool {
		if !mapped {
			bad = unmapped(off, n)
			return bad == nil
		}
		for end := off + n; off < end && bad == nil; off += piece {
			p := b[:min(piece, end-off)]
			if bad = l.far.ReadAt(ctx, p, off); bad == nil && !zeros.Only(p) {
				bad = fmt.Errorf("it holds data that are no copy of LUN %s: take an empty LUN, or `ripstop lun copy %s --resync` to overwrite what is there", r.w.name, r.w.name)
			}
		}
		return bad == nil
	})
	if bad != nil {
		return bad
	}
	return err
}

// taken is when a leg's snapshot was made, and zero where it says a time to come: the
// clock was wrong then, and no copy is to wait for that time.
func (r *round) taken(l *leg) time.Time {
	if l.label.Snapshot.Taken.After(r.w.driver.now()) {
		return time.Time{}
	}
	return l.label.Snapshot.Taken
}

// newest is the whole leg with the newest snapshot, nil without one.
func (r *round) newest() *leg {
	var best *leg
	for _, l := range r.legs {
		if l.is && l.label.Whole && (best == nil || r.taken(l).After(r.taken(best))) {
			best = l
		}
	}
	return best
}

// next is the leg that a round goes to: one that is not whole, so that never two are
// not, or the oldest.
func (r *round) next() *leg {
	rank := func(l *leg) int {
		switch {
		case l.is && !l.label.Whole:
			return 0
		case !l.is:
			return 1
		}
		return 2
	}
	return slices.MinFunc(r.legs, func(a, b *leg) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return r.taken(a).Compare(r.taken(b))
	})
}

// point finds a snapshot of the LUN here by its identifier.
func (r *round) point(id string) (Point, bool) {
	for _, s := range r.w.driver.source.Snapshots() {
		of, name, _ := lun.SplitSnapshot(s.Name)
		if of == r.w.name && id != "" && hexID(s.ID) == id {
			return Point{name, id, s.Created.UTC()}, true
		}
	}
	return Point{}, false
}

// bring makes a leg what the LUN is now, or goes on with what it was becoming.
func (r *round) bring(ctx context.Context, l *leg) error {
	next, resumed := l.label, false
	if l.is && !l.label.Whole && l.label.ID == r.w.id {
		_, resumed = r.point(l.label.Snapshot.ID)
	}
	if !resumed {
		at, err := r.keep(ctx)
		if err != nil {
			return err
		}
		next.Snapshot, next.Whole, next.Done, next.Blank, next.Base = at, false, 0, !l.is, Point{}
		if l.is && l.label.Whole && l.label.ID == r.w.id {
			next.Base = l.label.Snapshot
		}
	}
	v, err := r.w.driver.source.Volume(r.w.name + "@" + next.Snapshot.Name)
	if err != nil {
		return err
	}
	i := v.Info()
	if room(l.far.Size()) < i.Size {
		return fmt.Errorf("%s: it has %d bytes, and a copy needs %d: make it larger", r.where(l), l.far.Size(), i.Size+Room)
	}
	next.LUN, next.ID, next.Host, next.Size, next.Block = r.w.name, r.w.id, r.w.driver.host, i.Size, i.BlockSize
	plan := &plan{snapshot: v, blank: next.Blank}
	if base, ok := r.point(next.Base.ID); ok {
		since, err := r.w.driver.source.Volume(r.w.name + "@" + base.Name)
		if err != nil {
			return err
		}
		if c, ok := v.(lun.Comparer); ok && c.ChangedSince(ctx, since, 0, 0, func(int64, int64, bool) bool { return true }) == nil {
			plan.since = since
		}
	}
	if err := r.label(ctx, l, next); err != nil {
		return err
	}
	if err := r.send(ctx, l, plan); err != nil {
		return fmt.Errorf("%s: %w", r.where(l), err)
	}
	done := l.label
	done.Whole, done.Done, done.Base, done.Blank = true, 0, Point{}, false
	return r.label(ctx, l, done)
}

// keep makes the snapshot of a round.
func (r *round) keep(ctx context.Context) (Point, error) {
	name := lun.CopyName(r.w.driver.now())
	if err := r.w.driver.source.Snapshot(ctx, name, r.w.name); err != nil && !errors.Is(err, lun.ErrExists) {
		return Point{}, err
	}
	for _, s := range r.w.driver.source.Snapshots() {
		if s.Name == r.w.name+"@"+name {
			return Point{name, hexID(s.ID), s.Created.UTC()}, nil
		}
	}
	return Point{}, fmt.Errorf("snapshot %s@%s: %w", r.w.name, name, lun.ErrUnknown)
}

// label writes what a leg is, between two flushes: what it speaks of is there before,
// and it is there before what comes after.
func (r *round) label(ctx context.Context, l *leg, x Label) error {
	x.Seq, x.Written = l.label.Seq+1, r.w.driver.now().UTC()
	b, err := x.encode()
	if err == nil {
		err = l.far.Flush(ctx)
	}
	if err == nil {
		err = l.far.WriteAt(ctx, b, labelAt(l.far.Size(), x.Seq))
	}
	if err == nil {
		err = l.far.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: write its label: %w", r.where(l), err)
	}
	l.label, l.is = x, true
	r.w.remember(l)
	return nil
}

// plan is what a round has to look at.
type plan struct {
	snapshot lun.Volume
	since    lun.Volume // what the leg is where it has not been written; nil is nobody knows, or with blank zeros
	blank    bool
}

// known is the end of what is known of the leg: what lies beyond the end of its base
// may be anything, as a label from when the LUN there was smaller.
func (p *plan) known() int64 {
	switch {
	case p.since != nil:
		return p.since.Info().Size
	case p.blank:
		return math.MaxInt64
	}
	return 0
}

// each calls do for the runs of n bytes at off that may differ.
func (p *plan) each(ctx context.Context, off, n int64, do func(off, n int64)) error {
	yield := func(off, n int64, may bool) bool {
		if may {
			do(off, n)
		}
		return true
	}
	known := max(0, min(n, p.known()-off))
	var err error
	switch {
	case known == 0:
	case p.since != nil:
		err = p.snapshot.(lun.Comparer).ChangedSince(ctx, p.since, off, known, yield)
	default:
		err = p.snapshot.Extents(ctx, off, known, yield)
	}
	if err == nil && known < n {
		do(off+known, n-known)
	}
	return err
}

// span is bytes that are brought at once.
type span struct{ off, n int64 }

// spans is what of n bytes at off may differ, in pieces.
func (p *plan) spans(ctx context.Context, off, n int64) (all []span, err error) {
	end := off + n
	err = p.each(ctx, off, n, func(off, n int64) {
		for stop := off + n; off < stop; {
			next := min(stop, off-off%piece+piece)
			// Blocks of a LUN elsewhere are 4 KiB at most.
			from, to := off-off%labelSize, min(end, (next+labelSize-1)/labelSize*labelSize)
			if last := len(all) - 1; last >= 0 && all[last].off+all[last].n > from {
				from = all[last].off + all[last].n
			}
			if to > from {
				all = append(all, span{from, to - from})
			}
			off = next
		}
	})
	return all, err
}

// send brings what differs from where the leg's label says that it is.
func (r *round) send(ctx context.Context, l *leg, p *plan) error {
	size := l.label.Size
	var left int64
	if err := p.each(ctx, l.label.Done, size-l.label.Done, func(_, n int64) { left += n }); err != nil {
		return err
	}
	r.w.report(func(s *lun.Lag) { s.Left = left })
	defer r.w.report(func(s *lun.Lag) { s.Left = 0 })
	var sent int64
	for off := l.label.Done; off < size; off += window {
		n := min(window, size-off)
		all, err := p.spans(ctx, off, n)
		if err == nil {
			err = r.sendAll(ctx, l, p, all)
		}
		if err != nil {
			return err
		}
		for _, s := range all {
			sent += s.n
		}
		if sent >= window && off+n < size {
			sent = 0
			next := l.label
			next.Done = off + n
			if err := r.label(ctx, l, next); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendAll brings pieces, several at once.
func (r *round) sendAll(ctx context.Context, l *leg, p *plan, all []span) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan span)
	var group sync.WaitGroup
	for range min(depth, len(all)) {
		group.Go(func() {
			buf := [2][]byte{make([]byte, piece), make([]byte, piece)}
			for s := range next {
				if err := r.sendOne(ctx, l, p, s, buf); err != nil {
					cancel(err)
				}
				r.w.report(func(x *lun.Lag) { x.Left = max(0, x.Left-s.n) })
			}
		})
	}
	for _, s := range all {
		select {
		case next <- s:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(next)
	group.Wait()
	return context.Cause(ctx)
}

// sendOne brings one piece: data, or that there are none.
func (r *round) sendOne(ctx context.Context, l *leg, p *plan, s span, buf [2][]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := buf[0][:s.n]
	if whole := (s.n + labelSize - 1) / labelSize * labelSize; whole != s.n { // the end of a LUN in small blocks
		b = buf[0][:whole]
		clear(b[s.n:])
	}
	holes, err := r.fill(ctx, p.snapshot, b[:s.n], s.off)
	if err != nil {
		return err
	}
	if s.off+s.n > p.known() {
		is := buf[1][:len(b)]
		if err := l.far.ReadAt(ctx, is, s.off); err != nil {
			return err
		}
		if bytes.Equal(is, b) {
			return nil
		}
	}
	if holes {
		return l.far.Zero(ctx, s.off, int64(len(b)))
	}
	return l.far.WriteAt(ctx, b, s.off)
}

// fill reads from a snapshot, and tells whether nothing is mapped there.
func (r *round) fill(ctx context.Context, v lun.Volume, p []byte, off int64) (holes bool, err error) {
	holes = true
	err = v.Extents(ctx, off, int64(len(p)), func(_, _ int64, mapped bool) bool {
		holes = holes && !mapped
		return holes
	})
	if err != nil {
		return false, err
	}
	if holes {
		clear(p)
		return true, nil
	}
	return false, v.ReadAt(ctx, p, off)
}

// tidy deletes the snapshots here that no leg needs to go on.
func (r *round) tidy(ctx context.Context) error {
	need := map[string]bool{}
	for _, l := range r.legs {
		need[l.label.Snapshot.ID], need[l.label.Base.ID] = true, true
	}
	var errs []error
	for _, s := range r.w.driver.source.Snapshots() {
		of, name, _ := lun.SplitSnapshot(s.Name)
		if of != r.w.name || !lun.IsCopyName(name) || need[hexID(s.ID)] || slices.Contains(r.w.copy.Held, name) {
			continue
		}
		if _, err := r.w.driver.source.DeleteSnapshot(ctx, s.Name); err != nil && !errors.Is(err, lun.ErrUnknown) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// changed is how many bytes of a LUN differ from a snapshot of it.
func changed(ctx context.Context, v, since lun.Volume) (n int64, err error) {
	c, ok := v.(lun.Comparer)
	if !ok {
		return 0, errors.New("its pool cannot compare")
	}
	err = c.ChangedSince(ctx, since, 0, v.Info().Size, func(_, run int64, is bool) bool {
		if is {
			n += run
		}
		return true
	})
	return n, err
}

func hexID(id [16]byte) string { return hex.EncodeToString(id[:]) }

// oneLine is an error for a table.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// after is how long until t, at least nothing.
func after(now, t time.Time) time.Duration { return max(0, t.Sub(now)) }

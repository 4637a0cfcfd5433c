package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// PruneOptions says what goes.
type PruneOptions struct {
	Rules Rules
	// Drop is IDs of backups and capsules that go, also where they cannot be read.
	Drop []string
	// Grace is the age under which nothing goes that no backup names: it is what a
	// backup under way, or one that was interrupted, has brought already. The pending
	// backup itself stays for an hour at least.
	Grace time.Duration
	Dry   bool // say what would go
}

// Pruned is what went.
type Pruned struct {
	Backups  []Entry        // that went
	Capsules []CapsuleEntry // that went
	Kept     int            // backups that stay
	Chunks   int
	Freed    int64 // bytes
}

// Prune removes backups by rules, and the chunks that then nobody names.
func (r *Repo) Prune(ctx context.Context, o PruneOptions) (done Pruned, err error) {
	note, err := r.takeNote(ctx)
	if err != nil {
		return Pruned{}, err
	}
	defer func() { err = errors.Join(err, note.end(context.WithoutCancel(ctx))) }()
	// A backup that is put between the two listings was pending at the first.
	pending, err := r.list(ctx, pendingDir)
	if err != nil {
		return Pruned{}, err
	}
	ended := note.at.Add(-max(o.Grace, underWay))
	capsules, err := r.capsulesParted(ctx, o, ended)
	if err != nil {
		return Pruned{}, err
	}
	all, err := r.Backups(ctx)
	if err != nil {
		return Pruned{}, err
	}
	keep, drop, err := parted(all, o, capsules)
	if err != nil {
		return Pruned{}, err
	}
	old, err := r.older(ctx, pendingDir, ended)
	if err != nil {
		return Pruned{}, err
	}
	pending = slices.DeleteFunc(pending, func(e Entry) bool { return slices.Contains(old, pendingDir+e.ID) })
	named, err := r.named(ctx, slices.Concat(keep, pending))
	if err != nil {
		return Pruned{}, err
	}
	done = Pruned{Backups: drop, Capsules: capsules.drop, Kept: len(keep)}
	tmp, err := r.older(ctx, TmpDir, ended)
	if err != nil {
		return Pruned{}, err
	}
	for _, e := range capsules.drop { // before what they need
		capsules.objects = append(capsules.objects, capsulesDir+e.ID)
	}
	first := slices.Concat(old, tmp)
	for _, e := range drop {
		first = append(first, backupsDir+e.ID)
	}
	var chunks []string
	err = r.chunks(ctx, func(n Name, c Object) {
		if _, ok := named[n]; !ok && note.at.Sub(c.Modified) >= o.Grace {
			done.Chunks++
			done.Freed += c.Size
			chunks = append(chunks, c.Name)
		}
	})
	if err != nil || o.Dry {
		return done, err
	}
	if err := r.remove(ctx, note, capsules.objects); err != nil {
		return done, err
	}
	if err := r.remove(ctx, note, first); err != nil { // before anything that they name
		return done, err
	}
	return done, r.remove(ctx, note, chunks)
}

// partedCapsules is which capsules go, and what the others need.
type partedCapsules struct {
	drop    []CapsuleEntry
	needed  map[string]string // backups, and the capsule that needs each
	objects []string          // to be removed first
}

// capsulesParted tells which capsules stay. What is pending since ended is nobody's.
func (r *Repo) capsulesParted(ctx context.Context, o PruneOptions, ended time.Time) (out partedCapsules, err error) {
	// A capsule that is put between the two listings was pending at the first.
	pending, err := r.listCapsules(ctx, pendingCapsulesDir)
	if err != nil {
		return out, err
	}
	all, err := r.Capsules(ctx)
	if err != nil {
		return out, err
	}
	if out.objects, err = r.older(ctx, pendingCapsulesDir, ended); err != nil {
		return out, err
	}
	out.needed = map[string]string{}
	keep := slices.DeleteFunc(pending, func(e CapsuleEntry) bool { return slices.Contains(out.objects, pendingCapsulesDir+e.ID) })
	of := map[string][]CapsuleEntry{}
	for _, e := range slices.Backward(all) { // newest first
		switch {
		case slices.Contains(o.Drop, e.ID):
			out.drop = append(out.drop, e)
		case e.Err != nil:
			keep = append(keep, e)
		default:
			of[e.Host] = append(of[e.Host], e)
		}
	}
	for _, g := range of {
		times := make([]time.Time, len(g))
		for i, e := range g {
			times[i] = e.Created
		}
		for i, stays := range o.Rules.keep(times) {
			if stays {
				keep = append(keep, g[i])
			} else {
				out.drop = append(out.drop, g[i])
			}
		}
	}
	slices.SortFunc(out.drop, func(a, b CapsuleEntry) int { return strings.Compare(a.ID, b.ID) })
	for _, e := range keep {
		if e.Err != nil {
			return out, fmt.Errorf("nothing is removed, because it cannot be told what a capsule needs: %w; `ripstop backup prune --drop %s` gives it up", e.Err, e.ID)
		}
		for _, id := range e.needs() {
			out.needed[id] = e.ID
		}
	}
	return out, nil
}

// parted tells which backups stay: what a capsule needs does, too.
func parted(all []Entry, o PruneOptions, capsules partedCapsules) (keep, drop []Entry, err error) {
	for _, id := range o.Drop {
		if by, ok := capsules.needed[id]; ok {
			return nil, nil, fmt.Errorf("capsule %s needs backup %s: give up both with --drop %s,%s", by, id, by, id)
		}
		if !slices.ContainsFunc(all, func(e Entry) bool { return e.ID == id }) &&
			!slices.ContainsFunc(capsules.drop, func(e CapsuleEntry) bool { return e.ID == id }) {
			return nil, nil, fmt.Errorf("there is no backup %s: `ripstop backup ls` lists them", id)
		}
	}
	groups := map[string][]Entry{}
	for _, e := range slices.Backward(all) { // newest first
		switch {
		case slices.Contains(o.Drop, e.ID):
			drop = append(drop, e)
		case e.Err != nil:
			return nil, nil, fmt.Errorf("nothing is removed, because it cannot be told what a backup needs: %w; `ripstop backup prune --drop %s` gives it up", e.Err, e.ID)
		default:
			of := e.Host + "/" + e.LUN
			groups[of] = append(groups[of], e)
		}
	}
	for _, g := range groups {
		times := make([]time.Time, len(g))
		for i, e := range g {
			times[i] = e.Created
		}
		for i, stays := range o.Rules.keep(times) {
			if _, needed := capsules.needed[g[i].ID]; stays || needed {
				keep = append(keep, g[i])
			} else {
				drop = append(drop, g[i])
			}
		}
	}
	slices.SortFunc(drop, func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
	return keep, drop, nil
}

// named is the chunks and pages that backups name.
func (r *Repo) named(ctx context.Context, all []Entry) (map[Name]struct{}, error) {
	out := map[Name]struct{}{}
	var names [pageNames]Name
	for _, e := range all {
		if e.Err != nil {
			return nil, fmt.Errorf("nothing is removed, because it cannot be told what a backup under way needs: %w; try again later", e.Err)
		}
		for i := range e.Pages {
			p := pageOf(e.Backup, int64(i))
			if _, ok := out[p]; ok || p.hole() {
				continue
			}
			data, err := r.getChunk(ctx, p, pageSize)
			if err != nil {
				return nil, fmt.Errorf("nothing is removed, because it cannot be told what backup %s needs: %w; `ripstop backup prune --drop %s` gives it up", e.ID, err, e.ID)
			}
			out[p] = struct{}{}
			decodePage(data, names[:])
			for _, n := range names {
				out[n] = struct{}{}
			}
		}
	}
	return out, nil
}

// older is the objects of a directory that were put before a moment.
func (r *Repo) older(ctx context.Context, dir string, than time.Time) ([]string, error) {
	var out []string
	err := r.store.List(ctx, dir, func(o Object) bool {
		if o.Modified.Before(than) {
			out = append(out, o.Name)
		}
		return true
	})
	return out, err
}

// remove deletes objects, several at the same time, and returns when none is under way any more.
func (r *Repo) remove(ctx context.Context, n *note, names []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan string)
	for range min(uploads, len(names)) {
		wg.Go(func() {
			for name := range next {
				err := n.holds()
				if err == nil {
					err = r.store.Delete(ctx, name)
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, name := range names {
		select {
		case next <- name:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// isObject tells what is wrong with one object from what is wrong with the store.
func isObject(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) }

// note says to Writers that a Prune is under way.
type note struct {
	r      *Repo
	name   string
	at     time.Time // by the store's clock, when it was first put
	cancel context.CancelFunc
	over   chan struct{}

	mu    sync.Mutex
	since time.Time // by the wall clock, which goes on while a machine sleeps
	err   error
}

func (r *Repo) takeNote(ctx context.Context) (*note, error) {
	n := &note{r: r, name: pruningDir + newID(time.Now()), over: make(chan struct{})}
	if err := n.renew(ctx); err != nil {
		return nil, err
	}
	var err error
	if n.at, err = r.modified(ctx, n.name); err != nil {
		return nil, errors.Join(err, r.store.Delete(ctx, n.name))
	}
	ctx, n.cancel = context.WithCancel(ctx)
	go func() {
		defer close(n.over)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(r.refresh):
			}
			err := n.renew(ctx)
			n.mu.Lock()
			n.err = err
			n.mu.Unlock()
		}
	}()
	return n, nil
}

// renew puts it again. Its time is from before the store was asked.
func (n *note) renew(ctx context.Context) error {
	now := time.Now().Round(0)
	if err := n.r.store.Put(ctx, n.name, []byte("a prune is under way\n")); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.since = now
	return nil
}

// holds fails when Writers may take the note for a killed Prune's soon.
func (n *note) holds() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.since) < n.r.stale/2 {
		return nil
	}
	return fmt.Errorf("prune: it stood still, or the store took its note no more: what is left is removed the next time: %w", errors.Join(n.err, context.DeadlineExceeded))
}

func (n *note) end(ctx context.Context) error {
	n.cancel()
	<-n.over
	return n.r.store.Delete(ctx, n.name)
}

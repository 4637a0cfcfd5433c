package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxCapsule is the bytes of a Capsule as JSON.
const maxCapsule = 32 << 20

// Capsule is a whole host at one moment: what it was, its secrets, and its disks,
// which are backups of the store. What it was and the secrets are in the words of who
// saves it.
type Capsule struct {
	Format  int             `json:"format"`
	ID      string          `json:"id"` // the time and something random
	Host    string          `json:"host"`
	Created time.Time       `json:"created"` // when the disks were so
	About   json.RawMessage `json:"about"`
	Disks   []Disk          `json:"disks"`
	Seal    Seal            `json:"seal"`
}

// Disk is a LUN with its snapshots: backups of it, oldest first, of which the last is
// the LUN itself.
type Disk struct {
	LUN   string `json:"lun"`
	Parts []Part `json:"parts"`
}

// Part is a backup that a capsule needs.
type Part struct {
	ID       string `json:"id"`
	Root     string `json:"root"`               // of the backup, so that the seal vouches for its data
	Snapshot string `json:"snapshot,omitempty"` // "" is the LUN itself
}

// CapsuleEntry is a capsule of the list, or why it cannot be read.
type CapsuleEntry struct {
	Capsule // with ID alone where Err is not nil
	Err     error
}

// Capsules is all that are there, oldest first.
func (r *Repo) Capsules(ctx context.Context) ([]CapsuleEntry, error) {
	return r.listCapsules(ctx, capsulesDir)
}

func (r *Repo) listCapsules(ctx context.Context, dir string) ([]CapsuleEntry, error) {
	var ids []string
	if err := r.store.List(ctx, dir, func(o Object) bool {
		if id := strings.TrimPrefix(o.Name, dir); idPattern.MatchString(id) {
			ids = append(ids, id)
		}
		return true
	}); err != nil {
		return nil, err
	}
	all := make([]CapsuleEntry, 0, len(ids))
	for _, id := range ids {
		p, err := r.get(ctx, kindCapsule, dir+id, maxCapsule)
		if errors.Is(err, ErrNotFound) {
			continue // it was deleted after it was listed
		}
		var c Capsule
		if err == nil {
			c, err = parseCapsule(dir, id, p)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		c.ID = id
		all = append(all, CapsuleEntry{c, err})
	}
	slices.SortStableFunc(all, func(a, b CapsuleEntry) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all, nil
}

// parseCapsule reads a capsule and believes nothing of it.
func parseCapsule(dir, id string, p []byte) (Capsule, error) {
	var c Capsule
	// A newer one may have what this does not know.
	var of struct{ Format int }
	if err := json.Unmarshal(p, &of); err != nil {
		return Capsule{}, damaged(dir+id, "%v", err)
	}
	if of.Format > version {
		return Capsule{}, fmt.Errorf("%s: it has format %d, and this ripstop knows %d: run a newer one", dir+id, of.Format, version)
	}
	err := strict(p, &c)
	if err == nil {
		err = c.check(id)
	}
	if err != nil {
		return Capsule{}, damaged(dir+id, "%v", err)
	}
	return c, nil
}

func (c Capsule) check(id string) error {
	switch {
	case c.Format != version || c.ID != id || !idPattern.MatchString(id):
		return fmt.Errorf("it says that it is %.64q of format %d", c.ID, c.Format)
	case !wordPattern.MatchString(c.Host):
		return fmt.Errorf("%.64q is no name of a host", c.Host)
	case len(c.About) == 0:
		return errors.New("it does not say what the host was")
	}
	luns := map[string]bool{}
	for _, d := range c.Disks {
		if !wordPattern.MatchString(d.LUN) || luns[d.LUN] || len(d.Parts) == 0 {
			return fmt.Errorf("%.64q is no disk, or there are two of it", d.LUN)
		}
		luns[d.LUN] = true
		if err := d.check(); err != nil {
			return err
		}
	}
	return c.Seal.valid()
}

func (d Disk) check() error {
	seen := map[string]bool{}
	for i, p := range d.Parts {
		last := i == len(d.Parts)-1
		switch {
		case !idPattern.MatchString(p.ID):
			return fmt.Errorf("disk %s: %.64q is no backup", d.LUN, p.ID)
		case p.Snapshot == "" != last, seen[p.Snapshot], p.Snapshot != "" && !wordPattern.MatchString(p.Snapshot):
			return fmt.Errorf("disk %s: snapshot %.64q is none, or there are two of it", d.LUN, p.Snapshot)
		}
		if _, ok := parseName(p.Root); !ok {
			return fmt.Errorf("disk %s: the hash of snapshot %.64q is none", d.LUN, p.Snapshot)
		}
		seen[p.Snapshot] = true
	}
	return nil
}

// needs is the backups of a capsule.
func (c Capsule) needs() []string {
	var ids []string
	for _, d := range c.Disks {
		for _, p := range d.Parts {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// FindCapsule is the newest capsule of a host, or of all where one host alone has some
// and ref is empty, or that of an ID or the beginning of one.
func FindCapsule(all []CapsuleEntry, ref string) (CapsuleEntry, error) {
	hosts := map[string]CapsuleEntry{}
	var begin []CapsuleEntry
	for _, e := range all {
		if e.Err == nil {
			hosts[e.Host] = e // oldest first
		}
		if ref != "" && strings.HasPrefix(e.ID, strings.ToLower(ref)) {
			begin = append(begin, e)
		}
	}
	if e, ok := hosts[ref]; ok {
		return e, nil
	}
	names := slices.Sorted(maps.Keys(hosts))
	switch {
	case ref == "" && len(hosts) == 1:
		return hosts[names[0]], nil
	case ref == "" && len(hosts) > 1:
		return CapsuleEntry{}, fmt.Errorf("there are capsules of the hosts %s: name one of them, or an ID of `ripstop capsule ls`", strings.Join(names, ", "))
	case ref == "" && len(all) > 0:
		return all[len(all)-1], all[len(all)-1].Err
	case ref == "":
		return CapsuleEntry{}, errors.New("there is no capsule in it: `ripstop capsule save` makes one")
	case len(begin) == 0:
		return CapsuleEntry{}, fmt.Errorf("there is no capsule %s: `ripstop capsule ls` lists them", ref)
	case len(begin) > 1:
		return CapsuleEntry{}, fmt.Errorf("%d capsules begin with %s: write more of the ID", len(begin), ref)
	}
	return begin[0], begin[0].Err
}

// CapsuleBackups is the backups that a capsule needs, by ID: all of them are there and are
// those that the capsule was sealed with.
func (r *Repo) CapsuleBackups(ctx context.Context, c Capsule) (map[string]Backup, error) {
	out := map[string]Backup{}
	var all []Entry
	for _, d := range c.Disks {
		size := int64(0)
		for _, p := range d.Parts {
			b, err := r.load(ctx, backupsDir, p.ID)
			if err != nil {
				return nil, fmt.Errorf("capsule %s: disk %s: %w", c.ID, d.LUN, err)
			}
			if b.Root != p.Root {
				return nil, fmt.Errorf("capsule %s: disk %s: %w", c.ID, d.LUN, damaged(backupsDir+p.ID, "it is another backup than the capsule was made with"))
			}
			if b.Size < size {
				return nil, fmt.Errorf("capsule %s: disk %s: %w", c.ID, d.LUN, damaged(backupsDir+p.ID, "a disk never shrinks, and this one has %d bytes after %d", b.Size, size))
			}
			size = b.Size
			if _, ok := out[p.ID]; !ok {
				out[p.ID] = b
				all = append(all, Entry{Backup: b})
			}
		}
	}
	faults, err := r.Check(ctx, all, false)
	if err != nil {
		return nil, err
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("capsule %s: backup %s: %w", c.ID, faults[0].ID, faults[0].Err)
	}
	return out, nil
}

// CapsuleWriter makes a capsule. Until Finish there is none, and Prune leaves what was
// added to it. It is not safe for concurrent use.
type CapsuleWriter struct {
	r     *Repo
	c     Capsule
	disks map[string]int // by LUN
	since time.Time      // of the pending one, by the wall clock
}

// BeginCapsule starts the capsule of a host.
func (r *Repo) BeginCapsule(host string) *CapsuleWriter {
	now := time.Now()
	return &CapsuleWriter{r: r, c: Capsule{
		Format: version, ID: newID(now), Host: host, Created: now.UTC(), About: json.RawMessage(`{}`), Seal: unsealed(),
	}, disks: map[string]int{}}
}

// Began is when it was started.
func (w *CapsuleWriter) Began() time.Time { return w.c.Created }

// Add adds a backup, those of a LUN oldest first and the LUN itself, whose snapshot
// is "", last. It reaches the store.
func (w *CapsuleWriter) Add(ctx context.Context, lun, snapshot string, b Backup) error {
	i, ok := w.disks[lun]
	if !ok {
		i = len(w.c.Disks)
		w.disks[lun] = i
		w.c.Disks = append(w.c.Disks, Disk{LUN: lun})
	}
	d := &w.c.Disks[i]
	d.Parts = append(d.Parts, Part{b.ID, b.Root, snapshot})
	return w.pend(ctx)
}

// pend puts the pending capsule, from before which its time is counted.
func (w *CapsuleWriter) pend(ctx context.Context) error {
	w.since = time.Now().Round(0)
	return w.r.saveCapsule(ctx, pendingCapsulesDir, w.c)
}

func (r *Repo) saveCapsule(ctx context.Context, dir string, c Capsule) error {
	p, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if len(p) > maxCapsule {
		return fmt.Errorf("a capsule of %d bytes: at most %d are read again: make the configuration smaller", len(p), maxCapsule)
	}
	if p, err = r.pack.pack(kindCapsule, dir+c.ID, p); err != nil {
		return err
	}
	return r.store.Put(ctx, dir+c.ID, p)
}

// Finish makes it a capsule: about is what the host was, and secrets is sealed.
func (w *CapsuleWriter) Finish(ctx context.Context, about any, created time.Time, secrets []byte, s Sealer) (Capsule, error) {
	p, err := json.Marshal(about)
	if err != nil {
		return Capsule{}, err
	}
	w.c.About, w.c.Created = p, created.UTC()
	if w.c, err = w.c.sealed(secrets, s); err != nil {
		return Capsule{}, err
	}
	if err := w.c.check(w.c.ID); err != nil {
		return Capsule{}, fmt.Errorf("capsule of host %s: %w", w.c.Host, err)
	}
	if err := w.settle(ctx); err != nil {
		return Capsule{}, err
	}
	if err := w.r.saveCapsule(ctx, capsulesDir, w.c); err != nil {
		return Capsule{}, err
	}
	return w.c, w.Close(ctx)
}

// settle waits until no Prune is under way, and sees that all backups are there.
// A Prune that begins later sees the pending capsule.
func (w *CapsuleWriter) settle(ctx context.Context) error {
	for {
		if err := w.pend(ctx); err != nil { // so that its time is now
			return err
		}
		busy, err := w.r.pruning(ctx, pendingCapsulesDir+w.c.ID)
		if err != nil {
			return err
		}
		if !busy {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.r.poll):
		}
	}
	if _, err := w.r.CapsuleBackups(ctx, w.c); err != nil {
		return fmt.Errorf("something of it was removed or damaged meanwhile, save it again, with --full where that says the same: %w", err)
	}
	if time.Since(w.since) > underWay/2 {
		return errors.New("it stood still, or the store took too long to list what it has: run this again, it goes on")
	}
	return nil
}

// Close ends what is pending. A capsule that was not finished is not there.
func (w *CapsuleWriter) Close(ctx context.Context) error {
	return w.r.store.Delete(ctx, pendingCapsulesDir+w.c.ID)
}

// DiskOf is what a capsule has of a LUN.
func (c Capsule) DiskOf(lun string) (Disk, bool) {
	i := slices.IndexFunc(c.Disks, func(d Disk) bool { return d.LUN == lun })
	if i < 0 {
		return Disk{}, false
	}
	return c.Disks[i], true
}

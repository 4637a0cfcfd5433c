package thin

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Create makes a volume of size bytes that reads as zeros, with logical blocks
// of 512 or 4096 bytes. It is durable on return, as is every change below.
func (p *Pool) Create(ctx context.Context, name string, size int64, block int) (*Volume, error) {
	return p.create(ctx, name, size, block, false)
}

// CreateReserved is Create for a volume with room for all of its blocks.
func (p *Pool) CreateReserved(ctx context.Context, name string, size int64, block int) (*Volume, error) {
	return p.create(ctx, name, size, block, true)
}

func (p *Pool) create(ctx context.Context, name string, size int64, block int, reserved bool) (*Volume, error) {
	p.control.Lock()
	defer p.control.Unlock()
	s, err := newShape(name, uint32(block))
	if err == nil {
		err = checkSize(size, block)
	}
	if err != nil {
		return nil, fmt.Errorf("create LUN %s: %w", name, err)
	}
	v := newVolume(p, entry{size: size, shape: s, reserved: reserved})
	if reserved {
		err = p.promise(v, promise{regions(size), mapChunks(size)})
	}
	if err == nil {
		err = p.restructure(ctx, func() error {
			if err := p.vacant(name); err != nil {
				return err
			}
			v.number = p.nextID
			p.insert(v)
			p.wal.add(false, func(b []byte) []byte {
				b = appendCreate(b, v.number, size, s)
				if reserved { // in the same frame
					b = appendReserve(b, v.number, true)
				}
				return b
			})
			return nil
		})
	}
	if err != nil {
		p.space.promise(&v.promise, promise{})
		return nil, fmt.Errorf("create LUN %s: %w", name, err)
	}
	return v, nil
}

func newShape(name string, block uint32) (shape, error) {
	s := shape{name: name, block: block, created: time.Now().UnixNano()}
	rand.Read(s.id[:]) // never fails, see crypto/rand
	if name == "" || len(name) > maxName || strings.Contains(name, "@") {
		return s, errors.New("a name has 1 to 255 bytes and no @")
	}
	return s, nil
}

func checkSize(size int64, block int) error {
	switch {
	case block != 512 && block != 4096:
		return fmt.Errorf("block %d is neither 512 nor 4096", block)
	case size <= 0 || size%int64(block) != 0 || size > maxVolumeSize:
		return fmt.Errorf("size %d is not a positive multiple of block %d up to %d", size, block, maxVolumeSize)
	}
	return nil
}

// restructure runs do with the tree held and makes durable what it put into
// the log. Nobody else makes, shares or deletes volumes meanwhile.
func (p *Pool) restructure(ctx context.Context, do func() error) error {
	if err := errors.Join(ctx.Err(), p.writable()); err != nil {
		return err
	}
	if err := errors.Join(p.pace(), p.admit(true)); err != nil {
		return err
	}
	p.tree.Lock()
	err := do()
	p.tree.Unlock()
	if err != nil {
		return err
	}
	return p.commit()
}

// vacant refuses a name that is taken or too long, and a pool with too many. With
// tree held.
func (p *Pool) vacant(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("the name %s has more than %d bytes", name, maxName)
	}
	if p.names[name] != nil {
		return ErrExists
	}
	if len(p.volumes) >= maxVolumes {
		return fmt.Errorf("a pool has at most %d volumes and snapshots: delete some", maxVolumes)
	}
	return nil
}

// Snapshot keeps the present of one or more volumes under a name, all of the
// same moment: after a cut either all are there or none. It takes no data, and
// no longer for a larger volume than its pages do.
func (p *Pool) Snapshot(ctx context.Context, snapshot string, volumes ...string) error {
	s, err := newShape(snapshot, 0)
	if err == nil {
		err = p.takeSnapshot(ctx, s, volumes)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s of LUN %s: %w", snapshot, strings.Join(volumes, ", "), err)
	}
	return nil
}

// SnapshotAs is Snapshot of a volume for one that was made elsewhere: it has its
// identifier and its time.
func (p *Pool) SnapshotAs(ctx context.Context, snapshot, volume string, id [16]byte, created time.Time) error {
	s, err := newShape(snapshot, 0)
	if err == nil {
		s.id, s.created = id, created.UnixNano()
		err = p.takeSnapshot(ctx, s, []string{volume})
	}
	if err != nil {
		return fmt.Errorf("snapshot %s of LUN %s: %w", snapshot, volume, err)
	}
	return nil
}

func (p *Pool) takeSnapshot(ctx context.Context, s shape, volumes []string) error {
	p.control.Lock()
	defer p.control.Unlock()
	from, err := p.sources(volumes)
	if err != nil {
		return err
	}
	if err := p.pace(); err != nil { // while I/O goes on
		return err
	}
	for _, v := range from { // in the order of their numbers, like everybody
		v.gate.Lock()
	}
	opened := false
	open := func() {
		if !opened {
			for _, v := range from {
				v.gate.Unlock()
			}
		}
		opened = true
	}
	defer open()
	return p.sharing(from, func() error { return p.freezeAll(ctx, s, from, open) })
}

// sharing runs do, which makes the volumes share all that they have. With
// their gates held.
func (p *Pool) sharing(volumes []*Volume, do func() error) error {
	var undo []func()
	var err error
	for _, v := range volumes {
		var u func()
		if u, err = p.promiseAll(v); err != nil {
			break
		}
		undo = append(undo, u)
	}
	if err == nil {
		if err = do(); err == nil {
			return nil
		}
	}
	for _, u := range undo {
		u()
	}
	return err
}

// freezeAll makes snapshots of volumes in one record. open opens their gates.
func (p *Pool) freezeAll(ctx context.Context, s shape, from []*Volume, open func()) error {
	return p.restructure(ctx, func() error {
		defer open() // what is written from now on is after the snapshot
		var items []item
		for _, v := range from {
			if err := p.vacant(v.shape().name + "@" + s.name); err != nil {
				return err
			}
		}
		for _, v := range from {
			items = append(items, p.freeze(v, s))
			rand.Read(s.id[:])
		}
		p.wal.add(true, func(b []byte) []byte { return appendItems(b, recSnapshot, items) })
		return nil
	})
}

// sources is the volumes of the names, by number.
func (p *Pool) sources(names []string) ([]*Volume, error) {
	var out []*Volume
	for _, name := range names {
		v, err := p.Volume(name)
		if err != nil {
			return nil, err
		}
		if v.snapshot || slices.Contains(out, v) {
			return nil, fmt.Errorf("%s is a snapshot, or named twice", name)
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		return nil, ErrNotFound
	}
	slices.SortFunc(out, func(a, b *Volume) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}

// freeze makes a snapshot of a volume. With gate and tree held.
func (p *Pool) freeze(v *Volume, s shape) item {
	s.name, s.block = v.shape().name+"@"+s.name, v.shape().block
	v.calm()
	i := item{v.number, p.nextID, s}
	p.insert(v.copy(i.to, s, true))
	return i
}

// Clone makes a volume that begins as a snapshot and shares what neither changes.
func (p *Pool) Clone(ctx context.Context, snapshot, name string) (*Volume, error) {
	p.control.Lock()
	defer p.control.Unlock()
	var v *Volume
	s, err := newShape(name, 0)
	from, ferr := p.Volume(snapshot)
	if ferr != nil || !from.snapshot {
		err = cmp.Or(err, fmt.Errorf("snapshot %s: %w", snapshot, ErrNotFound))
	}
	if err == nil {
		from.gate.Lock() // Heal keeps off what is about to be shared
		defer from.gate.Unlock()
		err = p.restructure(ctx, func() error {
			if err := p.vacant(name); err != nil {
				return err
			}
			s.block = from.shape().block
			i := item{from.number, p.nextID, s}
			v = from.copy(i.to, s, false)
			p.insert(v)
			p.wal.add(false, func(b []byte) []byte { return appendItems(b, recClone, []item{i}) })
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("clone %s to %s: %w", snapshot, name, err)
	}
	return v, nil
}

// Restore makes a volume what its snapshot is, and keeps what it was as the
// snapshot keep. A volume that has grown since keeps its size.
func (p *Pool) Restore(ctx context.Context, volume, snapshot, keep string) error {
	p.control.Lock()
	defer p.control.Unlock()
	if err := p.restore(ctx, volume, snapshot, keep); err != nil {
		return fmt.Errorf("restore LUN %s to %s: %w", volume, snapshot, err)
	}
	return nil
}

func (p *Pool) restore(ctx context.Context, volume, snapshot, keep string) error {
	from, err := p.sources([]string{volume})
	if err != nil {
		return err
	}
	v := from[0]
	source, err := p.Volume(volume + "@" + snapshot)
	if err != nil {
		return err
	}
	s, err := newShape(keep, 0)
	if err != nil {
		return err
	}
	v.gate.Lock()
	defer v.gate.Unlock()
	source.gate.Lock() // after its volume's, whose number is less; Heal keeps off
	defer source.gate.Unlock()
	return p.sharing(from, func() error {
		return p.restructure(ctx, func() error {
			if err := p.vacant(volume + "@" + keep); err != nil {
				return err
			}
			i := p.freeze(v, s)
			v.assume(source)
			p.wal.add(true, func(b []byte) []byte { return i.append(appendHead(b, recRestore, v.number, source.number)) })
			return nil
		})
	})
}

// Grow makes a volume larger; I/O goes on.
func (p *Pool) Grow(ctx context.Context, name string, size int64) error {
	p.control.Lock()
	defer p.control.Unlock()
	v, err := p.Volume(name)
	if err == nil {
		err = p.grow(ctx, v, size)
	}
	if err != nil {
		return fmt.Errorf("grow LUN %s: %w", name, err)
	}
	return nil
}

func (p *Pool) grow(ctx context.Context, v *Volume, size int64) error {
	if err := errors.Join(v.writable(), checkSize(size, int(v.shape().block))); err != nil {
		return err
	}
	if size < v.size.Load() {
		return fmt.Errorf("it has %d bytes and does not shrink to %d", v.size.Load(), size)
	}
	v.gate.Lock()
	defer v.gate.Unlock()
	before, is := v.promise, v.size.Load()
	if v.reserved.Load() {
		if err := p.promise(v, promise{before.data + regions(size) - regions(is), mapChunks(size)}); err != nil {
			return err
		}
	}
	err := p.restructure(ctx, func() error {
		v.extend(size)
		p.wal.add(false, func(b []byte) []byte { return appendGrow(b, v.number, size) })
		return nil
	})
	if err != nil {
		p.space.promise(&v.promise, before)
	}
	return err
}

// Rename gives a volume another name and another identifier, and its snapshots, which
// go by its name, other names; I/O goes on. After a cut all have the new names or none.
func (p *Pool) Rename(ctx context.Context, from, to string, id [16]byte) error {
	p.control.Lock()
	defer p.control.Unlock()
	v, err := p.Volume(from)
	if err == nil {
		err = p.rename(ctx, v, to, id)
	}
	if err != nil {
		return fmt.Errorf("rename LUN %s to %s: %w", from, to, err)
	}
	return nil
}

func (p *Pool) rename(ctx context.Context, v *Volume, to string, id [16]byte) error {
	s, err := newShape(to, v.shape().block)
	if err = errors.Join(err, v.writable()); err != nil {
		return err
	}
	s.id, s.created = id, v.shape().created
	return p.restructure(ctx, func() error {
		all := []renaming{{v, s}}
		for _, o := range p.volumes {
			if o.parent != v.number || !o.snapshot {
				continue
			}
			_, name, _ := strings.Cut(o.shape().name, "@")
			s := *o.shape()
			s.name = to + "@" + name
			all = append(all, renaming{o, s})
		}
		if len(all) > mostRenamed {
			return fmt.Errorf("it has %d snapshots, and the names of at most %d change at once: delete some", len(all)-1, mostRenamed-1)
		}
		for _, r := range all {
			if err := p.vacant(r.to.name); err != nil {
				return err
			}
		}
		for _, r := range all {
			p.assign(r.v, r.to)
		}
		p.wal.add(false, func(b []byte) []byte {
			for _, r := range all { // in the same frame
				b = appendRename(b, r.v.number, r.to)
			}
			return b
		})
		return nil
	})
}

// mostRenamed is how many volumes and snapshots get other names at once: their records
// are in one frame.
const mostRenamed = 2048

// renaming is a volume or snapshot and what it will be.
type renaming struct {
	v  *Volume
	to shape
}

// assign gives a volume its new shape. With tree held, or while recovering.
func (p *Pool) assign(v *Volume, s shape) {
	p.remove(v)
	v.is.Store(&s)
	p.insert(v)
}

// unshared refuses a volume with snapshots, which go by its name. With tree held.
func (p *Pool) unshared(v *Volume) error {
	for _, s := range p.volumes {
		if s.parent == v.number && s.snapshot {
			return fmt.Errorf("%w, as %s: delete them first", ErrHasSnapshots, s.shape().name)
		}
	}
	return nil
}

// Delete destroys a volume without snapshots, or a snapshot, and gives back
// what nobody else uses. It works in a full pool.
func (p *Pool) Delete(ctx context.Context, name string) error {
	p.control.Lock()
	defer p.control.Unlock()
	v, err := p.Volume(name)
	if err == nil {
		err = p.delete(ctx, v)
	}
	if err != nil {
		return fmt.Errorf("delete LUN %s: %w", name, err)
	}
	return nil
}

func (p *Pool) delete(ctx context.Context, v *Volume) error {
	if err := p.destroy(ctx, v); err != nil {
		return err
	}
	return p.repromise()
}

// destroy is delete but for what the others are promised.
func (p *Pool) destroy(ctx context.Context, v *Volume) error {
	v.gate.Lock()
	defer v.gate.Unlock()
	if err := errors.Join(ctx.Err(), p.writable(), p.pace()); err != nil {
		return err
	}
	p.tree.Lock()
	if err := p.unshared(v); err != nil {
		p.tree.Unlock()
		return err
	}
	p.remove(v)
	v.calm()
	v.closed = true
	p.wal.add(false, func(b []byte) []byte { return appendHead(b, recDelete, v.number) })
	p.tree.Unlock()
	if err := p.commit(); err != nil { // it is there, as far as anybody knows, and can be read
		p.tree.Lock()
		p.insert(v)
		p.tree.Unlock()
		v.closed = false
		return err
	}
	p.sweep(v)
	v.reserved.Store(false)
	p.space.promise(&v.promise, promise{})
	return nil
}

// sweep counts down what a deleted volume used. No checkpoint may be writing
// the pages that it takes apart.
func (p *Pool) sweep(v *Volume) {
	p.checkpointing.Lock()
	defer p.checkpointing.Unlock()
	for i := range v.pages {
		pg := v.pages[i].Load()
		if pg == nil {
			continue
		}
		v.pages[i].Store(nil)
		p.tree.Lock()
		left := pg.refs.Add(-1)
		if left == 0 {
			p.pages.Add(-1)
		}
		p.tree.Unlock()
		if left > 0 {
			continue
		}
		for k := range pg.leaves {
			if l := pg.leaves[k].Load(); l != nil {
				p.unrefLeaf(l)
			}
		}
		if pg.ref.loc != 0 {
			p.bury(pg.ref.loc)
		}
	}
}

package thin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// world is a pool on a simulated disk, and what it must hold.
type world struct {
	rand     *rand.Rand
	rules    rules
	disk     *thintest.Disk
	shadow   []byte // nil in some seeds
	kills    bool   // at cutAt is no cut
	left     []byte // the shadow of a process that was killed there
	pool     *Pool
	volumes  map[string]*thintest.Oracle // and snapshots, whose names have an @
	block    map[string]int64
	stamp    uint64
	names    int
	doubt    func() error // what the cut left open, told by what is there
	ops      int
	seen     map[string]int // how often each operation went well
	cutAt    string         // the power fails there
	cutIn    int            // when it comes by for this time
	cutOp    string         // the power fails inside an operation of that name
	thick    map[string]bool
	chunks   int64
	cuts     bool                      // this life ends with a cut
	accepted int64                     // blocks, by pools before this one
	hurt     map[string]map[int64]bool // blocks that may be medium errors; nil while the disk has no damage
	churns   bool                      // it reuses chunks soon after they were given up, where the rules let it
}

// points are the named crash points.
var points = []string{
	"relieve: frames are written", "commit: data are durable", "commit: frames are written", "commit: frames are durable",
	"checkpoint: begun", "checkpoint: leaves are written", "checkpoint: ledger is written", "checkpoint: table is written",
	"checkpoint: log is durable", "checkpoint: super is written", "log: goes round", "together: frame is written",
}

// point cuts the power at a named point, or kills the process there: then all
// that was acknowledged before is to stay.
func (w *world) point(name string) {
	if name != w.cutAt {
		return
	}
	if w.cutIn--; w.cutIn != 0 {
		return
	}
	w.disk.CutNow()
	if !w.kills {
		w.seen["cut at "+name]++
		return
	}
	w.seen["kill at "+name]++
	w.left = slices.Clone(w.shadow)
	w.flushed()
}

// cutOps are the operations inside of which the power is cut.
var cutOps = []string{
	"snapshot", "drop snapshot", "clone", "restore", "grow", "rename", "create", "delete", "checkpoint", "heal", "trim", "reserve", "unmap",
	"trim", "unmap", // which write little, and so are cut seldom
}

const worldChunks = 112 // or more, by the seed

func newWorld(seed uint64, r rules) (*world, error) {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 99)), rules: r, disk: thintest.New(seed, 0),
		volumes: map[string]*thintest.Oracle{}, block: map[string]int64{}, seen: map[string]int{},
		thick: map[string]bool{},
	}
	w.rules.lowest = seed%2 == 0
	w.churns = seed%4 == 2 // those that take the lowest chunk
	w.chunks = worldChunks + int64(seed/2%3)*40
	w.rules.at = w.point
	if seed%3 != 0 {
		w.shadow = aligned(minShadow << (seed % 4))
	}
	if err := Format(w.disk, 4*chunkSize); err != nil {
		return nil, err
	}
	return w, w.open(context.Background())
}

func (w *world) open(ctx context.Context) error {
	var err error
	w.pool, err = Open(ctx, w.disk, Options{
		Limit: w.chunks * chunkSize, Slab: 16 * chunkSize, Memory: 8 * leafMemory, Shadow: w.shadow, rules: w.rules,
	})
	return err
}

// pick is a random name; snapshots tells of which kind.
func (w *world) pick(snapshots bool) string {
	var names []string
	for _, n := range slices.Sorted(maps.Keys(w.volumes)) {
		if strings.Contains(n, "@") == snapshots {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[w.rand.IntN(len(names))]
}

func (w *world) count(snapshots bool) (n int) {
	for name := range w.volumes {
		if strings.Contains(name, "@") == snapshots {
			n++
		}
	}
	return n
}

func (w *world) name(prefix string) string {
	w.names++
	return fmt.Sprint(prefix, w.names)
}

// place is a range of a volume: often in a hot spot, sometimes over the border
// of two leaves.
func (w *world) place(name string, most int64) (off, n int64) {
	o, block := w.volumes[name], w.block[name]
	size := o.Size()
	n = 1 + w.rand.Int64N(most/block)
	off = w.rand.Int64N(size / block)
	switch w.rand.IntN(4) {
	case 0, 1:
		off = w.rand.Int64N(96 << 10 / block)
	case 2:
		if size > leafSize {
			off = leafSize/block - w.rand.Int64N(1+n)
		}
	}
	off, n = off*block, n*block
	off = min(off, size-block)
	return off, min(n, size-off)
}

type action struct {
	weight int
	name   string
	do     func(w *world, ctx context.Context) error
}

var actions = []action{
	{60, "write", (*world).write},
	{12, "flush", (*world).flush},
	{10, "unmap", (*world).unmap},
	{3, "zeroes", (*world).zeroes},
	{4, "compare", (*world).compare},
	{4, "snapshot", (*world).snapshot},
	{3, "drop snapshot", (*world).drop},
	{2, "clone", (*world).clone},
	{1, "restore", (*world).restore},
	{1, "grow", (*world).grow},
	{1, "rename", (*world).rename},
	{2, "create", (*world).create},
	{1, "delete", (*world).remove},
	{2, "checkpoint", (*world).checkpoint},
	{4, "heal", (*world).heal},
	{1, "scrub", (*world).scrub},
	{2, "trim", (*world).trim},
	{1, "reserve", (*world).reserve},
	{2, "relieve", (*world).relieve},
	{2, "alone", (*world).alone},
}

// step does one operation. Errors are those of the disk: what the pool gets
// wrong is a fault.
func (w *world) step(ctx context.Context) (err error) {
	if w.count(false) == 0 {
		return w.create(ctx)
	}
	if w.churns && w.rand.IntN(10) == 0 {
		return w.churn(ctx)
	}
	sum := 0
	for _, a := range actions {
		sum += a.weight
	}
	k := w.rand.IntN(sum)
	often := w.cutOp != "" && w.rand.IntN(12) == 0
	for _, a := range actions {
		if k -= a.weight; k < 0 && !often || often && a.name == w.cutOp {
			if a.name == w.cutOp {
				n := 1 + w.rand.IntN(4)
				if a.name == "trim" || a.name == "unmap" { // it is one punch, or little that is written
					n = 1
				}
				w.disk.Cut(n)
			}
			if err = a.do(w, ctx); err == nil {
				w.seen[a.name]++
			} else if cut(err) && a.name == w.cutOp {
				w.seen["cut in "+a.name]++
			} else if errors.Is(err, lun.ErrNoSpace) && !cut(err) {
				w.seen["no space"]++
				err = nil
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", a.name, err)
			}
			return err
		}
	}
	return nil
}

// cut tells whether an operation ended because the power did.
func cut(err error) bool { return errors.Is(err, thintest.ErrCut) }

func (w *world) get(name string) *Volume {
	v, err := w.pool.Volume(name)
	if err != nil {
		panic(err)
	}
	return v
}

func (w *world) write(ctx context.Context) error {
	name := w.pick(false)
	off, n := w.place(name, 160<<10)
	if w.rand.IntN(2) == 0 {
		n = min(n, 8192)
	}
	w.stamp++
	p := make([]byte, n)
	thintest.Fill(p, off, w.stamp)
	fua := w.rand.IntN(10) == 0
	err := w.put(ctx, w.get(name), p, off, fua)
	if err == nil || cut(err) {
		w.volumes[name].Write(off, n, w.stamp)
	}
	if w.bruised(err) {
		return w.partly(ctx, name, off, n, w.stamp)
	}
	if err == nil && fua {
		w.flushed()
	}
	return err
}

// put writes without waiting, where the volume can.
func (w *world) put(ctx context.Context, v *Volume, p []byte, off int64, fua bool) error {
	if fua || w.rand.IntN(3) == 0 {
		return v.WriteAt(ctx, p, off, fua)
	}
	written := false
	if v.StartWriteAt(p, off, func(ok bool) { written = ok }) {
		w.seen["start"]++
		if written {
			return nil
		}
	}
	return v.WriteAt(ctx, p, off, false)
}

// flushed notes that everything is stable: flushes are of the whole pool.
func (w *world) flushed() {
	for _, o := range w.volumes {
		o.Flush()
	}
}

func (w *world) flush(ctx context.Context) error {
	err := w.get(w.pick(false)).Flush(ctx)
	if err == nil {
		w.flushed()
	}
	return err
}

func (w *world) unmap(ctx context.Context) error {
	name := w.pick(false)
	off, n := w.place(name, 256<<10)
	if w.rand.IntN(6) == 0 {
		off, n = 0, w.volumes[name].Size()
	}
	return w.clearRange(name, off, n, w.get(name).Unmap(ctx, off, n))
}

func (w *world) zeroes(ctx context.Context) error {
	name := w.pick(false)
	off, n := w.place(name, 64<<10)
	return w.clearRange(name, off, n, w.get(name).WriteZeroes(ctx, off, n))
}

// clearRange notes zeros; where the pool was full, as far as they are there.
func (w *world) clearRange(name string, off, n int64, err error) error {
	if err == nil || cut(err) {
		w.volumes[name].Write(off, n, 0)
		return err
	}
	if w.bruised(err) {
		return w.partly(context.Background(), name, off, n, 0)
	}
	w.volumes[name].Write(off, n, 0)
	if w.hurt != nil {
		return errors.Join(w.found(context.Background(), name, off, n), err)
	}
	p := make([]byte, n)
	if err := w.get(name).ReadAt(context.Background(), p, off); err != nil {
		return err
	}
	return errors.Join(w.volumes[name].Found(p, off), err)
}

func (w *world) compare(ctx context.Context) error {
	name := w.pick(false)
	off, n := w.place(name, 32<<10)
	v := w.get(name)
	old, p := make([]byte, n), make([]byte, n)
	if err := v.ReadAt(ctx, old, off); w.bruised(err) {
		return nil
	} else if err != nil {
		return err
	}
	wrong := w.rand.IntN(3) == 0
	if wrong {
		old[n-1] ^= 1
	}
	w.stamp++
	thintest.Fill(p, off, w.stamp)
	err := v.CompareAndWrite(ctx, old, p, off)
	var miscompare *lun.Miscompare
	switch {
	case wrong && errors.As(err, &miscompare) && miscompare.Offset == n-1:
		return nil
	case wrong && err == nil:
		return errors.New("a wrong comparison succeeds")
	case err == nil || cut(err):
		w.volumes[name].Write(off, n, w.stamp)
	}
	return err
}

// settled carries out a change of the model when the pool has made it, or keeps
// it in doubt when the power went meanwhile. there tells it from what is there.
func (w *world) settled(err error, there func() (bool, error), apply func()) error {
	if err == nil {
		apply()
		w.flushed()
		return nil
	}
	if cut(err) {
		w.doubt = func() error {
			yes, err := there()
			if yes {
				apply()
			}
			return err
		}
	}
	return err
}

func (w *world) has(names ...string) func() (bool, error) {
	return func() (bool, error) {
		n := 0
		for _, name := range names {
			if _, err := w.pool.Volume(name); err == nil {
				n++
			}
		}
		if n != 0 && n != len(names) {
			return false, fmt.Errorf("%d of %v are there: a group is torn", n, names)
		}
		return n > 0, nil
	}
}

func (w *world) snapshot(ctx context.Context) error {
	if w.count(true) > 5 {
		return w.drop(ctx)
	}
	group := []string{w.pick(false)}
	if other := w.pick(false); other != group[0] && w.rand.IntN(2) == 0 {
		group = append(group, other)
	}
	name := w.name("s")
	var full []string
	kept := map[string]*thintest.Oracle{}
	for _, g := range group {
		w.inherit(g+"@"+name, g)
		full = append(full, g+"@"+name)
		kept[g+"@"+name] = w.volumes[g].Clone()
		w.block[g+"@"+name] = w.block[g]
	}
	return w.settled(w.pool.Snapshot(ctx, name, group...), w.has(full...), func() { maps.Copy(w.volumes, kept) })
}

func (w *world) gone(name string) func() (bool, error) {
	return func() (bool, error) {
		_, err := w.pool.Volume(name)
		return err != nil, nil
	}
}

func (w *world) drop(ctx context.Context) error {
	name := w.pick(true)
	if name == "" {
		return nil
	}
	return w.settled(w.pool.Delete(ctx, name), w.gone(name), func() { delete(w.volumes, name) })
}

func (w *world) remove(ctx context.Context) error {
	name := w.pick(false)
	err := w.pool.Delete(ctx, name)
	for other := range w.volumes {
		if strings.HasPrefix(other, name+"@") {
			if !errors.Is(err, ErrHasSnapshots) {
				return fmt.Errorf("delete of a volume with snapshots: %w", err)
			}
			return nil
		}
	}
	return w.settled(err, w.gone(name), func() { delete(w.volumes, name) })
}

func (w *world) clone(ctx context.Context) error {
	from := w.pick(true)
	if from == "" || w.count(false) > 4 {
		return nil
	}
	name := w.name("c")
	w.inherit(name, from)
	_, err := w.pool.Clone(ctx, from, name)
	w.block[name] = w.block[from]
	return w.settled(err, w.has(name), func() { w.volumes[name] = w.volumes[from].Clone() })
}

func (w *world) restore(ctx context.Context) error {
	snapshot := w.pick(true)
	name, s, ok := strings.Cut(snapshot, "@")
	if !ok || w.count(true) > 5 {
		return nil
	}
	keep := w.name("k")
	w.inherit(name+"@"+keep, name)
	w.inherit(name, snapshot)
	w.block[name+"@"+keep] = w.block[name]
	present := w.volumes[name].Clone()
	return w.settled(w.pool.Restore(ctx, name, s, keep), w.has(name+"@"+keep), func() {
		size := w.volumes[name].Size()
		w.volumes[name+"@"+keep] = present
		w.volumes[name] = w.volumes[snapshot].Clone()
		w.volumes[name].Grow(size)
	})
}

func (w *world) grow(ctx context.Context) error {
	name := w.pick(false)
	size := w.volumes[name].Size() + w.block[name]*w.rand.Int64N(256)
	if size > 6<<20 {
		return nil
	}
	there := func() (bool, error) { return w.get(name).Info().Size == size, nil }
	return w.settled(w.pool.Grow(ctx, name, size), there, func() { w.volumes[name].Grow(size) })
}

func (w *world) rename(ctx context.Context) error {
	from, to := w.pick(false), w.name("r")
	was := w.get(from)
	id := [16]byte([]byte(fmt.Sprintf("%-16s", to)))
	w.inherit(to, from)
	w.block[to] = w.block[from]
	names := map[string]string{from: to}
	for other := range w.volumes {
		if of, snapshot, _ := strings.Cut(other, "@"); of == from && of != other {
			names[other] = to + "@" + snapshot
			w.inherit(names[other], other)
			w.block[names[other]] = w.block[other]
		}
	}
	err := w.pool.Rename(ctx, from, to, id)
	if i := was.Info(); err == nil && (i.Name != to || i.ID != id) {
		return fmt.Errorf("%s is renamed to %s and says that it is %s", from, to, i.Name)
	}
	return w.settled(err, w.has(to), func() {
		for from, to := range names {
			w.volumes[to], w.thick[to] = w.volumes[from], w.thick[from]
			delete(w.volumes, from)
			delete(w.thick, from)
		}
	})
}

func (w *world) create(ctx context.Context) error {
	if w.count(false) > 3 {
		return nil
	}
	name, block := w.name("v"), int64(4096)
	if w.rand.IntN(3) == 0 {
		block = 512
	}
	size := block * (1 + (128<<10+w.rand.Int64N(1<<20))/block)
	if w.rand.IntN(4) == 0 {
		size += leafSize
	}
	w.block[name] = block
	make, thick := w.pool.Create, w.rand.IntN(6) == 0
	if thick {
		make = w.pool.CreateReserved
	}
	_, err := make(ctx, name, size, int(block))
	return w.settled(err, w.has(name), func() { w.volumes[name], w.thick[name] = thintest.NewOracle(size), thick })
}

// churn writes something, makes it durable, gives it up and writes something
// new, and sometimes the power fails before that is durable.
func (w *world) churn(ctx context.Context) error {
	name := w.pick(false)
	v, o := w.get(name), w.volumes[name]
	n := min(o.Size(), 2*chunkSize)
	put := func(off int64, fua bool) error {
		w.stamp++
		p := make([]byte, n)
		thintest.Fill(p, off, w.stamp)
		err := v.WriteAt(ctx, p, off, fua)
		if err == nil || cut(err) {
			o.Write(off, n, w.stamp)
		}
		if w.bruised(err) {
			return w.partly(ctx, name, off, n, w.stamp)
		}
		if err == nil && fua {
			w.flushed()
		}
		return err
	}
	err := put(0, true)
	if err == nil {
		err = w.clearRange(name, 0, n, v.Unmap(ctx, 0, n))
	}
	if err == nil {
		err = put((o.Size()-n)/chunkSize*chunkSize, w.rand.IntN(2) == 0)
	}
	if errors.Is(err, lun.ErrNoSpace) && !cut(err) {
		return nil
	}
	if err == nil && w.cuts && w.rand.IntN(2) == 0 {
		w.disk.CutNow()
	}
	return err
}

func (w *world) heal(ctx context.Context) error {
	pr, err := w.pool.Heal(ctx, 1<<20)
	if err == nil && pr.Done > 0 {
		w.flushed()
		w.seen["healed"]++
	}
	return err
}

func (w *world) scrub(ctx context.Context) error {
	pr, err := w.pool.Scrub(ctx, 1<<20)
	for _, d := range pr.Bad {
		if cut(d.Err) {
			return d.Err
		}
		for off := d.Offset; off < d.Offset+d.Size; off += blockSize {
			if w.hurt != nil && !w.hurt[d.Volume][off/blockSize] {
				return fmt.Errorf("scrub: %s at %d: %w", d.Volume, off, d.Err)
			}
		}
	}
	if len(pr.Bad) > 0 && w.hurt == nil {
		return fmt.Errorf("scrub: %v", pr.Bad)
	}
	return err
}

func (w *world) trim(ctx context.Context) error {
	for w.pool.refill() { // so that there is something to punch
	}
	pr, err := w.pool.Trim(ctx, 4<<20)
	if pr.Done > 0 {
		w.seen["trimmed"]++
	}
	return err
}

func (w *world) reserve(ctx context.Context) error {
	name := w.pick(false)
	on := !w.thick[name]
	there := func() (bool, error) { return w.get(name).Reserved() == on, nil }
	return w.settled(w.pool.Reserve(ctx, name, on), there, func() { w.thick[name] = on })
}

func (w *world) checkpoint(context.Context) error { return w.pool.checkpoint(false) }

// relieve overwrites in place what is durable, and has the records go to the log
// with nobody waiting for them.
func (w *world) relieve(ctx context.Context) error {
	name := w.pick(false)
	off, n := w.place(name, 32<<10)
	p := make([]byte, n)
	for i := range 3 {
		w.stamp++
		thintest.Fill(p, off, w.stamp)
		err := w.get(name).WriteAt(ctx, p, off, i == 0)
		if err == nil || cut(err) {
			w.volumes[name].Write(off, n, w.stamp)
		}
		if w.bruised(err) {
			return w.partly(ctx, name, off, n, w.stamp)
		}
		if err == nil && i == 0 {
			w.flushed()
		}
		if err == nil {
			err = w.pool.wal.relieve(0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// alone overwrites blocks with a flush after each but the last, as the log expects
// it after a while.
func (w *world) alone(ctx context.Context) error {
	name := w.pick(false)
	size := w.volumes[name].Size()
	n := min(blockSize*(1+w.rand.Int64N(4)), size&^(blockSize-1))
	off := w.rand.Int64N((size-n)/blockSize+1) * blockSize
	p := make([]byte, n)
	for i := range 8 {
		w.stamp++
		thintest.Fill(p, off, w.stamp)
		flush := i < 7 || w.rand.IntN(2) == 0
		err := w.get(name).WriteAt(ctx, p, off, flush)
		if err == nil || cut(err) {
			w.volumes[name].Write(off, n, w.stamp)
		}
		if err != nil {
			return err
		}
		if flush {
			w.flushed()
		}
	}
	return nil
}

// verify reads everything.
func (w *world) verify(ctx context.Context, after bool) error {
	var have []string
	for _, v := range w.pool.list() {
		have = append(have, v.shape().name)
	}
	slices.Sort(have)
	if want := slices.Sorted(maps.Keys(w.volumes)); !slices.Equal(have, want) {
		return fmt.Errorf("there are %v, want %v", have, want)
	}
	p := make([]byte, 256<<10)
	for _, name := range have {
		o, v := w.volumes[name], w.get(name)
		if v.Reserved() != w.thick[name] {
			return fmt.Errorf("%s is reserved: %v", name, v.Reserved())
		}
		if size := v.Info().Size; size != o.Size() {
			return fmt.Errorf("%s has %d bytes, want %d", name, size, o.Size())
		}
		for off := int64(0); off < o.Size(); off += int64(len(p)) {
			part := p[:min(int64(len(p)), o.Size()-off)]
			read := false
			v.StartReadAt(part, off, func(ok bool) { read = ok })
			if read {
				w.seen["start read"]++
			} else if err := v.ReadAt(ctx, part, off); w.bruised(err) {
				if err := w.blocks(ctx, name, off, int64(len(part)), w.checker(name, after)); err != nil {
					return err
				}
				continue
			} else if err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
			check := w.checker(name, after)
			err := check(part, off)
			if err != nil && w.hurt != nil {
				err = w.blocks(ctx, name, off, int64(len(part)), check)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func (w *world) checker(name string, after bool) func(p []byte, off int64) error {
	if after && !strings.Contains(name, "@") {
		return w.volumes[name].After
	}
	return w.volumes[name].Exact
}

// life is operations until the power fails, and what comes after.
func (w *world) life(ctx context.Context) error {
	w.doubt = nil
	killed := false // between operations, and nothing is lost
	end := w.rand.IntN(10)
	w.cutAt, w.cutOp, w.cuts = "", "", end > 1
	w.kills, w.left = w.shadow != nil && end > 1 && end < 6 && w.rand.IntN(3) == 0, nil
	switch {
	case end > 5 && w.churns:
		w.cutAt, w.cutIn = "commit: frames are written", 1+w.rand.IntN(20)
	case end > 7:
		w.cutOp = cutOps[w.rand.IntN(len(cutOps))]
	case end > 5:
		w.disk.Cut(1 + w.rand.IntN(150))
	case end > 1:
		w.cutAt, w.cutIn = points[w.rand.IntN(len(points))], 1+w.rand.IntN(6)
	}
	for range 100 {
		w.ops++
		err := w.step(ctx)
		if cut(err) {
			break
		}
		if err != nil {
			return err
		}
	}
	switch end {
	case 0: // the process ends as it should
		if err := w.verify(ctx, false); err != nil {
			return fmt.Errorf("before closing: %w", err)
		}
		if err := w.pool.Close(); err != nil {
			return err
		}
		w.flushed()
	case 1: // the process is killed: the disk forgets nothing
		killed = w.shadow != nil
		w.seen["kill"]++
		w.disk = w.disk.Revive()
	case 2, 3, 4, 5:
		if w.left == nil { // it did not come by there
			w.crash()
			break
		}
		copy(w.shadow, w.left)
		w.disk = w.disk.Revive()
	default:
		w.crash()
	}
	w.cutAt, w.cutOp, w.kills = "", "", false
	if w.rand.IntN(4) == 0 {
		r, err := Check(ctx, w.disk)
		if err != nil || len(r.Faults) > 0 {
			return fmt.Errorf("check: %v, %w", r.Faults, err)
		}
	}
	for recovery := 1; w.left == nil && w.rand.IntN(3) == 0; recovery++ { // the power goes again while the pool is opened
		if w.rand.IntN(2) == 0 {
			w.disk.Cut(1 + w.rand.IntN(12))
		} else {
			w.cutAt, w.cutIn = points[2+w.rand.IntN(6)], 1
		}
		if err := w.open(ctx); err == nil {
			w.disk.CutNow()
		} else if !cut(err) {
			return fmt.Errorf("open: %w", err)
		} else if recovery == 1 {
			w.seen["cut in recovery"]++
		} else {
			w.seen["cut in a second recovery"]++
		}
		w.crash()
		killed = false
	}
	w.cutAt = ""
	if err := w.open(ctx); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if w.doubt != nil {
		if err := w.doubt(); err != nil {
			return err
		}
	}
	err := w.verify(ctx, !killed)
	if killed {
		w.flushed()
	}
	return err
}

// crash is the end of the power: memory forgets everything.
func (w *world) crash() {
	w.disk.CutNow()
	w.disk = w.disk.Crash()
	clear(w.shadow)
}

// live is the lives of one seed.
func live(ctx context.Context, seed uint64, r rules) (*world, error) {
	w, err := newWorld(seed, r)
	for i := 0; i < 4 && err == nil; i++ {
		if err = w.life(ctx); err != nil {
			err = fmt.Errorf("seed %d, life %d: %w", seed, i, err)
		}
	}
	return w, err
}

// seeds is which are tried: 300 (fewer with the race detector), or as many as THIN_SEEDS says, or from..to.
func seeds(t *testing.T) (from, to uint64) {
	first, last, found := strings.Cut(cmp.Or(os.Getenv("THIN_SEEDS"), fewSeeds), "-")
	if !found {
		first, last = "0", first
	}
	from, err := strconv.ParseUint(first, 10, 32)
	if err == nil {
		to, err = strconv.ParseUint(last, 10, 32)
	}
	if err != nil {
		t.Fatalf("THIN_SEEDS: %v", err)
	}
	return from, to
}

// eachSeed runs do for seeds on all processors until one fails.
func eachSeed(from, to uint64, do func(seed uint64) error) error {
	var group sync.WaitGroup
	var next atomic.Uint64
	var failed atomic.Pointer[error]
	next.Store(from)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for failed.Load() == nil {
				seed := next.Add(1) - 1
				if seed >= to {
					return
				}
				if err := do(seed); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func TestPowerCuts(t *testing.T) {
	from, to := seeds(t)
	ops, seen := 0, map[string]int{}
	var mu sync.Mutex
	err := eachSeed(from, to, func(seed uint64) error {
		w, err := live(t.Context(), seed, rules{})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		ops += w.ops
		for k, n := range w.seen {
			seen[k] += n
		}
		seen["torn blocks accepted"] += int(w.pool.accepted.Load())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"no space", "torn blocks accepted", "start", "start read"}
	for _, a := range actions {
		want = append(want, a.name)
	}
	for _, name := range cutOps {
		want = append(want, "cut in "+name)
	}
	want = append(want, "healed", "trimmed", "cut in recovery", "cut in a second recovery")
	for _, p := range points {
		want = append(want, "cut at "+p)
		if p != "checkpoint: ledger is written" { // that is while the pool is opened, and kills come later
			want = append(want, "kill at "+p)
		}
	}
	rare := []string{"cut at log: goes round", "kill at log: goes round", "cut in unmap"}
	for _, name := range want {
		if (to-from >= 3000 || to-from >= 300 && !slices.Contains(rare, name)) && seen[name] == 0 {
			t.Errorf("no %s in all seeds", name)
		}
	}
	t.Logf("%d seeds, %d operations: %v", to-from, ops, seen)
}

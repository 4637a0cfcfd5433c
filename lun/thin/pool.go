package thin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"ripstop/lun"
)

// Options are what a pool needs besides its file. Zero values are defaults.
type Options struct {
	Limit  int64 // bytes that the file may have; 0 is what it has
	Memory int64 // bytes of the map kept in memory; 256 MiB
	Slab   int64 // bytes that the file grows by; 64 MiB
	Data   int64 // bytes that data may take; 0 is all that the rest leaves them

	// GiveUp gives up what used to be under parts of the map that cannot be read:
	// they stay medium errors until they are written, and their space is free.
	GiveUp bool

	// Shadow, when set, is memory that outlives the process, though not the
	// machine, such as a shared mapping of a file: with it a killed process
	// loses no acknowledged write. 8 MiB are always enough.
	Shadow []byte

	// OnFail, when set, is called once, when the pool takes no more writes. It
	// must not wait.
	OnFail func(why error)

	rules rules
}

// Pool is a pool in service. It is safe for concurrent use.
type Pool struct {
	file   File
	id     [16]byte
	limit  atomic.Int64 // chunks
	onFail func(why error)
	slab   int64 // chunks
	fixed  int64 // chunks of super and log
	budget int64 // leaves in memory
	rules  rules
	space  space
	wal    wal
	failed atomic.Pointer[error] // why there are no more writes

	work       chan struct{} // Maintain has something to do
	maintained atomic.Bool   // it runs

	control sync.Mutex // held by what makes, deletes and shares volumes
	growing sync.Mutex

	// tree is of the volumes, the pointers of pages and their counts, and the
	// lists below. It is held only for a moment, and taken before a leaf's mu.
	tree    sync.Mutex
	volumes map[uint32]*Volume
	names   map[string]*Volume
	nextID  uint32
	intents map[*leaf]struct{} // leaves whose intent is not none
	pages   atomic.Int64       // pages in memory

	dirtyMu    sync.Mutex
	dirty      []*leaf
	dirtyCount atomic.Int64 // of dirty
	dead       []uint64     // nodes that nothing names any more, to be freed after the next super

	clockMu sync.Mutex
	clock   []*leaf // leaves in memory
	hand    int

	recovering    bool        // while Open builds the state of the log
	uncounted     bool        // before who uses each chunk was counted
	unread        atomic.Bool // a leaf could not be read since then
	thorough      bool        // a ledger is compared with what is counted
	ledger        ledgerState
	harm          harm            // what Open could not read
	holds         map[uint32]bool // chunks that the shadow gave up, and Open must keep; nil but for then
	checkpointing sync.Mutex
	super         super
	tables        []uint32 // chunks of the table that super names
	tableChunks   atomic.Int64
	round         uint64 // of the checkpoint

	background sync.Mutex // held by Heal, Scrub and Trim
	healing    cursor
	scrubbing  cursor
	scrubRound uint64

	buffers  sync.Pool  // *scratch
	flights  sync.Pool  // *flight
	queue    queueFile  // file, nil where it is none
	prompt   promptFile // likewise
	pair     pairFile   // likewise
	accepted atomic.Int64
}

const (
	defaultMemory = 256 << 20
	defaultSlab   = 64 << 20
	leafMemory    = 9 << 10 // bytes that a leaf takes
)

// Format makes an empty pool in f, which loses what it holds. logSize is the
// bytes of the write-ahead log, a multiple of 64 KiB, at least 256 KiB.
func Format(f File, logSize int64) error {
	if logSize < 4*chunkSize || logSize%chunkSize != 0 {
		return fmt.Errorf("format pool: a log of %d bytes: it takes a multiple of %d from %d on", logSize, chunkSize, 4*chunkSize)
	}
	logChunks := uint32(logSize / chunkSize)
	if err := f.Grow(int64(logChunks+2) * chunkSize); err != nil {
		return fmt.Errorf("format pool: %w", err)
	}
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("format pool: %w", err)
	}
	s := super{seq: 1, chunks: uint32(size / chunkSize), clean: true, logStart: 1, logSize: logChunks, logSeq: 1}
	rand.Read(s.id[:]) // never fails, see crypto/rand
	zeros := aligned(chunkSize)
	for c := range int64(logChunks) + 1 {
		if _, err := f.WriteAt(zeros, c*chunkSize); err != nil {
			return fmt.Errorf("format pool: %w", err)
		}
	}
	t := newTable(nil, 1)
	s.table = tableRef{logChunks + 1, uint32(len(t)), checksum(t)}
	if err := writeTable(f, t, []uint32{logChunks + 1}); err != nil {
		return fmt.Errorf("format pool: %w", err)
	}
	if err := f.Sync(); err != nil { // a super that cannot be torn away from what it names
		return fmt.Errorf("format pool: %w", err)
	}
	return writeSupers(f, &s)
}

func writeSupers(f File, s *super) error {
	p := s.encode()
	for i := range int64(2) {
		if _, err := f.WriteAt(p, i*superGap); err != nil {
			return fmt.Errorf("write super: %w", err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("write super: %w", err)
		}
	}
	return nil
}

func newPool(f File, o Options) *Pool {
	p := &Pool{
		file: f, onFail: o.OnFail, rules: o.rules, slab: max(1, o.Slab/chunkSize), budget: o.Memory / leafMemory,
		volumes: map[uint32]*Volume{}, names: map[string]*Volume{}, intents: map[*leaf]struct{}{},
	}
	if o.Slab == 0 {
		p.slab = defaultSlab / chunkSize
	}
	if o.Memory == 0 {
		p.budget = defaultMemory / leafMemory
	}
	p.buffers.New = func() any { return newScratch() }
	p.flights.New = newFlight
	p.work = make(chan struct{}, 1)
	p.queue, _ = f.(queueFile)
	p.prompt, _ = f.(promptFile)
	p.wal.pool = p
	p.pair, _ = f.(pairFile)
	if !o.rules.noShadow {
		p.wal.shadow = newShadow(o.Shadow)
	}
	p.harm = harm{map[int]error{}, map[int]error{}}
	p.space.lowest = o.rules.lowest
	p.SetData(0)
	return p
}

// Open puts the pool in f into service, in the state of the last moment at
// which everything flushed was there. A pool with a map that cannot be read is
// ErrDamaged. It takes what f has for stable only after a sync.
func Open(ctx context.Context, f File, o Options) (*Pool, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := newPool(f, o)
	// What a killed process left unsynced shall not vanish after it was read.
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	if err := p.recover(ctx); err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	shadow := p.wal.shadow
	p.wal.shadow = nil // it stays as it is until the super of this opening is durable
	p.SetLimit(o.Limit)
	p.SetData(o.Data)
	if p.harm.any() {
		p.fence(o.GiveUp)
	}
	p.makeRoom()
	if why := p.cramped(); why != nil { // what is there can be read
		p.recovering = false
		p.fail(why)
		return p, nil
	}
	if err := p.checkpoint(false); err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	p.recovering = false
	p.letGo()
	p.wal.shadow = shadow
	p.wal.shadow.begin(p.id, p.super.epoch)
	p.makeRoom()
	return p, nil
}

// begin takes over what the super says.
func (p *Pool) begin(s super) error {
	size, err := p.file.Size()
	if err != nil {
		return err
	}
	if size/chunkSize < int64(s.chunks) {
		return fmt.Errorf("%w: the file has %d bytes of %d, it is a part of a copy: copy all of it",
			ErrDamaged, size, int64(s.chunks)*chunkSize)
	}
	if s.logSize < 4 || uint64(s.logStart)+uint64(s.logSize) > uint64(s.chunks) || s.logPos >= uint64(s.logSize)*chunkSize {
		return fmt.Errorf("%w: its log cannot be where the super says", ErrDamaged)
	}
	p.super, p.id = s, s.id
	p.space.grow(uint32(min(size/chunkSize, 1<<30)))
	p.limit.Store(int64(p.space.count))
	p.fixed = int64(s.logStart + s.logSize)
	for c := range s.logStart + s.logSize {
		p.space.fix(c)
	}
	p.wal.start, p.wal.size = int64(s.logStart)*chunkSize, int64(s.logSize)*chunkSize
	p.wal.stamp = stamp{salt: crc32.Checksum(s.id[:], castagnoli), epoch: s.epoch}
	return nil
}

// SetLimit sets the bytes that the file may have. A pool may be limited to
// less than it has: nothing is lost, but no more is given out than it has.
func (p *Pool) SetLimit(bytes int64) {
	p.limit.Store(max(bytes/chunkSize, int64(p.space.size())))
}

// SetData sets the bytes that data may take, besides what the limit leaves them;
// 0 is no bound. Less than they take is allowed: no more is given out.
func (p *Pool) SetData(bytes int64) {
	if bytes <= 0 {
		bytes = math.MaxInt64
	}
	p.space.bound.Store(bytes / chunkSize)
}

// Failed is why the pool takes no more writes until it is opened anew, nil while
// it does.
func (p *Pool) Failed() error {
	if why := p.failed.Load(); why != nil {
		return *why
	}
	return nil
}

// Close puts everything on stable storage and takes the pool out of service.
// What is not closed so loses nothing that was flushed.
func (p *Pool) Close() error {
	p.control.Lock()
	defer p.control.Unlock()
	for _, v := range p.list() {
		v.gate.Lock()
		v.closed = true
		v.gate.Unlock()
	}
	err := p.writable()
	if err == nil {
		err = p.checkpoint(true)
	}
	closed := ErrClosed
	p.failed.CompareAndSwap(nil, &closed)
	if err != nil {
		return fmt.Errorf("close pool: %w", err)
	}
	return nil
}

// list is all volumes and snapshots, by number.
func (p *Pool) list() []*Volume {
	p.tree.Lock()
	defer p.tree.Unlock()
	var out []*Volume
	for _, id := range slices.Sorted(maps.Keys(p.volumes)) {
		out = append(out, p.volumes[id])
	}
	return out
}

// Volume is a volume, or as "VOLUME@SNAPSHOT" a snapshot, by its name.
func (p *Pool) Volume(name string) (*Volume, error) {
	p.tree.Lock()
	defer p.tree.Unlock()
	v, ok := p.names[name]
	if !ok {
		return nil, fmt.Errorf("LUN %s: %w", name, ErrNotFound)
	}
	return v, nil
}

// fail ends writing for good: after a failed sync nobody knows what is on the
// disk, and trying again would only pretend.
func (p *Pool) fail(err error) error {
	if !p.rules.noFailStop {
		if p.failed.CompareAndSwap(nil, &err) {
			p.wal.shadow.end() // what was not flushed is not to be believed any more
			if p.onFail != nil {
				p.onFail(err)
			}
		}
	}
	return err
}

func (p *Pool) writable() error {
	if why := p.failed.Load(); why != nil {
		return fmt.Errorf("%w since: %w", lun.ErrReadOnly, *why)
	}
	return nil
}

// pending is the bytes of records after which a write puts them into the log.
func (p *Pool) pending() int {
	if p.maintained.Load() {
		return int(min(1<<20, p.wal.size/8))
	}
	return int(min(256<<10, p.wal.size/16))
}

// late tells whether pace has something to do, before a write that cannot wait.
func (p *Pool) late() bool {
	waiting, used := p.wal.load()
	if p.maintained.Load() && p.soon(waiting, used) {
		p.wake()
	}
	return waiting > p.pending() || used > p.wal.size*3/4 || p.changed() > p.budget/2
}

// pace keeps the log and the changed leaves inside their bounds, before an
// operation that adds to them.
func (p *Pool) pace() error {
	if !p.late() {
		return nil
	}
	if p.wal.used() > p.wal.size*3/4 || p.changed() > p.budget/2 {
		if err := p.checkpoint(false); err != nil {
			return err
		}
	}
	if p.wal.waiting() > p.pending() {
		return p.wal.relieve(p.pending())
	}
	return nil
}

func (p *Pool) changed() int64 { return p.dirtyCount.Load() }

// commit makes everything acknowledged durable, after room for it in the log.
func (p *Pool) commit() error {
	if p.wal.used() > p.wal.size*3/4 {
		if err := p.checkpoint(false); err != nil {
			return err
		}
	}
	return p.wal.commit()
}

// debt is the chunks that the next checkpoint may take. It is asked for with a
// leaf's mu held.
func (p *Pool) debt() int64 {
	return (p.changed()+p.pages.Load())/chunkNodes + p.tableChunks.Load() + 3
}

// reserve is the chunks that data never get: a 64th of the pool, and no more
// than 256 MiB.
func (p *Pool) reserve() int64 { return min(max(8, p.limit.Load()/64), 4096) }

// admit makes sure that one more changed leaf can be written by the next
// checkpoint, which a full pool must be able to do.
// With promised it may stand on room that is promised to reserved volumes.
func (p *Pool) admit(promised bool) error {
	for try := 0; p.space.spare(promised) < p.debt()+2; try++ {
		if p.expand() {
			continue
		}
		if try > 1 {
			return fmt.Errorf("the map of the pool finds no room: %w", lun.ErrNoSpace)
		}
		if err := p.checkpoint(false); err != nil {
			return err
		}
	}
	return nil
}

// expand makes the file larger by a slab; false when it cannot.
func (p *Pool) expand() bool {
	p.growing.Lock()
	defer p.growing.Unlock()
	if p.writable() != nil {
		return false
	}
	if p.refill() {
		return true
	}
	count := int64(p.space.size())
	to := min(p.limit.Load(), count+p.slab)
	if to <= count {
		return false
	}
	if err := p.file.Grow(to * chunkSize); err != nil {
		return false // the disk is full: the pool has what it has
	}
	p.space.grow(uint32(to))
	return true
}

// Usage is the space of the pool. Size is what data may take, and Data what
// they take; Used is that and the map.
type Usage struct {
	Size, Used int64 // bytes
	Data       int64 // bytes
	Promised   int64 // bytes that reserved volumes have not taken yet
	Accepted   int64 // blocks that were torn by a cut and taken as they were found
}

// Usage is the space of the pool now.
func (p *Pool) Usage() Usage {
	size, data := p.room()
	count := int64(p.space.size())
	return Usage{
		Size:     size,
		Used:     (count - p.fixed - p.space.unused()) * chunkSize,
		Data:     data,
		Promised: p.space.owed() * chunkSize,
		Accepted: p.accepted.Load(),
	}
}

// room is the bytes that data may take and that they take, asked without a lock.
func (p *Pool) room() (size, data int64) {
	size = min(p.limit.Load()-p.fixed-p.reserve(), p.space.bound.Load())
	return size * chunkSize, p.space.data.Load() * chunkSize
}

// damaged is an error about what is on the disk.
func damaged(what string, err error) error {
	if err == nil {
		err = errors.New("it contradicts itself")
	}
	return fmt.Errorf("%w: %s: %w", ErrDamaged, what, err)
}

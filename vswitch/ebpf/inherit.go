package ebpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// relic is a switch as a program of another layout has it. Its maps are read by
// the names of what is in them (BTF), so that it does not matter which layout.
type relic struct {
	prog *ebpf.Program
	maps map[string]*ebpf.Map
	name string // of the switch
}

// carryChunk is how many entries of a map are copied at once; a bucket of the
// kernel's hash table has to fit.
const carryChunk = 4096

// openRelic opens a switch by its program, whose id a filter tells. The error is
// errForeign when the program is none of ripstop's, or does not tell what is in
// its maps, and fs.ErrNotExist when it is gone.
func openRelic(spec *ebpf.CollectionSpec, program string, id ebpf.ProgramID) (*relic, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	r := &relic{prog: prog}
	if err := r.open(spec, program); err != nil {
		return nil, errors.Join(fmt.Errorf("open maps of program %d: %w", id, err), r.close())
	}
	return r, nil
}

func (r *relic) open(spec *ebpf.CollectionSpec, program string) error {
	info, err := r.prog.Info()
	if err != nil {
		return err
	}
	if info.Name != program {
		return errForeign
	}
	if r.maps, err = openMapsOf(info); err != nil {
		return err
	}
	self, ok := r.maps[planeMapSelf]
	if !ok {
		return errForeign
	}
	l, err := newLoad(spec.Maps[planeMapSelf], self)
	if err != nil {
		return err
	}
	_, values, err := l.next()
	if err != nil {
		return err
	}
	var id planeIdentity
	if _, err := binary.Decode(values.Bytes(), binary.NativeEndian, &id); err != nil {
		return fmt.Errorf("read map %q: %w", planeMapSelf, err)
	}
	name, _, _ := bytes.Cut(id.Name[:], []byte{0})
	r.name = string(name)
	return nil
}

// openMapsOf opens the maps of a program, by name.
func openMapsOf(info *ebpf.ProgramInfo) (map[string]*ebpf.Map, error) {
	ids, ok := info.MapIDs()
	if !ok {
		return nil, errForeign
	}
	found := map[string]*ebpf.Map{}
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, errors.Join(err, closeAll(found))
		}
		info, err := m.Info()
		if err != nil {
			return nil, errors.Join(err, m.Close(), closeAll(found))
		}
		found[info.Name] = m
	}
	return found, nil
}

func (r *relic) close() error { return errors.Join(closeAll(r.maps), r.prog.Close()) }

// inheritPlane is a new program with maps of its own that hold what those of a
// relic hold. Nothing runs it yet: the filters get it with the next commit, and
// until then, and one after the other then, both know all ports.
func inheritPlane(spec *ebpf.CollectionSpec, r *relic, program string) (*plane, error) {
	p, err := newPlane(spec, program, r.name)
	if err != nil {
		return nil, err
	}
	for name, to := range p.maps.byName() {
		if name == planeMapSelf || name == planeMapRecents || name == planeMapPasses || isLearned(name) {
			continue
		}
		if err := copyMap(spec.Maps[name], to, r.maps[name]); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	p.fresh, p.stale = r, true
	return p, nil
}

// isLearned tells of a map whether the program writes into it what frames tell.
// It is copied at the last moment.
func isLearned(name string) bool {
	return name == planeMapFdb || name == planeMapVlans || name == planeMapHanded || name == planeMapDrops || name == planeMapHeard
}

// inherit copies what the relic learned until now.
func (p *plane) inherit(spec *ebpf.CollectionSpec) error {
	if p.fresh == nil {
		return nil
	}
	for name, to := range p.maps.byName() {
		if !isLearned(name) {
			continue
		}
		if err := copyMap(spec.Maps[name], to, p.fresh.maps[name]); err != nil {
			return err
		}
	}
	p.stale = true // counts stations, and drops what has changed meanwhile
	return p.release()
}

// release lets go of the relic. Filters hold it as long as they run it.
func (p *plane) release() error {
	if p.fresh == nil {
		return nil
	}
	r := p.fresh
	p.fresh = nil
	return r.close()
}

// copyMap copies a map's entries, in the words of the new one. What the old one has
// not is left as it is; maps of maps are made of the others.
func copyMap(spec *ebpf.MapSpec, to, from *ebpf.Map) error {
	if from == nil || spec.InnerMap != nil || from.Type() != spec.Type && !(from.Type() == ebpf.LRUHash && spec.Type == ebpf.Hash) {
		return nil
	}
	l, err := newLoad(spec, from)
	if err != nil {
		return fmt.Errorf("copy map %q: %w", spec.Name, err)
	}
	for !l.done {
		keys, values, err := l.next()
		if err == nil && keys.Len() > 0 {
			_, err = to.BatchUpdate(keys.Interface(), values.Interface(), nil)
		}
		if err != nil {
			return fmt.Errorf("copy map %q: %w", spec.Name, err)
		}
	}
	return nil
}

// load reads a map in chunks and gives its entries in another layout.
type load struct {
	from       *ebpf.Map
	spec       *ebpf.MapSpec
	key, value translation
	each       int // values for one key
	cursor     ebpf.MapBatchCursor
	done       bool
}

func newLoad(spec *ebpf.MapSpec, from *ebpf.Map) (l *load, err error) {
	l = &load{from: from, spec: spec, each: 1}
	if from.Type() == ebpf.PerCPUArray || from.Type() == ebpf.PerCPUHash {
		if l.each, err = ebpf.PossibleCPU(); err != nil {
			return nil, fmt.Errorf("count processors: %w", err)
		}
	}
	info, err := from.Info()
	if err != nil {
		return nil, err
	}
	id, ok := info.BTFID()
	if !ok {
		return nil, errForeign
	}
	h, err := btf.NewHandleFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open types: %w", err)
	}
	types, err := h.Spec(nil)
	if err = errors.Join(err, h.Close()); err != nil {
		return nil, fmt.Errorf("read types: %w", err)
	}
	if l.key, err = translate(spec.Key, types, from.KeySize()); err != nil {
		return nil, err
	}
	l.value, err = translate(spec.Value, types, from.ValueSize())
	return l, err
}

// next is further entries as slices of arrays of bytes, as batches want them.
func (l *load) next() (keys, values reflectSlice, err error) {
	k, v := slots(l.from.KeySize(), carryChunk), slots(l.from.ValueSize(), carryChunk*l.each)
	n, err := l.from.BatchLookup(&l.cursor, k.Interface(), v.Interface(), nil)
	l.done = errors.Is(err, ebpf.ErrKeyNotExist)
	if err != nil && !l.done {
		return keys, values, err
	}
	keys, values = slots(l.spec.KeySize, n), slots(l.spec.ValueSize, n*l.each)
	kept := 0
	for i := range n {
		if !l.fits(k.at(i)) {
			continue
		}
		l.key(keys.at(kept), k.at(i))
		for c := range l.each {
			l.value(values.at(kept*l.each+c), v.at(i*l.each+c))
		}
		kept++
	}
	return reflectSlice{keys.Slice(0, kept)}, reflectSlice{values.Slice(0, kept*l.each)}, nil
}

// fits tells whether the new map has a place for a key.
func (l *load) fits(key []byte) bool {
	if l.spec.Type != ebpf.Array && l.spec.Type != ebpf.PerCPUArray {
		return true
	}
	return binary.NativeEndian.Uint32(key) < l.spec.MaxEntries
}

// reflectSlice is a slice of arrays of bytes whose length is known at run time.
type reflectSlice struct{ reflect.Value }

func slots(size uint32, n int) reflectSlice {
	return reflectSlice{reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(int(size), reflect.TypeFor[byte]())), n, n)}
}

func (s reflectSlice) at(i int) []byte { return s.Index(i).Slice(0, s.Index(i).Len()).Bytes() }

// Bytes is the first element.
func (s reflectSlice) Bytes() []byte { return s.at(0) }

// translation writes a value into another layout; the target is zero before.
type translation func(to, from []byte)

// translate finds how a type of this name was laid out by others. Types without
// a name of their own, numbers, have to be of the same size.
func translate(to btf.Type, others *btf.Spec, size uint32) (translation, error) {
	s, ok := btf.UnderlyingType(to).(*btf.Struct)
	if !ok {
		n, err := btf.Sizeof(to)
		if err != nil || n != int(size) {
			return nil, errForeign
		}
		return func(to, from []byte) { copy(to, from) }, nil
	}
	var from *btf.Struct
	if err := others.TypeByName(s.Name, &from); errors.Is(err, fs.ErrNotExist) || errors.Is(err, btf.ErrNotFound) {
		return nil, errForeign
	} else if err != nil {
		return nil, err
	}
	if from.Size != size {
		return nil, errForeign
	}
	return between(s, from)
}

// between is the way from one type to another of the same meaning.
func between(to, from btf.Type) (translation, error) {
	to, from = btf.UnderlyingType(to), btf.UnderlyingType(from)
	switch t := to.(type) {
	case *btf.Struct:
		if f, ok := from.(*btf.Struct); ok {
			return members(t, f)
		}
	case *btf.Array:
		if f, ok := from.(*btf.Array); ok {
			return elements(t, f)
		}
	case *btf.Enum:
		if f, ok := from.(*btf.Enum); ok {
			return flags(t, f), nil
		}
	case *btf.Int:
		if _, ok := from.(*btf.Int); ok { // little-endian, as the object is
			return func(to, from []byte) { copy(to, from) }, nil
		}
	}
	return nil, errForeign
}

// members takes what both have under one name.
func members(to, from *btf.Struct) (translation, error) {
	type step struct {
		to, toEnd, from, fromEnd int
		way                      translation
	}
	var steps []step
	for _, m := range to.Members {
		for _, other := range from.Members {
			if m.Name != other.Name || m.BitfieldSize != 0 || other.BitfieldSize != 0 {
				continue
			}
			way, err := between(m.Type, other.Type)
			if err != nil {
				return nil, err
			}
			n, err := btf.Sizeof(m.Type)
			if err != nil {
				return nil, err
			}
			o, err := btf.Sizeof(other.Type)
			if err != nil {
				return nil, err
			}
			a, b := int(m.Offset.Bytes()), int(other.Offset.Bytes())
			steps = append(steps, step{a, a + n, b, b + o, way})
		}
	}
	return func(to, from []byte) {
		for _, s := range steps {
			s.way(to[s.to:s.toEnd], from[s.from:s.fromEnd])
		}
	}, nil
}

// elements takes as many as both have.
func elements(to, from *btf.Array) (translation, error) {
	way, err := between(to.Type, from.Type)
	if err != nil {
		return nil, err
	}
	n, err := btf.Sizeof(to.Type)
	if err != nil {
		return nil, err
	}
	o, err := btf.Sizeof(from.Type)
	if err != nil {
		return nil, err
	}
	count := min(int(to.Nelems), int(from.Nelems))
	return func(to, from []byte) {
		for i := range count {
			way(to[i*n:(i+1)*n], from[i*o:(i+1)*o])
		}
	}, nil
}

// flags sets the bits that go by the same names.
func flags(to, from *btf.Enum) translation {
	var pairs [][2]uint64 // of the old, of the new
	for _, v := range from.Values {
		for _, w := range to.Values {
			if v.Name == w.Name && v.Value != 0 {
				pairs = append(pairs, [2]uint64{v.Value, w.Value})
			}
		}
	}
	return func(to, from []byte) {
		var all [8]byte
		copy(all[:], from)
		old, now := binary.LittleEndian.Uint64(all[:]), uint64(0)
		for _, p := range pairs {
			if old&p[0] == p[0] {
				now |= p[1]
			}
		}
		binary.LittleEndian.PutUint64(all[:], now)
		copy(to, all[:])
	}
}

package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ripstop/lun"
	"ripstop/lun/lane"
	"ripstop/lun/thin"
)

// Records of LUNs are in a volume of the pool that no LUN can be: so they go where
// the pool goes, file or device, and a power cut tears them as little as data.
//
//	place i: block 2i and block 2i+1, each
//	sha256 of what follows 32 | generation 8 | bytes of the name 2 | bytes of the record 2 | name | record | zeros
//
// Both blocks say the same, written one after the other, each flushed: of two that
// differ the younger one counts. A free place has had an empty name written over it,
// or nothing ever.
const (
	recordVolume = ".records"
	recordSize   = 4096
	recordHead   = sha256.Size + 12
	recordPlaces = 1 << 14 // as many as a pool has volumes
)

var _ lun.Recorder = (*Engine)(nil)

// hidden tells whether a volume is the pool's own.
func hidden(name string) bool { return name == recordVolume }

// place is the state of two blocks.
type place struct {
	index      int64
	name       string
	record     []byte
	generation uint64
	older      int64 // 0 or 1: which of the blocks to write first
	damaged    bool  // neither can be read
}

// Record is the record of a LUN in a pool in service.
func (e *Engine) Record(ctx context.Context, pool, name string) ([]byte, error) {
	what := "read the record of LUN " + name
	r, err := lane.Alone(ctx, e.lanes, pool, what, e.patience, func(ctx context.Context) ([]byte, error) {
		p, err := e.placeOf(ctx, pool, name)
		return p.record, err
	})
	if len(r) == 0 {
		r = nil // of a place that was freed
	}
	return r, wrap(what, err)
}

// Records is the LUNs of a pool in service that have a record.
func (e *Engine) Records(ctx context.Context, pool string) ([]string, error) {
	what := "find the records of pool " + pool
	names, err := lane.Alone(ctx, e.lanes, pool, what, e.patience, func(ctx context.Context) (names []string, err error) {
		v, err := e.records(ctx, pool, false)
		if v == nil || err != nil {
			return nil, err
		}
		all, err := places(ctx, v)
		for _, p := range all {
			if p.damaged {
				err = errors.Join(err, unreadable(pool))
			} else if p.name != "" {
				names = append(names, p.name)
			}
		}
		return names, err
	})
	return names, wrap(what, err)
}

func unreadable(pool string) error {
	return fmt.Errorf("pool %s: %w: put back a copy of the pool", pool, lun.ErrRecordsUnread)
}

// SetRecord makes or removes the record of a LUN in a pool in service.
func (e *Engine) SetRecord(ctx context.Context, pool, name string, record []byte) error {
	what := "keep the record of LUN " + name
	return e.step(ctx, pool, what, func(ctx context.Context) error {
		if len(name) > 255 || len(record) > lun.MaxRecord || strings.Contains(name, "@") {
			return fmt.Errorf("%d bytes are no record of a LUN", len(record))
		}
		p, err := e.placeOf(ctx, pool, name)
		if err != nil || p.name == "" && len(record) == 0 {
			return err
		}
		v, err := e.records(ctx, pool, true)
		if err != nil {
			return err
		}
		if p.record, p.name = record, name; len(record) == 0 {
			p.name = ""
		}
		p.generation++
		return p.write(ctx, v)
	})
}

// records is the volume of the records, nil where none was ever kept.
func (e *Engine) records(ctx context.Context, pool string, needed bool) (*thin.Volume, error) {
	p := e.pool(pool)
	if p == nil {
		return nil, fmt.Errorf("pool %s is not in service", pool)
	}
	v, err := p.thin.Volume(recordVolume)
	if errors.Is(err, thin.ErrNotFound) {
		if !needed {
			return nil, nil
		}
		return p.thin.Create(ctx, recordVolume, recordPlaces*2*recordSize, recordSize)
	}
	return v, err
}

// placeOf is the place of a LUN's record, or else a free one.
func (e *Engine) placeOf(ctx context.Context, pool, name string) (place, error) {
	v, err := e.records(ctx, pool, false)
	if v == nil || err != nil {
		return place{}, err
	}
	all, err := places(ctx, v)
	if err != nil {
		return place{}, err
	}
	free := place{index: int64(len(all))}
	damaged := false
	for _, p := range slices.Backward(all) {
		switch {
		case p.damaged:
			damaged = true
		case p.name == name:
			return p, nil
		case p.name == "":
			free = p
		}
	}
	if damaged { // it may be the one
		return place{}, unreadable(pool)
	}
	if free.index >= recordPlaces {
		return place{}, errors.New("the pool has no place for another record: delete LUNs")
	}
	return free, nil
}

// places is all places up to the last that was ever written.
func places(ctx context.Context, v *thin.Volume) (all []place, err error) {
	end := int64(0)
	err = v.Extents(ctx, 0, v.Info().Size, func(off, n int64, mapped bool) bool {
		if mapped {
			end = off + n
		}
		return true
	})
	b := make([]byte, 2*recordSize)
	for i := int64(0); i*2*recordSize < end && err == nil; i++ {
		p := place{index: i, damaged: true}
		for k := range int64(2) {
			half := b[k*recordSize : (k+1)*recordSize]
			var medium *lun.MediumError
			if err = v.ReadAt(ctx, half, (2*i+k)*recordSize); errors.As(err, &medium) {
				err = nil
				continue
			}
			if err != nil {
				break
			}
			p.take(k, half)
		}
		all = append(all, p)
	}
	return all, err
}

// take is what block k says, if it is the younger one.
func (p *place) take(k int64, b []byte) {
	generation, name, record, ok := decodeRecord(b)
	if !ok || !p.damaged && generation <= p.generation {
		return
	}
	p.damaged, p.older = false, 1-k
	p.generation, p.name, p.record = generation, name, record
}

func (p *place) write(ctx context.Context, v *thin.Volume) error {
	b := encodeRecord(p.generation, p.name, p.record)
	for _, k := range []int64{p.older, 1 - p.older} {
		if err := v.WriteAt(ctx, b, (2*p.index+k)*recordSize, true); err != nil {
			return err
		}
	}
	return nil
}

func encodeRecord(generation uint64, name string, record []byte) []byte {
	b := make([]byte, recordSize)
	head := binary.LittleEndian.AppendUint64(b[sha256.Size:sha256.Size], generation)
	head = binary.LittleEndian.AppendUint16(head, uint16(len(name)))
	head = binary.LittleEndian.AppendUint16(head, uint16(len(record)))
	_ = append(append(head, name...), record...)
	sum := sha256.Sum256(b[sha256.Size:])
	copy(b, sum[:])
	return b
}

// decodeRecord reads a block; what was never written is a free place.
func decodeRecord(b []byte) (generation uint64, name string, record []byte, ok bool) {
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return 0, "", nil, true
	}
	if sum := sha256.Sum256(b[sha256.Size:]); string(sum[:]) != string(b[:sha256.Size]) {
		return 0, "", nil, false
	}
	le := binary.LittleEndian
	generation = le.Uint64(b[sha256.Size:])
	n, m := int(le.Uint16(b[sha256.Size+8:])), int(le.Uint16(b[sha256.Size+10:]))
	rest := b[recordHead:]
	if n+m > len(rest) {
		return 0, "", nil, false
	}
	return generation, string(rest[:n]), slices.Clone(rest[n : n+m]), true
}

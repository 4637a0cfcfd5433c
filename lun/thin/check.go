package thin

import (
	"context"
	"fmt"
)

// Report is what Check found.
type Report struct {
	Faults  []error // what is wrong, each with its place
	Volumes int     // volumes and snapshots
	Blocks  int64   // that were read and compared
	Torn    int64   // that a cut may have torn while they were written, which is no fault
}

// Check reads all of a pool that is not in service, and writes nothing: both
// supers, every sector of the log, the map, and every block of data. A pool
// that a power cut ended has no faults. After a fault in super or table, nothing
// else is looked at. The error is about the checking itself.
func Check(ctx context.Context, f File) (Report, error) {
	var r Report
	p := newPool(f, Options{})
	p.thorough = true
	_, bad, err := readSupers(f)
	r.Faults = append(r.Faults, bad...)
	if err != nil {
		if len(bad) == 0 {
			r.Faults = append(r.Faults, err)
		}
		return r, ctx.Err()
	}
	if err := p.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		r.Faults = append(r.Faults, err)
		return r, nil
	}
	if p.ledger.fault != nil {
		r.Faults = append(r.Faults, p.ledger.fault)
	}
	for _, d := range p.Damaged() {
		r.fault("LUN %s: the map of %d bytes at byte %d: %w", d.Volume, d.Size, d.Offset, d.Err)
	}
	if err := r.log(ctx, p); err != nil {
		return r, err
	}
	return r, r.data(ctx, p)
}

func (r *Report) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Errorf(format, args...))
}

// log looks at the sectors of the ring: each is as some frame wrote it, or was
// never written.
func (r *Report) log(ctx context.Context, p *Pool) error {
	b := aligned(chunkSize)
	for at := int64(0); at < p.wal.size; at += chunkSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := p.file.ReadAt(b, p.wal.start+at); err != nil {
			r.fault("log at byte %d: %w", p.wal.start+at, err)
			continue
		}
		for i := 0; i < chunkSize; i += sectorSize {
			if p.wal.stamp.damaged(b[i : i+sectorSize]) {
				r.fault("log: the sector at byte %d: %w", p.wal.start+at+int64(i), errChecksum)
			}
		}
	}
	return nil
}

// home is where a chunk belongs: all leaves that use it do so for one region of
// one place in their volumes.
type home struct{ leaf, region int }

// data looks at every block of every leaf once.
func (r *Report) data(ctx context.Context, p *Pool) error {
	seen := map[*leaf]bool{}
	homes := map[uint32]home{}
	for _, v := range p.list() {
		r.Volumes++
		for i := range v.pages {
			pg := v.pages[i].Load()
			if pg == nil {
				continue
			}
			for k := range pg.leaves {
				l := pg.leaves[k].Load()
				if l == nil || seen[l] {
					continue
				}
				seen[l] = true
				if err := ctx.Err(); err != nil {
					return err
				}
				r.leaf(p, v, l, homes)
			}
		}
	}
	return nil
}

func (r *Report) leaf(p *Pool, v *Volume, l *leaf, homes map[uint32]home) {
	if l.lost() {
		return
	}
	if err := p.lock(l); err != nil {
		r.fault("LUN %s: %w", v.shape().name, err)
		return
	}
	defer l.mu.Unlock()
	s := p.scratch()
	defer p.buffers.Put(s)
	for b, c := range l.data.chunk {
		if c == 0 {
			continue
		}
		if c == lostChunk {
			r.fault("LUN %s: the block at byte %d: %w", v.shape().name, v.byteOf(l, b), errLost)
			continue
		}
		h := home{l.index, b / chunkBlocks}
		if other, known := homes[c]; known && other != h {
			r.fault("LUN %s: chunk %d is used for byte %d and for another place, too", v.shape().name, c, v.byteOf(l, b))
		}
		homes[c] = h
		r.Blocks++
		block := s.block[:blockSize]
		_, err := p.file.ReadAt(block, blockAt(c, b))
		if err == nil && checksum(block) != l.data.crc[b] {
			err = errChecksum
			if l.suspect {
				r.Torn++
				continue
			}
		}
		if err != nil {
			r.fault("LUN %s: the block at byte %d: %w", v.shape().name, v.byteOf(l, b), err)
		}
	}
}

// byteOf is where block b of a leaf is in its volume.
func (v *Volume) byteOf(l *leaf, b int) int64 {
	return (int64(l.index)*leafBlocks + int64(b)) * blockSize
}

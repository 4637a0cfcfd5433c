package thin

import (
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	ringPiece   = 1 << 20 // bytes of the ring that are read at once
	ringReaders = 8       // pieces at once, so that a disk is busy
)

// reader goes through the ring from frame to frame, and reads many of them at once.
type reader struct {
	wal   *wal
	piece []byte
	pos   int64 // of piece in the ring
}

// at is n bytes of the ring. A piece that cannot be read may end behind a place
// that cannot, which nobody has asked for.
func (r *reader) at(pos, n int64) ([]byte, error) {
	if pos < r.pos || pos+n > r.pos+int64(len(r.piece)) {
		w := r.wal
		r.piece, r.pos = aligned(int(max(n, min(ringPiece, w.size-pos)))), pos
		_, err := w.pool.file.ReadAt(r.piece, w.start+pos)
		if err != nil && int64(len(r.piece)) > n {
			r.piece = r.piece[:n]
			_, err = w.pool.file.ReadAt(r.piece, w.start+pos)
		}
		if err != nil {
			r.piece = nil
			return nil, w.unreadable(pos, err)
		}
	}
	return r.piece[pos-r.pos:][:n], nil
}

// unreadable says where the log cannot be read. Any place of it may hold what says that
// something durable is lost, so that a pool is not opened past one.
func (w *wal) unreadable(pos int64, err error) error {
	return fmt.Errorf("read the log at byte %d of the pool: %w", w.start+pos, err)
}

// find is the records of the frame at a position, and the position after it.
// ok is false when it is not there, or not whole.
func (r *reader) find(at position) (records []byte, next position, ok bool, err error) {
	for _, pos := range []uint64{at.pos, 0} {
		records, n, ok, err := r.frameAt(position{pos, at.seq})
		if err != nil || ok {
			return records, position{(pos + uint64(n)) % uint64(r.wal.size), at.seq + 1}, ok, err
		}
	}
	return nil, at, false, nil
}

func (r *reader) frameAt(at position) (records []byte, n int64, ok bool, err error) {
	s := r.wal.stamp
	s.seq = at.seq
	room := r.wal.size - int64(at.pos)
	if room < blockSize {
		return nil, 0, false, nil
	}
	first, err := r.at(int64(at.pos), blockSize)
	if err != nil {
		return nil, 0, false, err
	}
	if !s.is(first[:sectorSize], 0) {
		return nil, 0, false, nil
	}
	sectors, _, _ := frameInfo(first)
	n = int64(sectors) * sectorSize
	if n < blockSize || n%blockSize != 0 || n > room {
		return nil, 0, false, nil
	}
	p, err := r.at(int64(at.pos), n)
	if err != nil {
		return nil, 0, false, err
	}
	records, ok = s.open(p)
	return records, n, ok, nil
}

// lost tells whether some frame in the ring says that the one at end, where
// replay stops, had been durable.
func (w *wal) lost(end position) (bool, error) {
	var at atomic.Int64
	var lost atomic.Bool
	var mu sync.Mutex
	var failed error
	var readers sync.WaitGroup
	for range min(ringReaders, w.size/ringPiece+1) {
		readers.Go(func() {
			p := aligned(ringPiece)
			for pos := at.Add(ringPiece) - ringPiece; pos < w.size; pos = at.Add(ringPiece) - ringPiece {
				p := p[:min(ringPiece, w.size-pos)]
				if _, err := w.pool.file.ReadAt(p, w.start+pos); err != nil {
					mu.Lock()
					failed = w.unreadable(pos, err)
					mu.Unlock()
					return
				}
				if w.mentions(p, end) {
					lost.Store(true)
				}
			}
		})
	}
	readers.Wait()
	return lost.Load(), failed
}

// mentions tells whether a frame in a piece of the ring says that the one at end had
// been durable.
func (w *wal) mentions(p []byte, end position) bool {
	for i := 0; i < len(p); i += blockSize {
		f := decoder{p: p[i+4:]}
		index, epoch, seq := f.u32(), f.u64(), f.u64()
		if index != 0 || epoch != w.stamp.epoch || seq <= end.seq || !w.stamp.whole(p[i:i+sectorSize]) {
			continue
		}
		if _, _, durable := frameInfo(p[i:]); durable >= end.seq {
			return true
		}
	}
	return false
}

// spoiled tells whether the frame at end, where replay stops, was written and is
// damaged: a cut leaves each of its sectors old or new.
func (w *wal) spoiled(end position) (bool, error) {
	places := []uint64{end.pos}
	if w.size-int64(end.pos) < int64(w.maxFrame()) {
		places = append(places, 0) // where a frame goes that has no room before the end
	}
	s := w.stamp
	s.seq = end.seq
	for _, pos := range places {
		n := min(int64(w.maxFrame()), w.size-int64(pos))
		p := aligned(int(n))
		if _, err := w.pool.file.ReadAt(p, w.start+int64(pos)); err != nil {
			return false, w.unreadable(int64(pos), err)
		}
		if s.damaged(p[:sectorSize]) {
			return true, nil
		}
		if !s.is(p[:sectorSize], 0) {
			continue
		}
		sectors, _, _ := frameInfo(p)
		for i := 0; i < min(sectors*sectorSize, len(p)); i += sectorSize {
			if s.damaged(p[i : i+sectorSize]) {
				return true, nil
			}
		}
	}
	return false, nil
}

package thin

import "fmt"

// Whoever flushes after each write waits for three accesses to the disk: data,
// frame, sync. Where an overwrite in place is expected to be flushed next, its frame
// is written together with its data:
//
//	claimed, intent held ─► data and frame ─► map changed ─► answered … flush ─► sync
//
// They need no order (R1). Until the map is changed no commit runs and no checkpoint
// begins, so that the log before a place and the map at that moment say the same.

// pairFile is a File that carries out two writes while one waits for both.
type pairFile interface {
	// WritePair writes p at off and r at to. Without true any part of both may be
	// written.
	WritePair(p []byte, off int64, r []byte, to int64) bool
}

const soloCommits = 3 // of one write each, before the next write is taken for such a one

// count notes how many changes a commit makes durable. With running held.
func (w *wal) count(adds int) {
	if w.together {
		adds++
	}
	w.together = false
	switch {
	case adds == 1 && w.solo.Load() < soloCommits:
		w.solo.Add(1)
	case adds > 1:
		w.solo.Store(0)
	}
}

// quiet tells whether nothing is pending, running or unsynced. If so, running is
// held.
func (w *wal) quiet() bool {
	if !w.running.TryLock() {
		return false
	}
	w.mu.Lock()
	is := len(w.pending.records) == 0 && w.pending.mark == nil && w.next == nil
	w.mu.Unlock()
	if w.unsynced { // the one before was not flushed
		w.solo.Store(0)
	}
	if is && !w.unsynced {
		return true
	}
	w.running.Unlock()
	return false
}

// solo tells whether a claimed and planned part overwrites in place whole blocks of
// one chunk, and is likely to be flushed before anything else is written.
func (v *Volume) solo(pt *part) bool {
	if v.pool.pair == nil || v.pool.wal.solo.Load() < soloCommits ||
		pt.from/chunkBlocks != (pt.to-1)/chunkBlocks || len(pt.data) != (pt.to-pt.from)*blockSize {
		return false
	}
	pt.leaf.mu.Lock()
	defer pt.leaf.mu.Unlock()
	for i, c := range pt.target {
		if c != pt.target[0] || c != pt.leaf.data.chunk[pt.from+i] {
			return false
		}
	}
	return true
}

// together writes such a part and its frame. What it has not done of the data is
// left to write; publish must follow.
func (v *Volume) together(pt *part) error {
	w := &v.pool.wal
	if !w.quiet() {
		return nil
	}
	for i := range pt.crc {
		pt.crc[i] = checksum(pt.data[i*blockSize : (i+1)*blockSize])
	}
	w.record = appendMap(w.record[:0], v.number, uint32(pt.index*leafBlocks+pt.from), pt.target[0], pt.crc)
	f, off, err := w.build(w.record)
	if err != nil { // the log is full
		w.running.Unlock()
		return nil
	}
	pt.framed, w.together = true, true
	if v.pool.pair.WritePair(pt.data, blockAt(pt.target[0], pt.from), f, off) {
		pt.done = pt.to - pt.from
	} else if _, err := v.pool.file.WriteAt(f, off); err != nil { // it gives the error its name
		return v.pool.fail(fmt.Errorf("write the log: %w", err))
	}
	v.pool.rules.point("together: frame is written")
	return nil
}

// publishFramed is publish for a part whose record is in the log. Where the data
// could not be written the log is told that everything is as before.
func (v *Volume) publishFramed(pt *part) {
	w, l := &v.pool.wal, pt.leaf
	first := uint32(pt.index*leafBlocks + pt.from)
	l.mu.Lock()
	defer l.mu.Unlock()
	if pt.done > 0 {
		copy(l.data.crc[pt.from:pt.to], pt.crc)
		w.mu.Lock()
		w.shadow.add(w.record)
		w.mu.Unlock()
	} else {
		w.add(false, func(b []byte) []byte {
			return appendMap(b, v.number, first, pt.target[0], l.data.crc[pt.from:pt.to])
		})
	}
	v.pool.touch(l)
	l.release(pt.from, pt.to)
	w.running.Unlock()
}

package thin

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"ripstop/lun"
)

// WriteAt writes p, all or on a full pool nothing. Blocks that it shares with
// others it writes elsewhere.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := v.change(ctx, off, int64(len(p)), func() error { return v.put(p, off, nil) }); err != nil {
		return err
	}
	if fua {
		return v.pool.commit()
	}
	return nil
}

// CompareAndWrite has its blocks to itself from the read to the write.
func (v *Volume) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	if len(old) != len(data) {
		return fmt.Errorf("compare and write LUN %s: %d and %d bytes: %w", v.shape().name, len(old), len(data), lun.ErrRange)
	}
	return v.change(ctx, off, int64(len(data)), func() error { return v.put(data, off, old) })
}

// change runs do with the gate shared and everything checked.
func (v *Volume) change(ctx context.Context, off, n int64, do func() error) error {
	if err := v.writable(); err != nil {
		return err
	}
	if err := v.pool.pace(); err != nil {
		return fmt.Errorf("LUN %s: %w", v.shape().name, err)
	}
	v.gate.RLock()
	defer v.gate.RUnlock()
	if err := v.check(ctx, off, n); err != nil || n == 0 {
		return err
	}
	return do()
}

// put writes data, when compare is given only if that stands there.
func (v *Volume) put(data []byte, off int64, compare []byte) error {
	s := v.pool.scratch()
	defer v.pool.buffers.Put(s)
	parts := s.split(data, off)
	if err := v.claim(parts); err != nil {
		return err
	}
	var err error
	if compare != nil {
		err = v.compare(s, parts, compare)
	}
	for i := 0; i < len(parts) && err == nil; i++ {
		err = v.plan(&parts[i])
	}
	if len(parts) == 1 && err == nil && v.solo(&parts[0]) {
		err = v.together(&parts[0])
	}
	for i := 0; i < len(parts) && err == nil; i++ {
		if parts[i].done == 0 {
			err = v.write(s, &parts[i])
		}
	}
	for i := range parts {
		v.publish(&parts[i])
		parts[i] = part{}
	}
	return err
}

// compare is a *lun.Miscompare when the claimed blocks do not hold want.
func (v *Volume) compare(s *scratch, parts []part, want []byte) error {
	at := 0
	for i := range parts {
		pt := &parts[i]
		for b := pt.from; b < pt.to; b++ {
			if err := v.load(pt.leaf, b, s.block[:blockSize]); err != nil {
				return err
			}
			head, n := pt.partial(b)
			if n == 0 {
				n = blockSize
			}
			is := s.block[head : head+n]
			if !bytes.Equal(is, want[at:at+n]) {
				return &lun.Miscompare{Offset: int64(at + firstDifference(is, want[at:]))}
			}
			at += n
		}
	}
	return nil
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// ReadAt reads without waiting for writes: a block that changes meanwhile does
// not match its CRC and is read again, alone.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	v.gate.RLock()
	defer v.gate.RUnlock()
	if err := v.check(ctx, off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	s := v.pool.scratch()
	defer v.pool.buffers.Put(s)
	parts := s.split(p, off)
	for i := range parts {
		err := v.readPart(s, &parts[i])
		parts[i] = part{}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) readPart(s *scratch, pt *part) error {
	if err := v.look(pt); err != nil {
		return err
	}
	if pt.leaf == nil {
		clear(pt.data)
		return nil
	}
	for b := pt.from; b < pt.to; {
		end := pt.run(b)
		if err := v.readRun(s, pt, b, end); err != nil {
			return err
		}
		b = end
	}
	return nil
}

// look copies the map of a part; leaf is nil where nothing is mapped.
func (v *Volume) look(pt *part) error {
	if pt.leaf = v.leaf(pt.index); pt.leaf == nil {
		return nil
	}
	if err := v.pool.lock(pt.leaf); err != nil {
		return v.fault("read", pt.index, pt.from, err)
	}
	defer pt.leaf.mu.Unlock()
	copy(pt.target, pt.leaf.data.chunk[pt.from:pt.to])
	copy(pt.crc, pt.leaf.data.crc[pt.from:pt.to])
	return nil
}

// run is where the blocks end that one call can read from b on: a block that
// is wanted in part, holes, or whole blocks side by side.
func (pt *part) run(b int) int {
	if _, n := pt.partial(b); n > 0 {
		return b + 1
	}
	hole := pt.target[b-pt.from] == 0
	end := b + 1
	for end < pt.to {
		if _, n := pt.partial(end); n > 0 {
			break
		}
		if here := pt.target[end-pt.from] == 0; here != hole || !hole && !pt.beside(end) {
			break
		}
		end++
	}
	return end
}

func (v *Volume) readRun(s *scratch, pt *part, from, to int) error {
	out := pt.bytes(from, to)
	i := from - pt.from
	if pt.target[i] == 0 {
		clear(out)
		return nil
	}
	in := out
	head, n := pt.partial(from)
	if n > 0 {
		in = s.block[:blockSize]
	}
	_, err := v.pool.file.ReadAt(in, blockAt(pt.target[i], from))
	ahead(in, 0)
	for k := 0; k < to-from; k++ {
		ahead(in, k+1)
		block := in[k*blockSize : (k+1)*blockSize]
		if err == nil && (checksum(block) == pt.crc[i+k] || v.pool.rules.noVerify) {
			continue
		}
		if err := v.readAlone(pt.index, from+k, block); err != nil {
			return err
		}
	}
	if n > 0 {
		copy(out, in[head:head+n])
	}
	return nil
}

// readAlone reads one block while nobody writes it.
func (v *Volume) readAlone(index, b int, p []byte) error {
	for {
		l := v.leaf(index)
		if l == nil {
			clear(p)
			return nil
		}
		if err := v.pool.lock(l); err != nil {
			return v.fault("read", index, b, err)
		}
		ok := l.claim(b, b+1)
		l.mu.Unlock()
		if !ok {
			continue
		}
		err := v.load(l, b, p)
		l.mu.Lock()
		l.release(b, b+1)
		l.mu.Unlock()
		var medium *lun.MediumError
		if err == nil || !errors.As(err, &medium) || v.leaf(index) == l {
			return err
		}
	}
}

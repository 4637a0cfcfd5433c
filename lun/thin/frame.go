package thin

import (
	"encoding/binary"
	"hash/crc32"
)

//	sector ┌ crc32c 4 ┬ index 4 ┬ epoch 8 ┬ frame 8 ┬──── payload 488 ────┐
//	payload of a frame, over its sectors: sectors 4, bytes 4, durable 8, records

const (
	sectorHead    = 24
	sectorPayload = sectorSize - sectorHead
	frameHead     = 16
	blockSectors  = blockSize / sectorSize
	maxFrame      = 1 << 20 // bytes; the log has at least four of them or is smaller in tests
)

// stamp is what every sector of a frame carries.
type stamp struct {
	salt  uint32 // of the pool: frames of another pool are never whole
	epoch uint64
	seq   uint64
}

// frameSize is the bytes of the log that records take.
func frameSize(records int) int {
	sectors := (frameHead + records + sectorPayload - 1) / sectorPayload
	return (sectors + blockSectors - 1) / blockSectors * blockSize
}

// seal writes a frame into p, whose length is its frameSize. durable is the
// last frame that is known to be on stable storage.
func (s stamp) seal(p []byte, records []byte, durable uint64) {
	var head [frameHead]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(p)/sectorSize))
	binary.LittleEndian.PutUint32(head[4:], uint32(len(records)))
	binary.LittleEndian.PutUint64(head[8:], durable)
	rest := head[:]
	for i := 0; i*sectorSize < len(p); i++ {
		sec := p[i*sectorSize : (i+1)*sectorSize]
		body := sec[sectorHead:]
		n := copy(body, rest)
		if i == 0 {
			rest = records
			k := copy(body[n:], rest)
			rest, n = rest[k:], n+k
		} else {
			rest = rest[n:]
		}
		clear(body[n:])
		binary.LittleEndian.PutUint32(sec[4:], uint32(i))
		binary.LittleEndian.PutUint64(sec[8:], s.epoch)
		binary.LittleEndian.PutUint64(sec[16:], s.seq)
		binary.LittleEndian.PutUint32(sec, s.crc(sec))
	}
}

func (s stamp) crc(sec []byte) uint32 { return crc32.Update(s.salt, castagnoli, sec[4:]) }

// whole tells whether a sector is as some frame of this pool wrote it.
func (s stamp) whole(sec []byte) bool { return binary.LittleEndian.Uint32(sec) == s.crc(sec) }

// is tells whether a sector is number i of this very frame.
func (s stamp) is(sec []byte, i int) bool {
	return binary.LittleEndian.Uint32(sec[4:]) == uint32(i) &&
		binary.LittleEndian.Uint64(sec[8:]) == s.epoch &&
		binary.LittleEndian.Uint64(sec[16:]) == s.seq && s.whole(sec)
}

// head is the sizes that the first sector of a frame tells.
func frameInfo(sec []byte) (sectors, records int, durable uint64) {
	b := sec[sectorHead:]
	return int(binary.LittleEndian.Uint32(b)), int(binary.LittleEndian.Uint32(b[4:])), binary.LittleEndian.Uint64(b[8:])
}

// open is the records of a frame; ok is false when a sector is not of it.
func (s stamp) open(p []byte) (records []byte, ok bool) {
	for i := 0; i*sectorSize < len(p); i++ {
		sec := p[i*sectorSize : (i+1)*sectorSize]
		if !s.is(sec, i) {
			return nil, false
		}
		records = append(records, sec[sectorHead:]...)
	}
	_, n, _ := frameInfo(p)
	if n > len(records)-frameHead {
		return nil, false
	}
	return records[frameHead : frameHead+n], true
}

// damaged tells whether a sector of the log is neither whole nor never written.
func (s stamp) damaged(sec []byte) bool {
	if s.whole(sec) {
		return false
	}
	for _, b := range sec {
		if b != 0 {
			return true
		}
	}
	return false
}

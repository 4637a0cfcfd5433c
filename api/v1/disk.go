package v1

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// ExportLUN asks for what a LUN or a snapshot holds.
type ExportLUN struct {
	Name    string `json:"name" doc:"LUN, or LUN@SNAPSHOT"`
	Since   string `json:"since,omitempty" doc:"LUN@SNAPSHOT in the pool of a snapshot that name is: only what may differ from it is sent"`
	SinceID string `json:"sinceId,omitempty" doc:"32 hex digits that since must have: a name can be given again"`
	Align   int64  `json:"align,omitempty" doc:"with since, bytes: what is sent is whole multiples of it; a power of two, 4096 to 4 MiB"`
	Mark    string `json:"mark,omitempty" doc:"any word, by which the client finds its task"`
}

// ImportLUN asks for a LUN beside those of the file that holds a disk.
type ImportLUN struct {
	NewLUN
	Encryption *LUNEncryption `json:"encryption,omitempty" doc:"of the LUN; without it, as its pool says"`
	Mark       string         `json:"mark,omitempty" doc:"any word, by which the client finds its task"`
}

// LUNEncryption is the key files of a LUN, as in the file.
type LUNEncryption struct {
	Key    string `json:"key,omitempty" doc:"name of the key's file; empty: the LUN is not encrypted, whatever its pool says"`
	Former string `json:"former,omitempty" doc:"name of the file of the key that was"`
}

// DiskSnapshot says, in the stream of an import, that what came so far is to be kept as a
// snapshot, and that what follows are changes to it.
type DiskSnapshot struct {
	Name string `json:"name"`
	Size int64  `json:"size" doc:"bytes of the disk from then on: not less than it has"`
}

// Disk is what a stream of a disk begins with.
type Disk struct {
	Size  int64  `json:"size" doc:"bytes"`
	Block int    `json:"block" doc:"bytes of a logical block"`
	ID    string `json:"id,omitempty" doc:"32 hex digits of the LUN or snapshot"`
}

// A stream of a disk is records of a head and a payload. The head is, big-endian, the
// kind, the payload's length, a place, and the CRC-32C of these 16 bytes and the
// payload. An end of the stream without a record of the end is a stream cut off.
const (
	diskHead  = 1 // payload: Disk, or ImportLUN
	diskData  = 2 // payload: the bytes at the place
	diskEnd   = 3 // place: how many bytes of data there were
	diskError = 4 // payload: Error
	diskAnew  = 5 // payload: 8 bytes, big-endian: so many at the place are told anew, and are zeros where no data follow
	diskKeep  = 6 // payload: DiskSnapshot

	diskRecord = 20      // bytes of a record's head
	diskMax    = 4 << 20 // bytes of a payload
)

var diskSum = crc32.MakeTable(crc32.Castagnoli)

// DiskWriter makes a stream of a disk. It is not safe for concurrent use.
type DiskWriter struct {
	w     io.Writer
	data  int64
	begun bool
}

// NewDiskWriter writes to w, a record at a time.
func NewDiskWriter(w io.Writer) *DiskWriter { return &DiskWriter{w: w} }

// Begun tells whether something was written.
func (d *DiskWriter) Begun() bool { return d.begun }

func (d *DiskWriter) record(kind uint32, place int64, p []byte) error {
	d.begun = true
	h := make([]byte, 0, diskRecord)
	h = binary.BigEndian.AppendUint32(h, kind)
	h = binary.BigEndian.AppendUint32(h, uint32(len(p)))
	h = binary.BigEndian.AppendUint64(h, uint64(place))
	h = binary.BigEndian.AppendUint32(h, crc32.Update(crc32.Checksum(h, diskSum), diskSum, p))
	if _, err := d.w.Write(h); err != nil {
		return err
	}
	_, err := d.w.Write(p)
	return err
}

// Head begins the stream with a Disk or an ImportLUN.
func (d *DiskWriter) Head(head any) error {
	b, err := json.Marshal(head)
	if err != nil {
		return err
	}
	return d.record(diskHead, 0, b)
}

// Data is p, at most 4 MiB, at off.
func (d *DiskWriter) Data(off int64, p []byte) error {
	if len(p) > diskMax {
		return fmt.Errorf("%d bytes in one record: at most %d", len(p), diskMax)
	}
	d.data += int64(len(p))
	return d.record(diskData, off, p)
}

// Anew says that n bytes at off may differ from what the reader knows: they are zeros
// but for the data that follow.
func (d *DiskWriter) Anew(off, n int64) error {
	return d.record(diskAnew, off, binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// Keep says that what was written so far is to be kept as a snapshot.
func (d *DiskWriter) Keep(s DiskSnapshot) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return d.record(diskKeep, 0, b)
}

// End says that all was written.
func (d *DiskWriter) End() error { return d.record(diskEnd, d.data, nil) }

// Fail says why no more is written.
func (d *DiskWriter) Fail(e *Error) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return d.record(diskError, 0, b)
}

// DiskReader reads a stream of a disk. It is not safe for concurrent use.
type DiskReader struct {
	r    io.Reader
	data int64
	buf  []byte
}

// NewDiskReader reads from r.
func NewDiskReader(r io.Reader) *DiskReader { return &DiskReader{r: r} }

func (d *DiskReader) record() (kind uint32, place int64, p []byte, err error) {
	var h [diskRecord]byte
	if _, err := io.ReadFull(d.r, h[:]); err != nil {
		return 0, 0, nil, cut(err)
	}
	n := binary.BigEndian.Uint32(h[4:])
	if n > diskMax {
		return 0, 0, nil, fmt.Errorf("a record of %d bytes in the stream of the disk: at most %d: is the other side another version?", n, diskMax)
	}
	if cap(d.buf) < int(n) {
		d.buf = make([]byte, n)
	}
	p = d.buf[:n]
	if _, err := io.ReadFull(d.r, p); err != nil {
		return 0, 0, nil, cut(err)
	}
	if crc32.Update(crc32.Checksum(h[:16], diskSum), diskSum, p) != binary.BigEndian.Uint32(h[16:]) {
		return 0, 0, nil, errors.New("the stream of the disk was damaged on its way: try again")
	}
	return binary.BigEndian.Uint32(h[:]), int64(binary.BigEndian.Uint64(h[8:])), p, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the stream of the disk was cut off: %w: try again", err)
}

// Head reads what the stream begins with.
func (d *DiskReader) Head(head any) error {
	kind, _, p, err := d.record()
	if err != nil {
		return err
	}
	if kind != diskHead {
		return fmt.Errorf("the stream of the disk begins with a record %d: is the other side another version?", kind)
	}
	return json.Unmarshal(p, head)
}

// Next is the next data, in the reader's own memory until the next call; io.EOF
// says that all was read. What the writer failed with comes as its *Error.
func (d *DiskReader) Next() (off int64, p []byte, err error) {
	piece, err := d.Piece()
	if err == nil && piece.Keep != nil {
		err = errors.New("the stream of the disk has a snapshot, and one disk was asked for: is the other side another version?")
	}
	if err == nil && piece.Anew {
		err = fmt.Errorf("the stream of the disk tells what changed at %d, and all of it was asked for: is the other side another version?", piece.Off)
	}
	return piece.Off, piece.Data, err
}

// Piece is what a stream says of N bytes at Off.
type Piece struct {
	Off, N int64
	Anew   bool          // they are zeros, but for the data that follow
	Data   []byte        // else, in the reader's own memory until the next call
	Keep   *DiskSnapshot // or, where it is not nil, a snapshot and no bytes
}

// Piece is Next for a stream of what changed.
func (d *DiskReader) Piece() (Piece, error) {
	kind, place, p, err := d.record()
	switch {
	case err != nil:
		return Piece{}, err
	case kind == diskData:
		d.data += int64(len(p))
		return Piece{Off: place, N: int64(len(p)), Data: p}, nil
	case kind == diskAnew && len(p) == 8:
		return Piece{Off: place, N: int64(binary.BigEndian.Uint64(p)), Anew: true}, nil
	case kind == diskKeep:
		k := &DiskSnapshot{}
		if err := json.Unmarshal(p, k); err != nil {
			return Piece{}, fmt.Errorf("a snapshot in the stream of the disk: %w: is the other side another version?", err)
		}
		return Piece{Keep: k}, nil
	case kind == diskEnd && place == d.data:
		return Piece{}, io.EOF
	case kind == diskError:
		e := &Error{}
		if err := json.Unmarshal(p, e); err != nil {
			return Piece{}, err
		}
		return Piece{}, e
	}
	return Piece{}, fmt.Errorf("a record %d at %d in the stream of the disk after %d bytes: try again", kind, place, d.data)
}

package copies

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

const (
	labelSize = 4096
	// labels is how many there are, written in turn: what tears one leaves the other.
	labels = 2
	// Room is what a copy needs beside the data, in bytes.
	Room = 1 << 20

	labelMagic = "ripstop copy 1\n\x00"
)

// Label is what a copy says of itself. It lies in the last blocks of the LUN, in one of two
// places: magic, length, JSON, zeros, SHA-256 of all that.
type Label struct {
	Seq   uint64 `json:"seq"`   // the higher one counts
	LUN   string `json:"lun"`   // that it is a copy of
	ID    string `json:"id"`    // of that LUN, 32 hex digits
	Host  string `json:"host"`  // where that LUN is
	Size  int64  `json:"size"`  // bytes of the LUN at the snapshot
	Block int    `json:"block"` // bytes

	Whole    bool  `json:"whole"`          // all of Snapshot is there, and nothing else
	Snapshot Point `json:"snapshot"`       // that it is, or is becoming
	Base     Point `json:"base,omitzero"`  // that it was: what differs from Snapshot beyond Done is as it was then
	Blank    bool  `json:"blank,omitzero"` // there was nothing: it is zeros beyond Done
	Done     int64 `json:"done,omitzero"`  // bytes up to which it is Snapshot, while it is not whole

	Written time.Time `json:"written"`
}

// Point is a snapshot of a LUN.
type Point struct {
	Name  string    `json:"name"`
	ID    string    `json:"id"` // 32 hex digits, which no other snapshot has
	Taken time.Time `json:"taken"`
}

var errNoLabel = errors.New("there is no label")

// ErrDamaged: there is a label that does not match its checksum.
var ErrDamaged = errors.New("its label is damaged")

// encode is the block of a label.
func (l Label) encode() ([]byte, error) {
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	b := make([]byte, labelSize)
	n := copy(b, labelMagic)
	if n+4+len(text) > labelSize-sha256.Size {
		return nil, fmt.Errorf("a label of %d bytes has no room", len(text))
	}
	binary.BigEndian.PutUint32(b[n:], uint32(len(text)))
	copy(b[n+4:], text)
	sum := sha256.Sum256(b[:labelSize-sha256.Size])
	copy(b[labelSize-sha256.Size:], sum[:])
	return b, nil
}

// decodeLabel reads a block: errNoLabel is for one that never was a label.
func decodeLabel(b []byte) (Label, error) {
	var l Label
	if len(b) != labelSize || !bytes.HasPrefix(b, []byte(labelMagic)) {
		return l, errNoLabel
	}
	sum := sha256.Sum256(b[:labelSize-sha256.Size])
	n := int64(binary.BigEndian.Uint32(b[len(labelMagic):]))
	text := b[len(labelMagic)+4 : labelSize-sha256.Size]
	if !bytes.Equal(sum[:], b[labelSize-sha256.Size:]) || n > int64(len(text)) {
		return l, ErrDamaged
	}
	if err := json.Unmarshal(text[:n], &l); err != nil {
		return l, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	unprintable := func(c rune) bool { return !unicode.IsPrint(c) }
	if l.Size <= 0 || l.Done < 0 || l.Done > l.Size || l.ID == "" || strings.ContainsFunc(l.LUN+l.ID+l.Host, unprintable) {
		return l, ErrDamaged
	}
	return l, nil
}

// labelAt is the place of a label on a disk of that size: the last whole blocks of it.
func labelAt(size int64, seq uint64) int64 {
	return size/labelSize*labelSize - labelSize*int64(1+seq%labels)
}

// room tells how many bytes of data fit before the labels.
func room(size int64) int64 { return size - Room }

// reader reads where a label may be: a LUN here, or one elsewhere.
type reader interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// ReadLabel gives the label of a disk of that size. ok is false where there is none; a
// damaged one is an error.
func ReadLabel(ctx context.Context, r reader, size int64) (l Label, ok bool, err error) {
	if size < 2*labels*labelSize {
		return l, false, nil
	}
	b := make([]byte, labels*labelSize)
	if err := r.ReadAt(ctx, b, labelAt(size, labels-1)); err != nil {
		return l, false, err
	}
	var damaged error
	for i := range labels {
		x, err := decodeLabel(b[i*labelSize : (i+1)*labelSize])
		switch {
		case errors.Is(err, errNoLabel):
		case err != nil:
			damaged = err
		case !ok || x.Seq > l.Seq:
			l, ok = x, true
		}
	}
	if ok {
		return l, true, nil // a torn one is the newer one, which never became true
	}
	return l, false, damaged
}

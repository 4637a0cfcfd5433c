package raw

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"ripstop/internal/disk"
)

const format = 1 // of pool.json and NAME.lun.json

// poolMeta is pool.json.
type poolMeta struct {
	Format  int       `json:"format"`
	UUID    id        `json:"uuid"`
	Created time.Time `json:"created"`
}

// lunMeta is NAME.lun.json.
type lunMeta struct {
	Format  int       `json:"format"`
	ID      id        `json:"id"`
	Block   int       `json:"block"`
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
}

// id is 16 random bytes, written as 32 hexadecimal digits.
type id [16]byte

func newID() id {
	var i id
	rand.Read(i[:]) // never fails, see crypto/rand
	return i
}

// MarshalText is the digits.
func (i id) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, i[:]), nil }

// UnmarshalText takes exactly 32 digits that are not all 0.
func (i *id) UnmarshalText(text []byte) error {
	var got id
	if len(text) != 2*len(got) {
		return fmt.Errorf("id %q has not %d digits", text, 2*len(got))
	}
	if _, err := hex.Decode(got[:], text); err != nil {
		return fmt.Errorf("id %q: %w", text, err)
	}
	*i = got
	return nil
}

func (m lunMeta) check() error {
	if err := checkFormat(m.Format, m.ID); err != nil {
		return err
	}
	return checkShape(m.Size, m.Block)
}

func (m poolMeta) check() error { return checkFormat(m.Format, m.UUID) }

func checkFormat(f int, i id) error {
	switch {
	case f > format:
		return fmt.Errorf("format %d is newer than %d: run a newer ripstop", f, format)
	case f != format:
		return fmt.Errorf("format %d does not exist", f)
	case i == id{}:
		return errors.New("the id is missing")
	}
	return nil
}

// checkShape tells what is wrong with a LUN's size and block.
func checkShape(size int64, block int) error {
	switch {
	case block != 512 && block != 4096:
		return fmt.Errorf("block %d is neither 512 nor 4096", block)
	case size <= 0 || size%int64(block) != 0:
		return fmt.Errorf("size %d is not a positive multiple of block %d", size, block)
	}
	return nil
}

// decode reads one metadata object, strictly.
func decode[M interface{ check() error }](data []byte) (M, error) {
	var m, none M
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return none, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return none, errors.New("something follows the object")
	}
	if err := m.check(); err != nil {
		return none, err
	}
	return m, nil
}

// readMeta is the metadata in a file; an absent file is os.ErrNotExist.
func readMeta[M interface{ check() error }](path string) (M, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		var none M
		return none, err
	}
	m, err := decode[M](data)
	if err != nil {
		return m, fmt.Errorf("%s: damaged: %w: put back a copy; the data beside it are untouched", path, err)
	}
	return m, nil
}

// kindOf is the kind that a pool.json names, which ours do not; "" also where it
// cannot be read.
func kindOf(path string) string {
	var m struct {
		Kind string `json:"kind"`
	}
	if data, err := os.ReadFile(path); err != nil || json.Unmarshal(data, &m) != nil {
		return ""
	}
	return m.Kind
}

// writeMeta replaces a metadata file so that any crash leaves the old or the
// new one, and returns when the new one is on stable storage.
func writeMeta(path string, m any) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return disk.Replace(path, append(data, '\n'))
}

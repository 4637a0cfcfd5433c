package crypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"ripstop/lun"
)

const (
	format     = 1
	cipherName = "aes-256-xts"
	maxSlots   = 2
	saltSize   = 32
)

// header is what the record of an encrypted LUN holds, as JSON. The sum tells
// damage, the seals a wrong key: it is of the header's text with an empty sum.
type header struct {
	Format int    `json:"format"`
	Cipher string `json:"cipher"`
	Unit   int    `json:"unit"`  // bytes of a data unit: the LUN's logical block
	ID     string `json:"id"`    // 32 hexadecimal digits, random, of the volume key
	Slots  []slot `json:"slots"` // one for each key that opens it
	Sum    string `json:"sum"`   // SHA-256
}

// slot is the volume key, sealed by AES-256-GCM with a key that HKDF-SHA-256
// derives from the key file and the salt. No derived key seals twice, so the nonce
// is zero.
type slot struct {
	Salt   []byte `json:"salt"`
	Sealed []byte `json:"sealed"`
}

var (
	// ErrDamaged: the header is not as it was written.
	ErrDamaged = errors.New("the header with its key is damaged")
	errNewer   = errors.New("run a newer ripstop")
)

// newHeader draws a volume key.
func newHeader(unit int) (header, *[keySize]byte) {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	key := new([keySize]byte)
	rand.Read(key[:])
	return header{Format: format, Cipher: cipherName, Unit: unit, ID: hex.EncodeToString(id[:])}, key
}

// decode reads a header.
func decode(record []byte) (header, error) {
	var h header
	var v struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(record, &v) == nil && v.Format > format {
		return h, fmt.Errorf("the header with its key has format %d, newer than %d: %w", v.Format, format, errNewer)
	}
	d := json.NewDecoder(bytes.NewReader(record))
	d.DisallowUnknownFields()
	err := d.Decode(&h)
	if again, wrong := h.encode(); err == nil && (wrong != nil || !bytes.Equal(again, record)) {
		err = errors.New("it does not match its checksum") // or was not written so
	}
	if err == nil {
		err = h.check()
	}
	if err != nil {
		return header{}, fmt.Errorf("%w: %w: put back a copy of the pool", ErrDamaged, err)
	}
	return h, nil
}

func (h header) check() error {
	switch id, err := hex.DecodeString(h.ID); {
	case h.Format != format || h.Cipher != cipherName:
		return fmt.Errorf("there is no format %d with cipher %q", h.Format, h.Cipher)
	case h.Unit != 512 && h.Unit != 4096:
		return fmt.Errorf("unit %d is neither 512 nor 4096", h.Unit)
	case err != nil || len(id) != 16:
		return fmt.Errorf("id %q has not 32 hexadecimal digits", h.ID)
	case len(h.Slots) < 1 || len(h.Slots) > maxSlots:
		return fmt.Errorf("%d keys open it", len(h.Slots))
	}
	for _, s := range h.Slots {
		if len(s.Salt) != saltSize || len(s.Sealed) != keySize+16 {
			return errors.New("a sealed key has a length that no such key has")
		}
	}
	return nil
}

// encode is the header as it is kept.
func (h header) encode() ([]byte, error) {
	h.Sum = h.sum()
	return json.Marshal(h)
}

func (h header) sum() string {
	h.Sum = ""
	b, err := json.Marshal(h)
	if err != nil {
		return "" // plain fields cannot fail
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// sealed is the header with the volume key sealed for the keys, and no others.
func (h header) sealed(key *[keySize]byte, e lun.Encryption) (header, error) {
	h.Slots = nil
	for _, k := range []lun.Key{e.Key, e.Former} {
		if k.IsZero() {
			continue
		}
		s := slot{Salt: make([]byte, saltSize)}
		rand.Read(s.Salt)
		a, err := h.seal(k, s.Salt)
		if err != nil {
			return h, err
		}
		s.Sealed = a.Seal(nil, make([]byte, a.NonceSize()), key[:], h.bound())
		h.Slots = append(h.Slots, s)
	}
	return h, nil
}

// open is the volume key; lun.ErrOtherKey when neither key opens it. same tells
// that both do, and no others.
func (h header) open(e lun.Encryption) (key *[keySize]byte, same bool, err error) {
	opened, wanted := 0, 0
	for _, k := range []lun.Key{e.Key, e.Former} {
		if k.IsZero() {
			continue
		}
		wanted++
		for _, s := range h.Slots {
			a, err := h.seal(k, s.Salt)
			if err != nil {
				return nil, false, err
			}
			if b, err := a.Open(nil, make([]byte, a.NonceSize()), s.Sealed, h.bound()); err == nil {
				key, opened = (*[keySize]byte)(b), opened+1
				break
			}
		}
	}
	if key == nil {
		return nil, false, lun.ErrOtherKey
	}
	return key, opened == wanted && len(h.Slots) == wanted, nil
}

func (h header) seal(k lun.Key, salt []byte) (cipher.AEAD, error) {
	secret := k.Reveal()
	derived, err := hkdf.Key(sha256.New, secret[:], salt, "ripstop LUN "+h.ID, 32)
	if err != nil {
		return nil, err
	}
	b, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// bound is what a sealed key is bound to.
func (h header) bound() []byte {
	return fmt.Appendf(nil, "ripstop %d %s %d %s", h.Format, h.Cipher, h.Unit, h.ID)
}

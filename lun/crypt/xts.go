package crypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"sync"
)

const (
	keySize   = 64   // bytes of a volume key: one AES-256 key for data, one for tweaks
	blockSize = 16   // bytes of an AES block
	maxUnit   = 4096 // bytes of a data unit
)

// xts is XTS-AES-256 over whole data units. It is made of passes over a unit:
// blocks one by one through cipher.Block have the processor wait for each
// (golang.org/x/crypto/xts does, at a third of the speed).
type xts struct {
	data, tweak cipher.Block
	unit        int // bytes
	tweaks      sync.Pool
}

type tweaks [maxUnit]byte

func newXTS(key []byte, unit int) (*xts, error) {
	if unit < blockSize || unit > maxUnit || unit%blockSize != 0 {
		return nil, fmt.Errorf("a data unit of %d bytes: it is a multiple of %d up to %d", unit, blockSize, maxUnit)
	}
	data, err := aes.NewCipher(key[:len(key)/2])
	if err != nil {
		return nil, err
	}
	tweak, err := aes.NewCipher(key[len(key)/2:])
	if err != nil {
		return nil, err
	}
	return &xts{data: data, tweak: tweak, unit: unit, tweaks: sync.Pool{New: func() any { return new(tweaks) }}}, nil
}

// encrypt encrypts src, whole units from byte off on, into dst, which is src or
// does not overlap it.
func (x *xts) encrypt(dst, src []byte, off int64) {
	t := x.tweaks.Get().(*tweaks)
	for n := uint64(off) / uint64(x.unit); len(src) > 0; n++ {
		d := dst[:x.unit]
		w := x.draw(t, n)
		subtle.XORBytes(d, src[:x.unit], w)
		for i := 0; i < len(d); i += blockSize {
			b := d[i : i+blockSize : i+blockSize]
			x.data.Encrypt(b, b)
		}
		subtle.XORBytes(d, d, w)
		dst, src = dst[x.unit:], src[x.unit:]
	}
	x.tweaks.Put(t)
}

// sector is the bytes that a disk writes whole or not at all.
const sector = 512

// decrypt decrypts p, whole units from byte off on, where it lies. Sectors of zeros
// stay such, also in a unit that has others: a power cut may leave half a unit of what it
// was, and half of zeros.
func (x *xts) decrypt(p []byte, off int64) {
	t := x.tweaks.Get().(*tweaks)
	for n := uint64(off) / uint64(x.unit); len(p) > 0; n++ {
		d := p[:x.unit]
		switch {
		case isZero(d):
		case hasZeros(d):
			w := x.draw(t, n)
			for i := 0; i < len(d); i += sector {
				if s := d[i:min(i+sector, len(d))]; !isZero(s) {
					x.open(s, w[i:])
				}
			}
		default:
			x.open(d, x.draw(t, n))
		}
		p = p[x.unit:]
	}
	x.tweaks.Put(t)
}

// open decrypts blocks with their tweaks.
func (x *xts) open(d, w []byte) {
	subtle.XORBytes(d, d, w)
	for i := 0; i < len(d); i += blockSize {
		b := d[i : i+blockSize : i+blockSize]
		x.data.Decrypt(b, b)
	}
	subtle.XORBytes(d, d, w)
}

// hasZeros tells whether a sector of a unit is zeros.
func hasZeros(d []byte) bool {
	for i := 0; i < len(d); i += sector {
		if isZero(d[i:min(i+sector, len(d))]) {
			return true
		}
	}
	return false
}

// draw is the tweaks of unit n: E(n) times a power of alpha in GF(2^128) for each
// block (IEEE 1619-2018 section 5.2).
func (x *xts) draw(t *tweaks, n uint64) []byte {
	w := t[:x.unit]
	le := binary.LittleEndian
	le.PutUint64(w, n)
	le.PutUint64(w[8:], 0)
	x.tweak.Encrypt(w[:blockSize], w[:blockSize])
	low, high := le.Uint64(w), le.Uint64(w[8:])
	for i := blockSize; i < len(w); i += blockSize {
		carry := uint64(int64(high)>>63) & 0x87
		high = high<<1 | low>>63
		low = low<<1 ^ carry
		b := w[i : i+blockSize : i+blockSize]
		le.PutUint64(b, low)
		le.PutUint64(b[8:], high)
	}
	return w
}

var zeros [maxUnit]byte

func isZero(p []byte) bool {
	return binary.LittleEndian.Uint64(p) == 0 && bytes.Equal(p, zeros[:len(p)])
}

package backup

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// Key is the secret of a sealed store. It prints as nothing.
type Key struct{ secret [32]byte }

// String hides the key.
func (Key) String() string { return "(a key)" }

// GoString hides the key.
func (Key) GoString() string { return "(a key)" }

// NewKey is a random key as the text of its file.
func NewKey() []byte {
	var k [32]byte
	_, _ = rand.Read(k[:]) // crypto/rand: it never returns an error
	return append(base64.StdEncoding.AppendEncode(nil, k[:]), '\n')
}

// ParseKey reads the text of a key's file: 32 bytes as base64.
func ParseKey(text []byte) (Key, error) {
	var k Key
	b, err := base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(text))
	if err != nil || len(b) != len(k.secret) {
		return Key{}, errors.New("it is no key: a key is 32 bytes as base64, `ripstop backup key FILE` makes one")
	}
	copy(k.secret[:], b)
	return k, nil
}

// keys is what is made of a Key.
type keys struct {
	seal  []byte // from which the key of each object is made
	name  []byte // of the names of chunks
	check string // tells the key from another, and nothing of it
}

func (k Key) keys() (*keys, error) {
	seal, err := k.derive("seal")
	if err != nil {
		return nil, err
	}
	name, err := k.derive("name")
	if err != nil {
		return nil, err
	}
	check, err := k.derive("check")
	if err != nil {
		return nil, err
	}
	return &keys{seal, name, hex.EncodeToString(check[:16])}, nil
}

func (k Key) derive(purpose string) ([]byte, error) {
	out, err := hkdf.Key(sha256.New, k.secret[:], nil, "ripstop backup 1 "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return out, nil
}

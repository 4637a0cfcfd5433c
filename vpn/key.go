package vpn

import (
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
)

// KeyLen is the length of every WireGuard key in bytes.
const KeyLen = 32

// keyText is the length of a key in base64.
const keyText = 44

// Key is a Curve25519 public key.
type Key [KeyLen]byte

// ParseKey reads a key as wg(8) writes it: 44 characters of standard base64. Its
// errors do not quote the text, which may have been meant to be a secret.
func ParseKey(s string) (Key, error) {
	var k Key
	if len(s) != keyText {
		return k, fmt.Errorf("key has %d characters: a WireGuard key has %d of base64", len(s), keyText)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return k, fmt.Errorf("key is not base64: %w", err)
	}
	if len(b) != KeyLen {
		return k, fmt.Errorf("key has %d bytes: a WireGuard key has %d", len(b), KeyLen)
	}
	copy(k[:], b)
	return k, nil
}

// String is the key in standard base64.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText is String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is ParseKey.
func (k *Key) UnmarshalText(b []byte) error {
	p, err := ParseKey(string(b))
	if err == nil {
		*k = p
	}
	return err
}

// label names a key within an object's name, where a slash would part it.
func (k Key) label() string { return base64.URLEncoding.EncodeToString(k[:]) }

// Secret is a private or pre-shared key. The zero value means "none". Every way
// of printing it gives "(secret)"; Secrets compare with ==.
type Secret struct{ k Key }

// NewSecret makes a Secret of its bytes.
func NewSecret(k Key) Secret { return Secret{k} }

// NewPrivateKey draws a private key, as `wg genkey` does: 32 bytes of random,
// clamped (RFC 7748 section 5).
func NewPrivateKey(random io.Reader) (Secret, error) {
	var k Key
	if _, err := io.ReadFull(random, k[:]); err != nil {
		return Secret{}, fmt.Errorf("draw a private key: %w", err)
	}
	return Secret{k}.clamped(), nil
}

// clamped is the private key as every implementation uses it, and shows it,
// whatever was written: two that are the same clamped are one key.
func (s Secret) clamped() Secret {
	s.k[0] &= 248
	s.k[31] = s.k[31]&127 | 64
	return s
}

// IsZero tells whether there is none.
func (s Secret) IsZero() bool { return s == Secret{} }

// Reveal is the key itself, for handing it to WireGuard and nothing else.
func (s Secret) Reveal() Key { return s.k }

// Public is the public key of a private key.
func (s Secret) Public() Key {
	private, err := ecdh.X25519().NewPrivateKey(s.k[:])
	if err != nil {
		return Key{} // the length is its only condition
	}
	return Key(private.PublicKey().Bytes())
}

// String hides the key.
func (Secret) String() string { return "(secret)" }

// GoString hides the key.
func (Secret) GoString() string { return "(secret)" }

// MarshalText hides the key.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// LogValue hides the key.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

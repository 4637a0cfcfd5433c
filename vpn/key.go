package vpn

import (
	"encoding/base64"
	"fmt"
	"log/slog"
)

// KeyLen is the length of every WireGuard key in bytes.
const KeyLen = 32

// Key is a Curve25519 public key.
type Key [KeyLen]byte

// ParseKey reads a key in standard base64.
func ParseKey(s string) (Key, error) {
	var k Key
	b, err := base64.StdEncoding.DecodeString(s)
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

// Secret is a private or pre-shared key. The zero value means "none". Every way
// of printing it gives "(secret)"; Secrets compare with ==.
type Secret struct{ k Key }

// NewSecret makes a Secret of its bytes.
func NewSecret(k Key) Secret { return Secret{k} }

// IsZero tells whether there is none.
func (s Secret) IsZero() bool { return s == Secret{} }

// Reveal is the key itself, for handing it to WireGuard and nothing else.
func (s Secret) Reveal() Key { return s.k }

// String hides the key.
func (Secret) String() string { return "(secret)" }

// GoString hides the key.
func (Secret) GoString() string { return "(secret)" }

// MarshalText hides the key.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// LogValue hides the key.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

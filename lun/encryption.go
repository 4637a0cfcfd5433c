package lun

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
)

// Key is what key files hold: 32 random bytes, with which the keys of LUNs are
// sealed. The zero value means "none". Every way of printing it gives "(secret)";
// Keys compare with ==.
type Key struct{ k [32]byte }

// keyText is the length of a key in base64.
const keyText = 44

// ParseKey reads a key as `openssl rand -base64 32` writes it. Its errors do not
// quote the text, which may be a secret.
func ParseKey(text string) (Key, error) {
	var k Key
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(text) != keyText || len(b) != len(k.k) {
		return k, errors.New("it holds no key, which is 32 random bytes in base64: write one with `openssl rand -base64 32`")
	}
	copy(k.k[:], b)
	if k.IsZero() {
		return k, errors.New("it holds nothing but zeros: write a key with `openssl rand -base64 32`")
	}
	return k, nil
}

// IsZero tells whether there is none.
func (k Key) IsZero() bool { return k == Key{} }

// Reveal is the bytes, for deriving what seals and nothing else.
func (k Key) Reveal() [32]byte { return k.k }

// String hides the key.
func (Key) String() string { return "(secret)" }

// GoString hides the key.
func (Key) GoString() string { return "(secret)" }

// Format hides the key from every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(secret)")) }

// MarshalText hides the key.
func (Key) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// LogValue hides the key.
func (Key) LogValue() slog.Value { return slog.StringValue("(secret)") }

// Encryption is how a LUN's data are encrypted; the zero value is not at all.
type Encryption struct {
	Key    Key // of the file, zero for a LUN that is not encrypted
	Former Key // opens it, too, while keys are exchanged; zero without one

	// Missing is why the wanted key cannot be had, and what to do; "" where it
	// can. What was observed has none.
	Missing string
}

// On tells whether the data are encrypted.
func (e Encryption) On() bool { return e != Encryption{} }

// opens tells whether what is sealed for e can be sealed for other: it takes a
// key that both have.
func (e Encryption) opens(other Encryption) bool {
	for _, k := range []Key{e.Key, e.Former} {
		if !k.IsZero() && (k == other.Key || k == other.Former) {
			return true
		}
	}
	return false
}

// Unchangeable is why a LUN in service cannot become encrypted, plain, or sealed
// for other keys.
func (e Encryption) Unchangeable(want Encryption) error {
	switch {
	case want.Missing != "":
		return errors.New(want.Missing)
	case !e.On() && want.On():
		return ErrPlain
	case e.On() && !want.On():
		return ErrEncrypted
	case e != want && !e.opens(want):
		return ErrOtherKey
	}
	return nil
}

// What can be wrong with the encryption of data that are there. None names the LUN.
var (
	// ErrPlain: encryption is wanted for data that are not encrypted.
	ErrPlain = errors.New("its data are not encrypted, and nothing rewrites them silently: write `encryption: none` to go on, " +
		"or copy them to a new LUN that is encrypted, with `ripstop lun export` and `ripstop lun import`")
	// ErrEncrypted: no encryption is wanted for data that are encrypted.
	ErrEncrypted = errors.New("its data are encrypted: write `encryption: {key: FILE}`, " +
		"or copy them to a new LUN that is not, with `ripstop lun export` and `ripstop lun import`")
	// ErrOtherKey: the data are sealed with none of the wanted keys.
	ErrOtherKey = errors.New("it is sealed with another key than the one in the file of `encryption: {key: FILE}`: " +
		"name the file that it was made with; to exchange the key, name that one as `former:` beside the new one")
)

// RekeyLUN seals the key of a LUN in service for other key files; I/O goes on and
// no data are written.
type RekeyLUN struct {
	Name     string
	From, To Encryption
}

// String is a comment.
func (s RekeyLUN) String() string {
	switch {
	case !s.To.Former.IsZero():
		return fmt.Sprintf("# LUN %s: sealed with the key and with the former one", s.Name)
	case s.From.Key == s.To.Key:
		return fmt.Sprintf("# LUN %s: the former key opens it no more", s.Name)
	}
	return fmt.Sprintf("# LUN %s: sealed with another key, the one it had opens it no more", s.Name)
}

// Object is "lun/NAME".
func (s RekeyLUN) Object() string { return "lun/" + s.Name }

// Removes is false.
func (RekeyLUN) Removes() bool { return false }

// Disturbs is empty.
func (RekeyLUN) Disturbs() string { return "" }

func (s RekeyLUN) apply(st *State) error {
	l, ok := st.LUNs[s.Name]
	if !ok {
		return fmt.Errorf("exchange the key of LUN %s: it is not in service", s.Name)
	}
	if err := l.Encryption.Unchangeable(s.To); err != nil {
		return fmt.Errorf("exchange the key of LUN %s: %w", s.Name, err)
	}
	l.Encryption = s.To
	st.LUNs[s.Name] = l
	return nil
}

package join

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Token is what a new host needs to find the daemon that lets it join, to know it,
// and to prove that it may.
type Token struct {
	At     string   // "host:port", TCP
	Pin    [32]byte // SHA-256 of the daemon's public key
	Secret Secret
}

// Secret is what a token proves. It prints as nothing.
type Secret [16]byte

// String is for logs and errors.
func (Secret) String() string { return "(secret)" }

// GoString is for %#v.
func (Secret) GoString() string { return "(secret)" }

// MarshalJSON keeps a secret out of what is encoded by accident.
func (Secret) MarshalJSON() ([]byte, error) {
	return nil, errors.New("encode a secret: it is told nobody")
}

// hash is what is kept of a secret. It has 128 random bits, so that no slow hash is
// needed.
func (s Secret) hash() [32]byte { return sha256.Sum256(s[:]) }

const (
	prefix   = "ripstop-join-1-"
	sumBytes = 4   // of a checksum: a word that was not copied whole is told from a forged one
	maxAt    = 255 // bytes of a token's address
	maxToken = 512 // characters
)

var letters = base64.RawURLEncoding.Strict()

// newToken draws a token for a daemon.
func newToken(at string, pin [32]byte) (Token, error) {
	t := Token{At: at, Pin: pin}
	if err := checkAt(at); err != nil {
		return t, err
	}
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return t, fmt.Errorf("draw a token: %w", err)
	}
	return t, nil
}

// Reveal is the token as people carry it.
func (t Token) Reveal() string {
	b := append(bytes.Clone(t.Pin[:]), t.Secret[:]...)
	b = append(b, t.At...)
	sum := sha256.Sum256(b)
	return prefix + letters.EncodeToString(append(b, sum[:sumBytes]...))
}

// ParseToken reads a token. No error repeats any of it.
func ParseToken(text string) (Token, error) {
	var t Token
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, prefix)
	if !ok || len(text) > maxToken {
		return t, fmt.Errorf("this is no token: it begins with %s, as `ripstop host token` prints it", prefix)
	}
	b, err := letters.DecodeString(body)
	least := len(t.Pin) + len(t.Secret) + sumBytes
	if err != nil || len(b) <= least {
		return t, errBroken
	}
	b, told := b[:len(b)-sumBytes], b[len(b)-sumBytes:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:sumBytes], told) {
		return t, errBroken
	}
	copy(t.Pin[:], b)
	copy(t.Secret[:], b[len(t.Pin):])
	t.At = string(b[len(t.Pin)+len(t.Secret):])
	if err := checkAt(t.At); err != nil {
		return Token{}, errBroken
	}
	return t, nil
}

var errBroken = errors.New("the token is not whole: copy all of it, as `ripstop host token` printed it")

func checkAt(at string) error {
	host, port, err := net.SplitHostPort(at)
	n, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || n == 0 || host == "" || len(at) > maxAt || strings.ContainsFunc(at, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%q: write it as host:port", at)
	}
	return nil
}

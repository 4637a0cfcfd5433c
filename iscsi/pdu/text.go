package pdu

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of text (RFC 7143 section 6.1). MaxPairs is this target's own.
const (
	MaxKeyLen   = 63
	MaxValueLen = 8192
	MaxPairs    = 64
)

// ErrText says that a text segment breaks the format of RFC 7143 section 6.1.
var ErrText = errors.New("malformed text")

// Pair is one key=value.
type Pair struct {
	Key, Value string
}

// ParseText reads the keys of a text segment. Each ends with a zero byte; the
// last one may lack it when the segment was padded away by the sender.
func ParseText(p []byte) ([]Pair, error) {
	var pairs []Pair
	for len(p) > 0 {
		item, rest, _ := bytes.Cut(p, []byte{0})
		p = rest
		if len(item) == 0 {
			continue
		}
		key, value, ok := bytes.Cut(item, []byte{'='})
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: key without a value", ErrText)
		case len(key) == 0 || len(key) > MaxKeyLen || !isKey(key):
			return nil, fmt.Errorf("%w: bad key", ErrText)
		case len(value) > MaxValueLen || !utf8.Valid(value):
			return nil, fmt.Errorf("%w: bad value of %s", ErrText, key)
		case len(pairs) == MaxPairs:
			return nil, fmt.Errorf("%w: more than %d keys", ErrText, MaxPairs)
		}
		pairs = append(pairs, Pair{string(key), string(value)})
	}
	return pairs, nil
}

// isKey tells whether all bytes may stand in a key: letters, digits and .-+@_/.
func isKey(key []byte) bool {
	for _, c := range key {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(".-+@_/#", rune(c)) {
			return false
		}
	}
	return true
}

// AppendText appends one key=value and its zero byte.
func AppendText(p []byte, key, value string) []byte {
	p = append(append(append(p, key...), '='), value...)
	return append(p, 0)
}

// Number reads a numerical value: decimal, or hexadecimal after 0x.
func Number(s string) (uint64, error) {
	digits, base := s, 10
	if h, ok := cutPrefixFold(s, "0x"); ok {
		digits, base = h, 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || digits[0] == '+' {
		return 0, fmt.Errorf("%w: %q is not a number", ErrText, s)
	}
	return n, nil
}

// Binary reads a binary value: hexadecimal after 0x or base64 after 0b.
func Binary(s string) ([]byte, error) {
	if h, ok := cutPrefixFold(s, "0x"); ok {
		if len(h)%2 == 1 {
			h = "0" + h
		}
		if b, err := hex.DecodeString(h); err == nil {
			return b, nil
		}
	}
	if b64, ok := cutPrefixFold(s, "0b"); ok {
		if b, err := base64.StdEncoding.DecodeString(b64); err == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: not a binary value", ErrText)
}

// Hex writes a binary value as hexadecimal.
func Hex(b []byte) string { return "0x" + hex.EncodeToString(b) }

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

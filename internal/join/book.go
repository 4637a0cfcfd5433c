package join

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ripstop/internal/keep"
)

// What a token may be refused for.
var (
	ErrUnknown = errors.New("no such token was issued here, or it is forgotten since: ask for a new one with `ripstop host token`")
	ErrUsed    = errors.New("the token was used, and a token is good for one host once: ask for a new one with `ripstop host token`")
	ErrExpired = errors.New("the token has expired: ask for a new one with `ripstop host token`")
	ErrRevoked = errors.New("the token was revoked: ask for a new one with `ripstop host token`")
)

// Issued is one token as the daemon knows it.
type Issued struct {
	Host    string
	Port    uint16 // TCP, where its host is waited for
	Expires time.Time
}

type issued struct {
	Host    string    `json:"host"`
	Hash    []byte    `json:"hash"` // SHA-256 of the secret
	Port    uint16    `json:"port"`
	Expires time.Time `json:"expires"`
	Used    bool      `json:"used,omitempty"`
	Revoked bool      `json:"revoked,omitempty"`
	Expired bool      `json:"expired,omitempty"` // once, whatever the clock says since
}

func (i issued) open(now time.Time) bool {
	return !i.Used && !i.Revoked && !i.Expired && now.Before(i.Expires)
}

// record is a Book as it is kept. Key is the daemon's private key towards new hosts,
// which no other secret depends on; it lasts as long as a token that pins it.
type record struct {
	Format int      `json:"format"`
	Key    []byte   `json:"key,omitempty"` // an Ed25519 seed
	Tokens []issued `json:"tokens"`
}

const (
	format = 1

	// rememberFor is how long it is known why a token opens nothing any more, and of
	// how many that is known.
	rememberFor = 7 * 24 * time.Hour
	rememberMax = 256
)

// Book is the tokens of a daemon, kept over restarts. Of secrets it has hashes. It is
// safe for concurrent use.
type Book struct {
	dir *keep.Dir

	mu  sync.Mutex
	rec record
}

// recordName is the file's name in the directory.
const recordName = "tokens"

// OpenBook reads the tokens that are kept in a directory, which need not exist yet.
func OpenBook(path string) (*Book, error) {
	b := &Book{dir: keep.New(path)}
	text, err := b.dir.Load(recordName)
	if err != nil || text == nil {
		return b, err
	}
	if err := json.Unmarshal(text, &b.rec); err != nil {
		return nil, fmt.Errorf("read the tokens of new hosts: %w: remove %s/%s, and issue them anew", err, path, recordName)
	}
	if b.rec.Format != format || len(b.rec.Key) != 0 && len(b.rec.Key) != ed25519.SeedSize {
		return nil, fmt.Errorf("read the tokens of new hosts: format %d is not %d: run the ripstop that wrote it, or remove %s/%s", b.rec.Format, format, path, recordName)
	}
	return b, nil
}

// save makes next the book; the caller holds b.mu.
func (b *Book) save(next record, now time.Time) error {
	next.Format = format
	next.Tokens = slices.DeleteFunc(next.Tokens, func(i issued) bool { return now.Sub(i.Expires) > rememberFor })
	over := len(next.Tokens) - rememberMax
	next.Tokens = slices.DeleteFunc(next.Tokens, func(i issued) bool {
		if over <= 0 || i.open(now) {
			return false
		}
		over--
		return true
	})
	if !slices.ContainsFunc(next.Tokens, func(i issued) bool { return i.open(now) }) {
		next.Key = nil
	}
	text, err := json.Marshal(next)
	if err == nil {
		err = b.dir.Save(recordName, text)
	}
	if err != nil {
		return fmt.Errorf("keep the tokens of new hosts: %w", err)
	}
	b.rec = next
	return nil
}

// copied is the record with tokens of its own.
func (b *Book) copied() record {
	next := b.rec
	next.Tokens = slices.Clone(b.rec.Tokens)
	return next
}

// Issue makes a token for a host, which is found at the address. One that the host
// has already is revoked: there is one at a time.
func (b *Book) Issue(host, at string, port uint16, ttl time.Duration, now time.Time) (Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.copied()
	if !slices.ContainsFunc(next.Tokens, func(i issued) bool { return i.open(now) }) {
		next.Key = make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(next.Key); err != nil {
			return Token{}, fmt.Errorf("draw a key: %w", err)
		}
	}
	pin, err := pinOf(next.Key)
	if err != nil {
		return Token{}, err
	}
	t, err := newToken(at, pin)
	if err != nil {
		return Token{}, err
	}
	revoke(&next, host, now)
	hash := t.Secret.hash()
	next.Tokens = append(next.Tokens, issued{Host: host, Hash: hash[:], Port: port, Expires: now.Add(ttl).UTC()})
	return t, b.save(next, now)
}

func revoke(r *record, host string, now time.Time) (was bool) {
	for i, t := range r.Tokens {
		if t.Host == host && t.open(now) {
			r.Tokens[i].Revoked, was = true, true
		}
	}
	return was
}

// Revoke takes back the token of a host, and tells whether there was one.
func (b *Book) Revoke(host string, now time.Time) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.copied()
	if !revoke(&next, host, now) {
		return false, nil
	}
	return true, b.save(next, now)
}

// find is the place of a secret's token. How long it takes says nothing of a secret
// that is nearly right.
func (b *Book) find(s Secret, now time.Time) (int, error) {
	hash, at := s.hash(), -1
	for i, t := range b.rec.Tokens {
		if subtle.ConstantTimeCompare(hash[:], t.Hash) == 1 {
			at = i
		}
	}
	if at < 0 {
		return at, ErrUnknown
	}
	switch t := b.rec.Tokens[at]; {
	case t.Used:
		return at, ErrUsed
	case t.Revoked:
		return at, ErrRevoked
	case t.Expired, !now.Before(t.Expires):
		return at, ErrExpired
	}
	return at, nil
}

// Host is for whom a secret's token is, or why it opens nothing.
func (b *Book) Host(s Secret, now time.Time) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, err := b.find(s, now)
	if err != nil {
		return "", err
	}
	return b.rec.Tokens[i].Host, nil
}

// Use makes a token one that was used. When the error is nil nobody else uses it,
// whatever happens from then on.
func (b *Book) Use(s Secret, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, err := b.find(s, now)
	if err != nil {
		return err
	}
	next := b.copied()
	next.Tokens[i].Used = true
	return b.save(next, now)
}

// Expire ends what has expired, for good: a clock that is set back opens nothing. The
// daemon's private key goes with the last token.
func (b *Book) Expire(now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next, changed := b.copied(), false
	for i, t := range next.Tokens {
		if !t.Expired && !now.Before(t.Expires) {
			next.Tokens[i].Expired, changed = true, true
		}
	}
	if !changed {
		return nil
	}
	return b.save(next, now)
}

// Open is the tokens that a host may still use, oldest first.
func (b *Book) Open(now time.Time) []Issued {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Issued
	for _, t := range b.rec.Tokens {
		if t.open(now) {
			out = append(out, Issued{Host: t.Host, Port: t.Port, Expires: t.Expires})
		}
	}
	return out
}

// seed is the daemon's private key towards new hosts.
func (b *Book) seed() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.rec.Key) == 0 {
		return nil, errors.New("no token is open")
	}
	return slices.Clone(b.rec.Key), nil
}

// pinOf is the hash of a key's public one, as certificates carry it.
func pinOf(seed []byte) ([32]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(seed).Public())
	if err != nil {
		return [32]byte{}, fmt.Errorf("encode a public key: %w", err)
	}
	return sha256.Sum256(spki), nil
}

package join

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestToken(t *testing.T) {
	want, err := newToken("[2001:db8::1]:51820", [32]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	text := want.Reveal()
	got, err := ParseToken(" " + text + "\n")
	if err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	if s := fmt.Sprintf("%v %+v %#v", want, want, want.Secret); strings.Contains(s, fmt.Sprint(want.Secret[:])) || !strings.Contains(s, "(secret)") {
		t.Errorf("a token prints its secret: %s", s)
	}
	other, err := newToken("a.example:1", [32]byte{})
	if err != nil || other.Secret == want.Secret {
		t.Error("two tokens have one secret", err)
	}
	flipped := []byte(text)
	flipped[len(flipped)-12] ^= 1
	for _, bad := range []string{"", "x", prefix, prefix + "AAAA", text[:len(text)-1], text + "A", text[:len(text)-8], string(flipped), strings.ToUpper(text), strings.Repeat(text, 9), text + "="} {
		if got, err := ParseToken(bad); err == nil || got != (Token{}) && got.At != "" {
			t.Errorf("%q is taken for a token", bad)
		} else if len(bad) > 20 && strings.Contains(err.Error(), bad[len(prefix):len(prefix)+4]) {
			t.Errorf("the error repeats the token: %v", err)
		}
	}
	for _, at := range []string{"", "a", ":1", "a:0", "a:65536", "a:x", "a b:1", "a\n:1", strings.Repeat("a", 300) + ":1"} {
		if _, err := newToken(at, [32]byte{}); err == nil {
			t.Errorf("a token for %q", at)
		}
	}
}

// TestBook is the life of tokens, each step read anew from the disk, too.
func TestBook(t *testing.T) {
	dir, now := t.TempDir()+"/join", time.Unix(1_800_000_000, 0)
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(host string, ttl time.Duration) Secret {
		t.Helper()
		token, err := b.Issue(host, "192.0.2.1:51820", 51820, ttl, now)
		if err != nil {
			t.Fatal(err)
		}
		text, err := b.dir.Load(recordName)
		if err != nil || bytes.Contains(text, []byte(letters.EncodeToString(token.Secret[:]))) || bytes.Contains(text, token.Secret[:]) {
			t.Error("a secret is kept", err)
		}
		return token.Secret
	}
	fresh, used, expired := issue("fresh", time.Hour), issue("used", time.Hour), issue("expired", time.Minute)
	replaced, revoked := issue("again", time.Hour), issue("revoked", time.Hour)
	again := issue("again", time.Hour)
	if err := b.Use(used, now); err != nil {
		t.Error(err)
	}
	for _, x := range []bool{true, false} {
		if was, err := b.Revoke("revoked", now); was != x || err != nil {
			t.Error(was, err)
		}
	}
	now = now.Add(2 * time.Minute)
	reopened, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []*Book{b, reopened} {
		for _, x := range []struct {
			what   string
			secret Secret
			host   string
			err    error
		}{
			{"fresh", fresh, "fresh", nil}, {"used", used, "", ErrUsed}, {"expired", expired, "", ErrExpired}, {"revoked", revoked, "", ErrRevoked},
			{"replaced", replaced, "", ErrRevoked}, {"that replaced it", again, "again", nil}, {"forged", Secret{1}, "", ErrUnknown},
		} {
			if host, err := b.Host(x.secret, now); host != x.host || !errors.Is(err, x.err) {
				t.Errorf("%s: %q, %v", x.what, host, err)
			}
			if x.err != nil {
				if err := b.Use(x.secret, now); !errors.Is(err, x.err) {
					t.Errorf("use of %s: %v", x.what, err)
				}
			}
		}
		if open := b.Open(now); len(open) != 2 || open[0].Host != "fresh" || open[1].Port != 51820 {
			t.Errorf("open: %v", open)
		}
	}
	// The key goes with the last token, and the next one has another.
	first, err := b.seed()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Secret{fresh, again} {
		if err := b.Use(s, now); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.seed(); err == nil {
		t.Error("the key outlives the tokens")
	}
	issue("next", time.Hour)
	if second, err := b.seed(); err != nil || bytes.Equal(first, second) {
		t.Error("a key is used again", err)
	}
	// What is long over is forgotten, and what is remembered is bounded.
	now = now.Add(rememberFor + 2*time.Hour)
	for range rememberMax + 9 {
		issue("many", time.Hour)
	}
	if _, err := b.Host(used, now); !errors.Is(err, ErrUnknown) || len(b.rec.Tokens) != rememberMax {
		t.Error(err, len(b.rec.Tokens))
	}
}

// TestOpenTokensAreKept: whatever is issued beside, and whatever the clock says later.
func TestOpenTokensAreKept(t *testing.T) {
	b, err := OpenBook(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	issue := func(host string, ttl time.Duration) Secret {
		t.Helper()
		token, err := b.Issue(host, "192.0.2.1:51820", 51820, ttl, now)
		if err != nil {
			t.Fatal(err)
		}
		return token.Secret
	}
	first, brief := issue("first", 24*time.Hour), issue("brief", time.Minute)
	for range rememberMax + 9 {
		issue("many", time.Hour)
	}
	if host, err := b.Host(first, now); err != nil || host != "first" {
		t.Errorf("an open token is forgotten: %q, %v", host, err)
	}
	if err := b.Expire(now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Host(brief, now); !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrExpired) {
		t.Errorf("the clock went back, and an expired token is good: %v", err)
	}
	if err := b.Expire(now.Add(25 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if len(b.rec.Key) != 0 || len(b.Open(now)) != 0 {
		t.Errorf("the key outlives the tokens: %d bytes, open %v", len(b.rec.Key), b.Open(now))
	}
}

func FuzzToken(f *testing.F) {
	token, err := newToken("192.0.2.1:51820", [32]byte{7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.Reveal())
	f.Add(prefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(got.Reveal())
		if err != nil || again != got {
			t.Errorf("%q: %v, %v", text, again, err)
		}
	})
}

// FuzzMessage: what a stranger sends ends in a message or an error, and takes no more
// memory than a message may.
func FuzzMessage(f *testing.F) {
	for _, m := range []any{proof{make([]byte, 16)}, Hello{PublicKey: "x", Endpoint: "a:1"}, answer{Error: "no"}} {
		var b bytes.Buffer
		if err := send(&b, m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, m := range []any{&proof{}, &Hello{}} {
			r := bytes.NewReader(in)
			if err := receive(r, maxAsk, m); err != nil {
				continue
			}
			if read := len(in) - r.Len(); read > 4+maxAsk {
				t.Errorf("%d bytes were read", read)
			}
			var b bytes.Buffer
			if err := send(&b, m); err != nil {
				t.Error(err)
			}
		}
	})
}

package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

const port = 51820

// house is a daemon that lets hosts in.
type house struct {
	*Door
	book *Book
	log  *nettest.Journal

	mu       sync.Mutex
	admitted []string
}

func open(t *testing.T) *house {
	t.Helper()
	b, err := OpenBook(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := &house{book: b, log: &nettest.Journal{}}
	h.Door = NewDoor(t.Context(), slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})), b, Daemon{
		Files: func(host string) ([]File, error) { return []File{{"fabric.yaml", []byte("for " + host)}}, nil },
		Admit: func(_ context.Context, host string, hello Hello, use func() error) error {
			if hello.PublicKey == "bad" {
				return errors.New("the key is bad")
			}
			if err := use(); err != nil {
				return err
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.admitted = append(h.admitted, host+" "+hello.PublicKey+" "+hello.Endpoint)
			return nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Task().Run(ctx, func() {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if listens() {
			t.Error("the door is open after its end")
		}
	})
	return h
}

func (h *house) token(t *testing.T, host string, ttl time.Duration) Token {
	t.Helper()
	token, err := h.book.Issue(host, fmt.Sprintf("127.0.0.1:%d", port), port, ttl, time.Now())
	if err == nil {
		err = h.Look()
	}
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func listens() bool {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err == nil {
		l.Close()
	}
	return errors.Is(err, syscall.EADDRINUSE)
}

// enter joins with a token.
func enter(t *testing.T, token Token, h Hello) error {
	t.Helper()
	c, err := Dial(t.Context(), token)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(c.Files) != 1 || string(c.Files[0].Data) != "for "+c.Host {
		t.Errorf("invitation: %v", c.Invitation)
	}
	return c.Join(h)
}

func TestJoin(t *testing.T) {
	h := open(t)
	if listens() {
		t.Error("the door is open without a token")
	}
	c, other := h.token(t, "c", time.Hour), h.token(t, "d", time.Hour)
	if !listens() {
		t.Error("the door is closed with a token")
	}
	says := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	// What is refused does not cost the token.
	says(enter(t, c, Hello{PublicKey: "bad"}), "the key is bad")
	forged := c
	forged.Secret[3] ^= 1
	says(enter(t, forged, Hello{}), ErrUnknown.Error())
	forged = c
	forged.Pin[3] ^= 1
	says(enter(t, forged, Hello{}), "not the daemon that issued the token")
	if err := enter(t, c, Hello{"key", "c.example:51820"}); err != nil {
		t.Error(err)
	}
	says(enter(t, c, Hello{PublicKey: "thief"}), ErrUsed.Error())
	if fmt.Sprint(h.admitted) != "[c key c.example:51820]" {
		t.Errorf("admitted: %q", h.admitted)
	}
	if was, err := h.book.Revoke("d", time.Now()); !was || err != nil || h.Look() != nil {
		t.Error(was, err)
	}
	says(enter(t, other, Hello{}), "nobody waits for a host there")
	if listens() {
		t.Error("the door is open after the last token")
	}
	for _, token := range []Token{c, other} {
		if log := h.log.String(); strings.Contains(log, token.Reveal()) || strings.Contains(log, fmt.Sprint(token.Secret[:])) || !strings.Contains(log, "refused") {
			t.Errorf("log: %s", log)
		}
	}
}

// TestOneOfMany: of hosts that prove one token at once, one joins.
func TestOneOfMany(t *testing.T) {
	h := open(t)
	token := h.token(t, "c", time.Hour)
	var all []*Client
	for range tryBurst - 1 {
		c, err := Dial(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all = append(all, c)
	}
	errs := make(chan error)
	for _, c := range all {
		go func() { errs <- c.Join(Hello{PublicKey: "key"}) }()
	}
	in := 0
	for range all {
		switch err := <-errs; {
		case err == nil:
			in++
		case !strings.Contains(err.Error(), ErrUsed.Error()):
			t.Error(err)
		}
	}
	if in != 1 || len(h.admitted) != 1 {
		t.Errorf("%d joined, %v", in, h.admitted)
	}
}

// TestExpires: the door closes by itself.
func TestExpires(t *testing.T) {
	h := open(t)
	token := h.token(t, "c", 50*time.Millisecond)
	for end := time.Now().Add(10 * time.Second); listens(); {
		if time.Now().After(end) {
			t.Fatal("the door stays open")
		}
	}
	h.token(t, "d", time.Hour)
	if err := enter(t, Token{token.At, pin(t, h), token.Secret}, Hello{}); err == nil || err.Error() != ErrExpired.Error() {
		t.Error(err)
	}
}

func pin(t *testing.T, h *house) [32]byte {
	t.Helper()
	seed, err := h.book.seed()
	if err != nil {
		t.Fatal(err)
	}
	p, err := pinOf(seed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTooMany: an address that asks too often is not heard, and others are.
func TestTooMany(t *testing.T) {
	var tr tries
	now := time.Unix(1000, 0)
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }
	may := func(from net.Addr, now time.Time) bool {
		done, ok := tr.may(from, now)
		if ok {
			done()
		}
		return ok
	}
	for i := range tryBurst + 3 {
		if got := may(at("2001:db8::"+fmt.Sprint(i)), now); got != (i < tryBurst) {
			t.Errorf("try %d: %v", i, got)
		}
	}
	if !may(at("192.0.2.1"), now) || !may(at("2001:db8:0:1::1"), now) {
		t.Error("others are not heard")
	}
	if !may(at("2001:db8::1"), now.Add(tryEvery)) || may(at("2001:db8::1"), now.Add(tryEvery)) {
		t.Error("one more after some time, and one only")
	}
	for i := range 2 * tryMax {
		may(at(fmt.Sprintf("10.0.%d.%d", i>>8, i&255)), now.Add(tryEvery))
	}
	if len(tr.of) > tryMax {
		t.Errorf("%d addresses are remembered", len(tr.of))
	}

	// Whoever says nothing holds a few conversations open, and not those of others.
	tr = tries{}
	for i := range 100 {
		if _, ok := tr.may(at("2001:db8:0:2::1"), now.Add(time.Duration(i)*time.Minute)); ok != (i < tryBurst) {
			t.Errorf("silent conversation %d: %v", i, ok)
		}
	}

	h := open(t)
	token := h.token(t, "c", time.Hour)
	forged := token
	forged.Secret[0] ^= 1
	end := time.Now().Add(20 * time.Second)
	for err := error(nil); err == nil || !strings.Contains(err.Error(), "too many tries"); err = enter(t, forged, Hello{}) {
		if time.Now().After(end) {
			t.Fatal("all are heard:", err)
		}
	}
}

// TestPortOfAnotherToken: a port that cannot be had is no matter of a host at another one.
func TestPortOfAnotherToken(t *testing.T) {
	h := open(t)
	token := h.token(t, "c", time.Hour)
	l, err := net.Listen("tcp", ":51999")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := h.book.Issue("other", "192.0.2.1:51999", 51999, time.Hour, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := enter(t, token, Hello{PublicKey: "key"}); err != nil {
		t.Error(err)
	}
}

// TestUnknownEnd: a host that was let in and did not hear of it is not told that it was not.
func TestUnknownEnd(t *testing.T) {
	h := open(t)
	admit := h.daemon.Admit
	h.daemon.Admit = func(ctx context.Context, host string, hello Hello, use func() error) error {
		h.end() // the daemon stops in this moment
		return admit(ctx, host, hello, use)
	}
	if err := enter(t, h.token(t, "c", time.Hour), Hello{PublicKey: "key"}); !errors.Is(err, ErrUnknownEnd) {
		t.Errorf("the answer did not come: %v", err)
	}
}

// TestStrangers: nonsense, silence and an older TLS end alone.
func TestStrangers(t *testing.T) {
	h := open(t)
	token := h.token(t, "c", time.Hour)
	silent, err := net.Dial("tcp", token.At)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	loud, err := net.Dial("tcp", token.At)
	if err != nil {
		t.Fatal(err)
	}
	defer loud.Close()
	if _, err := loud.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 99)); err != nil {
		t.Error(err)
	}
	old := clientConfig(token.Pin)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if c, err := tls.Dial("tcp", token.At, old); err == nil {
		c.Close()
		t.Error("TLS 1.2 is spoken")
	}
	if err := enter(t, token, Hello{PublicKey: "key"}); err != nil {
		t.Error(err)
	}
}

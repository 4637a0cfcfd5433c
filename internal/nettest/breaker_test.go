package nettest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// TestBreaker sends through a breaker until it breaks, and then past it.
func TestBreaker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	b := NewBreaker(t, l.Addr().String(), 4<<20, 1)
	data := bytes.Repeat([]byte("echo"), 1<<10)
	echo := func(c net.Conn) error {
		if _, err := c.Write(data); err != nil {
			return err
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			t.Fatal("the bytes came back different")
		}
		return nil
	}
	c, err := net.Dial("tcp", b.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for err = nil; err == nil; err = echo(c) {
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a broken connection gave %v, want a reset", err)
	}
	if b.Breaks() != 1 {
		t.Errorf("%d breaks, want 1", b.Breaks())
	}
	b.Spare(true)
	if c, err = net.Dial("tcp", b.Address); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 4 << 10 { // twice the most that a connection may pass
		if err := echo(c); err != nil {
			t.Fatal(err)
		}
	}
}

package uring

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestPair: both are there after true, from many goroutines, and an error of either
// is false.
func TestPair(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := NewPair(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	const n = 4096
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 100 {
				a, b := bytes.Repeat([]byte{byte(g)}, n), bytes.Repeat([]byte{byte(i)}, 2*n)
				if !p.Write(a, int64(g)*n, b, int64(8+2*g)*n) {
					t.Errorf("%d, %d: not written", g, i)
				}
			}
		})
	}
	all.Wait()
	have, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for g := range 4 {
		if have[g*n] != byte(g) || have[g*n+n-1] != byte(g) || have[(8+2*g)*n] != 99 || have[(10+2*g)*n-1] != 99 {
			t.Errorf("%d: other bytes are there", g)
		}
	}
	if p.Write(make([]byte, n), 0, make([]byte, n), -n) || p.Write(make([]byte, n), -n, make([]byte, n), 0) {
		t.Error("wrote before the start of the file")
	}
	if !p.Write(make([]byte, n), 0, make([]byte, n), n) {
		t.Error("it is of no use after an error")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if p.Write(make([]byte, n), 0, make([]byte, n), n) || p.Close() == nil {
		t.Error("wrote after the end")
	}
}

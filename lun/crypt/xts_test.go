package crypt

import (
	"bytes"
	"crypto/aes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	library "golang.org/x/crypto/xts"
)

func TestVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/ieee1619.txt")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(text)) {
		var unit int64
		var key, clear, sealed []byte
		if strings.HasPrefix(line, "#") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x %x %x %x", &key, &unit, &clear, &sealed); err != nil {
			t.Fatal(err)
		}
		count++
		x, err := newXTS(key, len(clear))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(clear))
		x.encrypt(got, clear, unit*int64(len(clear)))
		if !bytes.Equal(got, sealed) {
			t.Errorf("vector %d: got %x, want %x", count, got, sealed)
		}
		x.decrypt(got, unit*int64(len(clear)))
		if !bytes.Equal(got, clear) {
			t.Errorf("vector %d: decrypted to %x, want %x", count, got, clear)
		}
	}
	if count != 6 {
		t.Errorf("%d vectors, want 6", count)
	}
}

// TestLibrary: random units are what golang.org/x/crypto/xts makes of them.
func TestLibrary(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		unit := []int{512, 4096}[r.IntN(2)]
		key, p := make([]byte, keySize), make([]byte, unit*(1+r.IntN(9)))
		for _, b := range [][]byte{key, p} {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		}
		x, err := newXTS(key, unit)
		if err != nil {
			t.Fatal(err)
		}
		lib, err := library.NewCipher(aes.NewCipher, key)
		if err != nil {
			t.Fatal(err)
		}
		first := r.Int64N(1 << 48)
		want := make([]byte, len(p))
		for i := 0; i < len(p); i += unit {
			lib.Encrypt(want[i:i+unit], p[i:i+unit], uint64(first+int64(i/unit)))
		}
		got := make([]byte, len(p))
		x.encrypt(got, p, first*int64(unit))
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: another cipher text than the library's", seed)
		}
		x.decrypt(got, first*int64(unit))
		if !bytes.Equal(got, p) {
			t.Fatalf("seed %d: it does not come back", seed)
		}
		same := bytes.Clone(p)
		if x.encrypt(same, same, first*int64(unit)); !bytes.Equal(same, want) {
			t.Fatalf("seed %d: another cipher text in place", seed)
		}
	}
}

// TestHoles: units of zeros stay such, whatever lies beside them.
func TestHoles(t *testing.T) {
	x, err := newXTS(bytes.Repeat([]byte{1, 2, 3, 4}, keySize/4), 512)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 3*512)
	x.encrypt(p[512:1024], bytes.Repeat([]byte{7}, 512), 512)
	x.decrypt(p, 0)
	want := append(append(make([]byte, 512), bytes.Repeat([]byte{7}, 512)...), make([]byte, 512)...)
	if !bytes.Equal(p, want) {
		t.Errorf("got %s", hex.EncodeToString(p[500:530]))
	}
}

func TestUnits(t *testing.T) {
	for _, unit := range []int{0, 8, 100, 8192} {
		if _, err := newXTS(make([]byte, keySize), unit); err == nil {
			t.Errorf("a unit of %d bytes is taken", unit)
		}
	}
}

func BenchmarkXTS(b *testing.B) {
	for _, n := range []int{4 << 10, 64 << 10} {
		x, err := newXTS(bytes.Repeat([]byte{1, 2, 3, 4}, keySize/4), 4096)
		if err != nil {
			b.Fatal(err)
		}
		lib, err := library.NewCipher(aes.NewCipher, bytes.Repeat([]byte{1, 2, 3, 4}, keySize/4))
		if err != nil {
			b.Fatal(err)
		}
		p := bytes.Repeat([]byte{5}, n)
		q := make([]byte, n)
		for name, do := range map[string]func(){
			"encrypt": func() { x.encrypt(q, p, 1<<30) },
			"decrypt": func() { x.decrypt(p, 1<<30) },
			"library": func() {
				for i := 0; i < n; i += 4096 {
					lib.Encrypt(q[i:i+4096], p[i:i+4096], uint64(i))
				}
			},
		} {
			b.Run(fmt.Sprintf("%s-%dK", name, n>>10), func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					do()
				}
			})
		}
	}
}

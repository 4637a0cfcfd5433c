package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPieces writes over the bounds of pieces, and as far as a file may grow.
func TestPieces(t *testing.T) {
	f, err := Open(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4*cachedPiece)
	rand.NewChaCha8([32]byte{1}).Read(p)
	for _, c := range []struct{ off, n int }{
		{0, 0}, {0, 1}, {1, cachedPiece - 1}, {1, cachedPiece}, {512, cachedPiece - 511}, {cachedPiece, cachedPiece},
		{cachedPiece - 1, 2}, {4096, 3*cachedPiece + 1}, {0, 4 * cachedPiece},
	} {
		want := bytes.Clone(p[len(p)-c.n:])
		if n, err := f.WriteAt(want, int64(c.off)); n != c.n || err != nil {
			t.Errorf("%d bytes at %d: %d, %v", c.n, c.off, n, err)
		}
		got := make([]byte, c.n)
		if n, err := f.ReadAt(got, int64(c.off)); n != c.n || err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d: %d other ones are read, %v", c.n, c.off, n, err)
		}
	}
	const last = 1<<63 - 1
	if n, err := f.WriteAt(p, last-10); n != 0 || !errors.Is(err, unix.EFBIG) && !errors.Is(err, unix.EINVAL) {
		t.Errorf("%d bytes at the end of the world, %v", n, err)
	}
}

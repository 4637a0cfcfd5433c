package v1

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// stream is a whole stream of two pieces of data.
func stream(t testing.TB, end func(*DiskWriter) error) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewDiskWriter(&b)
	if w.Begun() {
		t.Error("it has begun")
	}
	err := errors.Join(w.Head(Disk{Size: 1 << 40, Block: 512}), w.Data(4096, []byte("abc")), w.Data(1<<39, []byte("d")), end(w))
	if err != nil || !w.Begun() {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(b []byte) (got string, err error) {
	r := NewDiskReader(bytes.NewReader(b))
	var d Disk
	if err := r.Head(&d); err != nil {
		return "", err
	}
	for {
		_, p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got += string(p)
	}
}

func TestDiskStream(t *testing.T) {
	whole := stream(t, (*DiskWriter).End)
	if got, err := read(whole); got != "abcd" || err != nil {
		t.Fatal(got, err)
	}
	for n := range whole {
		if _, err := read(whole[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut off after %d bytes: %v", n, err)
		}
		bent := bytes.Clone(whole)
		bent[n] ^= 1
		if _, err := read(bent); err == nil {
			t.Fatalf("byte %d was changed and nobody saw it", n)
		}
	}
	failed := stream(t, func(w *DiskWriter) error { return w.Fail(&Error{Detail: "the pool is gone"}) })
	var e *Error
	if got, err := read(failed); got != "abcd" || !errors.As(err, &e) || e.Detail != "the pool is gone" {
		t.Fatal(got, err)
	}
	if err := NewDiskWriter(io.Discard).Data(0, make([]byte, diskMax+1)); err == nil {
		t.Error("a record too long was written")
	}
}

// TestDiskStreamOfChanges: what is told anew is told only to who asked for changes.
func TestDiskStreamOfChanges(t *testing.T) {
	b := stream(t, func(w *DiskWriter) error { return errors.Join(w.Anew(1<<39+512, 1<<20), w.End()) })
	if _, err := read(b); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a reader of all took a stream of changes: %v", err)
	}
	r := NewDiskReader(bytes.NewReader(b))
	if err := r.Head(&Disk{}); err != nil {
		t.Fatal(err)
	}
	var got []Piece
	for {
		p, err := r.Piece()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, Piece{Off: p.Off, N: p.N, Anew: p.Anew})
	}
	want := []Piece{{Off: 4096, N: 3}, {Off: 1 << 39, N: 1}, {Off: 1<<39 + 512, N: 1 << 20, Anew: true}}
	if len(got) != 3 || got[0].Off != want[0].Off || got[1].N != 1 || got[2].N != 1<<20 || !got[2].Anew || got[0].Anew {
		t.Fatalf("%+v, want %+v", got, want)
	}
}

// FuzzDiskStream: whatever comes, it ends.
func FuzzDiskStream(f *testing.F) {
	f.Add(stream(f, (*DiskWriter).End))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = read(b) })
}

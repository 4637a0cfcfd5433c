package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

// TestDisks has two commands of its own: hold LUN POOL begins an import, of which
// a half arrives, and release ends it as Ctrl-C does.
func TestDisks(t *testing.T) {
	params := scriptParams("disks")
	var release func()
	params.Cmds["hold"] = func(ts *testscript.TestScript, _ bool, args []string) {
		ctx, cancel := context.WithCancel(t.Context())
		ended, begun := make(chan error, 1), make(chan struct{})
		ask := v1.ImportLUN{NewLUN: v1.NewLUN{Name: args[0], Pool: args[1], Size: 16 << 20, Block: 4096}, Mark: newMark()}
		c := client.New(filepath.Join(ts.Getenv("WORK"), "sock"))
		go func() {
			_, err := c.ImportLUN(ctx, ask, func(w *v1.DiskWriter) error {
				if err := w.Data(0, bytes.Repeat([]byte{9}, 1<<20)); err != nil {
					return err
				}
				close(begun)
				<-ctx.Done()
				return ctx.Err()
			})
			ended <- err
		}()
		select {
		case <-begun:
		case err := <-ended:
			ts.Fatalf("import: %v", err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the poll interval of a condition
			tasks, err := c.Tasks(ctx)
			if err == nil && len(tasks) == 1 && tasks[0].Mark == ask.Mark && tasks[0].Done == 1<<20 {
				break
			}
			if time.Now().After(deadline) {
				ts.Fatalf("the import is not seen: %v, %v", tasks, err)
			}
		}
		release = func() {
			cancel()
			if err := <-ended; err == nil {
				ts.Fatalf("an import that was ended succeeded")
			}
		}
	}
	params.Cmds["release"] = func(*testscript.TestScript, bool, []string) { release() }
	runScripts(t, params)
}

// TestAligned: pieces that begin and end at any 512 bytes become whole blocks.
func TestAligned(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<20) // without a zero
	for i := range noise {
		noise[i] = byte(1 + r.IntN(255))
	}
	for range 50 {
		want := make([]byte, 3<<20)
		var b bytes.Buffer
		w := v1.NewDiskWriter(&b)
		a := aligned{to: w, block: 4096}
		for off := r.Int64N(20) * 512; off < int64(len(want)); off += r.Int64N(30) * 512 {
			p := want[off:min(int64(len(want)), off+(1+r.Int64N(600))*512)]
			copy(p, noise[r.IntN(len(noise)-600*512):])
			if err := a.add(off, p); err != nil {
				t.Fatal(err)
			}
			off += int64(len(p))
		}
		if err := a.flush(); err != nil {
			t.Fatal(err)
		}
		if err := w.End(); err != nil {
			t.Fatal(err)
		}
		got, in := make([]byte, len(want)), v1.NewDiskReader(&b)
		for {
			off, p, err := in.Next()
			if err != nil {
				break
			}
			if off%4096 != 0 || len(p)%4096 != 0 {
				t.Fatalf("%d bytes at %d", len(p), off)
			}
			copy(got[off:], p)
		}
		if !bytes.Equal(got, want) {
			t.Fatal("the disk differs")
		}
	}
}

// TestPipe: what is written from front to end has zeros where nothing is.
func TestPipe(t *testing.T) {
	var b bytes.Buffer
	p := &pipe{w: &b}
	for _, off := range []int64{0, 3, 5 << 20} {
		if _, err := p.WriteAt([]byte("ab"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Truncate(6 << 20); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 6<<20)
	for _, off := range []int64{0, 3, 5 << 20} {
		copy(want[off:], "ab")
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Fatal("it differs")
	}
}

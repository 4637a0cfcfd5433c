package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

// readDisk is all data of a stream, one after the other.
func readDisk(in *v1.DiskReader) (all []byte, err error) {
	for {
		_, p, err := in.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, p...)
	}
}

// TestDiskOut: what the daemon writes, how it refuses, and how it fails in the middle.
func TestDiskOut(t *testing.T) {
	c := start(t, Backend{ExportLUN: func(_ context.Context, q v1.ExportLUN, out *v1.DiskWriter) error {
		if q.Name == "none" {
			return &v1.Error{Status: http.StatusNotFound, Detail: "there is none"}
		}
		if err := errors.Join(out.Head(v1.Disk{Size: 8, Block: 512}), out.Data(0, []byte(q.Mark))); err != nil {
			return err
		}
		if q.Name == "sick" {
			return errors.New("the disk is sick")
		}
		return out.End()
	}})
	for _, x := range []struct{ name, want, says string }{{"data", "word", ""}, {"none", "", "there is none"}, {"sick", "word", "the disk is sick"}} {
		disk, in, body, err := c.ExportLUN(t.Context(), v1.ExportLUN{Name: x.name, Mark: "word"})
		var got []byte
		if err == nil {
			got, err = readDisk(in)
			err = errors.Join(err, body.Close())
			if disk.Size != 8 {
				t.Errorf("%s: %v", x.name, disk)
			}
		}
		said := ""
		var e *v1.Error
		if errors.As(err, &e) {
			said = e.Detail
		}
		if string(got) != x.want || said != x.says || err != nil && said == "" {
			t.Errorf("%s: %q, %v", x.name, got, err)
		}
	}
}

// TestDiskIn: what the client sends arrives, however long; a daemon that refuses it
// in the middle is heard, and one that is told of a failure has ended on return.
func TestDiskIn(t *testing.T) {
	var ended atomic.Bool
	c := start(t, Backend{ImportLUN: func(_ context.Context, q v1.ImportLUN, in *v1.DiskReader) (v1.Applied, error) {
		ended.Store(false)
		defer ended.Store(true)
		if q.Name == "full" {
			_, _, err := in.Next()
			return v1.Applied{}, errors.Join(err, &v1.Error{Status: http.StatusInsufficientStorage, Detail: "it is full"})
		}
		all, err := readDisk(in)
		return v1.Applied{Revision: len(all)}, err
	}})
	piece := bytes.Repeat([]byte{1}, 1<<20)
	many := func(w *v1.DiskWriter) error {
		for i := range 2 * maxBody >> 20 {
			if err := w.Data(int64(i)<<20, piece); err != nil {
				return err
			}
		}
		return nil
	}
	ask := v1.ImportLUN{NewLUN: v1.NewLUN{Name: "data"}}
	if a, err := c.ImportLUN(t.Context(), ask, many); err != nil || a.Revision != 2*maxBody {
		t.Errorf("%v, %v", a, err)
	}
	broken := errors.New("the file is broken")
	if _, err := c.ImportLUN(t.Context(), ask, func(w *v1.DiskWriter) error { return errors.Join(w.Data(0, piece), broken) }); !errors.Is(err, broken) || !ended.Load() {
		t.Error(err, ended.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.ImportLUN(ctx, ask, func(w *v1.DiskWriter) error { cancel(); return many(w) }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ask.Name = "full"
	var e *v1.Error
	if _, err := c.ImportLUN(t.Context(), ask, many); !errors.As(err, &e) || e.Detail != "it is full" {
		t.Error(err)
	}
}

// TestDiskEndsWithTheServer: one that is to stop waits for no disk.
func TestDiskEndsWithTheServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served, begun := make(chan error, 1), make(chan struct{})
	var undone atomic.Bool
	h := Handler(Backend{ImportLUN: func(_ context.Context, _ v1.ImportLUN, in *v1.DiskReader) (v1.Applied, error) {
		close(begun)
		_, err := readDisk(in)
		undone.Store(true)
		return v1.Applied{}, err
	}})
	go func() { served <- Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	_, err = client.New(socket).ImportLUN(t.Context(), v1.ImportLUN{}, func(w *v1.DiskWriter) error {
		if err := w.Data(0, []byte{1}); err != nil {
			return err
		}
		<-begun
		cancel()
		if err := <-served; err != nil || !undone.Load() {
			t.Errorf("Serve: %v; undone is %v", err, undone.Load())
		}
		return errors.New("too late")
	})
	if err == nil {
		t.Error("an import that was cut off succeeded")
	}
}

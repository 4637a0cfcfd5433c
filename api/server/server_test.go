package server

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

var update = flag.Bool("update", false, "write openapi.json anew")

func TestOpenAPIIsFresh(t *testing.T) {
	got, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	const name = "../openapi.json"
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("openapi.json is stale: run `make gen`:\n%s", d)
	}
}

// start serves b on a socket and gives a client of it.
func start(t *testing.T, b Backend) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, Handler(b), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return client.New(socket)
}

func TestRoundTrips(t *testing.T) {
	asked := ""
	c := start(t, Backend{
		Version: func() v1.Version { return v1.Version{Version: "1.2.3"} },
		Status:  func() v1.Status { return v1.Status{Revision: 7, Well: true} },
		Plan: func(_ context.Context, f []v1.File) (v1.Plan, error) {
			asked = f[0].Name + "=" + f[0].Data
			return v1.Plan{Steps: []v1.Step{{Object: "port/lab/web"}}}, nil
		},
		Pools: func(context.Context) ([]v1.Pool, error) { return []v1.Pool{{Name: "main", Size: 1 << 40}}, nil },
		LUNs:  func(context.Context) ([]v1.LUN, error) { return nil, nil },
	})
	ctx := t.Context()
	if v, err := c.Version(ctx); err != nil || v.Version != "1.2.3" {
		t.Errorf("Version = %v, %v", v, err)
	}
	if s, err := c.Status(ctx); err != nil || s.Revision != 7 || !s.Well {
		t.Errorf("Status = %v, %v", s, err)
	}
	p, err := c.Plan(ctx, []v1.File{{Name: "a.yaml", Data: "version: 1"}})
	if err != nil || len(p.Steps) != 1 || asked != "a.yaml=version: 1" {
		t.Errorf("Plan = %v, %v after being asked %q", p, err, asked)
	}
	pools, err := c.Get(ctx, "pool")
	want := `{"name":"main","kind":"","path":"","size":1099511627776,"used":0,"snapshots":0,"reserved":0,"provisioned":0,"overcommit":0,"cache":"","threshold":0,"bad":0,"accepted":0,"unhealed":0}`
	if err != nil || len(pools) != 1 || string(pools[0]) != want {
		t.Errorf("Get pool = %s, %v, want %s", pools, err, want)
	}
	if luns, err := c.Get(ctx, "lun"); err != nil || luns == nil || len(luns) != 0 {
		t.Errorf("Get lun = %v, %v, want an empty list", luns, err)
	}
}

// TestVerbsOfSnapshots: what a client asks reaches the daemon, and what that
// answers the client.
func TestVerbsOfSnapshots(t *testing.T) {
	var asked []any
	c := start(t, Backend{
		SnapshotLUNs: func(_ context.Context, q v1.NewSnapshot) ([]v1.Snapshot, error) {
			asked = append(asked, q)
			return []v1.Snapshot{{LUN: "a", Name: "s", Exclusive: 4096}}, nil
		},
		CloneLUN: func(_ context.Context, q v1.NewClone) (v1.Applied, error) {
			asked = append(asked, q)
			return v1.Applied{Revision: 3}, nil
		},
		RestoreLUN: func(_ context.Context, q v1.RestoreLUN) (v1.RestoredLUN, error) {
			asked = append(asked, q)
			return v1.RestoredLUN{}, &v1.Error{Status: 409, Detail: "restore LUN a: in use by you"}
		},
		DeleteLUN: func(_ context.Context, q v1.DeleteLUN) (v1.DeletedLUN, error) {
			asked = append(asked, q)
			return v1.DeletedLUN{Snapshots: []string{"a@s"}}, nil
		},
		Tasks: func(context.Context) ([]v1.Task, error) { return []v1.Task{{Mark: "x", Done: 1, Total: 2}}, nil },
	})
	ctx := t.Context()
	want := []any{
		v1.NewSnapshot{LUNs: []string{"a", "b"}, Name: "s"}, v1.NewClone{Snapshot: "a@s", Name: "n"},
		v1.RestoreLUN{Name: "a", Snapshot: "s"}, v1.DeleteLUN{Name: "a", Snapshots: true},
	}
	if s, err := c.SnapshotLUNs(ctx, want[0].(v1.NewSnapshot)); err != nil || len(s) != 1 || s[0].Exclusive != 4096 {
		t.Errorf("SnapshotLUNs = %v, %v", s, err)
	}
	if a, err := c.CloneLUN(ctx, want[1].(v1.NewClone)); err != nil || a.Revision != 3 {
		t.Errorf("CloneLUN = %v, %v", a, err)
	}
	if _, err := c.RestoreLUN(ctx, want[2].(v1.RestoreLUN)); err == nil || err.Error() != "restore LUN a: in use by you" {
		t.Errorf("RestoreLUN: %v", err)
	}
	if d, err := c.DeleteLUN(ctx, want[3].(v1.DeleteLUN)); err != nil || len(d.Snapshots) != 1 {
		t.Errorf("DeleteLUN = %v, %v", d, err)
	}
	if tasks, err := c.Tasks(ctx); err != nil || len(tasks) != 1 || tasks[0].Mark != "x" {
		t.Errorf("Tasks = %v, %v", tasks, err)
	}
	if d := cmp.Diff(want, asked); d != "" {
		t.Error(d)
	}
}

// TestRevisions: what a client asks of revisions reaches the daemon, and what that
// answers the client.
func TestRevisions(t *testing.T) {
	var asked []any
	left := v1.Trial{Revision: 3, Former: 2, Seconds: 9}
	c := start(t, Backend{
		Apply: func(_ context.Context, q v1.Apply) (v1.Applied, error) {
			asked = append(asked, q)
			return v1.Applied{Revision: 3, Trial: &left}, nil
		},
		Confirm: func(context.Context) (v1.Confirmed, error) {
			return v1.Confirmed{}, &v1.Error{Status: 409, Detail: "nothing waits"}
		},
		Rollback: func(_ context.Context, q v1.Rollback) (v1.Applied, error) {
			asked = append(asked, q)
			return v1.Applied{Revision: 4}, nil
		},
		History: func(context.Context) ([]v1.Revision, error) { return nil, nil },
		Revision: func(_ context.Context, n int) (v1.RevisionText, error) {
			asked = append(asked, n)
			return v1.RevisionText{Diff: "-a\n+b\n"}, nil
		},
	})
	ctx := t.Context()
	words := v1.Asked{Confirm: 60, By: "me", Comment: "why"}
	want := []any{v1.Apply{Files: []v1.File{{Name: "a"}}, Asked: words}, v1.Rollback{Revision: 2, Asked: words}, v1.Rollback{}, 7}
	if a, err := c.Apply(ctx, want[0].(v1.Apply)); err != nil || a.Trial == nil || *a.Trial != left {
		t.Errorf("Apply = %v, %v", a, err)
	}
	if _, err := c.Confirm(ctx); err == nil || err.Error() != "nothing waits" {
		t.Errorf("Confirm: %v", err)
	}
	for _, q := range want[1:3] {
		if a, err := c.Rollback(ctx, q.(v1.Rollback)); err != nil || a.Revision != 4 {
			t.Errorf("Rollback = %v, %v", a, err)
		}
	}
	if h, err := c.History(ctx); err != nil || h == nil || len(h) != 0 {
		t.Errorf("History = %v, %v, want an empty list", h, err)
	}
	if r, err := c.Revision(ctx, 7); err != nil || r.Diff != "-a\n+b\n" {
		t.Errorf("Revision = %v, %v", r, err)
	}
	if _, err := c.Revision(ctx, 0); err == nil {
		t.Error("there is a revision 0")
	}
	if d := cmp.Diff(want, asked); d != "" {
		t.Error(d)
	}
}

func TestErrorsReachTheClient(t *testing.T) {
	faults := &v1.Error{Title: "invalid", Status: 422, Faults: []v1.Fault{
		{File: "a.yaml", Line: 3, Column: 5, Path: "vlans.blue.id", Message: "5000 is not in 1-4094"},
		{File: "a.yaml", Line: 1, Column: 1, Message: "no version"},
	}}
	c := start(t, Backend{
		Apply: func(context.Context, v1.Apply) (v1.Applied, error) { return v1.Applied{}, faults },
		Ports: func(context.Context) ([]v1.Port, error) { return nil, errors.New("dump links: interrupted") },
	})
	_, err := c.Apply(t.Context(), v1.Apply{Files: []v1.File{{}}})
	want := "a.yaml:3:5: vlans.blue.id: 5000 is not in 1-4094\na.yaml:1:1: no version"
	var e *v1.Error
	if !errors.As(err, &e) || e.Error() != want || e.Status != 422 {
		t.Errorf("Apply = %v, want %s", err, want)
	}
	if _, err = c.Get(t.Context(), "port"); err == nil || err.Error() != "dump links: interrupted" {
		t.Errorf("Get port = %v", err)
	}
	if _, err = c.Get(t.Context(), "nonsense"); err == nil {
		t.Error("Get nonsense succeeded")
	}
}

// An empty configuration takes everything down, so it is never what a program
// sends by mistake.
func TestNoFilesAreNoConfiguration(t *testing.T) {
	reached := 0
	c := start(t, Backend{
		Plan:  func(context.Context, []v1.File) (v1.Plan, error) { reached++; return v1.Plan{}, nil },
		Apply: func(context.Context, v1.Apply) (v1.Applied, error) { reached++; return v1.Applied{}, nil },
	})
	for _, files := range [][]v1.File{nil, {}} {
		var e *v1.Error
		if _, err := c.Plan(t.Context(), files); err == nil {
			t.Errorf("Plan of %#v succeeded", files)
		}
		if _, err := c.Apply(t.Context(), v1.Apply{Files: files}); files == nil && (!errors.As(err, &e) || e.Status != 422) {
			t.Errorf("Apply of %#v = %v, want a refusal", files, err)
		}
	}
	if reached != 0 {
		t.Errorf("no files reached the daemon %d times", reached)
	}
}

func TestUnreachable(t *testing.T) {
	_, err := client.New("/nonexistent/socket").Status(t.Context())
	want := "reach the daemon at /nonexistent/socket: no such socket: start one with `ripstop up FILE` or `ripstop serve`, or name its socket with --socket"
	if err == nil || err.Error() != want {
		t.Errorf("Status = %v, want %s", err, want)
	}
}

// TestServeEnds: what has not ended in time is cut off, and its handler has ended
// before Serve does, unless nothing ends it.
func TestServeEnds(t *testing.T) {
	free := make(chan struct{})
	for _, x := range []struct {
		name string
		wait time.Duration
		ends func(ctx context.Context) <-chan struct{}
	}{
		{"with its client", time.Second, context.Context.Done},
		{"never", 10 * time.Millisecond, func(context.Context) <-chan struct{} { return free }},
	} {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		begun, served, answered := make(chan struct{}), make(chan error, 1), make(chan error, 1)
		var ended atomic.Bool
		h := Handler(Backend{ReopenPool: func(ctx context.Context, _ v1.ReopenPool) (v1.Applied, error) {
			close(begun)
			<-x.ends(ctx)
			for range 10_000 { // it has something to do still
				runtime.Gosched()
			}
			ended.Store(true)
			return v1.Applied{}, nil
		}})
		go func() { served <- serve(ctx, l, h, slog.New(slog.DiscardHandler), x.wait) }()
		go func() {
			_, err := client.New(socket).ReopenPool(t.Context(), v1.ReopenPool{})
			answered <- err
		}()
		<-begun
		cancel()
		if err := <-served; err != nil || ended.Load() != (x.name != "never") {
			t.Errorf("%s: Serve: %v; its handler has ended: %v", x.name, err, ended.Load())
		}
		if <-answered == nil {
			t.Errorf("%s: a request that was cut off is answered", x.name)
		}
	}
	close(free)
}

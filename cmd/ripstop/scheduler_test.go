package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/lun"
)

// hanging is LUNs whose snapshots are made when the disk answers.
type hanging struct {
	answer chan error
	began  int
}

func (h *hanging) Observe(context.Context) (lun.State, error) {
	return lun.State{LUNs: map[string]lun.LUN{"a": {}, "b": {}}}, nil
}
func (h *hanging) Volume(string) (lun.Volume, error) { return nil, nil }
func (h *hanging) Snapshots() []lun.SnapshotStats    { return nil }
func (h *hanging) Snapshot(_ context.Context, _ string, luns ...string) error {
	if luns[0] == "b" {
		return nil
	}
	h.began++
	return <-h.answer
}

// TestAHangingDiskHoldsUpNoPass: a snapshot that is not made in time is a
// condition of its schedule, is not begun twice, and ends when the disk answers.
func TestAHangingDiskHoldsUpNoPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{answer: make(chan error)}
		s := &scheduler{lun: h, waiting: map[string]chan error{}}
		take := func(lunName string) error {
			return s.Do(t.Context(), lun.TakeSnapshot{LUN: lunName, Name: lun.ScheduledName(time.Now())})
		}
		for i := range 3 {
			began := time.Now()
			if err := take("a"); err == nil || !strings.Contains(err.Error(), "takes longer than 5s") {
				t.Fatalf("while it hangs: %v", err)
			}
			if d := time.Since(began); d != 0 && (i > 0 || d != patience) {
				t.Errorf("it held up a pass for %s", d)
			}
			if err := take("b"); err != nil {
				t.Errorf("another LUN: %v", err)
			}
		}
		h.answer <- nil
		synctest.Wait()
		if err := take("a"); err != nil || h.began != 1 {
			t.Errorf("after it answered: %v, begun %d times", err, h.began)
		}
		go func() { h.answer <- nil }()
		if err := take("a"); err != nil || h.began != 2 {
			t.Errorf("the next one: %v, begun %d times", err, h.began)
		}
	})
}

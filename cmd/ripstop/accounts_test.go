package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"ripstop/lun"
)

// TestAccounts: the log hears of each threshold once, and status of a pool that
// will be full soon.
func TestAccounts(t *testing.T) {
	var log bytes.Buffer
	fill := []lun.Fill{{Pool: "calm", Size: 1 << 30, Used: 1 << 20}, {Pool: "main", Size: 10 << 30}}
	a := &accounts{log: slog.New(slog.NewTextHandler(&log, nil)), fill: func() []lun.Fill { return fill }}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for m := range 41 {
		fill[1].Used = int64(m) << 28 // 0.25 GiB a minute
		a.look(now.Add(time.Duration(m) * time.Minute))
		if m == 20 {
			want := "pool main: 50% of 10.0 GiB are used or kept, full in 20 min at this rate: give it more `size:`, or delete snapshots and LUNs"
			if got := a.warnings(now.Add(20 * time.Minute)); len(got) != 1 || got[0] != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if at := a.full("main"); at == nil || !at.Equal(now.Add(40*time.Minute)) {
				t.Errorf("full at %v", at)
			}
		}
	}
	if a.level("main") != 95 || a.level("calm") != 0 || a.full("calm") != nil || a.full("main") != nil {
		t.Errorf("levels are %d and %d", a.level("main"), a.level("calm"))
	}
	if got := a.warnings(now); len(got) != 1 || !strings.Contains(got[0], "main: 100% of 10.0 GiB are used or kept: give it") {
		t.Errorf("full, it warns of %q", got)
	}
	fill[1].Used = 0
	a.look(now.Add(42 * time.Minute))
	for _, text := range []string{`"pool over threshold" pool=main percent=80`, `percent=90`, `percent=95`, `"pool below threshold" pool=main percent=80`} {
		if !strings.Contains(log.String(), text) {
			t.Errorf("the log has no %s:\n%s", text, log.String())
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 6 {
		t.Errorf("the log has %d lines:\n%s", n, log.String())
	}
	if got := a.warnings(now); len(got) != 0 {
		t.Errorf("empty, it warns of %q", got)
	}
}

func TestRoughly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59 * time.Second: "59 s", 119 * time.Minute: "119 min", 3*time.Hour + time.Minute: "3 h", 50 * time.Hour: "2 days",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

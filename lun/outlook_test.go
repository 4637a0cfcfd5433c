package lun

import (
	"slices"
	"testing"
	"time"
)

// TestForecast says when a pool is full, and nothing where nobody can know.
func TestForecast(t *testing.T) {
	const size = 1 << 40
	start := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		used func(minute int) int64
		over int           // minutes
		want time.Duration // from the last look; 0 is nothing
	}{
		{"steady", func(m int) int64 { return int64(m) << 30 }, 24, 1000 * time.Minute},
		{"only the last hour counts", func(m int) int64 { return int64(min(m, 100)*9+max(0, m-100)) << 30 }, 170, 54 * time.Minute},
		{"by jumps", func(m int) int64 { return int64(m/4) * 4 << 30 }, 60, 964 * time.Minute},
		{"not watched for long", func(m int) int64 { return int64(m) << 30 }, 0, 0},
		{"idle", func(int) int64 { return 1 << 30 }, 60, 0},
		{"idle since a while", func(m int) int64 { return int64(min(m, 50)) << 30 }, 60, 0},
		{"shrinking", func(m int) int64 { return int64(100-m) << 30 }, 60, 0},
		{"was larger an hour ago", func(m int) int64 { return int64(max(100-m, m-50)) << 30 }, 90, 0},
		{"full", func(m int) int64 { return int64(m+1024) << 30 }, 24, 0},
		{"in the next century", func(m int) int64 { return int64(m) << 10 }, 60, 0},
	}
	for _, tt := range tests {
		var o Outlook
		now := start
		for m := 0; m <= tt.over; m++ {
			now = start.Add(time.Duration(m) * time.Minute)
			o.Note(now, []Fill{{"main", size, tt.used(m)}})
		}
		at, ok := o.Full("main")
		if got := at.Sub(now).Round(time.Minute); ok != (tt.want != 0) || ok && got != tt.want {
			t.Errorf("%s: full in %v, %t, want %v", tt.name, got, ok, tt.want)
		}
		for range 5 {
			o.Note(now, []Fill{{"main", size, tt.used(tt.over)}})
		}
		if n := len(o.pools["main"].samples); n > 62 {
			t.Errorf("%s: %d samples are kept", tt.name, n)
		}
	}
	var none Outlook
	if _, ok := none.Full("main"); ok || none.Level("main") != 0 {
		t.Error("a pool that nobody saw has an outlook")
	}
}

// TestThresholds: each is told once when it is crossed, and anew only after the
// pool was a percent below.
func TestThresholds(t *testing.T) {
	var o Outlook
	type told struct {
		percent int
		over    bool
	}
	tests := []struct {
		used  int64
		want  []told
		level int
	}{
		{79, nil, 0},
		{80, []told{{80, true}}, 80},
		{79, []told{}, 80},
		{80, nil, 80},
		{96, []told{{90, true}, {95, true}}, 95},
		{94, nil, 95},
		{93, []told{{95, false}}, 90},
		{10, []told{{90, false}, {80, false}}, 0},
		{100, []told{{80, true}, {90, true}, {95, true}}, 95},
	}
	for i, tt := range tests {
		used := tt.used * 10
		if tt.used == 79 && tt.level == 80 {
			used = 795 // above 79, where the alarm is armed anew
		}
		if tt.used == 94 {
			used = 945
		}
		var got []told
		for _, a := range o.Note(time.Unix(int64(i), 0), []Fill{{"main", 1000, used}, {"empty", 0, 0}}) {
			got = append(got, told{a.Threshold, a.Over})
		}
		if !slices.Equal(got, tt.want) || o.Level("main") != tt.level {
			t.Errorf("at %d: %v and level %d, want %v and %d", used, got, o.Level("main"), tt.want, tt.level)
		}
	}
	if !slices.Equal(o.Pools(), []string{"empty", "main"}) {
		t.Errorf("pools are %v", o.Pools())
	}
	o.Note(time.Unix(99, 0), nil)
	if o.Level("main") != 0 || len(o.Pools()) != 0 {
		t.Error("a pool out of service has an outlook")
	}
}

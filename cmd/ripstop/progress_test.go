package main

import (
	"testing"
	"time"

	v1 "ripstop/api/v1"
)

func TestBar(t *testing.T) {
	began := time.Date(2026, 11, 26, 18, 0, 0, 0, time.UTC)
	tests := []struct {
		done, total int64
		past        time.Duration
		want        string
	}{
		{0, 0, 0, "check main [..............................]   0%  0 B of 0 B"},
		{1 << 30, 4 << 30, 10 * time.Second, "check main [#######.......................]  25%  1.0 GiB of 4.0 GiB, 30s left"},
		{4 << 30, 4 << 30, time.Minute, "check main [##############################] 100%  4.0 GiB of 4.0 GiB, 0s left"},
	}
	for _, tt := range tests {
		got := bar(v1.Task{Verb: "check", Name: "main", Done: tt.done, Total: tt.total, Since: began}, began.Add(tt.past))
		if got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/internal/hist"
	"ripstop/iscsi"
)

func TestLasting(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "", 85: "85ns", 999: "1µs", 1234: "1.2µs", 85_432: "85µs", 854_321: "850µs",
		1_249_999: "1.2ms", 99_600_000: "100ms", 12 * time.Second: "12s", 137 * time.Second: "2m20s",
	} {
		if got := lasting(json.Number(jsonOf(t, d))); got != want {
			t.Errorf("%d ns: %q, want %q", d, got, want)
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSessionTable prints a session of known accounts.
func TestSessionTable(t *testing.T) {
	var h hist.Histogram
	for range 100 {
		h.Observe(80 * time.Microsecond)
	}
	s := iscsi.Stats{Reads: 100, Writes: 2, Others: 3, ReadBytes: 4096, Depth: 7, ReadLatency: h.Snapshot()}
	one := v1.Session{Initiator: "i", Target: "t", Portal: "p", Remote: "r", Since: time.Now(), LUNs: []int{0, 3}, IO: ioOf(&s)}
	if one.Commands != 105 || one.ReadLatencyNs != (v1.Latency{Count: 100, Mean: 80000, P50: 80000, P99: 80000, P999: 80000, Max: 80000}) {
		t.Errorf("in the API's words: %+v", one.IO)
	}
	k, err := findKind("session")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := k.table(&b, []json.RawMessage{json.RawMessage(jsonOf(t, one))}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if got, want := strings.Fields(lines[0]), "INITIATOR TARGET PORTAL REMOTE SINCE LUNS DEPTH READ READ P99 WRITTEN WRITE P99"; strings.Join(got, " ") != want {
		t.Errorf("heads %v", got)
	}
	if got, want := strings.Join(strings.Fields(lines[1]), " "), "i t p r 0s 0,3 7 4.0 KiB 80µs 0 B -"; got != want {
		t.Errorf("line %q, want %q", got, want)
	}
}

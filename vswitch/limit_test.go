package vswitch

import (
	"testing"
	"time"
)

func TestLimitText(t *testing.T) {
	for _, c := range []struct {
		limit Limit
		want  string
	}{
		{Limit{}, ""},
		{Limit{Burst: time.Second}, ""},
		{Limit{Send: 1e8, Receive: 1e8}, "limit 100Mbit/s"},
		{Limit{Send: 1e9}, "limit send 1Gbit/s"},
		{Limit{Receive: 64_001, Burst: time.Second}, "limit receive 64001bit/s burst 1s"},
		{Limit{Send: 1e12, Receive: 5e3, Burst: DefaultBurst}, "limit send 1Tbit/s receive 5kbit/s"},
	} {
		if got := c.limit.canonical().String(); got != c.want {
			t.Errorf("%+v is %q, want %q", c.limit, got, c.want)
		}
	}
}

func TestLimitTightens(t *testing.T) {
	for _, c := range []struct {
		from, to Limit
		want     int
	}{
		{Limit{}, Limit{Send: 1e6}, 1},
		{Limit{}, Limit{Send: 1e6, Receive: 1e6}, 2},
		{Limit{Send: 1e6, Receive: 1e6}, Limit{Send: 1e6, Receive: 2e6}, 0},
		{Limit{Send: 1e6, Receive: 1e6}, Limit{Send: 5e5}, 1},
		{Limit{Send: 1e6}, Limit{}, 0},
	} {
		if got := c.to.tightens(c.from, "web"); len(got) != c.want {
			t.Errorf("%v after %v: %q, want %d of them", c.to, c.from, got, c.want)
		}
	}
}

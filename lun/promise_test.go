package lun

import (
	"math"
	"strings"
	"testing"
)

func TestPromise(t *testing.T) {
	tests := []struct {
		pool  Pool
		total int64
		ok    bool
	}{
		{Pool{Size: 100, Overcommit: 1}, 100, true},
		{Pool{Size: 100, Overcommit: 1}, 101, false},
		{Pool{Size: 100, Overcommit: 2.5}, 250, true},
		{Pool{Size: 100, Overcommit: 2.5}, 251, false},
		{Pool{Size: 1 << 62, Overcommit: 1e6}, math.MaxInt64, true},
	}
	for _, tt := range tests {
		err := tt.pool.Promise("main", tt.total)
		if (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "give the pool more size or overcommit, or the LUNs less") {
			t.Errorf("%+v and %d: %v", tt.pool, tt.total, err)
		}
	}
}

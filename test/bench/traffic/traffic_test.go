package traffic

import (
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	var times []time.Duration
	for i := range 101 {
		times = append(times, time.Duration(100-i)*time.Microsecond)
	}
	if rate, p50, p99 := quantiles(times); p50 != 50 || p99 != 99 || rate != 101/5050e-6 {
		t.Errorf("%v, %v, %v", rate, p50, p99)
	}
}

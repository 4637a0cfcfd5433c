package figures

import (
	"os"
	"testing"
)

func TestParseIO(t *testing.T) {
	io, err := ParseIO("iops=100.5 MBps=1 errs=0 p50us=7 p99us=9 ios=10\n")
	if err != nil || io != (IO{IOPS: 100.5, P50: 7, P99: 9, Count: 10}) {
		t.Errorf("%+v, %v", io, err)
	}
	for _, line := range []string{"", "iops=0", "iops=many", "iops=3"} {
		if _, err := ParseIO(line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestProcessor(t *testing.T) {
	if _, err := Processor(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := Processor(-1); err == nil {
		t.Error("there is no such process")
	}
}

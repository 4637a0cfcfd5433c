package figures

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Processor is what a process has taken of all processors, as /proc/PID/stat counts
// it, in hundredths of a second.
func Processor(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} { // utime and stime (proc(5))
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// IO is what iscsi-load measured; latencies in microseconds. CPU is filled in by who knows the target.
type IO struct{ IOPS, P50, P99, Count, CPU float64 }

// ParseIO reads the line that iscsi-load prints.
func ParseIO(line string) (io IO, err error) {
	for field := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(field, "=")
		f, e := strconv.ParseFloat(value, 64)
		if e != nil {
			return io, fmt.Errorf("read load's line %q: %w", line, e)
		}
		switch name {
		case "iops":
			io.IOPS = f
		case "p50us":
			io.P50 = f
		case "p99us":
			io.P99 = f
		case "ios":
			io.Count = f
		}
	}
	if io.IOPS == 0 || io.Count == 0 {
		return io, fmt.Errorf("load did no I/O: %q", line)
	}
	return io, nil
}

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Results are all samples of a run, and where and how it ran.
type Results struct {
	Facts   Facts
	Samples []Sample
}

// Facts are about the machine and the run.
type Facts struct {
	When                  time.Time
	CPU, Kernel, Filesys  string
	Cores                 int
	MemoryGiB             float64
	LoadBefore, LoadAfter string // of /proc/loadavg
	Command               string
	Seconds               float64
	Rounds                int
	SizeMiB               int64
}

func facts(o options) Facts {
	var u unix.Utsname
	var i unix.Sysinfo_t
	f := Facts{When: time.Now().UTC(), Command: o.command, Seconds: o.seconds, Rounds: o.rounds, SizeMiB: o.size, LoadBefore: loadAverage()}
	if unix.Uname(&u) == nil {
		f.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if unix.Sysinfo(&i) == nil {
		f.MemoryGiB = float64(i.Totalram) * float64(i.Unit) / (1 << 30)
	}
	for line := range strings.Lines(readFile("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			f.CPU = strings.TrimSpace(value)
			f.Cores++
		}
	}
	f.Filesys = fileSystem(o.dir)
	return f
}

func loadAverage() string {
	return strings.Join(strings.Fields(readFile("/proc/loadavg"))[:3], " ")
}

func fileSystem(dir string) string {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return "unknown"
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs"}
	if n, ok := names[int64(s.Type)]; ok {
		return n
	}
	return fmt.Sprintf("type %#x", s.Type)
}

func readFile(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(b)
}

func readResults(name string) (Results, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return Results{}, err
	}
	var r Results
	return r, json.Unmarshal(b, &r)
}

// add keeps a sample and shows it.
func (r *Results) add(s Sample, c Cell, target string, round int) {
	s.Cell, s.Target, s.Round = c, target, round
	r.Samples = append(r.Samples, s)
	r.Facts.LoadAfter = loadAverage()
	fmt.Printf("%d %-20s %-8s %8.0f IOPS %8.1f MB/s  p50 %8.1f p99 %8.1f p99.9 %8.1f µs  cpu %6.2f load %6.2f µs %s\n",
		round, c.Name(), target, s.IOPS, s.MBps, s.P50, s.P99, s.P999, s.CPU, s.Load, s.Fault)
}

// cells are those that were measured, in their order.
func (r Results) cells() []Cell {
	var seen []Cell
	for _, s := range r.Samples {
		if !slices.Contains(seen, s.Cell) {
			seen = append(seen, s.Cell)
		}
	}
	return seen
}

// of are the good samples of a cell and target, by round.
func (r Results) of(c Cell, target string) map[int]Sample {
	m := map[int]Sample{}
	for _, s := range r.Samples {
		if s.Cell == c && s.Target == target && s.Fault == "" {
			m[s.Round] = s
		}
	}
	return m
}

// spread is a median with the least and the most of all rounds.
type spread struct{ Median, Least, Most float64 }

func (s spread) ok() bool { return !math.IsNaN(s.Median) }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (m + v[len(v)/2-1]) / 2
	}
	return spread{m, v[0], v[len(v)-1]}
}

// value is one figure of a cell and target over the rounds.
func (r Results) value(c Cell, target string, figure func(Sample) float64) spread {
	var v []float64
	for _, s := range r.of(c, target) {
		v = append(v, figure(s))
	}
	return spreadOf(v)
}

// ratio compares two targets round by round: in one round both met the same
// machine.
func (r Results) ratio(c Cell, target, to string, figure func(Sample) float64) spread {
	var v []float64
	others := r.of(c, to)
	for round, s := range r.of(c, target) {
		if o, ok := others[round]; ok && figure(o) > 0 {
			v = append(v, figure(s)/figure(o))
		}
	}
	return spreadOf(v)
}

func iops(s Sample) float64 { return s.IOPS }
func cpu(s Sample) float64  { return s.CPU }
func p99(s Sample) float64  { return s.P99 }

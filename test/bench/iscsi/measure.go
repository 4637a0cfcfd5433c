package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ripstop/test/peers"
)

// Sample is one measurement. Latencies are in microseconds.
type Sample struct {
	Cell   Cell
	Target string
	Round  int

	IOPS, MBps     float64
	P50, P99, P999 float64
	CPU            float64 // of the target or fio for each I/O, in microseconds
	Load           float64 // of the load generator for each I/O, in microseconds
	Fault          string  // why there are no figures
}

type bench struct {
	options
	targets []*peers.Daemon
}

func (b *bench) start(ctx context.Context) error {
	if err := favour(os.Getpid(), b.nice); err != nil {
		return err
	}
	for _, d := range b.targets {
		if err := b.startTarget(ctx, d); err != nil {
			return err
		}
		for lun := range 2 {
			if err := b.fill(ctx, d, lun); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) stop() {
	for _, d := range b.targets {
		if err := d.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

// fill writes all of a LUN through its target: no hole is left, and no target
// has an advantage by how its file lies on the disk.
func (b *bench) fill(ctx context.Context, d *peers.Daemon, lun int) error {
	const block = 256 << 10
	_, err := b.runLoad(ctx, d, "-m", "sw", "-b", strconv.Itoa(block), "-q", "8", "-t", "600",
		"-n", strconv.FormatInt(b.Size<<20/block, 10), d.URLs(lun)[0])
	if err != nil {
		return fmt.Errorf("fill %s: %w", d.Name, err)
	}
	return flush(d.File(lun))
}

// cell measures all targets once.
func (b *bench) cell(ctx context.Context, c Cell, round int, r *Results) error {
	order := slices.Clone(b.targets)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, d := range order {
		s, err := b.sample(ctx, d, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.Fault = err.Error()
			if err := errors.Join(d.Stop(), b.startTarget(ctx, d)); err != nil {
				return err
			}
		}
		r.add(s, c, d.Name, round)
	}
	if !c.Cold || c.Sessions > 1 {
		return nil
	}
	for _, way := range fioWays {
		if way.name == inTurns && (c.Depth != 32 || c.writes()) {
			continue
		}
		s, err := fio(ctx, b.targets[0].File(coldLUN), c, b.Seconds, way.args)
		if err != nil {
			return err
		}
		r.add(s, c, way.name, round)
	}
	return nil
}

// startTarget gives a target the same share of the processors as the load.
func (b *bench) startTarget(ctx context.Context, d *peers.Daemon) error {
	if err := d.Start(ctx); err != nil {
		return err
	}
	return favour(d.PID(), b.nice)
}

// favour sets the nice value of a process's session, which is what counts where
// the kernel groups processes by session: sched(7), the autogroup feature.
func favour(pid, nice int) error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), fmt.Appendln(nil, nice), 0)
	if nice == 0 || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// sample runs the load of a cell against a target.
func (b *bench) sample(ctx context.Context, d *peers.Daemon, c Cell) (Sample, error) {
	lun, cache := hotLUN, warm
	if c.Cold {
		lun, cache = coldLUN, drop
	}
	if err := errors.Join(flush(d.File(lun)), cache(d.File(lun))); err != nil {
		return Sample{}, err
	}
	before, err := cpuTime(d.PID())
	if err != nil {
		return Sample{}, err
	}
	s, err := b.runLoad(ctx, d, "-m", c.Mode, "-b", strconv.Itoa(c.Block), "-q", strconv.Itoa(c.Depth),
		"-s", strconv.Itoa(c.Sessions), "-t", fmt.Sprint(b.Seconds), d.URLs(lun)[0])
	if err != nil {
		return s.Sample, err
	}
	after, err := cpuTime(d.PID())
	s.CPU = (after - before) / s.ios
	return s.Sample, err
}

// loadSample is a sample of the load generator with what only it counts.
type loadSample struct {
	Sample
	ios float64
}

func (b *bench) runLoad(ctx context.Context, d *peers.Daemon, args ...string) (loadSample, error) {
	var stderr strings.Builder
	command := slices.Concat(d.Inside(), []string{b.load}, args)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return loadSample{}, fmt.Errorf("load: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return parseLoad(string(out))
}

// parseLoad reads the line that the load generator prints.
func parseLoad(line string) (loadSample, error) {
	v := map[string]float64{}
	for field := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(field, "=")
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return loadSample{}, fmt.Errorf("read load's line %q: %w", line, err)
		}
		v[name] = f
	}
	if v["ios"] == 0 {
		return loadSample{}, fmt.Errorf("load did no I/O: %q", line)
	}
	return loadSample{Sample{
		IOPS: v["iops"], MBps: v["MBps"], P50: v["p50us"], P99: v["p99us"], P999: v["p999us"], Load: v["cpuus"],
	}, v["ios"]}, nil
}

// cpuTime is what a process and its threads have used, in microseconds:
// utime and stime of proc_pid_stat(5), in ticks of 10 ms.
func cpuTime(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name before it may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read /proc/%d/stat: only %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return (user + system) * 1e4, errors.Join(err1, err2)
}

func flush(file string) error {
	return withFile(file, func(fd int) error { return unix.Fsync(fd) })
}

// drop takes a flushed file out of the page cache.
func drop(file string) error {
	return withFile(file, func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}

// warm reads a file into the page cache.
func warm(file string) error {
	buf := make([]byte, 1<<20)
	return withFile(file, func(fd int) error {
		for {
			if n, err := unix.Read(fd, buf); n == 0 || err != nil {
				return err
			}
		}
	})
}

func withFile(name string, do func(fd int) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(int(f.Fd()))
}

const inTurns = "fio, in turns"

// fioWays is fio as ever, and fio that waits for all transfers before it begins any,
// as somebody does whose next commands come when all answers are read.
var fioWays = []struct {
	name string
	args []string
}{{"fio", nil}, {inTurns, []string{"--iodepth_low=1", "--iodepth_batch_complete_min=32"}}}

// fio measures what the disk gives without any target.
func fio(ctx context.Context, file string, c Cell, seconds float64, args []string) (Sample, error) {
	if err := errors.Join(flush(file), drop(file)); err != nil {
		return Sample{}, err
	}
	rw := map[string]string{"rr": "randread", "rw": "randwrite", "sr": "read", "sw": "write"}[c.Mode]
	cmd := exec.CommandContext(ctx, "fio", append([]string{"--name=disk", "--filename=" + file, "--ioengine=io_uring", "--direct=1",
		"--rw=" + rw, "--bs=" + strconv.Itoa(c.Block), "--iodepth=" + strconv.Itoa(c.Depth), "--time_based", "--norandommap", "--thread",
		fmt.Sprintf("--runtime=%gms", seconds*1000), "--output-format=json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return Sample{}, fmt.Errorf("fio: %w: %s", err, out)
	}
	return parseFio(out, c)
}

func parseFio(out []byte, c Cell) (Sample, error) {
	type side struct {
		IOPS float64 `json:"iops"`
		Clat struct {
			Percentile map[string]float64 `json:"percentile"` // nanoseconds
		} `json:"clat_ns"`
	}
	var report struct {
		Jobs []struct {
			Read, Write side
			User        float64 `json:"usr_cpu"` // percent of the time
			System      float64 `json:"sys_cpu"` // likewise
		}
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Jobs) != 1 {
		return Sample{}, fmt.Errorf("read fio's report: %d jobs: %w", len(report.Jobs), err)
	}
	s := report.Jobs[0].Read
	if c.writes() {
		s = report.Jobs[0].Write
	}
	p := s.Clat.Percentile
	return Sample{
		CPU:  (report.Jobs[0].User + report.Jobs[0].System) / 100 * 1e6 / max(s.IOPS, 1),
		IOPS: s.IOPS, MBps: s.IOPS * float64(c.Block) / 1e6,
		P50: p["50.000000"] / 1e3, P99: p["99.000000"] / 1e3, P999: p["99.900000"] / 1e3,
	}, nil
}

// Command disk compares ways to read a file at a queue depth: a goroutine with
// pread(2) for each access, a ring (internal/uring), and fio's io_uring. Each
// round takes all of them, odd rounds backwards, and the page cache lets go of
// the file before each. It prints medians, and the ratio to fio of each round.
//
//	fallocate -l 4G data && dd if=/dev/urandom of=data bs=4M count=1024 conv=notrunc
//	go run ./test/bench/disk -file data
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/uring"
)

type options struct {
	file     string
	block    int
	depth    int
	rounds   int
	seconds  int
	buffered bool
}

// result is what a way did in a round.
type result struct {
	iops float64
	cpu  float64 // µs of processor time for each access
}

func main() {
	var o options
	flag.StringVar(&o.file, "file", "", "the file, with data in all of it")
	flag.IntVar(&o.block, "block", 4096, "bytes of an access")
	flag.IntVar(&o.depth, "depth", 32, "accesses under way")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.IntVar(&o.seconds, "seconds", 2, "of each measurement")
	flag.BoolVar(&o.buffered, "buffered", false, "through the page cache, instead of O_DIRECT")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "disk:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	flags := os.O_RDONLY
	if !o.buffered {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(o.file, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	ring, err := uring.New(256)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, served := make(chan struct{}), make(chan error, 1)
	go func() { served <- ring.Serve(ctx, func() { close(ready) }) }()
	<-ready
	err = compare(o, f, ring)
	cancel()
	return errors.Join(err, <-served, ring.Close())
}

// compare does the rounds.
func compare(o options, f *os.File, ring *uring.Ring) error {
	rf, err := ring.Register(int(f.Fd()))
	if err != nil {
		return err
	}
	names := []string{"fio", "pread", "ring"}
	ways := map[string]func() (result, error){
		"fio":   func() (result, error) { return fio(o) },
		"pread": func() (result, error) { return drive(o, f, preadWay(f)) },
		"ring":  func() (result, error) { return drive(o, f, ringWay(rf)) },
	}
	got := map[string][]result{}
	for range o.rounds {
		for _, name := range names {
			if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
				return err
			}
			r, err := ways[name]()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			got[name] = append(got[name], r)
		}
		slices.Reverse(names)
	}
	slices.Sort(names)
	for _, name := range names {
		show(name, got[name], got["fio"])
	}
	return rf.Close()
}

func show(name string, rs, fio []result) {
	var iops, cpu, ratio []float64
	for i, r := range rs {
		iops, cpu, ratio = append(iops, r.iops), append(cpu, r.cpu), append(ratio, r.iops/fio[i].iops)
	}
	fmt.Printf("%-6s %7.0f IOPS %6.1f µs CPU each, %.2f × fio %.2f\n", name, median(iops), median(cpu), median(ratio), ratio)
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// access is one of those under way.
type access struct {
	p    []byte
	off  int64
	ok   bool
	done func(ok bool)
}

func preadWay(f *os.File) func(*access) bool {
	return func(a *access) bool {
		go func() {
			_, err := f.ReadAt(a.p, a.off)
			a.done(err == nil)
		}()
		return true
	}
}

func ringWay(f *uring.File) func(*access) bool {
	return func(a *access) bool { return f.Read(a.p, a.off, a.done) }
}

// drive keeps the queue full from one goroutine, as a connection of the target does.
func drive(o options, f *os.File, start func(*access) bool) (result, error) {
	st, err := f.Stat()
	if err != nil {
		return result{}, err
	}
	memory, err := unix.Mmap(-1, 0, o.depth*o.block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return result{}, err
	}
	defer unix.Munmap(memory)
	ended := make(chan *access, o.depth)
	next := func(a *access) error {
		a.off = rand.Int64N(st.Size()/int64(o.block)) * int64(o.block)
		if !start(a) {
			return errors.New("refused")
		}
		return nil
	}
	began, before := time.Now(), processorTime()
	for i := range o.depth {
		a := &access{p: memory[i*o.block:][:o.block]}
		a.done = func(ok bool) { a.ok = ok; ended <- a }
		if err := next(a); err != nil {
			return result{}, err
		}
	}
	n := 0
	for flying := o.depth; flying > 0; n++ {
		a := <-ended
		if !a.ok {
			return result{}, fmt.Errorf("read at %d", a.off)
		}
		if time.Since(began) > time.Duration(o.seconds)*time.Second {
			flying--
		} else if err := next(a); err != nil {
			return result{}, err
		}
	}
	took, used := time.Since(began), processorTime()-before
	return result{float64(n) / took.Seconds(), float64(used.Microseconds()) / float64(n)}, nil
}

func processorTime() time.Duration {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r) // fails for no argument that is given here
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// fio is the yardstick: its io_uring engine on the same file.
func fio(o options) (result, error) {
	direct := "1"
	if o.buffered {
		direct = "0"
	}
	out, err := exec.Command("fio", "--thread", "--name=disk", "--filename="+o.file, "--readonly", "--rw=randread", "--bs="+strconv.Itoa(o.block),
		"--ioengine=io_uring", "--iodepth="+strconv.Itoa(o.depth), "--direct="+direct, "--time_based", "--runtime="+strconv.Itoa(o.seconds),
		"--norandommap", "--randrepeat=0", "--output-format=json").Output()
	if err != nil {
		return result{}, err
	}
	var report struct {
		Jobs []struct {
			Read struct {
				IOPS float64 `json:"iops"`
				IOs  float64 `json:"total_ios"`
			} `json:"read"`
			User    float64 `json:"usr_cpu"` // percent of the run time
			System  float64 `json:"sys_cpu"`
			Runtime float64 `json:"job_runtime"` // ms
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return result{}, err
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Read.IOs == 0 {
		return result{}, errors.New("no job in the report")
	}
	j := report.Jobs[0]
	return result{j.Read.IOPS, (j.User + j.System) / 100 * j.Runtime * 1000 / j.Read.IOs}, nil
}

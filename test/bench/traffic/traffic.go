// Package traffic is what benchmarks of networks share: streams of TCP, round trips,
// many packets in one system call, and threads that stay on a CPU.
package traffic

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/link"
)

// Placement is on which CPUs the two ends of a load are; -1 is any.
type Placement struct{ From, To int }

// Free leaves both to the kernel.
var Free = Placement{-1, -1}

// port is that of all loads.
const port = 7000

// End is one end of a load.
type End struct {
	Space   *link.Space
	Address [4]byte
}

// open opens something in the namespace of an end.
func (e End) open(f func() (int, error)) (fd int, err error) {
	err = e.Space.Run(func() (err error) { fd, err = f(); return err })
	return fd, err
}

// OnCPU calls f on a thread of its own that stays on a CPU; -1 is any.
func OnCPU(cpu int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with its affinity
		done <- pin(cpu, f)
	}()
	return <-done
}

func pin(cpu int, f func() error) error {
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pin to CPU %d: %w", cpu, err)
		}
	}
	return f()
}

// TCP is the bits a second of some streams.
func TCP(from, to End, streams int, at Placement, d time.Duration) (float64, error) {
	listener, err := to.open(func() (int, error) { return listen(to.Address) })
	if err != nil {
		return 0, err
	}
	defer unix.Close(listener)
	var outs, ins []int
	for range streams {
		out, err := from.open(func() (int, error) { return connect(to.Address) })
		if err != nil {
			return 0, err
		}
		outs = append(outs, out)
		in, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return 0, fmt.Errorf("accept: %w", err)
		}
		ins = append(ins, in)
	}
	return stream(outs, ins, at, d)
}

func listen(address [4]byte) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: address, Port: port}), unix.Listen(fd, 16))
	return fd, err
}

func connect(address [4]byte) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: address, Port: port}); err != nil {
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// stream sends through all connections for a while that is not counted, and then
// for d.
func stream(outs, ins []int, at Placement, d time.Duration) (float64, error) {
	var got atomic.Uint64
	var group sync.WaitGroup
	unpinned := make(chan error, len(outs)+len(ins))
	run := func(cpu int, f func()) {
		group.Go(func() {
			if err := OnCPU(cpu, func() error { f(); return nil }); err != nil {
				unpinned <- err
			}
		})
	}
	buf := make([]byte, 128<<10)
	for i := range outs {
		run(at.From, func() {
			for {
				if _, err := unix.SendmsgN(outs[i], buf, nil, nil, unix.MSG_NOSIGNAL); err != nil {
					return
				}
			}
		})
		run(at.To, func() {
			in := make([]byte, 128<<10)
			for {
				n, err := unix.Read(ins[i], in)
				if err != nil || n == 0 {
					return
				}
				got.Add(uint64(n))
			}
		})
	}
	d *= 2 // a stream takes longer to be steady
	time.Sleep(d / 4)
	before, start := got.Load(), time.Now()
	time.Sleep(d)
	rate := float64(got.Load()-before) * 8 / time.Since(start).Seconds()
	var errs []error
	for _, fd := range slices.Concat(outs, ins) {
		if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
			errs = append(errs, err)
		}
	}
	group.Wait()
	close(unpinned)
	for err := range unpinned {
		errs = append(errs, err)
	}
	for _, fd := range slices.Concat(outs, ins) {
		errs = append(errs, unix.Close(fd))
	}
	return rate, errors.Join(errs...)
}

// Pair is two UDP sockets that are connected to each other.
func Pair(a, b End) (fds [2]int, err error) {
	open := func(at, other End) (int, error) {
		return at.open(func() (int, error) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			limit := unix.Timeval{Sec: 2}
			return fd, errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Address, Port: port}),
				unix.Connect(fd, &unix.SockaddrInet4{Addr: other.Address, Port: port}),
				unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
		})
	}
	if fds[0], err = open(a, b); err != nil {
		return fds, err
	}
	if fds[1], err = open(b, a); err != nil {
		unix.Close(fds[0])
	}
	return fds, err
}

// Trip sends a request through one socket of a pair and its response through the
// other.
func Trip(fds [2]int, buf []byte) error {
	for i, fd := range fds {
		if _, err := unix.Write(fd, buf[:18]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		_, err := unix.Read(fds[1-i], buf)
		for errors.Is(err, unix.EINTR) { // the runtime's signals end waits that have a limit
			_, err = unix.Read(fds[1-i], buf)
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
	}
	return nil
}

// Trips is how many round trips a second there are, one after the other on one
// thread, and how many microseconds half of them, and 99 of 100, take at most.
func Trips(cpu int, d time.Duration, trip func(buf []byte) error) (rate, p50, p99 float64, err error) {
	var times []time.Duration
	err = OnCPU(cpu, func() error {
		buf := make([]byte, 1<<11)
		for start := time.Now(); time.Since(start) < d; {
			before := time.Now()
			if err := trip(buf); err != nil {
				return err
			}
			times = append(times, time.Since(before))
		}
		return nil
	})
	if err != nil {
		return 0, 0, 0, err
	}
	rate, p50, p99 = quantiles(times)
	return rate, p50, p99, nil
}

func quantiles(times []time.Duration) (rate, p50, p99 float64) {
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[int(share*float64(len(times)-1))].Nanoseconds()) / 1e3
	}
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return float64(len(times)) / sum.Seconds(), at(0.5), at(0.99)
}

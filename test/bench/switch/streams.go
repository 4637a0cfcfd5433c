package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// placement is on which CPUs the two ends of a load are.
type placement struct{ from, to int }

var (
	pinned   = placement{0, 1}
	together = placement{0, 0}
	free     = placement{-1, -1}
)

// inSpace opens something in the namespace of a lab.
func inSpace(l *lab, name string, open func() (int, error)) (fd int, err error) {
	err = l.spaces[name].Run(func() (err error) { fd, err = open(); return err })
	return fd, err
}

// place is the namespace of one end of a cell and its address.
func (l *lab) place(kind string, i int) (string, [4]byte) {
	if kind == "vm" {
		return l.guest(), address(guestStation)
	}
	return l.space(i), address(i)
}

const port = 7000

// tcpLoad makes a load of some streams.
func tcpLoad(streams int, at placement) func(Cell, *lab, time.Duration) (Sample, error) {
	return func(c Cell, l *lab, d time.Duration) (Sample, error) {
		from, to := "veth", "veth"
		switch c.Ends {
		case "vm-veth":
			from = "vm"
		case "veth-vm":
			to = "vm"
		}
		source, _ := l.place(from, 0)
		sink, address := l.place(to, 1)
		listener, err := inSpace(l, sink, func() (int, error) { return listen(address) })
		if err != nil {
			return Sample{}, err
		}
		defer unix.Close(listener)
		var outs, ins []int
		for range streams {
			out, err := inSpace(l, source, func() (int, error) { return connect(address) })
			if err != nil {
				return Sample{}, err
			}
			outs = append(outs, out)
			in, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err != nil {
				return Sample{}, fmt.Errorf("accept: %w", err)
			}
			ins = append(ins, in)
		}
		return stream(outs, ins, at, d)
	}
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
func stream(outs, ins []int, at placement, d time.Duration) (Sample, error) {
	var got atomic.Uint64
	var group sync.WaitGroup
	run := func(cpu int, f func()) {
		group.Go(func() { _ = onCPU(cpu, func() error { f(); return nil }) })
	}
	buf := make([]byte, 128<<10)
	for i := range outs {
		run(at.from, func() {
			for {
				if _, err := unix.SendmsgN(outs[i], buf, nil, nil, unix.MSG_NOSIGNAL); err != nil {
					return
				}
			}
		})
		run(at.to, func() {
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
	for _, fd := range slices.Concat(outs, ins) {
		errs = append(errs, unix.Close(fd))
	}
	return Sample{Rate: rate}, errors.Join(errs...)
}

// tripCell sends a request and its response through the switch, again and again,
// all on one thread: no other has to wake, so that the times are the way's.
func tripCell(c Cell, l *lab, d time.Duration) (Sample, error) {
	trip := l.tapTrip
	if c.Ends == "veth" {
		a, b, err := l.pair()
		if err != nil {
			return Sample{}, err
		}
		defer unix.Close(a)
		defer unix.Close(b)
		trip = func(buf []byte) error { return udpTrip(a, b, buf) }
	} else if err := l.teach(0); err != nil {
		return Sample{}, err
	}
	var times []time.Duration
	err := onCPU(0, func() error {
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
		return Sample{}, err
	}
	return tripSample(times), nil
}

func tripSample(times []time.Duration) Sample {
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[int(share*float64(len(times)-1))].Nanoseconds()) / 1e3
	}
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return Sample{Rate: float64(len(times)) / sum.Seconds(), P50: at(0.5), P99: at(0.99)}
}

// pair is two UDP sockets that are connected to each other.
func (l *lab) pair() (a, b int, err error) {
	open := func(i, other int) (int, error) {
		return inSpace(l, l.space(i), func() (int, error) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			limit := unix.Timeval{Sec: 2}
			return fd, errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: address(i), Port: port}),
				unix.Connect(fd, &unix.SockaddrInet4{Addr: address(other), Port: port}),
				unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
		})
	}
	if a, err = open(0, 1); err != nil {
		return -1, -1, err
	}
	if b, err = open(1, 0); err != nil {
		unix.Close(a)
	}
	return a, b, err
}

func udpTrip(a, b int, buf []byte) error {
	for _, way := range [][2]int{{a, b}, {b, a}} {
		if _, err := unix.Write(way[0], buf[:18]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if _, err := unix.Read(way[1], buf); err != nil {
			return fmt.Errorf("receive: %w", err)
		}
	}
	return nil
}

func (l *lab) tapTrip(buf []byte) error {
	for i, fd := range l.taps {
		other := l.taps[1-i]
		if err := write(fd, l.requests[i]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		deadline := time.Now().Add(2 * time.Second)
		for n := 0; n != vnetHeader+60; {
			if time.Now().After(deadline) {
				return errors.New("a frame was lost")
			}
			var err error
			if n, err = read(other, buf); err != nil && !errors.Is(err, unix.EAGAIN) {
				return fmt.Errorf("receive: %w", err)
			}
		}
	}
	return nil
}

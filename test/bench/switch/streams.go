package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/test/bench/traffic"
)

var (
	pinned   = traffic.Placement{From: 0, To: 1}
	together = traffic.Placement{From: 0, To: 0}
)

// end is where one end of a cell is.
func (l *lab) end(kind string, i int) traffic.End {
	if kind == "vm" {
		return traffic.End{Space: l.spaces[l.guest()], Address: address(guestStation)}
	}
	return traffic.End{Space: l.spaces[l.space(i)], Address: address(i)}
}

// tcpLoad makes a load of some streams.
func tcpLoad(streams int, at traffic.Placement) func(Cell, *lab, time.Duration) (Sample, error) {
	return func(c Cell, l *lab, d time.Duration) (Sample, error) {
		from, to := "veth", "veth"
		switch c.Ends {
		case "vm-veth":
			from = "vm"
		case "veth-vm":
			to = "vm"
		}
		rate, err := traffic.TCP(l.end(from, 0), l.end(to, 1), streams, at, d)
		return Sample{Rate: rate}, err
	}
}

// tripCell sends a request and its response through the switch, again and again,
// all on one thread: no other has to wake, so that the times are the way's.
func tripCell(c Cell, l *lab, d time.Duration) (s Sample, err error) {
	trip := l.tapTrip
	if c.Ends == "veth" {
		fds, err := traffic.Pair(l.end("veth", 0), l.end("veth", 1))
		if err != nil {
			return Sample{}, err
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		trip = func(buf []byte) error { return traffic.Trip(fds, buf) }
	} else if err := l.teach(0); err != nil {
		return Sample{}, err
	}
	s.Rate, s.P50, s.P99, err = traffic.Trips(0, d, trip)
	return s, err
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

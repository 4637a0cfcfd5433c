package main

import (
	"fmt"
	"strings"
	"time"

	"ripstop/test/bench/traffic"
)

// Cell is one load: what is measured of every dataplane.
type Cell struct {
	Load  string // a key of loads
	Ends  string // what is at the two ports: veth, tap, veth-tap, tap-veth, veth-vm, vm-veth
	Ports int    // of the switch
}

// load is a kind of load.
type load struct {
	title   string
	unit    string // of the rate
	scale   float64
	measure func(c Cell, l *lab, d time.Duration) (Sample, error)
}

const (
	packets = "kpkt/s"
	copies  = "k copies/s"
	bits    = "Gbit/s"
	trips   = "k trips/s"
)

// loads are all of them; the TCP streams are made by tcpLoad.
var loads = map[string]load{
	"pps":       {"64-byte packets", packets, 1e3, packetCell},
	"fdb":       {"64-byte packets, FDB of 100,000", packets, 1e3, fdbCell},
	"filter":    {"64-byte packets, filtered, connections known", packets, 1e3, filterCell},
	"stateless": {"64-byte packets, filtered, the bridges' rules without connections", packets, 1e3, filterCell},
	"broadcast": {"broadcast", copies, 1e3, floodCell},
	"unknown":   {"unknown unicast", copies, 1e3, floodCell},
	"gso":       {"segments of 64 KiB (GSO)", bits, 1e9, packetCell},
	"rr":        {"request and response, one thread", trips, 1e3, tripCell},
	"tcp1":      {"TCP, 1 stream", bits, 1e9, tcpLoad(1, pinned)},
	"tcp4":      {"TCP, 4 streams", bits, 1e9, tcpLoad(4, pinned)},
	"tcp1same":  {"TCP, 1 stream, both ends on one CPU", bits, 1e9, tcpLoad(1, together)},
	"tcp1free":  {"TCP, 1 stream, not pinned", bits, 1e9, tcpLoad(1, traffic.Free)},
	"tcp4free":  {"TCP, 4 streams, not pinned", bits, 1e9, tcpLoad(4, traffic.Free)},
}

// cells are all loads, in the order of the tables.
func cells() []Cell {
	var all []Cell
	for _, load := range []string{"pps", "broadcast", "unknown"} {
		for _, n := range []int{10, 100, 1000} {
			all = append(all, Cell{load, "veth", n})
		}
	}
	all = append(all, Cell{"fdb", "veth", 100}, Cell{"filter", "veth", leastPorts}, Cell{"stateless", "veth", leastPorts})
	for _, load := range []string{"tcp1", "tcp4", "tcp1same", "tcp1free", "tcp4free", "rr"} {
		all = append(all, Cell{load, "veth", 10})
	}
	for _, ends := range []string{"tap", "tap-veth", "veth-tap"} {
		all = append(all, Cell{"pps", ends, 10})
	}
	return append(all, Cell{"gso", "tap", 10}, Cell{"rr", "tap", 10}, Cell{"tcp1", "vm-veth", 10}, Cell{"tcp1", "veth-vm", 10})
}

// Name is short and without spaces: veth-pps-1000.
func (c Cell) Name() string { return fmt.Sprintf("%s-%s-%d", c.Ends, c.Load, c.Ports) }

// Title is for people.
func (c Cell) Title() string {
	ends := strings.ReplaceAll(c.Ends, "-", " to ")
	if !strings.Contains(c.Ends, "-") {
		ends += " to " + c.Ends
	}
	return fmt.Sprintf("%s: %s, %d ports", ends, loads[c.Load].title, c.Ports)
}

func (c Cell) unit() string { return loads[c.Load].unit }

// counted tells whether the cell is one of packets, of which more is owed.
func (c Cell) counted() bool { return c.Load == "pps" || c.Load == "fdb" || c.filtered() }

// floods tells whether each frame goes to all ports.
func (c Cell) floods() bool { return c.Load == "broadcast" || c.Load == "unknown" }

// filtered tells whether the ports have filters.
func (c Cell) filtered() bool { return c.Load == "filter" || c.Load == "stateless" }

// direct tells whether ends with nothing, or the least, between them can carry the
// load.
func (c Cell) direct() bool {
	return c.Load == "fdb" || c.floods() || !strings.Contains(c.Ends, "vm") && !c.filtered() && c.Ports <= leastPorts
}

func (c Cell) measure(l *lab, d time.Duration) (Sample, error) {
	s, err := loads[c.Load].measure(c, l, d)
	s.Rate /= loads[c.Load].scale
	if err == nil && s.Rate == 0 {
		err = fmt.Errorf("nothing came through")
	}
	return s, err
}

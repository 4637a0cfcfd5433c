package main

import "fmt"

// Cell is one load: what is measured of every target.
type Cell struct {
	Cold     bool   // past or without the page cache
	Mode     string // of the load: rr, rw, sr, sw
	Block    int    // bytes
	Depth    int    // I/Os in flight of each session
	Sessions int
}

// cells are all loads, in the order of the tables.
func cells() []Cell {
	var all []Cell
	for _, cold := range []bool{false, true} {
		for _, mode := range []string{"rr", "rw"} {
			for _, depth := range []int{1, 32, 128} {
				all = append(all, Cell{cold, mode, 4096, depth, 1})
			}
			if !cold { // what 16 initiators that wait for each answer get
				all = append(all, Cell{cold, mode, 4096, 1, 16})
			}
			for _, sessions := range []int{4, 16} {
				all = append(all, Cell{cold, mode, 4096, 32, sessions})
			}
		}
		for _, mode := range []string{"sr", "sw"} {
			for _, sessions := range []int{1, 4, 16} {
				all = append(all, Cell{cold, mode, 256 << 10, 8, sessions})
			}
		}
	}
	return all
}

// Name is short and without spaces: hot-rr-4k-q32-s1.
func (c Cell) Name() string {
	return fmt.Sprintf("%s-%s-%dk-q%d-s%d", c.cache(), c.Mode, c.Block>>10, c.Depth, c.Sessions)
}

func (c Cell) cache() string {
	if c.Cold {
		return "cold"
	}
	return "hot"
}

// Title is for people: "4 KiB random read, QD 32, 16 sessions".
func (c Cell) Title() string {
	words := map[byte]string{'r': "random", 's': "sequential"}
	verbs := map[byte]string{'r': "read", 'w': "write"}
	s := fmt.Sprintf("%d KiB %s %s, QD %d", c.Block>>10, words[c.Mode[0]], verbs[c.Mode[1]], c.Depth)
	if c.Sessions > 1 {
		s += fmt.Sprintf(", %d sessions", c.Sessions)
	}
	return s
}

func (c Cell) writes() bool { return c.Mode[1] == 'w' }

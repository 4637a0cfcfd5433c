package main

import "fmt"

var names = [3]string{"a", "b", "c"}

// promises is what the file says of the LUNs, in their order.
type promises [3]string

// load is what an initiator does to one LUN.
type load struct {
	lun   int
	mode  string
	block int
	depth int
}

// testCase is loads at once, and what was promised.
type testCase struct {
	name, title string
	loads       []load
	// promises may depend on what all LUNs do together without any.
	promises func(capacity float64) promises
	// owed is the part of all accesses that each LUN is promised, 0 where nothing
	// is; per is what the promise of a number is a part of.
	owed func(capacity float64) [3]owed
}

// owed is a promise to one LUN.
type owed struct {
	ratio float64 // to the accesses of LUN a, 0 for none
	least float64 // accesses a second
	exact float64
}

func reads(depth int) []load {
	return []load{{0, "rr", 4096, depth}, {1, "rr", 4096, depth}, {2, "rr", 4096, depth}}
}

// flood is a's single access at a time beside 256 of b and c.
func flood() []load { return []load{{0, "rr", 4096, 1}, {1, "rr", 4096, 128}, {2, "rr", 4096, 128}} }

func nothing(float64) promises { return promises{} }

func cases() []testCase {
	return []testCase{
		{"free", "no promise, QD 128 each", reads(128), nothing, nil},
		{"shares", "shares 100, 200, 400, QD 128 each", reads(128),
			func(float64) promises { return promises{", shares: 100", ", shares: 200", ", shares: 400"} },
			func(float64) [3]owed { return [3]owed{{}, {ratio: 2}, {ratio: 4}} }},
		{"all", "a a reservation of 0.4, b a limit of a tenth, c nothing; QD 128 each", reads(128),
			func(c float64) promises {
				return promises{fmt.Sprintf(", reservation: {iops: %.0f}, shares: 1", 0.4*c), fmt.Sprintf(", limit: {iops: %.0f}", c/10), ""}
			},
			func(c float64) [3]owed { return [3]owed{{least: 0.4 * c}, {exact: c / 10}, {}} }},
		{"alone", "a alone, QD 1", flood()[:1], nothing, nil},
		{"flood", "a QD 1 beside b and c QD 128, no promise", flood(), nothing, nil},
		{"shelter", "the same, a with a reservation", flood(),
			func(c float64) promises { return promises{fmt.Sprintf(", reservation: {iops: %.0f}", c/4), "", ""} }, nil},
	}
}

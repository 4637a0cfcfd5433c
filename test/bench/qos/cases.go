package main

import (
	"fmt"

	"ripstop/test/bench/figures"
)

var names = [3]string{"a", "b", "c"}

// free is the case without a promise, which the promises of others depend on.
const free = "free"

// promises is what the file says of the LUNs, in their order.
type promises [3]string

// testCase is loads at once, and what was promised.
type testCase struct {
	name, title string
	loads       []figures.Load
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

// reads are random ones of 4 KiB from the first LUNs, each with so many under way.
func reads(depths ...int) (loads []figures.Load) {
	for lun, depth := range depths {
		loads = append(loads, figures.Load{Mode: "rr", Block: 4096, Depth: depth, LUN: lun})
	}
	return loads
}

func nothing(float64) promises { return promises{} }

func cases() []testCase {
	return []testCase{
		{free, "no promise, QD 128 each", reads(128, 128, 128), nothing, nil},
		{"shares", "shares 100, 200, 400, QD 128 each", reads(128, 128, 128),
			func(float64) promises { return promises{", shares: 100", ", shares: 200", ", shares: 400"} },
			func(float64) [3]owed { return [3]owed{{}, {ratio: 2}, {ratio: 4}} }},
		{"all", "a a reservation of 0.4, b a limit of a tenth, c nothing; QD 128 each", reads(128, 128, 128),
			func(c float64) promises {
				return promises{fmt.Sprintf(", reservation: {iops: %.0f}, shares: 1", 0.4*c), fmt.Sprintf(", limit: {iops: %.0f}", c/10), ""}
			},
			func(c float64) [3]owed { return [3]owed{{least: 0.4 * c}, {exact: c / 10}, {}} }},
		{"alone", "a alone, QD 1", reads(1), nothing, nil},
		{"flood", "a QD 1 beside b and c QD 128, no promise", reads(1, 128, 128), nothing, nil},
		{"shelter", "the same, a with a reservation", reads(1, 128, 128),
			func(c float64) promises { return promises{fmt.Sprintf(", reservation: {iops: %.0f}", c/4), "", ""} }, nil},
	}
}

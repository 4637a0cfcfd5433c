// Command next builds the variants of ripstop that the tests in test/gap replace
// each other with, for a machine that has no compiler: next DIR
package main

import (
	"fmt"
	"os"

	"ripstop/test/gap"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: next DIR")
		os.Exit(2)
	}
	for _, v := range []gap.Variant{gap.Program, gap.Layout} {
		if err := gap.Build(os.Args[1], v); err != nil {
			fmt.Fprintln(os.Stderr, "next:", err)
			os.Exit(1)
		}
	}
}

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ripstop/internal/conformance"
)

// table holds the results of all targets.
type table struct {
	tests   []string
	targets []string
	results map[string]map[string]conformance.Result // by target and test
}

func newTable(tests []string, prefix string) *table {
	t := &table{results: map[string]map[string]conformance.Result{}}
	for _, name := range tests {
		if strings.HasPrefix(name, prefix) {
			t.tests = append(t.tests, name)
		}
	}
	return t
}

func (t *table) add(target string, results map[string]conformance.Result) {
	t.targets = append(t.targets, target)
	t.results[target] = results
}

// count is how many tests of a family ended so; every family where it is "".
func (t *table) count(target, family string, results ...conformance.Result) int {
	n := 0
	for test, r := range t.results[target] {
		if (family == "" || conformance.Family(test) == family) && slices.Contains(results, r) {
			n++
		}
	}
	return n
}

// families is one row for each family, as Markdown.
func (t *table) families() string {
	var b strings.Builder
	b.WriteString("\n| family | tests |")
	for _, name := range t.targets {
		fmt.Fprintf(&b, " %s pass | fail | crash, hang | skip |", name)
	}
	b.WriteString("\n|---|--:|" + strings.Repeat("--:|", 4*len(t.targets)) + "\n")
	var families []string
	for _, test := range t.tests {
		if f := conformance.Family(test); !slices.Contains(families, f) {
			families = append(families, f)
		}
	}
	for _, f := range families {
		t.row(&b, f, f)
	}
	t.row(&b, "", "**all**")
	return b.String()
}

func (t *table) row(b *strings.Builder, family, title string) {
	n := 0
	for _, test := range t.tests {
		if family == "" || conformance.Family(test) == family {
			n++
		}
	}
	fmt.Fprintf(b, "| %s | %d |", title, n)
	for _, target := range t.targets {
		for _, results := range [][]conformance.Result{{conformance.Pass}, {conformance.Fail}, {conformance.Crash, conformance.Hang}, {conformance.Skip}} {
			n := t.count(target, family, results...)
			switch {
			case n == 0:
				b.WriteString(" · |")
			case family == "":
				fmt.Fprintf(b, " **%d** |", n)
			default:
				fmt.Fprintf(b, " %d |", n)
			}
		}
	}
	b.WriteString("\n")
}

// document is docs/conformance.md.
func (t *table) document(exceptions map[string]conformance.Exception) string {
	var b strings.Builder
	b.WriteString(`# iSCSI conformance: ripstop beside tgtd and gotgt

Written by ` + "`make conformance`" + `: every test of libiscsi 1.19's iscsi-test-cu in a process of its own, with ` + "`-d -S -V`" + `, two
portals and ` + fmt.Sprint(conformance.Limit) + ` at most, on a LUN of 1 GiB with blocks of 512 bytes. tgtd is Debian's 1.0.85 with thin_provisioning=1, gotgt is
v0.2.2; a target that dies is started again for the next test. A pass says what the test saw: gotgt answers GOOD to WRITE SAME
and UNMAP and changes nothing, and passes some of their tests so.
`)
	b.WriteString(t.families())
	if _, ok := t.results["ripstop"]; ok {
		b.WriteString("\n## What ripstop does not pass, and why\n\n| test | result | reason |\n|---|---|---|\n")
		for _, test := range t.tests {
			if r := t.results["ripstop"][test]; r != conformance.Pass {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", test, r, exceptions[test].Reason)
			}
		}
	}
	for _, target := range t.targets {
		if target != "ripstop" {
			t.failures(&b, target)
		}
	}
	return b.String()
}

// failures lists what another target fails.
func (t *table) failures(b *strings.Builder, target string) {
	by := map[conformance.Result][]string{}
	for _, test := range t.tests {
		r := t.results[target][test]
		by[r] = append(by[r], test)
	}
	fmt.Fprintf(b, "\n## What %s fails\n", target)
	for _, r := range slices.Sorted(maps.Keys(by)) {
		if r != conformance.Pass && r != conformance.Skip {
			fmt.Fprintf(b, "\n%s: %s\n", r, strings.Join(by[r], ", "))
		}
	}
}

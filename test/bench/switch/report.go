package main

import (
	"fmt"
	"strings"

	"ripstop/test/bench/figures"
)

// table is all figures as a Markdown table: medians, and the spread of the
// ratios to the plain bridge.
func (r Results) table() string {
	var b strings.Builder
	b.WriteString("\n| load | dataplane | rate | p50 µs | p99 µs | ÷ bridge (rounds) | ÷ VLAN-aware bridge |\n|---|---|--:|--:|--:|---|---|\n")
	for _, c := range r.Samples.Cells() {
		r.rows(&b, c)
	}
	return b.String()
}

func (r Results) rows(b *strings.Builder, c Cell) {
	title := c.Title()
	for _, plane := range planes {
		if len(r.Samples.Of(c, plane)) == 0 {
			if fault := r.Samples.Fault(c, plane); fault != "" {
				fmt.Fprintf(b, "| %s | %s | no figures: %s | | | | |\n", title, plane, fault)
				title = ""
			}
			continue
		}
		fmt.Fprintf(b, "| %s | %s | %.3g %s | %s | %s | %s | %s |\n", title, plane, r.Samples.Value(c, plane, rate).Median, c.unit(),
			micros(r.Samples.Value(c, plane, p50)), micros(r.Samples.Value(c, plane, p99)),
			ratioText(r.Samples.Ratio(c, plane, plain, rate), plane == plain), ratioText(r.Samples.Ratio(c, plane, vlan, rate), plane == plain || plane == vlan))
		title = ""
	}
}

func micros(s figures.Spread) string {
	if s.Median == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", s.Median)
}

func ratioText(s figures.Spread, same bool) string {
	if !s.OK() || same {
		return ""
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.Median, s.Least, s.Most)
}

// toBridge ends the name of a figure.
const toBridge = ": ebpf ÷ bridge"

// goalList holds what was measured against what is owed.
func (r Results) goalList() []figures.Goal {
	var list []figures.Goal
	for _, c := range r.Samples.Cells() {
		bound := 1.0
		if c.counted() {
			bound = 1.2
		}
		list = append(list,
			figures.Goal{What: c.Title() + toBridge, Least: true, Bound: bound, Have: r.Samples.Ratio(c, ours, plain, rate)},
			figures.Goal{What: c.Title() + ": ebpf ÷ VLAN-aware bridge", Least: true, Bound: bound, Have: r.Samples.Ratio(c, ours, vlan, rate)})
	}
	return list
}

// bounds are the loads that missed, and of which more is owed than there is
// without a switch.
func (r Results) bounds() string {
	var b strings.Builder
	for _, c := range r.Samples.Cells() {
		for _, g := range r.goalList() {
			bound := r.Samples.Ratio(c, direct, plain, rate)
			if g.What == c.Title()+toBridge && !g.Met() && bound.Median < g.Bound {
				fmt.Fprintf(&b, "| %s | ≥ %.1f | %.2f (%.2f–%.2f) |\n", c.Title(), g.Bound, bound.Median, bound.Least, bound.Most)
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "\nOf these that missed, more is owed than there is with nothing, or the least, between the ports:\n\n| load | owed | direct ÷ bridge (rounds) |\n|---|---|---|\n" + b.String()
}

// goals is the list as a Markdown table.
func (r Results) goals() string { return figures.Goals(r.goalList(), 1) }

// document is docs/benchmarks/NAME.md.
func (r Results) document(name string) string {
	f := r.Facts
	var b strings.Builder
	fmt.Fprintf(&b, `# The switch beside the kernel's bridges

![rates in relation to the bridge](%s.svg)

Written by %s on %s. Each load ran %g s on each dataplane in turn, %d rounds, odd rounds backwards;
figures are medians, ratios are taken round by round with the least and the most in brackets. The load runs on the same machine and takes
its share, so only the ratios count. Packets, floods and round trips are made by one thread on CPU 0, on which the kernel carries them to their
receiver, too; streams have their sender on CPU 0 and their receiver on CPU 1, unless the load says otherwise. What comes out is counted, not what goes in.
Packets go to all ports in turn. Filters let the packets pass: of ebpf, groups that know connections, at both ports; of the bridges, two rules of
nftables with connections (br_netfilter), or in the family of bridges without. The VM of some loads is a kernel in a namespace whose tap is joined to the switch's by two threads, which share the CPUs.

| | |
|---|---|
| processor | %s, %d cores |
| memory | %.0f GiB |
| kernel | %s |
| load average of the machine | %s before, %s after |
| bridge | ip link add type bridge |
| vlan | the same with vlan_filtering 1, where the kernel has it |
| ebpf | ripstop, dataplane: ebpf |
| ripstop-bridge | ripstop, dataplane: bridge, with its guard at each port |
| direct | a veth pair, nothing between its ends; with taps, and for the large FDB, two devices and a program that does nothing but bpf_redirect from one to the other; for floods, one that does nothing but bpf_clone_redirect to all ports at once |

## What is owed
%s%s
## All figures
%s`, name, "`"+f.Command+"`", f.When.Format("2006-01-02 15:04 MST"), f.Seconds, f.Rounds, f.CPU, f.Cores, f.MemoryGiB, f.Kernel,
		f.LoadBefore, f.LoadAfter, r.goals(), r.bounds(), r.table())
	return b.String()
}

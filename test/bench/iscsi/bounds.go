package main

import (
	"fmt"
	"strings"
)

// bounds says what holds up the loads whose goal may be out of reach on a machine
// where the load runs too, by figures of the same run.
func (r Results) bounds() string {
	var b strings.Builder
	b.WriteString("## What bounds them\n")
	if t := r.sessionBounds(); t != "" {
		b.WriteString("\n" + sessionsText + "\n" + t + "\n" + inodeText)
	}
	if t := r.coldBounds(); t != "" {
		b.WriteString("\n" + coldText + "\n" + t)
	}
	if t := r.turnsBounds(); t != "" {
		b.WriteString("\n" + turnsText + "\n" + t)
	}
	return b.String()
}

const sessionsText = `**16 sessions.** One session at depth 32 already keeps most of the processors busy, so 16 sessions can be faster only by what each I/O
then costs less. For the figure that is owed, target and load together may take no more of a processor for each I/O than all processors
have: what the load takes of that leaves the rest for the target. The load is libiscsi's, which makes one send(2) and one recv(2) or more
for each I/O.
`

const inodeText = `Writes into one file also take turns at its inode. fio without any target, all in the page cache, with 16 threads and with one:

    fio --name=d --filename=FILE --ioengine=psync --rw=randwrite --invalidate=0 --bs=4k --numjobs=16 --group_reporting --time_based --norandommap --thread --runtime=1s
`

const coldText = `**Cold, depth 32.** What the load takes of a processor for each I/O is least where the answers come from memory, in the hot cell. One
session is one thread of the load, so that no target can have more from it than the first bound. The second is all processors, divided by what
load, disk (fio's processor time) and target (its time in the hot cell) take together: it would need a disk that never waits for them.
`

const turnsText = `The disk of a virtual machine tells of completions in lumps. The target sends a lump of answers, and libiscsi reads all answers that are there before it
sends the next commands, as strace -T of the target shows: some 30 commands come with one recv(2), all answers go with one sendmsg(2). So disk and load
take turns, whatever is between them. "In turns" is fio alone that waits for all 32 before it begins the next; what the load takes of its thread for a
read comes on top of that, with a target that takes no time at all:
`

// sessionBounds is what the target may take for each I/O of 16 sessions at depth
// 32, to have 1.5 times what one session has.
func (r Results) sessionBounds() string {
	var b strings.Builder
	for _, c := range r.cells() {
		if c.Cold || c.Sessions != 16 || c.Depth != 32 {
			continue
		}
		one := c
		one.Sessions = 1
		alone, load, took := r.median(one, "ripstop", iops), r.median(c, "ripstop", loadCPU), r.median(c, "ripstop", cpu)
		if alone == 0 || load == 0 {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("| load | one session: IOPS | cores in use | 1.5 times that needs: µs per I/O | the load takes | leaves the target | it takes |\n|---|--:|--:|--:|--:|--:|--:|\n")
		}
		needs := float64(r.Facts.Cores) * 1e6 / (1.5 * alone)
		fmt.Fprintf(&b, "| %s | %.0f | %.1f | %.1f | %.1f | %.1f | %.1f |\n", one.Title(), alone, r.median(one, "ripstop", busy), needs, load, needs-load, took)
	}
	return b.String()
}

// coldBounds is what cold loads at depth 32 could have at most.
func (r Results) coldBounds() string {
	var b strings.Builder
	for _, c := range r.cells() {
		if !c.Cold || c.Sessions != 1 || c.Depth != 32 {
			continue
		}
		hot := c
		hot.Cold = false
		load, target, disk := r.median(hot, "ripstop", loadCPU), r.median(hot, "ripstop", cpu), r.median(c, "fio", cpu)
		alone := r.median(c, "fio", iops)
		if load == 0 || disk == 0 {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("| load | fio: IOPS | its CPU µs per I/O | load's, hot | target's, hot | one thread of the load: IOPS | ÷ fio | all processors: IOPS | ÷ fio |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
		}
		thread, machine := 1e6/load, float64(r.Facts.Cores)*1e6/(load+target+disk)
		fmt.Fprintf(&b, "| %s | %.0f | %.1f | %.1f | %.1f | %.0f | %.2f | %.0f | %.2f |\n", c.Title(), alone, disk, load, target,
			thread, thread/alone, machine, machine/alone)
	}
	return b.String()
}

// turnsBounds is what cold reads at depth 32 could have at most of a disk that takes
// turns with the load.
func (r Results) turnsBounds() string {
	var b strings.Builder
	for _, c := range r.cells() {
		hot := c
		hot.Cold = false
		alone, turns, load := r.median(c, "fio", iops), r.median(c, inTurns, iops), r.median(hot, "ripstop", loadCPU)
		if !(turns > 0 && load > 0) { // NaN where it was not measured
			continue
		}
		if b.Len() == 0 {
			b.WriteString("| load | fio: IOPS | in turns: IOPS | ÷ fio | the load takes, µs | with it: IOPS | ÷ fio | ripstop ÷ that |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
		}
		most := 1e6 / (1e6/turns + load)
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %.1f | %.0f | %.2f | %.2f |\n", c.Title(), alone, turns, turns/alone, load,
			most, most/alone, r.median(c, "ripstop", iops)/most)
	}
	return b.String()
}

func (r Results) median(c Cell, target string, figure func(Sample) float64) float64 {
	return r.Samples.Value(c, target, figure).Median
}

func loadCPU(s Sample) float64 { return s.Load }

// Package figures is what the benchmarks share: facts about the machine, medians
// with their spread, the list of what is owed, and pieces of pictures.
package figures

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Facts are about the machine and the run.
type Facts struct {
	When                  time.Time
	CPU, Kernel, Filesys  string
	Cores                 int
	MemoryGiB             float64
	LoadBefore, LoadAfter string  // of /proc/loadavg
	Command               string  // how it was called
	Seconds               float64 // of one measurement
	Rounds                int
	SizeMiB               int64 // of each LUN
}

// Of is the facts of a machine that measures in a directory.
func Of(dir string) Facts {
	var u unix.Utsname
	var i unix.Sysinfo_t
	f := Facts{When: time.Now().UTC(), LoadBefore: LoadAverage()}
	if unix.Uname(&u) == nil {
		f.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if unix.Sysinfo(&i) == nil {
		f.MemoryGiB = float64(i.Totalram) * float64(i.Unit) / (1 << 30)
	}
	for line := range strings.Lines(readFile("/proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			f.CPU = strings.TrimSpace(value)
			f.Cores++
		}
	}
	f.Filesys = fileSystem(dir)
	return f
}

// LoadAverage is that of /proc/loadavg, over 1, 5 and 15 minutes.
func LoadAverage() string {
	return strings.Join(strings.Fields(readFile("/proc/loadavg"))[:3], " ")
}

func fileSystem(dir string) string {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return "unknown"
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs"}
	if n, ok := names[int64(s.Type)]; ok {
		return n
	}
	return fmt.Sprintf("type %#x", s.Type)
}

func readFile(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return string(b)
}

// Spread is a median with the least and the most of all rounds.
type Spread struct{ Median, Least, Most float64 }

// OK tells whether there is a figure.
func (s Spread) OK() bool { return !math.IsNaN(s.Median) }

// SpreadOf is that of values; of none it is not OK.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{math.NaN(), math.NaN(), math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (m + v[len(v)/2-1]) / 2
	}
	return Spread{m, v[0], v[len(v)-1]}
}

// Goal is one figure that is owed.
type Goal struct {
	What  string
	Least bool // the figure has to be at least Bound, at most otherwise
	Bound float64
	Have  Spread
}

// Met tells whether the median is as owed.
func (g Goal) Met() bool {
	if g.Least {
		return g.Have.Median >= g.Bound
	}
	return g.Have.Median <= g.Bound
}

// Goals is the list as a Markdown table, of those that were measured. Digits are
// those behind the point of what is owed.
func Goals(list []Goal, digits int) string {
	var b strings.Builder
	b.WriteString("\n| figure | owed | measured (rounds) | |\n|---|---|---|---|\n")
	for _, g := range list {
		if !g.Have.OK() {
			continue
		}
		sign, verdict := "≤", "missed"
		if g.Least {
			sign = "≥"
		}
		if g.Met() {
			verdict = "met"
		}
		fmt.Fprintf(&b, "| %s | %s %.*f | %.2f (%.2f–%.2f) | %s |\n", g.What, sign, digits, g.Bound, g.Have.Median, g.Have.Least, g.Have.Most, verdict)
	}
	return b.String()
}

// Text is a piece of SVG.
func Text(b *strings.Builder, x, y float64, anchor string, size int, color, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" fill="%s">%s</text>`+"\n", x, y, anchor, size, color, s)
}

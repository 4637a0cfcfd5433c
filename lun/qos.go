package lun

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// QoS is what LUNs and targets are promised of their pools and allowed to take,
// wanted or observed. It names every LUN of a pool in which a promise is made,
// because who was promised nothing shares what is left, and no other LUN.
type QoS struct {
	LUNs    map[string]Share
	Targets map[string]Policy // those with a policy of their own
}

// Share is the part of a pool that a LUN may take.
type Share struct {
	Policy
	Pool   string
	Target string // whose policy holds for it too; "" for none
}

// Policy is reservation, limit and shares.
type Policy struct {
	Reservation Rate          // what it gets whatever others do, as long as the pool can do it
	Limit       Rate          // the most that it gets
	Burst       time.Duration // how long it may save what it does not use of its limit
	Shares      int           // its part of what is not reserved, towards others'; 0 is DefaultShares
}

// Rate is accesses and bytes a second, each 0 where it does not matter.
type Rate struct {
	IOPS      int64
	Bandwidth int64 // bytes a second
}

// Delay is what waiting for its turn has cost a LUN since it has a Share.
type Delay struct {
	Accesses int64         // that waited
	Waited   time.Duration // all of them together
}

// DefaultShares is the part of who has no shares of its own.
const DefaultShares = 100

// Ranked tells whether the policy is about more than the one that has it: whose
// turn comes first.
func (p Policy) Ranked() bool { return p.Shares != 0 || p.Reservation != Rate{} }

// String is the policy in the file's words: limit 5000 IOPS 200MiB/s burst 1s, shares 400.
func (p Policy) String() string {
	var parts []string
	if p.Reservation != (Rate{}) {
		parts = append(parts, "reservation "+p.Reservation.String())
	}
	if p.Limit != (Rate{}) {
		text := "limit " + p.Limit.String()
		if p.Burst != 0 {
			text += " burst " + durationText(p.Burst)
		}
		parts = append(parts, text)
	}
	if p.Shares != 0 {
		parts = append(parts, fmt.Sprintf("shares %d", p.Shares))
	}
	if len(parts) == 0 {
		return "no promise"
	}
	return strings.Join(parts, ", ")
}

// String is 5000 IOPS 200MiB/s.
func (r Rate) String() string {
	var parts []string
	if r.IOPS != 0 {
		parts = append(parts, fmt.Sprintf("%d IOPS", r.IOPS))
	}
	if r.Bandwidth != 0 {
		parts = append(parts, bandwidthText(r.Bandwidth))
	}
	return strings.Join(parts, " ")
}

// bandwidthText is n bytes a second with the largest prefix that keeps it whole.
func bandwidthText(n int64) string {
	for _, u := range []struct {
		word  string
		times int64
	}{{"TiB/s", 1 << 40}, {"GiB/s", 1 << 30}, {"MiB/s", 1 << 20}, {"KiB/s", 1 << 10}} {
		if n%u.times == 0 {
			return fmt.Sprintf("%d%s", n/u.times, u.word)
		}
	}
	return fmt.Sprintf("%dB/s", n)
}

// Of is the share of a LUN or of a snapshot of one, which counts as its LUN does.
func (q QoS) Of(name string) (Share, bool) {
	if s, ok := q.LUNs[name]; ok {
		return s, true
	}
	if of, _, ok := SplitSnapshot(name); ok {
		s, ok := q.LUNs[of]
		return s, ok
	}
	return Share{}, false
}

// Describe is one line for each policy, by "qos/NAME".
func (q QoS) Describe() map[string]string {
	out := make(map[string]string, len(q.LUNs)+len(q.Targets))
	for name, s := range q.LUNs {
		out["qos/"+name] = s.describe()
	}
	for name, p := range q.Targets {
		out["qos/"+name] = p.String()
	}
	return out
}

func (s Share) describe() string {
	text := s.Policy.String() + ", in pool " + s.Pool
	if s.Target != "" {
		text += ", through " + s.Target
	}
	return text
}

// DiffQoS is the steps that make the policies what is wanted.
func DiffQoS(want, have QoS) []QoSStep {
	var out []QoSStep
	for _, name := range slices.Sorted(maps.Keys(want.Targets)) {
		if from, ok := have.Targets[name]; !ok || from != want.Targets[name] {
			out = append(out, SetPolicy{name, want.Targets[name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.LUNs)) {
		if from, ok := have.LUNs[name]; !ok || from != want.LUNs[name] {
			out = append(out, SetShare{name, want.LUNs[name]})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.LUNs)) {
		if _, ok := want.LUNs[name]; !ok {
			out = append(out, LiftShare{name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.Targets)) {
		if _, ok := want.Targets[name]; !ok {
			out = append(out, LiftPolicy{name})
		}
	}
	return out
}

// QoSStep is one change of policies. The set is closed: SetPolicy, SetShare,
// LiftShare and LiftPolicy. None disturbs an access.
type QoSStep interface {
	fmt.Stringer
	// Object is "qos/NAME".
	Object() string
	// Removes tells whether a policy goes.
	Removes() bool
	// Disturbs is empty.
	Disturbs() string
	apply(QoS)
}

// SetPolicy is what a target may take.
type SetPolicy struct {
	Target string
	Policy Policy
}

// SetShare is what a LUN may take.
type SetShare struct {
	LUN   string
	Share Share
}

// LiftShare lets a LUN take what it wants.
type LiftShare struct{ LUN string }

// LiftPolicy lets a target take what it wants.
type LiftPolicy struct{ Target string }

// String is a comment.
func (s SetPolicy) String() string { return fmt.Sprintf("# target %s: %s", s.Target, s.Policy) }

// String is a comment.
func (s SetShare) String() string { return fmt.Sprintf("# LUN %s: %s", s.LUN, s.Share.describe()) }

// String is a comment.
func (s LiftShare) String() string { return fmt.Sprintf("# LUN %s: no promise, no limit", s.LUN) }

// String is a comment.
func (s LiftPolicy) String() string {
	return fmt.Sprintf("# target %s: no promise, no limit", s.Target)
}

// Object is "qos/TARGET".
func (s SetPolicy) Object() string { return "qos/" + s.Target }

// Object is "qos/LUN".
func (s SetShare) Object() string { return "qos/" + s.LUN }

// Object is "qos/LUN".
func (s LiftShare) Object() string { return "qos/" + s.LUN }

// Object is "qos/TARGET".
func (s LiftPolicy) Object() string { return "qos/" + s.Target }

// Removes is false.
func (SetPolicy) Removes() bool { return false }

// Removes is false.
func (SetShare) Removes() bool { return false }

// Removes is true.
func (LiftShare) Removes() bool { return true }

// Removes is true.
func (LiftPolicy) Removes() bool { return true }

// Disturbs is empty.
func (SetPolicy) Disturbs() string { return "" }

// Disturbs is empty.
func (SetShare) Disturbs() string { return "" }

// Disturbs is empty.
func (LiftShare) Disturbs() string { return "" }

// Disturbs is empty.
func (LiftPolicy) Disturbs() string { return "" }

func (s SetPolicy) apply(q QoS)  { q.Targets[s.Target] = s.Policy }
func (s SetShare) apply(q QoS)   { q.LUNs[s.LUN] = s.Share }
func (s LiftShare) apply(q QoS)  { delete(q.LUNs, s.LUN) }
func (s LiftPolicy) apply(q QoS) { delete(q.Targets, s.Target) }

// Do gives the policies after a step; q stays as it is.
func (q QoS) Do(s QoSStep) QoS {
	out := q.Clone()
	s.apply(out)
	return out
}

// Clone is a copy that shares nothing with q.
func (q QoS) Clone() QoS {
	out := QoS{LUNs: map[string]Share{}, Targets: map[string]Policy{}}
	maps.Copy(out.LUNs, q.LUNs)
	maps.Copy(out.Targets, q.Targets)
	return out
}

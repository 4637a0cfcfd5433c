package iscsi

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Step is one change of the targets. The set is closed: AddTarget, SetTarget,
// DelTarget and Dismiss. String is written in the words of targetcli, secrets hidden.
type Step interface {
	fmt.Stringer
	// Object is "target/IQN".
	Object() string
	// Removes tells whether the step only takes away.
	Removes() bool
	// Disturbs says which sessions end and which LUNs disappear.
	Disturbs() string

	apply(targets map[string]Target)
}

// AddTarget starts serving a target.
type AddTarget struct {
	Name   string
	Target Target
}

// SetTarget changes a target while it serves. Sessions go on, but for those
// that Ends names; LUNs appear in and disappear from the sessions that stay.
type SetTarget struct {
	Name     string
	From, To Target
}

// DelTarget ends every session of a target and serves it no more.
type DelTarget struct {
	Name string
}

// Dismiss asks initiators to log out that may not come any more from where they
// are, and waits until they have, or for as long as they are given for it. It is
// done before the tunnel changes through which they do it. To is From but for
// where initiators may come from.
type Dismiss struct {
	Name     string
	From, To Target
}

// String is the targetcli commands.
func (s AddTarget) String() string {
	lines := append([]string{"targetcli /iscsi create " + s.Name}, s.Target.commands(s.Name, Target{})...)
	return strings.Join(lines, "\n")
}

// String is the targetcli commands.
func (s SetTarget) String() string {
	return strings.Join(s.To.commands(s.Name, s.From), "\n")
}

// String is the targetcli command.
func (s DelTarget) String() string { return "targetcli /iscsi delete " + s.Name }

// String is the targetcli commands.
func (s Dismiss) String() string { return strings.Join(s.To.commands(s.Name, s.From), "\n") }

// Object is "target/IQN".
func (s Dismiss) Object() string { return "target/" + s.Name }

// Removes is false: nothing that is there goes, and it is not to wait for what comes.
func (Dismiss) Removes() bool { return false }

// Disturbs names the initiators whose sessions end.
func (s Dismiss) Disturbs() string { return SetTarget(s).Disturbs() }

// Object is "target/IQN".
func (s AddTarget) Object() string { return "target/" + s.Name }

// Object is "target/IQN".
func (s SetTarget) Object() string { return "target/" + s.Name }

// Object is "target/IQN".
func (s DelTarget) Object() string { return "target/" + s.Name }

// Removes is false.
func (AddTarget) Removes() bool { return false }

// Removes tells whether the target after the step has nothing that it had not
// before. Diff never mixes: what a target loses and what it gains are two steps,
// for LUNs that it loses are closed, and LUNs that it gains opened, in between.
func (s SetTarget) Removes() bool {
	return !s.From.Equal(s.To) && s.To.Equal(meet(s.From, s.To))
}

// Removes is true.
func (DelTarget) Removes() bool { return true }

// Disturbs is empty.
func (AddTarget) Disturbs() string { return "" }

// Disturbs says that all sessions end.
func (s DelTarget) Disturbs() string { return "ends all sessions of " + s.Name }

// Disturbs names the portals and initiators whose sessions end, and the LUNs
// that others lose.
func (s SetTarget) Disturbs() string {
	var out []string
	for _, p := range missing(s.From.Portals, s.To.Portals) {
		out = append(out, "ends sessions through "+p.String())
	}
	for _, name := range s.named() {
		from, ok := s.From.Admit(name)
		switch to, _ := s.To.Admit(name); {
		case ok && s.refuses(name):
			out = append(out, "ends sessions of "+name)
		case ok:
			out = s.loses(binds(out, name, from, to), name, from, to)
		}
	}
	if s.From.Any == nil {
		return strings.Join(out, "; ")
	}
	if s.To.Any == nil || unproven(*s.From.Any, *s.To.Any) {
		return strings.Join(append(out, "ends sessions of initiators that are not named"), "; ")
	}
	const others = "initiators that are not named"
	return strings.Join(s.loses(binds(out, others, *s.From.Any, *s.To.Any), others, *s.From.Any, *s.To.Any), "; ")
}

// binds appends that sessions of who end which come from elsewhere than they now may.
func binds(out []string, who string, from, to Initiator) []string {
	if !narrows(from, to) {
		return out
	}
	if to.Places != nil && len(to.Places) == 0 || to.Addresses != nil && len(to.Addresses) == 0 {
		return append(out, "ends sessions of "+who)
	}
	return append(out, "ends sessions of "+who+" that do not come "+to.origin())
}

// named is the initiators that the target names before or after the step.
func (s SetTarget) named() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(s.From.Initiators)), maps.Keys(s.To.Initiators))
	slices.Sort(names)
	return slices.Compact(names)
}

// loses appends the LUNs that who sees before the step and not after it.
func (s SetTarget) loses(out []string, who string, from, to Initiator) []string {
	before, after := s.From.Visible(from), s.To.Visible(to)
	for _, n := range slices.Sorted(maps.Keys(before)) {
		if after[n] != before[n] {
			out = append(out, fmt.Sprintf("takes LUN %d (%s) from %s", n, before[n], who))
		}
	}
	return out
}

// Ends tells whether a session of the named initiator, which came from o through
// the portal, ends with the step: because the portal or the initiator's admission
// goes, because it may not come from there any more, or because proof is asked now
// and was not before. A changed secret holds from
// the next login, so that both sides can be changed without a gap.
func (s SetTarget) Ends(initiator string, through Portal, o Origin) bool {
	to, ok := s.To.Admit(initiator)
	return !slices.ContainsFunc(s.To.Portals, through.same) || s.refuses(initiator) || ok && to.Refuses(o) != ""
}

func (s SetTarget) refuses(initiator string) bool {
	from, _ := s.From.Admit(initiator)
	to, ok := s.To.Admit(initiator)
	return !ok || unproven(from, to)
}

func unproven(from, to Initiator) bool { return from.CHAP == nil && to.CHAP != nil }

func (s AddTarget) apply(t map[string]Target) { t[s.Name] = s.Target.clone() }
func (s SetTarget) apply(t map[string]Target) { t[s.Name] = s.To.clone() }
func (s DelTarget) apply(t map[string]Target) { delete(t, s.Name) }
func (s Dismiss) apply(t map[string]Target)   { t[s.Name] = s.To.clone() }

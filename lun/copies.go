package lun

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
)

// Copies is the LUNs that are kept at targets elsewhere, too, wanted or observed. Each
// round brings what has changed since the last one, so what is there is always a
// little older than the LUN.
type Copies struct {
	Of map[string]Copy // by LUN

	Seen map[string]Lag // observed: how the copies stand
}

// Copy is where a LUN is copied to, and how often.
type Copy struct {
	Portal    string   // "host:port"
	Target    string   // its iSCSI name
	LUNs      []uint16 // LUN numbers there; of two one is whole at each moment
	Initiator string   // the iSCSI name by which this host is known there
	CHAP      *Proof   // how this host proves itself; nil gives no proof
	Mutual    *Proof   // how the target must prove itself; nil asks none
	Every     time.Duration
	Held      []string // snapshots of the LUN that targets serve, sorted: they stay
}

// Lag is how a copy stands: a copy of what is known, taken at one moment.
type Lag struct {
	Taken    time.Time // when the LUN was what is whole there; zero before the first round, or as long as nobody knows
	Snapshot string    // of the LUN: what is whole there; "" without any
	Behind   int64     // bytes that have changed since, as far as it is known; -1 where nobody knows
	Left     int64     // of the round under way, bytes that are still to be brought; 0 without one
	Late     bool      // it is older than it should be by far
	Trouble  string    // why the last round failed, and what to do; "" where it did not
}

// Proof is a CHAP name and its secret.
type Proof struct {
	User   string
	Secret Password
}

// Password is a CHAP secret. Every way of printing it gives "(secret)".
type Password string

// String hides the secret.
func (Password) String() string { return "(secret)" }

// GoString hides the secret.
func (Password) GoString() string { return "(secret)" }

// MarshalText hides the secret.
func (Password) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// LogValue hides the secret.
func (Password) LogValue() slog.Value { return slog.StringValue("(secret)") }

// Reveal is the secret itself, for a login and nothing else.
func (p Password) Reveal() string { return string(p) }

// CopyPrefix begins the names of the snapshots that copies are made of.
const (
	CopyPrefix = "copy-"
	copyLayout = CopyPrefix + "20060102T150405.000Z"
)

// CopyName is the name of a snapshot that is made at t for a copy.
func CopyName(t time.Time) string { return t.UTC().Format(copyLayout) }

// IsCopyName tells whether a snapshot of this name was made for a copy.
func IsCopyName(name string) bool { _, err := time.Parse(copyLayout, name); return err == nil }

func (p *Proof) equal(q *Proof) bool { return p == q || p != nil && q != nil && *p == *q }

func (c Copy) equal(d Copy) bool {
	return c.Portal == d.Portal && c.Target == d.Target && slices.Equal(c.LUNs, d.LUNs) && c.Initiator == d.Initiator &&
		c.CHAP.equal(d.CHAP) && c.Mutual.equal(d.Mutual) && c.Every == d.Every && slices.Equal(c.Held, d.Held)
}

// Interval is Every as the file has it.
func (c Copy) Interval() string { return durationText(c.Every) }

func (c Copy) text() string {
	luns := make([]string, len(c.LUNs))
	for i, n := range c.LUNs {
		luns[i] = fmt.Sprint(n)
	}
	return fmt.Sprintf("every %s to LUN %s of %s at %s", c.Interval(), strings.Join(luns, " and "), c.Target, c.Portal)
}

// Clone is a copy that shares nothing with c.
func (c Copies) Clone() Copies {
	out := Copies{Of: map[string]Copy{}, Seen: maps.Clone(c.Seen)}
	for name, x := range c.Of {
		x.LUNs, x.Held = slices.Clone(x.LUNs), slices.Clone(x.Held)
		out.Of[name] = x
	}
	return out
}

// DiffCopies is the steps that turn have into want: copies that end, then those that
// begin or change, each by name.
func DiffCopies(want, have Copies) []CopyStep {
	var out []CopyStep
	for _, name := range slices.Sorted(maps.Keys(have.Of)) {
		if _, ok := want.Of[name]; !ok {
			out = append(out, EndCopy{name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.Of)) {
		to := want.Of[name]
		from, ok := have.Of[name]
		switch {
		case !ok:
			out = append(out, BeginCopy{name, to})
		case !from.equal(to):
			out = append(out, ChangeCopy{name, from, to})
		}
	}
	return out
}

// Describe is one line for each copy, by "copy/LUN".
func (c Copies) Describe() map[string]string {
	out := make(map[string]string, len(c.Of))
	for name, x := range c.Of {
		text := x.text()
		if seen, ok := c.Seen[name]; ok {
			text = seen.text()
		}
		out["copy/"+name] = text
	}
	return out
}

// text is how a copy stands, for people.
func (l Lag) text() string {
	text := "nothing is known of what is there"
	if !l.Taken.IsZero() {
		text = "as of " + l.Taken.UTC().Format(time.RFC3339)
		if l.Behind > 0 {
			text += fmt.Sprintf(", %d bytes behind", l.Behind)
		}
	}
	if l.Left > 0 {
		text += fmt.Sprintf(", %d bytes are on their way", l.Left)
	}
	return text
}

// Waiting is why copies are not what they should be, by object. What helps is to be
// done elsewhere, or by hand.
func (c Copies) Waiting() map[string]string {
	out := map[string]string{}
	for name, seen := range c.Seen {
		switch {
		case seen.Trouble != "":
			out["copy/"+name] = seen.Trouble
		case seen.Taken.IsZero():
			out["copy/"+name] = "nothing whole is there: the first round is under way, or one that was cut off goes on"
		case seen.Late:
			out["copy/"+name] = seen.text() + ": rounds take longer than their interval: write a longer `every:`, or see to a faster network"
		}
	}
	return out
}

// CopyStep is one change of copies. The set is closed: BeginCopy, ChangeCopy and EndCopy.
type CopyStep interface {
	fmt.Stringer
	// Object is "copy/LUN".
	Object() string
	// Removes tells whether the step ends a copy.
	Removes() bool
	// Disturbs is empty.
	Disturbs() string

	apply(c *Copies) error
}

// BeginCopy has a LUN be copied. What is there of an earlier time is taken up.
type BeginCopy struct {
	LUN  string
	Copy Copy
}

// ChangeCopy has a LUN be copied elsewhere, or otherwise.
type ChangeCopy struct {
	LUN      string
	From, To Copy
}

// EndCopy has a LUN be copied no more; what is there stays, and so do the snapshots
// from which it could go on.
type EndCopy struct {
	LUN string
}

// String is a comment.
func (s BeginCopy) String() string { return "# LUN " + s.LUN + ": copied " + s.Copy.text() }

// String is a comment.
func (s ChangeCopy) String() string {
	from, to := s.From.text(), s.To.text()
	if from == to {
		return "# LUN " + s.LUN + ": copied " + to + ", by another name or secret, or other snapshots stay"
	}
	return "# LUN " + s.LUN + ": copied " + to + ", was " + from
}

// String is a comment.
func (s EndCopy) String() string {
	return "# LUN " + s.LUN + ": copied no more, what is there stays"
}

// Object is "copy/LUN".
func (s BeginCopy) Object() string { return "copy/" + s.LUN }

// Object is "copy/LUN".
func (s ChangeCopy) Object() string { return "copy/" + s.LUN }

// Object is "copy/LUN".
func (s EndCopy) Object() string { return "copy/" + s.LUN }

// Removes is false.
func (BeginCopy) Removes() bool { return false }

// Removes is false.
func (ChangeCopy) Removes() bool { return false }

// Removes is true.
func (EndCopy) Removes() bool { return true }

// Disturbs is empty.
func (BeginCopy) Disturbs() string { return "" }

// Disturbs is empty.
func (ChangeCopy) Disturbs() string { return "" }

// Disturbs is empty.
func (EndCopy) Disturbs() string { return "" }

var errNotCopied = errors.New("it is not copied")

func (s BeginCopy) apply(c *Copies) error {
	c.Of[s.LUN] = s.Copy
	return nil
}

func (s ChangeCopy) apply(c *Copies) error {
	if _, ok := c.Of[s.LUN]; !ok {
		return fmt.Errorf("change the copy of LUN %s: %w", s.LUN, errNotCopied)
	}
	c.Of[s.LUN] = s.To
	return nil
}

func (s EndCopy) apply(c *Copies) error {
	delete(c.Of, s.LUN)
	return nil
}

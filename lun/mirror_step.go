package lun

import (
	"errors"
	"fmt"
)

// AddLeg makes a mirror of a LUN in service: it is in another pool, too, when what it
// has was copied; I/O goes on.
type AddLeg struct {
	Name string
	Pool string // of the new leg
}

// ReturnLeg has a leg of a mirror that was away be brought up to date; I/O goes on.
type ReturnLeg struct {
	Name string
	Pool string
}

// DropLeg has a mirrored LUN be in one pool alone, and deletes what is in the other;
// I/O goes on.
type DropLeg struct {
	Name string
	Pool string // that it leaves
}

// OrderLegs has a mirrored LUN be read from another pool than before.
type OrderLegs struct {
	Name  string
	First string // pool
}

// String is a comment.
func (s AddLeg) String() string {
	return fmt.Sprintf("# LUN %s: mirrored in pool %s, too", s.Name, s.Pool)
}

// String is a comment.
func (s ReturnLeg) String() string {
	return fmt.Sprintf("# LUN %s: its leg in pool %s is brought up to date", s.Name, s.Pool)
}

// String is a comment.
func (s DropLeg) String() string {
	return fmt.Sprintf("# LUN %s: no longer mirrored in pool %s, where its leg is deleted", s.Name, s.Pool)
}

// String is a comment.
func (s OrderLegs) String() string {
	return fmt.Sprintf("# LUN %s: read from pool %s", s.Name, s.First)
}

// Object is "lun/NAME".
func (s AddLeg) Object() string { return "lun/" + s.Name }

// Object is "lun/NAME".
func (s ReturnLeg) Object() string { return "lun/" + s.Name }

// Object is "lun/NAME".
func (s DropLeg) Object() string { return "lun/" + s.Name }

// Object is "lun/NAME".
func (s OrderLegs) Object() string { return "lun/" + s.Name }

// Removes is false.
func (AddLeg) Removes() bool { return false }

// Removes is false.
func (ReturnLeg) Removes() bool { return false }

// Removes is false: its pool may be taken out of service after it.
func (DropLeg) Removes() bool { return false }

// Removes is false.
func (OrderLegs) Removes() bool { return false }

// Disturbs is empty.
func (AddLeg) Disturbs() string { return "" }

// Disturbs is empty.
func (ReturnLeg) Disturbs() string { return "" }

// Disturbs is empty.
func (DropLeg) Disturbs() string { return "" }

// Disturbs is empty.
func (OrderLegs) Disturbs() string { return "" }

var errNoMirror = errors.New("it is no mirror with a leg there")

// in tells whether one of its legs, or all of it, is in a pool.
func (l LUN) in(pool string) bool {
	return l.Pool == pool || l.Mirror != "" && l.Mirror == pool
}

// changeLegs is the steps that have a LUN be in the wanted pools, and what is refused.
// What it was in and shall not be in goes before what it shall be in comes: a third
// leg there never is.
func changeLegs(name string, from, to LUN) (steps []Step, is LUN) {
	is = from
	if is.Mirror == "" && to.Mirror == "" || !is.in(to.Pool) && (to.Mirror == "" || !is.in(to.Mirror)) {
		return nil, is
	}
	for _, p := range []string{from.Pool, from.Mirror} {
		if p == "" || to.in(p) || is.Mirror == "" {
			continue
		}
		steps = append(steps, DropLeg{name, p})
		if is.Away == p {
			is.Away = ""
		}
		if is.Pool == p {
			is.Pool = is.Mirror
		}
		is.Mirror = ""
	}
	if is.Mirror == "" && to.Mirror != "" {
		other := to.Mirror
		if other == is.Pool {
			other = to.Pool
		}
		steps = append(steps, AddLeg{name, other})
		is.Mirror = other
	}
	if is.Pool != to.Pool && is.Mirror != "" {
		steps = append(steps, OrderLegs{name, to.Pool})
		is.Pool, is.Mirror = is.Mirror, is.Pool
	}
	return steps, is
}

func (s AddLeg) apply(st *State) error {
	l, ok := st.LUNs[s.Name]
	if _, pool := st.Pools[s.Pool]; !ok || !pool || l.Mirror != "" || l.Pool == s.Pool {
		return fmt.Errorf("mirror LUN %s in pool %s: one of the two is not in service, or it has two legs", s.Name, s.Pool)
	}
	l.Mirror = s.Pool
	st.LUNs[s.Name] = l
	return nil
}

func (s ReturnLeg) apply(st *State) error {
	l := st.LUNs[s.Name]
	if _, pool := st.Pools[s.Pool]; !pool || l.Away != s.Pool {
		return fmt.Errorf("LUN %s, leg in pool %s: %w", s.Name, s.Pool, errNoMirror)
	}
	l.Away = ""
	st.LUNs[s.Name] = l
	return nil
}

func (s DropLeg) apply(st *State) error {
	l := st.LUNs[s.Name]
	switch {
	case l.Mirror == "" || !l.in(s.Pool) || l.Away != "" && l.Away != s.Pool:
		return fmt.Errorf("LUN %s, leg in pool %s: %w", s.Name, s.Pool, errNoMirror)
	case l.Pool == s.Pool:
		l.Pool = l.Mirror
	}
	l.Mirror, l.Away = "", ""
	st.LUNs[s.Name] = l
	return nil
}

func (s OrderLegs) apply(st *State) error {
	l := st.LUNs[s.Name]
	if !l.in(s.First) {
		return fmt.Errorf("LUN %s, leg in pool %s: %w", s.Name, s.First, errNoMirror)
	}
	if l.Mirror == s.First {
		l.Pool, l.Mirror = l.Mirror, l.Pool
	}
	st.LUNs[s.Name] = l
	return nil
}

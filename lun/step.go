package lun

import (
	"errors"
	"fmt"
	"strings"
)

// Step is one change of the pools and LUNs in service. The set is closed:
// OpenPool, SetPool, ClosePool, OpenLUN, GrowLUN, ReserveLUN, RekeyLUN, SwitchLUN,
// AddLeg, ReturnLeg, DropLeg, OrderLegs, CloseLUN and Refuse. String is
// a command of ripstop or the shell, or a comment where there is no command.
type Step interface {
	fmt.Stringer
	// Object is "pool/NAME" or "lun/NAME".
	Object() string
	// Removes tells whether the step takes something out of service.
	Removes() bool
	// Disturbs says what I/O the step ends.
	Disturbs() string

	apply(s *State) error
}

// OpenPool puts a pool into service; its directory is made when it does not exist.
type OpenPool struct {
	Name string
	Pool Pool
}

// SetPool changes the size, overcommit or way of caching of a pool in service; I/O
// goes on. A pool may become
// smaller than what fills it: nothing is lost, but no new block is given out.
type SetPool struct {
	Name     string
	From, To Pool
}

// ClosePool takes a pool without LUNs out of service; its directory stays.
type ClosePool struct {
	Name string
}

// OpenLUN puts a LUN into service: with the data that are kept under its name
// in the pool, grown to the size where they are shorter, or else empty.
type OpenLUN struct {
	Name string
	LUN  LUN
}

// GrowLUN makes a LUN in service larger; I/O goes on.
type GrowLUN struct {
	Name     string
	From, To int64 // bytes
}

// ReserveLUN makes a LUN in service thick, with room of its pool kept for all of
// its blocks, or thin again; I/O goes on.
type ReserveLUN struct {
	Name  string
	Size  int64 // bytes
	Thick bool
}

// SwitchLUN carries out a move whose data are all in the other pool; I/O goes on.
type SwitchLUN struct {
	Name     string
	From, To string // pools
}

// CloseLUN takes a LUN out of service; its data stay in the pool.
type CloseLUN struct {
	Name string
}

// Refuse is a change that a file cannot make. Doing it changes nothing and is
// the error that says why, so that the object shows it; what is in service
// stays as it is.
type Refuse struct {
	Of  string // the object, "lun/data"
	Why string // "LUN data: why: what to do"
}

// Err is what doing the step gives.
func (s Refuse) Err() error { return errors.New(s.Why) }

// String is the command that makes the directory, which a device does not need.
func (s OpenPool) String() string {
	if strings.HasPrefix(s.Pool.Path, "/dev/") {
		return fmt.Sprintf("# pool %s: %s, on %s", s.Name, s.Pool.limits(), s.Pool.Path)
	}
	return fmt.Sprintf("mkdir -p %s # pool %s: %s", s.Pool.Path, s.Name, s.Pool.limits())
}

// String is a comment.
func (s SetPool) String() string {
	return fmt.Sprintf("# pool %s: %s, was %s", s.Name, s.To.limits(), s.From.limits())
}

// String is a comment.
func (s ClosePool) String() string { return "# pool " + s.Name + ": out of service, its data stay" }

// String is the command of ripstop.
func (s OpenLUN) String() string {
	more := ""
	if s.LUN.Thick {
		more = " --thick"
	}
	if s.LUN.Encryption.On() {
		more += " # encrypted"
	}
	if s.LUN.Mirror != "" {
		more += " # mirrored in pool " + s.LUN.Mirror
	}
	return fmt.Sprintf("ripstop lun create %s --pool %s --size %s --block %d%s",
		s.Name, s.LUN.Pool, bytesText(s.LUN.Size), s.LUN.Block, more)
}

// String is the command of ripstop.
func (s GrowLUN) String() string {
	return fmt.Sprintf("ripstop lun resize %s %s", s.Name, bytesText(s.To))
}

// String is a comment.
func (s ReserveLUN) String() string {
	if s.Thick {
		return fmt.Sprintf("# LUN %s: thick, room for all of its %s is kept", s.Name, bytesText(s.Size))
	}
	return fmt.Sprintf("# LUN %s: thin, others may have the room that it has not written to", s.Name)
}

// String is a comment.
func (s SwitchLUN) String() string {
	return fmt.Sprintf("# LUN %s: moved from pool %s to pool %s", s.Name, s.From, s.To)
}

// String is a comment.
func (s CloseLUN) String() string { return "# LUN " + s.Name + ": out of service, its data stay" }

// String is a comment.
func (s Refuse) String() string { return "# refused: " + s.Why }

// Object is "pool/NAME".
func (s OpenPool) Object() string { return "pool/" + s.Name }

// Object is "pool/NAME".
func (s SetPool) Object() string { return "pool/" + s.Name }

// Object is "pool/NAME".
func (s ClosePool) Object() string { return "pool/" + s.Name }

// Object is "lun/NAME".
func (s OpenLUN) Object() string { return "lun/" + s.Name }

// Object is "lun/NAME".
func (s GrowLUN) Object() string { return "lun/" + s.Name }

// Object is "lun/NAME".
func (s ReserveLUN) Object() string { return "lun/" + s.Name }

// Object is "lun/NAME".
func (s SwitchLUN) Object() string { return "lun/" + s.Name }

// Object is "lun/NAME".
func (s CloseLUN) Object() string { return "lun/" + s.Name }

// Object is what the refused change concerns.
func (s Refuse) Object() string { return s.Of }

// Removes is false.
func (OpenPool) Removes() bool { return false }

// Removes is false.
func (SetPool) Removes() bool { return false }

// Removes is true.
func (ClosePool) Removes() bool { return true }

// Removes is false.
func (OpenLUN) Removes() bool { return false }

// Removes is false.
func (GrowLUN) Removes() bool { return false }

// Removes is false.
func (ReserveLUN) Removes() bool { return false }

// Removes is false.
func (SwitchLUN) Removes() bool { return false }

// Removes is true.
func (CloseLUN) Removes() bool { return true }

// Removes is false.
func (Refuse) Removes() bool { return false }

// Disturbs is empty.
func (OpenPool) Disturbs() string { return "" }

// Disturbs is empty.
func (SetPool) Disturbs() string { return "" }

// Disturbs is empty: a pool is closed after its LUNs.
func (ClosePool) Disturbs() string { return "" }

// Disturbs is empty.
func (OpenLUN) Disturbs() string { return "" }

// Disturbs is empty.
func (GrowLUN) Disturbs() string { return "" }

// Disturbs is empty.
func (ReserveLUN) Disturbs() string { return "" }

// Disturbs is empty.
func (SwitchLUN) Disturbs() string { return "" }

// Disturbs says that I/O ends.
func (s CloseLUN) Disturbs() string { return "ends I/O to LUN " + s.Name }

// Disturbs is empty.
func (Refuse) Disturbs() string { return "" }

package commit

import (
	"fmt"

	"ripstop/controller/config"
	"ripstop/controller/revision"
)

// State is what became of a revision.
type State string

// The states.
const (
	Current   State = "current"   // it runs, and is what a daemon starts with
	OnTrial   State = "trial"     // it runs, and waits for a confirm
	Confirmed State = "confirmed" // it was current, or is what comes back after the trial
	Reverted  State = "reverted"  // it was on trial, and nobody confirmed it
	Damaged   State = "damaged"   // it cannot be read
)

// Entry is a revision of the history.
type Entry struct {
	revision.Note
	State State
}

// History is every revision, oldest first.
func (c *Committer) History() ([]Entry, error) {
	now := c.Now()
	notes, err := c.store.History()
	if err != nil {
		return nil, err
	}
	all := make([]Entry, len(notes))
	for i, n := range notes {
		all[i] = Entry{n, state(n, now)}
	}
	return all, nil
}

func state(n revision.Note, now Now) State {
	switch {
	case n.Damage != nil:
		return Damaged
	case now.Trial != nil && now.Trial.Revision == n.Number:
		return OnTrial
	case now.Revision == n.Number:
		return Current
	case n.Confirmed:
		return Confirmed
	}
	return Reverted
}

// Show gives a revision, its files, and the diff from it to what runs.
func (c *Committer) Show(number int) (e Entry, files []config.File, diff string, err error) {
	now, running := c.Now(), c.Running()
	files, note, err := c.store.Read(number)
	if err != nil {
		return e, nil, "", err
	}
	e = Entry{note, state(note, now)}
	if now.Revision != number {
		diff = c.store.Diff(fmt.Sprint(number), fmt.Sprint(now.Revision), files, running)
	}
	return e, files, diff, nil
}

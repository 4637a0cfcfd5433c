package v1

import "time"

// Apply asks for files to become the host's configuration.
type Apply struct {
	Files []File `json:"files" minItems:"1" doc:"the configuration; several files merge"`
	Asked
}

// Rollback asks for an older revision to become the configuration again.
type Rollback struct {
	Revision int `json:"revision,omitempty" doc:"0 is the confirmed one before the current one or, while one waits for a confirm, the one that comes back without it"`
	Asked
}

// Asked is what goes with a change.
type Asked struct {
	Confirm int    `json:"confirm,omitempty" doc:"seconds within which the change has to be confirmed, 1 to 86400; 0 keeps it at once"`
	By      string `json:"by,omitempty" doc:"who asks, in their own words; nobody checks it"`
	Comment string `json:"comment,omitempty" doc:"why, in one line"`
}

// Trial is a revision that runs and waits for a confirm.
type Trial struct {
	Revision int       `json:"revision"`
	Former   int       `json:"former" doc:"the revision that comes back without a confirm; 0: all is taken down"`
	Deadline time.Time `json:"deadline"`
	Seconds  int       `json:"seconds" doc:"that are left"`
}

// Return is the end of a trial that was taken back.
type Return struct {
	From     int       `json:"from"`
	To       int       `json:"to" doc:"0: all was taken down"`
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`
	Left     int       `json:"left" doc:"steps that were left then to be as before; 0, without errors, is the proof that it was"`
	Problems []Object  `json:"problems" doc:"objects that were not well after it and were before"`
	Errors   []string  `json:"errors" doc:"what could not be observed; belongs to no object"`
}

// Confirmed is what confirm kept.
type Confirmed struct {
	Revision int `json:"revision"`
}

// Revision is a configuration that was applied.
type Revision struct {
	Number  int       `json:"number"`
	State   string    `json:"state" doc:"current, trial: it runs and waits for a confirm, confirmed: it was current or comes back after the trial, reverted: it was never confirmed, damaged"`
	Time    time.Time `json:"time,omitzero" doc:"when it was applied first; absent where it is not known"`
	By      string    `json:"by"`
	Comment string    `json:"comment"`
	Files   []string  `json:"files" doc:"their names"`
	Base    int       `json:"base" doc:"the revision that it replaced; 0 for none"`
	Added   int       `json:"added" doc:"lines more than base"`
	Removed int       `json:"removed" doc:"lines less than base"`
	Seconds int       `json:"seconds,omitempty" doc:"that are left of its trial"`
	Damage  string    `json:"damage,omitempty" doc:"why it cannot be read"`
}

// RevisionText is a revision with its files.
type RevisionText struct {
	Revision Revision `json:"revision"`
	Files    []File   `json:"files"`
	Diff     string   `json:"diff" doc:"a unified diff from it to what runs; empty when they are the same"`
}

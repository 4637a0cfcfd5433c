package controller

import (
	"ripstop/controller/config"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// Host is what Resolve asks of the machine; every function may do I/O.
type Host struct {
	StateDir   string                                    // absolute; relative file names are under it
	Dataplane  func(switchName string) vswitch.Dataplane // what auto means here
	ReadSecret func(path string) (string, error)         // a CHAP secret's or pre-shared key's file
	PrivateKey func(path string) (vpn.Secret, error)     // read, or made when absent
	LookupUser func(name string) (uid string, err error) // decimal uid of a user name
}

// Problem is an object that cannot be what the file asks, and why.
type Problem struct {
	Object string // "kind/name", as reconcile.Step names objects
	Err    error
}

// Resolve turns a valid file into what the host shall be. An object that cannot
// be resolved is left out and becomes a Problem; the others go on. An initiator
// or peer whose secret cannot be read is left out: it is never served without
// its proof.
func Resolve(c *config.Config, h Host) (Desired, []Problem) {
	return Desired{}, nil
}

//go:build vm

package vm

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// TestReservations is what a cluster does with sg_persist: each type of
// reservation keeps the other initiator from what it must, it can be preempted
// and cleared, and it outlives the daemon when that was asked.
func TestReservations(t *testing.T) {
	watchKernel(t)
	d, i := startSAN(t, sanConfig)
	i.enter(storeName, storePortal)
	o := i.another("other", otherHost)
	o.enter(storeName, storePortal)
	holder, other := node{t, i.disk(storeName, 1)}, node{t, o.disk(storeName, 1)}
	for _, c := range []struct {
		kind                        int
		strangerReads, memberWrites bool
	}{
		{1, true, false}, {3, false, false}, {5, true, true}, {6, false, true}, {7, true, true}, {8, false, true},
	} {
		t.Run(fmt.Sprintf("type %d", c.kind), func(t *testing.T) {
			h, o := node{t, holder.dev}, node{t, other.dev}
			h.persist("--register", "--param-sark=a1")
			h.persist("--reserve", "--param-rk=a1", fmt.Sprintf("--prout-type=%d", c.kind))
			h.may(true, true)
			o.may(c.strangerReads, false)
			o.persist("--register", "--param-sark=b2")
			o.may(c.strangerReads || c.memberWrites, c.memberWrites)
			o.refused("--reserve", "--param-rk=b2", "--prout-type=1")
			o.persist("--register", "--param-rk=b2", "--param-sark=0")
			h.persist("--release", "--param-rk=a1", fmt.Sprintf("--prout-type=%d", c.kind))
			o.may(true, true)
			h.persist("--clear", "--param-rk=a1")
		})
	}
	t.Run("preempt and clear", func(t *testing.T) { checkPreempt(node{t, holder.dev}, node{t, other.dev}) })
	t.Run("restart", func(t *testing.T) { checkLasting(d, node{t, holder.dev}, node{t, other.dev}) })
	t.Run("reserve(6)", func(t *testing.T) {
		h, o := node{t, holder.dev}, node{t, other.dev}
		reserve, release := "16 00 00 00 00 00", "17 00 00 00 00 00"
		h.raw(reserve)
		h.may(true, true)
		o.may(false, false)
		if _, err := try(t, "sg_raw", append([]string{o.dev}, strings.Fields(reserve)...)...); err == nil {
			t.Error("RESERVE(6) succeeds under another's")
		}
		h.raw(release)
		o.may(true, true)
		o.raw(reserve)
		h.may(false, false)
	})
	o.logout(storeName, storePortal) // ends its reservation
	holder.may(true, true)
	i.logout(storeName, storePortal)
}

// checkPreempt takes a reservation from its holder, and then everybody's keys.
func checkPreempt(holder, other node) {
	holder.t.Helper()
	holder.persist("--register", "--param-sark=a1")
	holder.persist("--reserve", "--param-rk=a1", "--prout-type=1")
	other.persist("--register", "--param-sark=b2")
	other.persist("--preempt-abort", "--param-rk=b2", "--param-sark=a1", "--prout-type=3")
	holder.told("Registrations preempted")
	holder.may(false, false)
	other.may(true, true)
	other.says([]string{"Key=0xb2", "Exclusive Access\n"}, "--in", "--read-reservation")
	holder.persist("--register", "--param-sark=a1")
	holder.says([]string{"0xa1", "0xb2"}, "--in", "--read-keys")
	holder.persist("--clear", "--param-rk=a1")
	other.told("Reservations preempted")
	other.says([]string{"NO registered reservation keys"}, "--in", "--read-keys")
	holder.may(true, true)
}

// checkLasting restarts the daemon and kills it under a reservation that was
// asked to last, and restarts it under one that was not.
func checkLasting(d *daemon, holder, other node) {
	holder.t.Helper()
	holder.persist("--register", "--param-sark=a1", "--param-aptpl")
	holder.persist("--reserve", "--param-rk=a1", "--prout-type=3")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		d.end(s)
		d.serve()
		holder.may(true, true)
		other.may(false, false)
		holder.says([]string{"Key=0xa1", "<< Reservation holder >>", storeHost + ",i,0x"}, "--in", "--read-full-status")
	}
	holder.persist("--register", "--param-rk=a1", "--param-sark=a2") // without APTPL
	d.end(syscall.SIGTERM)
	d.serve()
	holder.may(true, true) // and ends the unit attention of the restart
	other.may(true, true)
	holder.says([]string{"NO registered reservation keys"}, "--in", "--read-keys")
}

// node is one initiator's disk of a LUN that another has as well.
type node struct {
	t   testing.TB
	dev string
}

// persist sends PERSISTENT RESERVE OUT.
func (n node) persist(args ...string) {
	n.t.Helper()
	run(n.t, "sg_persist", append([]string{"--no-inquiry", "--out"}, append(args, n.dev)...)...)
}

// refused is persist where it must meet a conflict.
func (n node) refused(args ...string) {
	n.t.Helper()
	_, err := try(n.t, "sg_persist", append([]string{"--no-inquiry", "--out"}, append(args, n.dev)...)...)
	if err == nil || !strings.Contains(err.Error(), "Reservation conflict") {
		n.t.Errorf("%v gave %v, want a reservation conflict", args, err)
	}
}

// says fails the test when sg_persist does not print all of want.
func (n node) says(want []string, args ...string) {
	n.t.Helper()
	prints(n.t, run(n.t, "sg_persist", append(args, n.dev)...), want...)
}

// told fails the test when the next command does not end with a unit attention.
func (n node) told(attention string) {
	n.t.Helper()
	if out, _ := try(n.t, "sg_turs", n.dev); !strings.Contains(out, attention) {
		n.t.Errorf("%s is not told %q, but:\n%s", n.dev, attention, out)
	}
}

// raw sends a command without data, in hexadecimal.
func (n node) raw(cdb string) {
	n.t.Helper()
	run(n.t, "sg_raw", append([]string{n.dev}, strings.Fields(cdb)...)...)
}

// may fails the test when reading and writing is not as allowed as told.
func (n node) may(read, write bool) {
	n.t.Helper()
	f, b := direct(n.t, n.dev), aligned(n.t, 4096)
	_, err := f.ReadAt(b, 0)
	n.allowed("read", err, read)
	_, err = f.WriteAt(b, 0)
	n.allowed("write", err, write)
}

// allowed looks at how a request ended: the kernel says EBADE of a conflict.
func (n node) allowed(what string, err error, want bool) {
	n.t.Helper()
	if want && err != nil {
		n.t.Errorf("%s: %v, want that it may", what, err)
	}
	if !want && !errors.Is(err, syscall.EBADE) {
		n.t.Errorf("%s of %s: %v, want a reservation conflict", what, n.dev, err)
	}
}

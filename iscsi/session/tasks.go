package session

import (
	"errors"
	"fmt"

	"ripstop/iscsi/pdu"
)

// Function is a task management function (RFC 7143 section 11.5.1).
type Function uint8

// The functions that initiators use.
const (
	AbortTask       Function = 1
	AbortTaskSet    Function = 2
	ClearACA        Function = 3
	ClearTaskSet    Function = 4
	LUNReset        Function = 5
	TargetWarmReset Function = 6
	TargetColdReset Function = 7
	TaskReassign    Function = 8
)

// Responses to task management (RFC 7143 section 11.6.1).
const (
	FunctionComplete = 0
	NoTask           = 1
	NoLUN            = 2
	NoReassign       = 4
	NotSupported     = 5
)

const (
	maxTasks        = WindowSize * 2
	perTaskOverhead = 512 // bytes that a waiting command costs beside its data
)

// ErrTaskInProgress says that an initiator task tag is in use.
var ErrTaskInProgress = errors.New("the task tag is in use")

// ErrFull says that no further command can wait for its data.
var ErrFull = errors.New("too many commands wait for data")

// Task is a command that waits for data-out.
type Task struct {
	Cmd      pdu.SCSICommand
	CDB      []byte
	Out      []byte // Want bytes long
	Need     int    // bytes that the command takes, whatever the initiator has
	Transfer *Transfer
	Fault    error // why it fails once its data have come
	Aborted  bool  // it will not be answered
}

// Tasks are the commands of a session that wait, bounded in number and bytes.
type Tasks struct {
	limit int
	bytes int
	byITT map[uint32]*Task
}

// NewTasks makes a table that holds up to limit bytes of data-out.
func NewTasks(limit int) *Tasks { return &Tasks{limit: limit, byITT: map[uint32]*Task{}} }

// Len is the number of commands that wait.
func (ts *Tasks) Len() int { return len(ts.byITT) }

// Bytes is what they hold.
func (ts *Tasks) Bytes() int { return ts.bytes }

func (t *Task) cost() int { return len(t.Out) + perTaskOverhead }

// Room tells whether a command with n bytes of data-out may wait.
func (ts *Tasks) Room(n int) bool {
	return len(ts.byITT) < maxTasks && ts.bytes+n+perTaskOverhead <= ts.limit
}

// Add lets a command wait.
func (ts *Tasks) Add(t *Task) error {
	if _, ok := ts.byITT[t.Cmd.ITT]; ok {
		return fmt.Errorf("task %#x: %w", t.Cmd.ITT, ErrTaskInProgress)
	}
	if !ts.Room(len(t.Out)) {
		return ErrFull
	}
	ts.byITT[t.Cmd.ITT] = t
	ts.bytes += t.cost()
	return nil
}

// Get is the waiting command with that tag, nil when there is none.
func (ts *Tasks) Get(itt uint32) *Task { return ts.byITT[itt] }

// Remove takes a command out.
func (ts *Tasks) Remove(t *Task) {
	if ts.byITT[t.Cmd.ITT] == t {
		delete(ts.byITT, t.Cmd.ITT)
		ts.bytes -= t.cost()
	}
}

// Abort ends the waiting command rtt of a unit without an answer, and tells
// whether there was one. Data that is still due for it will be swallowed.
func (ts *Tasks) Abort(lun uint64, rtt uint32) bool {
	t := ts.byITT[rtt]
	if t == nil || t.Aborted || t.Cmd.LUN != lun {
		return false
	}
	ts.abort(t)
	return true
}

// AbortUnit ends all waiting commands of a unit.
func (ts *Tasks) AbortUnit(lun uint64) {
	for _, t := range ts.byITT {
		if t.Cmd.LUN == lun {
			ts.abort(t)
		}
	}
}

// AbortAll ends all waiting commands.
func (ts *Tasks) AbortAll() {
	for _, t := range ts.byITT {
		ts.abort(t)
	}
}

// abort drops the data of t at once and t itself when none is due.
func (ts *Tasks) abort(t *Task) {
	t.Aborted = true
	ts.bytes -= len(t.Out)
	t.Out = nil
	if t.Transfer.Idle() {
		ts.Remove(t)
	}
}

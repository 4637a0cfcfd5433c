package session

import "errors"

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
	FunctionRejected = 255
)

// MaxTasks is how many commands of a session may run or wait at a time: those
// of the window, and as many immediate ones.
const MaxTasks = 2 * WindowSize

// ErrFull says that a command can neither run nor wait for its data.
var ErrFull = errors.New("too many commands wait for data")

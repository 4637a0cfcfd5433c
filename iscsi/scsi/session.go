package scsi

import "context"

// Nexus names an I_T nexus (SAM-5 4.8, RFC 7143 4.4.2).
type Nexus struct {
	Initiator string  // iSCSI name
	ISID      [6]byte // of the login
	Target    string  // iSCSI name
	TPGT      uint16  // target portal group tag, also the relative target port
}

// Session is what one nexus sees: a LUN map and its unit attentions. It is
// safe for concurrent use; commands of one session may run at the same time.
type Session struct {
	nexus Nexus
}

// NewSession attaches nexus n to units, by LUN (0-16383). Each unit answers
// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED (29h/00h) first. Close it.
func NewSession(n Nexus, units map[uint16]*Unit) *Session { return &Session{nexus: n} }

// SetUnits replaces the LUN map. Removed LUNs answer 25h/00h, and the rest
// REPORTED LUNS DATA HAS CHANGED (3Fh/0Eh) once.
func (s *Session) SetUnits(units map[uint16]*Unit) {}

// Close detaches the nexus: its reservation made by RESERVE goes, persistent
// reservations stay. Commands still running end on their own.
func (s *Session) Close() {}

// OutLength is how many bytes of data-out the CDB takes: 0 for none or when
// the command is unknown, at most what the unit's limits allow.
func (s *Session) OutLength(lun uint64, cdb []byte) int { return 0 }

// Execute runs t to its end in the caller's goroutine and fills its results.
// It does not panic, whatever the CDB and the data. A canceled ctx ends the
// command between two device calls; the status is then ABORTED COMMAND.
func (s *Session) Execute(ctx context.Context, t *Task) {}

// LUNReset ends all commands of the unit at lun and releases what RESERVE
// took; the nexuses get unit attentions 29h/03h. False means no such LUN.
func (s *Session) LUNReset(lun uint64) bool { return false }

// AbortTaskSet cancels this session's commands at lun. False: no such LUN.
func (s *Session) AbortTaskSet(lun uint64) bool { return false }

// ClearTaskSet cancels every session's commands at lun; the others get unit
// attention 2Fh/00h. False means no such LUN.
func (s *Session) ClearTaskSet(lun uint64) bool { return false }

// TargetWarmReset is LUNReset for every unit of the session (29h/02h).
func (s *Session) TargetWarmReset() {}

package iscsi

import "ripstop/internal/hist"

// Stats is what passed at an I_T_L nexus, or at several of them together. All
// counts begin at 0 with the session, the target or the LUN's being in service.
type Stats struct {
	Reads        uint64 // READ commands answered, whatever their status
	Writes       uint64 // commands answered that write blocks which they carry
	Others       uint64 // all other commands answered
	ReadBytes    uint64 // data-in of all commands
	WrittenBytes uint64 // data-out of all commands

	CheckConditions uint64 // commands ended with CHECK CONDITION
	UnitAttentions  uint64 // of these, the ones that reported a unit attention
	Conflicts       uint64 // commands ended with RESERVATION CONFLICT
	Busy            uint64 // … with BUSY
	Full            uint64 // … with TASK SET FULL
	Aborted         uint64 // … with TASK ABORTED, and those that task management ended without a status

	R2Ts     uint64 // asked for data-out (RFC 7143 section 11.8)
	Depth    int    // commands that are not answered yet
	MaxDepth int    // the most of them at one time; of a target, in one of its sessions

	ReadLatency  hist.Snapshot // from a command's arrival to its answer, of Reads
	WriteLatency hist.Snapshot // of Writes, with the time that their data took to come
}

// Commands is all commands answered.
func (s *Stats) Commands() uint64 { return s.Reads + s.Writes + s.Others }

// Merge adds what passed elsewhere.
func (s *Stats) Merge(o *Stats) {
	s.Reads += o.Reads
	s.Writes += o.Writes
	s.Others += o.Others
	s.ReadBytes += o.ReadBytes
	s.WrittenBytes += o.WrittenBytes
	s.CheckConditions += o.CheckConditions
	s.UnitAttentions += o.UnitAttentions
	s.Conflicts += o.Conflicts
	s.Busy += o.Busy
	s.Full += o.Full
	s.Aborted += o.Aborted
	s.R2Ts += o.R2Ts
	s.Depth += o.Depth
	s.MaxDepth = max(s.MaxDepth, o.MaxDepth)
	s.ReadLatency.Merge(&o.ReadLatency)
	s.WriteLatency.Merge(&o.WriteLatency)
}

// TargetStats is what passed at one target since it is served, sessions that
// ended included.
type TargetStats struct {
	Stats
	Sessions     int    // now
	Logins       uint64 // sessions that began
	Refused      uint64 // logins that named the target and were refused
	DigestErrors uint64 // PDUs whose header or data digest was wrong
}

// Totals is what passed at all targets and LUNs.
type Totals struct {
	Targets map[string]TargetStats // by iSCSI name
	LUNs    map[string]Stats       // by the LUN's name: of all sessions that see it
}

package scsi

import "testing"

// stands is how each command stands to reservations, from the tables of SPC-4
// (5.13.1), SBC-3 (4.15) and SPC-2 (5.5.1): under a write exclusive and an exclusive
// access reservation of another nexus without registration, and under
// RESERVE of another. g is allowed, c a conflict.
var stands = map[string]string{
	"TEST UNIT READY": "ggc", "REQUEST SENSE": "ggg", "INQUIRY": "ggg", "REPORT LUNS": "ggg",
	"MODE SELECT(6)": "ccc", "MODE SELECT(10)": "ccc", "MODE SENSE(6)": "gcc", "MODE SENSE(10)": "gcc",
	"RESERVE(6)": "ccc", "RESERVE(10)": "ccc", "RELEASE(6)": "ccg", "RELEASE(10)": "ccg",
	"START STOP UNIT": "ccc", "SEND DIAGNOSTIC": "ccc", "PREVENT ALLOW MEDIUM REMOVAL": "ggg",
	"LOG SENSE":                        "ggc",
	"READ KEYS":                        "ggc",
	"READ RESERVATION":                 "ggc",
	"REPORT CAPABILITIES":              "ggc",
	"READ FULL STATUS":                 "ggc",
	"REGISTER":                         "ggc",
	"REGISTER AND IGNORE EXISTING KEY": "ggc",
	"REGISTER AND MOVE":                "ccc",
	"RESERVE":                          "ccc", "RELEASE": "ccc", "CLEAR": "ccc", "PREEMPT": "ccc", "PREEMPT AND ABORT": "ccc",
	"REPORT TARGET PORT GROUPS": "ggc", "REPORT SUPPORTED OPERATION CODES": "gcc",
	"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": "gcc",

	"READ(6)": "gcc", "READ(10)": "gcc", "READ(12)": "gcc", "READ(16)": "gcc",
	"WRITE(6)": "ccc", "WRITE(10)": "ccc", "WRITE(12)": "ccc", "WRITE(16)": "ccc",
	"READ CAPACITY(10)": "ggg", "READ CAPACITY(16)": "ggg", "GET LBA STATUS": "gcc",
	"VERIFY(10)": "gcc", "VERIFY(12)": "gcc", "VERIFY(16)": "gcc", "PRE-FETCH(10)": "gcc", "PRE-FETCH(16)": "gcc",
	"WRITE AND VERIFY(10)": "ccc", "WRITE AND VERIFY(12)": "ccc", "WRITE AND VERIFY(16)": "ccc",
	"SYNCHRONIZE CACHE(10)": "ccc", "SYNCHRONIZE CACHE(16)": "ccc", "WRITE SAME(10)": "ccc", "WRITE SAME(16)": "ccc",
	"EXTENDED COPY(LID1)": "ccc", "RECEIVE COPY STATUS(LID1)": "ccc", "RECEIVE COPY OPERATING PARAMETERS": "ccc", "RECEIVE COPY FAILURE DETAILS(LID1)": "ccc",
	"SANITIZE, OVERWRITE": "ccc", "SANITIZE, BLOCK ERASE": "ccc", "SANITIZE, EXIT FAILURE MODE": "ccc",
	"READ DEFECT DATA(10)": "gcc", "READ DEFECT DATA(12)": "gcc",
	"UNMAP": "ccc", "WRITE ATOMIC(16)": "ccc", "COMPARE AND WRITE": "ccc", "ORWRITE(16)": "ccc",
}

// TestEveryAccess runs every command of the table under another's reservation.
// The CDB asks for nothing; what matters is whether it gets past the check.
func TestEveryAccess(t *testing.T) {
	holders := []func(*Session){
		func(s *Session) { prOutDo(s, 0, 0, 1, 0); prOutDo(s, 1, 1, 0, typeWriteExclusive) },
		func(s *Session) { prOutDo(s, 0, 0, 1, 0); prOutDo(s, 1, 1, 0, typeExclusiveAccess) },
		func(s *Session) { do(s, "16", nil) },
	}
	for _, op := range newTable(atomicCommands()...).ops {
		expected, known := stands[op.name]
		if !known {
			t.Errorf("%s: say in stands how it stands to reservations", op.name)
		}
		for i, hold := range holders {
			u := newShelf().unit(t)
			a, b := open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
			hold(a)
			want(t, op.name, under(b, op), string(expected[i]))
		}
	}
}

// under runs a command with a zero CDB of valid size and reduces the answer to
// conflict or not.
func under(s *Session, op opcode) string {
	cdb := make([]byte, 16)
	cdb[0] = op.code()
	var out []byte
	if op.action {
		cdb[1] = op.serviceAction()
	}
	if op.code() == 0x5f {
		cdb[2], cdb[8], out = typeWriteExclusive, 24, make([]byte, 24)
	}
	if op.name == "REGISTER AND MOVE" {
		id := transport("c")
		cdb[8], out = byte(24+len(id)), append(out, id...)
		out[15], out[19], out[23] = 1, 1, byte(len(id))
	}
	if run(s, 0, cdb, out, 4096).Status == StatusReservationConflict {
		return "c"
	}
	return "g"
}

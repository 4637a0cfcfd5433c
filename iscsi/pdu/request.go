package pdu

// NOPOut is a ping, or the answer to one (RFC 7143 section 11.18).
type NOPOut struct {
	Head
	LUN       uint64 // the 8-byte SAM field
	TTT       uint32 // target transfer tag
	CmdSN     uint32
	ExpStatSN uint32
}

// Op is OpNOPOut.
func (*NOPOut) Op() Opcode { return OpNOPOut }

// String is the PDU on one line.
func (m *NOPOut) String() string { return Format(m) }

func (m *NOPOut) fields(w *walker) {
	w.one()
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(24, "cmdsn", &m.CmdSN)
	w.u32(28, "expstatsn", &m.ExpStatSN)
}

// SCSICommand carries a command descriptor block (RFC 7143 section 11.3).
type SCSICommand struct {
	Head
	Final     bool // no unsolicited Data-Out follows
	Read      bool
	Write     bool
	Attr      uint8  // task attribute: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA
	LUN       uint64 // the 8-byte SAM field
	EDTL      uint32 // expected data transfer length in bytes
	CmdSN     uint32
	ExpStatSN uint32
	CDB       [16]byte // the first 16 bytes; the rest of a longer one is in an AHS
}

// Op is OpSCSICommand.
func (*SCSICommand) Op() Opcode { return OpSCSICommand }

// String is the PDU on one line.
func (m *SCSICommand) String() string { return Format(m) }

func (m *SCSICommand) fields(w *walker) {
	w.flag(1, 0x80, "F", &m.Final)
	w.flag(1, 0x40, "R", &m.Read)
	w.flag(1, 0x20, "W", &m.Write)
	w.bits(1, 0, 7, "attr", &m.Attr)
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "edtl", &m.EDTL)
	w.u32(24, "cmdsn", &m.CmdSN)
	w.u32(28, "expstatsn", &m.ExpStatSN)
	w.bytes(32, "cdb", m.CDB[:])
}

// TaskRequest manages tasks (RFC 7143 section 11.5).
type TaskRequest struct {
	Head
	Function  uint8
	LUN       uint64 // the 8-byte SAM field
	RTT       uint32 // the referenced task tag
	CmdSN     uint32
	ExpStatSN uint32
	RefCmdSN  uint32
	ExpDataSN uint32
}

// Op is OpTaskRequest.
func (*TaskRequest) Op() Opcode { return OpTaskRequest }

// String is the PDU on one line.
func (m *TaskRequest) String() string { return Format(m) }

func (m *TaskRequest) fields(w *walker) {
	w.one()
	w.bits(1, 0, 0x7f, "function", &m.Function)
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "rtt", &m.RTT)
	w.u32(24, "cmdsn", &m.CmdSN)
	w.u32(28, "expstatsn", &m.ExpStatSN)
	w.u32(32, "refcmdsn", &m.RefCmdSN)
	w.u32(36, "expdatasn", &m.ExpDataSN)
}

// Login is one login request (RFC 7143 section 11.12).
type Login struct {
	Head
	Transit    bool  // asks for the next stage
	Continue   bool  // the text goes on in the next PDU
	CSG        uint8 // current stage
	NSG        uint8 // next stage, with Transit
	VersionMax uint8
	VersionMin uint8
	ISID       [6]byte
	TSIH       uint16 // session handle, 0 before the session exists
	CID        uint16 // connection within the session
	CmdSN      uint32
	ExpStatSN  uint32
}

// Op is OpLogin.
func (*Login) Op() Opcode { return OpLogin }

// String is the PDU on one line.
func (m *Login) String() string { return Format(m) }

func (m *Login) fields(w *walker) {
	w.flag(1, 0x80, "T", &m.Transit)
	w.flag(1, 0x40, "C", &m.Continue)
	w.bits(1, 2, 3, "csg", &m.CSG)
	w.bits(1, 0, 3, "nsg", &m.NSG)
	w.u8(2, "vmax", &m.VersionMax)
	w.u8(3, "vmin", &m.VersionMin)
	w.bytes(8, "isid", m.ISID[:])
	w.u16(14, "tsih", &m.TSIH)
	w.u16(20, "cid", &m.CID)
	w.u32(24, "cmdsn", &m.CmdSN)
	w.u32(28, "expstatsn", &m.ExpStatSN)
}

// Text carries text keys in full feature phase (RFC 7143 section 11.10).
type Text struct {
	Head
	Final     bool
	Continue  bool
	LUN       uint64 // the 8-byte SAM field
	TTT       uint32 // target transfer tag
	CmdSN     uint32
	ExpStatSN uint32
}

// Op is OpText.
func (*Text) Op() Opcode { return OpText }

// String is the PDU on one line.
func (m *Text) String() string { return Format(m) }

func (m *Text) fields(w *walker) {
	w.flag(1, 0x80, "F", &m.Final)
	w.flag(1, 0x40, "C", &m.Continue)
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(24, "cmdsn", &m.CmdSN)
	w.u32(28, "expstatsn", &m.ExpStatSN)
}

// DataOut carries data to the target (RFC 7143 section 11.7).
type DataOut struct {
	Head
	Final     bool   // the last one of this sequence
	LUN       uint64 // the 8-byte SAM field
	TTT       uint32 // target transfer tag
	ExpStatSN uint32
	DataSN    uint32
	Offset    uint32 // buffer offset in bytes
}

// Op is OpDataOut.
func (*DataOut) Op() Opcode { return OpDataOut }

// String is the PDU on one line.
func (m *DataOut) String() string { return Format(m) }

func (m *DataOut) fields(w *walker) {
	w.flag(1, 0x80, "F", &m.Final)
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(28, "expstatsn", &m.ExpStatSN)
	w.u32(36, "datasn", &m.DataSN)
	w.u32(40, "offset", &m.Offset)
}

// Reasons of a Logout (RFC 7143 section 11.14.1).
const (
	LogoutSession    = 0
	LogoutConnection = 1
	LogoutRecovery   = 2 // remove the connection so that another takes its tasks
)

// Logout ends a connection or session (RFC 7143 section 11.14).
type Logout struct {
	Head
	Reason    uint8
	CID       uint16
	CmdSN     uint32
	ExpStatSN uint32
}

// Op is OpLogout.
func (*Logout) Op() Opcode { return OpLogout }

// String is the PDU on one line.
func (m *Logout) String() string { return Format(m) }

func (m *Logout) fields(w *walker) {
	w.one()
	w.bits(1, 0, 0x7f, "reason", &m.Reason)
	w.u16(20, "cid", &m.CID)
	w.u32(24, "cmdsn", &m.CmdSN)
	w.u32(28, "expstatsn", &m.ExpStatSN)
}

// Types of a SNACK (RFC 7143 section 11.16.1).
const (
	SNACKData    = 0 // Data-In or R2T PDUs
	SNACKStatus  = 1
	SNACKDataACK = 2 // acknowledges data
	SNACKRData   = 3 // Data-In PDUs cut anew
)

// SNACK asks for something again (RFC 7143 section 11.16).
type SNACK struct {
	Head
	Type      uint8
	LUN       uint64 // the 8-byte SAM field
	TTT       uint32 // target transfer tag
	ExpStatSN uint32
	BegRun    uint32
	RunLength uint32
}

// Op is OpSNACK.
func (*SNACK) Op() Opcode { return OpSNACK }

// String is the PDU on one line.
func (m *SNACK) String() string { return Format(m) }

func (m *SNACK) fields(w *walker) {
	w.one()
	w.bits(1, 0, 0x0f, "type", &m.Type)
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(28, "expstatsn", &m.ExpStatSN)
	w.u32(40, "begrun", &m.BegRun)
	w.u32(44, "runlength", &m.RunLength)
}

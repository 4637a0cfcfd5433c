package pdu

// NOPIn is a ping, or the answer to one (RFC 7143 section 11.19).
type NOPIn struct {
	Head
	LUN      uint64 // the 8-byte SAM field
	TTT      uint32 // target transfer tag
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
}

// Op is OpNOPIn.
func (*NOPIn) Op() Opcode { return OpNOPIn }

// String is the PDU on one line.
func (m *NOPIn) String() string { return Format(m) }

func (m *NOPIn) fields(w *walker) {
	w.one()
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
}

// SCSIResponse ends a command (RFC 7143 section 11.4). Sense data stand in the data segment after their length in two bytes.
type SCSIResponse struct {
	Head
	Overflow  bool // Residual bytes more than the initiator expected
	Underflow bool // Residual bytes less than it expected
	// The same for what a bidirectional command reads; Residual is then for what it writes.
	ReadOverflow, ReadUnderflow bool
	Response                    uint8 // 0 completed at target, 1 target failure
	Status                      uint8 // SAM status
	SNACKTag                    uint32
	StatSN                      uint32
	ExpCmdSN                    uint32
	MaxCmdSN                    uint32
	ExpDataSN                   uint32 // number of Data-In and R2T PDUs of the task
	ReadResidual                uint32 // bytes, of a bidirectional command
	Residual                    uint32 // bytes
}

// Op is OpSCSIResponse.
func (*SCSIResponse) Op() Opcode { return OpSCSIResponse }

// String is the PDU on one line.
func (m *SCSIResponse) String() string { return Format(m) }

func (m *SCSIResponse) fields(w *walker) {
	w.one()
	w.flag(1, 0x10, "o", &m.ReadOverflow)
	w.flag(1, 0x08, "u", &m.ReadUnderflow)
	w.flag(1, 0x04, "O", &m.Overflow)
	w.flag(1, 0x02, "U", &m.Underflow)
	w.u8(2, "response", &m.Response)
	w.u8(3, "status", &m.Status)
	w.u32(20, "snack", &m.SNACKTag)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
	w.u32(36, "expdatasn", &m.ExpDataSN)
	w.u32(40, "readresidual", &m.ReadResidual)
	w.u32(44, "residual", &m.Residual)
}

// TaskResponse answers a TaskRequest (RFC 7143 section 11.6).
type TaskResponse struct {
	Head
	Response uint8
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
}

// Op is OpTaskResponse.
func (*TaskResponse) Op() Opcode { return OpTaskResponse }

// String is the PDU on one line.
func (m *TaskResponse) String() string { return Format(m) }

func (m *TaskResponse) fields(w *walker) {
	w.one()
	w.u8(2, "response", &m.Response)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
}

// LoginResponse answers a Login (RFC 7143 section 11.13).
type LoginResponse struct {
	Head
	Transit       bool  // asks for the next stage
	Continue      bool  // the text goes on in the next PDU
	CSG           uint8 // current stage
	NSG           uint8 // next stage, with Transit
	VersionMax    uint8
	VersionActive uint8
	ISID          [6]byte
	TSIH          uint16 // session handle, 0 before the session exists
	StatSN        uint32
	ExpCmdSN      uint32
	MaxCmdSN      uint32
	Status        uint16 // class in the upper byte, detail in the lower
}

// Op is OpLoginResponse.
func (*LoginResponse) Op() Opcode { return OpLoginResponse }

// String is the PDU on one line.
func (m *LoginResponse) String() string { return Format(m) }

func (m *LoginResponse) fields(w *walker) {
	w.flag(1, 0x80, "T", &m.Transit)
	w.flag(1, 0x40, "C", &m.Continue)
	w.bits(1, 2, 3, "csg", &m.CSG)
	w.bits(1, 0, 3, "nsg", &m.NSG)
	w.u8(2, "vmax", &m.VersionMax)
	w.u8(3, "vactive", &m.VersionActive)
	w.bytes(8, "isid", m.ISID[:])
	w.u16(14, "tsih", &m.TSIH)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
	w.u16(36, "status", &m.Status)
}

// TextResponse answers a Text (RFC 7143 section 11.11).
type TextResponse struct {
	Head
	Final    bool
	Continue bool
	LUN      uint64 // the 8-byte SAM field
	TTT      uint32 // target transfer tag
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
}

// Op is OpTextResponse.
func (*TextResponse) Op() Opcode { return OpTextResponse }

// String is the PDU on one line.
func (m *TextResponse) String() string { return Format(m) }

func (m *TextResponse) fields(w *walker) {
	w.flag(1, 0x80, "F", &m.Final)
	w.flag(1, 0x40, "C", &m.Continue)
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
}

// DataIn carries data to the initiator (RFC 7143 section 11.7).
type DataIn struct {
	Head
	Final       bool // the last one of this burst
	Acknowledge bool
	Overflow    bool
	Underflow   bool
	HasStatus   bool // Status and Residual count, and no SCSIResponse follows
	Status      uint8
	LUN         uint64 // the 8-byte SAM field
	TTT         uint32 // target transfer tag
	StatSN      uint32
	ExpCmdSN    uint32
	MaxCmdSN    uint32
	DataSN      uint32
	Offset      uint32 // buffer offset in bytes
	Residual    uint32 // bytes
}

// Op is OpDataIn.
func (*DataIn) Op() Opcode { return OpDataIn }

// String is the PDU on one line.
func (m *DataIn) String() string { return Format(m) }

func (m *DataIn) fields(w *walker) {
	w.flag(1, 0x80, "F", &m.Final)
	w.flag(1, 0x40, "A", &m.Acknowledge)
	w.flag(1, 0x04, "O", &m.Overflow)
	w.flag(1, 0x02, "U", &m.Underflow)
	w.flag(1, 0x01, "S", &m.HasStatus)
	w.u8(3, "status", &m.Status)
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
	w.u32(36, "datasn", &m.DataSN)
	w.u32(40, "offset", &m.Offset)
	w.u32(44, "residual", &m.Residual)
}

// Responses to a Logout (RFC 7143 section 11.15.1).
const (
	LogoutDone       = 0
	LogoutNoCID      = 1
	LogoutNoRecovery = 2
	LogoutFailed     = 3
)

// LogoutResponse answers a Logout (RFC 7143 section 11.15).
type LogoutResponse struct {
	Head
	Response    uint8
	StatSN      uint32
	ExpCmdSN    uint32
	MaxCmdSN    uint32
	Time2Wait   uint16 // seconds
	Time2Retain uint16 // seconds
}

// Op is OpLogoutResponse.
func (*LogoutResponse) Op() Opcode { return OpLogoutResponse }

// String is the PDU on one line.
func (m *LogoutResponse) String() string { return Format(m) }

func (m *LogoutResponse) fields(w *walker) {
	w.one()
	w.u8(2, "response", &m.Response)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
	w.u16(40, "time2wait", &m.Time2Wait)
	w.u16(42, "time2retain", &m.Time2Retain)
}

// R2T asks for data (RFC 7143 section 11.8).
type R2T struct {
	Head
	LUN      uint64 // the 8-byte SAM field
	TTT      uint32 // target transfer tag
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	R2TSN    uint32
	Offset   uint32 // buffer offset in bytes
	Length   uint32 // desired bytes
}

// Op is OpR2T.
func (*R2T) Op() Opcode { return OpR2T }

// String is the PDU on one line.
func (m *R2T) String() string { return Format(m) }

func (m *R2T) fields(w *walker) {
	w.one()
	w.u64(8, "lun", &m.LUN)
	w.u32(20, "ttt", &m.TTT)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
	w.u32(36, "r2tsn", &m.R2TSN)
	w.u32(40, "offset", &m.Offset)
	w.u32(44, "length", &m.Length)
}

// Async tells of an event (RFC 7143 section 11.9).
type Async struct {
	Head
	LUN      uint64 // the 8-byte SAM field
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	Event    uint8  // one of the Event constants
	VCode    uint8  // the vendor's, with events from 248
	Param1   uint16 // the CID of a connection that is dropped
	Param2   uint16 // Time2Wait in seconds, of what is dropped
	Param3   uint16 // seconds: in which to do what is asked, or Time2Retain of what is dropped
}

// Events of an Async (RFC 7143 section 11.9.1). Its ITT is Reserved.
const (
	EventSCSI        = 0 // sense data of the LUN follow, as in a SCSIResponse
	EventLogout      = 1 // the initiator is to log out of this connection in Param3 seconds
	EventDrop        = 2 // the target drops connection Param1
	EventDropAll     = 3 // the target drops the session
	EventRenegotiate = 4 // the initiator is to begin a text negotiation in Param3 seconds
	EventTasksEnd    = 5 // all tasks of the LUN are being ended
)

// Op is OpAsync.
func (*Async) Op() Opcode { return OpAsync }

// String is the PDU on one line.
func (m *Async) String() string { return Format(m) }

func (m *Async) fields(w *walker) {
	w.one()
	w.u64(8, "lun", &m.LUN)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
	w.u8(36, "event", &m.Event)
	w.u8(37, "vcode", &m.VCode)
	w.u16(38, "p1", &m.Param1)
	w.u16(40, "p2", &m.Param2)
	w.u16(42, "p3", &m.Param3)
}

// Reasons of a Reject (RFC 7143 section 11.17.1).
const (
	RejectDigest     = 0x02 // the data digest was wrong
	RejectSNACK      = 0x03
	RejectProtocol   = 0x04
	RejectCommand    = 0x05 // not supported
	RejectImmediate  = 0x06 // too many immediate commands
	RejectInProgress = 0x07 // the task tag is in use
	RejectDataACK    = 0x08
	RejectField      = 0x09
	RejectLong       = 0x0a // no resources for a further target transfer tag
	RejectLogout     = 0x0c // the logout that was asked for has not come
)

// Reject refuses a PDU, whose header is the data segment (RFC 7143 section 11.17).
type Reject struct {
	Head
	Reason   uint8
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
	DataSN   uint32
}

// Op is OpReject.
func (*Reject) Op() Opcode { return OpReject }

// String is the PDU on one line.
func (m *Reject) String() string { return Format(m) }

func (m *Reject) fields(w *walker) {
	w.one()
	w.u8(2, "reason", &m.Reason)
	w.u32(24, "statsn", &m.StatSN)
	w.u32(28, "expcmdsn", &m.ExpCmdSN)
	w.u32(32, "maxcmdsn", &m.MaxCmdSN)
	w.u32(36, "datasn", &m.DataSN)
}

package scsi

import "encoding/binary"

// access is how a command stands to reservations (SPC-4, SBC-3).
type access byte

const (
	accessFree  access = iota // always allowed
	accessOpen                // allowed but under another's RESERVE
	accessRead                // conflicts with exclusive access
	accessWrite               // conflicts with any reservation
	accessOut                 // PERSISTENT RESERVE OUT: checks keys itself
	accessOld                 // RESERVE, RELEASE: look at the holder themselves
)

// opcode is one command: how it is found, what its CDB may hold, what data it
// takes and what runs it. Everything that the package says of a command comes
// from here.
type opcode struct {
	name   string
	usage  string // CDB usage data of SPC-4: as long as the CDB, the bits that mean something
	action bool   // byte 1 bits 4-0 are a service action, given in usage
	access access
	quiet  bool // does not report unit attentions (SAM-5 5.14)
	fua    bool // byte 1 bit 3 is FUA
	alone  bool // runs while no other command of the unit does
	prompt bool // waits for nothing: neither the medium nor other commands
	out    func(cdb []byte, bs int64) int64
	run    func(*command) error

	// try is run where that waits for nothing; false, and no error, where it
	// would have to, and then nothing has happened. The unit's device is a Prompt.
	try func(*command) (bool, error)
	// start has the device carry it out and call c.arrived; false where it must
	// be run. The unit's device is a Queue.
	start func(*command) bool
}

func (o *opcode) code() byte          { return o.usage[0] }
func (o *opcode) serviceAction() byte { return o.usage[1] & 0x1f }

// checkCDB refuses bits that mean nothing to the command.
func (o *opcode) checkCDB(cdb []byte) error {
	if len(cdb) < len(o.usage) {
		return invalidCDB(uint16(len(cdb)), -1)
	}
	for i := 1; i < len(o.usage); i++ {
		wrong := cdb[i] &^ o.usage[i]
		if i == 1 && o.action {
			wrong &= 0xe0
		}
		if wrong != 0 {
			return invalidCDB(uint16(i), highBit(wrong))
		}
	}
	return nil
}

func highBit(b byte) int8 {
	bit := int8(-1)
	for ; b != 0; b >>= 1 {
		bit++
	}
	return bit
}

// accessOf is o.access, but for commands where a bit of the CDB decides.
func (o *opcode) accessOf(cdb []byte) access {
	switch {
	case o.code() == 0x1b && cdb[4]&0xf1 == 0x01: // START STOP UNIT that starts
		return accessOpen
	case o.code() == 0x1e && cdb[4]&0x03 == 0: // PREVENT ALLOW that allows
		return accessFree
	default:
		return o.access
	}
}

// calm tells whether the command works while the medium is being sanitized.
func (o *opcode) calm() bool {
	return o.quiet || o.code() == 0x48 || o.code() == 0x4d || o.code() == 0xa3 // SANITIZE, LOG SENSE, REPORT …
}

// table finds commands by their CDB.
type table struct {
	ops   []opcode // sorted by opcode, then service action
	first [256]uint8
	count [256]uint8
}

// newTable is a function and no variable because the commands that report the
// table are in it.
func newTable(more ...opcode) *table {
	t := &table{}
	for _, part := range [][]opcode{spcCommands(), blockCommands(), wideCommands(), more} {
		t.ops = append(t.ops, part...)
	}
	sortOps(t.ops)
	for i := len(t.ops) - 1; i >= 0; i-- {
		code := t.ops[i].code()
		t.first[code] = uint8(i)
		t.count[code]++
	}
	return t
}

// find is the command of a CDB. Without one, known tells whether the opcode at
// least has other service actions.
func (t *table) find(cdb []byte) (op *opcode, known bool) {
	if len(cdb) < 6 {
		return nil, false
	}
	ops := t.of(cdb[0])
	for i := range ops {
		if !ops[i].action || ops[i].serviceAction() == cdb[1]&0x1f {
			return &ops[i], true
		}
	}
	return nil, len(ops) > 0
}

// of is the commands of one opcode.
func (t *table) of(code byte) []opcode {
	first := int(t.first[code])
	return t.ops[first : first+int(t.count[code])]
}

func outBlocks(cdb []byte, bs int64) int64 {
	_, n := cdbRange(cdb)
	return int64(n) * bs
}

func outVerify(cdb []byte, bs int64) int64 {
	switch cdb[1] >> 1 & 3 {
	case 1:
		return outBlocks(cdb, bs)
	case 3:
		return bs
	default:
		return 0
	}
}

func outPattern(_ []byte, bs int64) int64 { return bs }

func outPattern16(cdb []byte, bs int64) int64 {
	if cdb[1]&0x01 != 0 { // NDOB
		return 0
	}
	return bs
}

func outCompare(cdb []byte, bs int64) int64 { return 2 * int64(cdb[13]) * bs }
func outList6(cdb []byte, _ int64) int64    { return int64(cdb[4]) }
func outList10(cdb []byte, _ int64) int64   { return int64(binary.BigEndian.Uint16(cdb[7:])) }
func outReserve(cdb []byte, _ int64) int64  { return int64(binary.BigEndian.Uint32(cdb[5:])) }

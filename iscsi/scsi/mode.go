package scsi

import (
	"encoding/binary"
	"sync/atomic"
)

// modeFlags is all that can be changed in mode pages, a bit for each.
type modeFlags uint32

const (
	modeCache             modeFlags = 1 << iota // WCE: writes may wait in a cache
	modeProtect                                 // SWP: no writes
	modeDescriptor                              // D_SENSE: sense data in descriptors
	modeKeepAttention                           // UA_INTLCK 1xb: only REQUEST SENSE ends a unit attention
	modeConflictAttention                       // UA_INTLCK x1b: a reservation conflict makes one
	modeThresholds                              // LBPERE: thresholds of the pool are reported

	modeDefaults = modeCache | modeThresholds
	modeAll      = modeThresholds<<1 - 1
)

// modePages is the changeable bits as they are, and as they were saved.
type modePages struct {
	current atomic.Uint32
	saved   atomic.Pointer[modeFlags] // nil when never saved
}

// reset is what power on and resets do: saved values, or else defaults.
func (m *modePages) reset() { m.set(m.lasting()) }

func (m *modePages) lasting() modeFlags {
	if saved := m.saved.Load(); saved != nil {
		return *saved
	}
	return modeDefaults
}

func (m *modePages) set(f modeFlags)         { m.current.Store(uint32(f)) }
func (m *modePages) flags() modeFlags        { return modeFlags(m.current.Load()) }
func (m *modePages) has(f modeFlags) bool    { return m.flags()&f != 0 }
func (m *modePages) writeCache() bool        { return m.has(modeCache) }
func (m *modePages) softwareProtected() bool { return m.has(modeProtect) }
func (m *modePages) descriptorSense() bool   { return m.has(modeDescriptor) }

// modePage is one page: its defaults with header, the bits of it that can
// change, and what depends on the unit.
type modePage struct {
	defaults string
	bits     []modeBit
	fill     func(*command, []byte) bool // false: the unit has no such page
}

// modeBit is where a flag lies in a page.
type modeBit struct {
	at   int
	mask byte
	flag modeFlags
}

// modeTable is sorted by page and subpage code, as MODE SENSE returns them.
var modeTable = []modePage{
	{ // read-write error recovery: AWRE, ARRE
		defaults: "\x01\x0a\xc0\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		bits:     []modeBit{{7, 0x80, modeThresholds}},
	},
	{ // caching
		defaults: "\x08\x12\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		bits:     []modeBit{{2, 0x04, modeCache}},
	},
	{ // control: GLTSD, unrestricted reordering, TAS
		defaults: "\x0a\x0a\x02\x10\x00\x40\x00\x00\x00\x00\x00\x00",
		bits: []modeBit{
			{2, 0x04, modeDescriptor}, {4, 0x08, modeProtect},
			{4, 0x20, modeKeepAttention}, {4, 0x10, modeConflictAttention},
		},
	},
	{defaults: "\x4a\x01\x00\x1c\x01" + zeros27},                                                           // control extension: IALUAE
	{defaults: "\x1a\x26" + zeros27 + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},                      // power condition: no timer runs
	{defaults: "\x1c\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},                                         // informational exceptions: none reported
	{defaults: "\x5c\x02\x00\x24\x00" + zeros27 + "\x00\x00\x00\x00\x00\x00\x00\x00", fill: thresholdPage}, // logical block provisioning
}

const zeros27 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func (p *modePage) code() byte { return p.defaults[0] & 0x3f }

// header is the bytes before the page's parameters: a page with SPF has a
// subpage code and a longer length.
func (p *modePage) header() int {
	if p.defaults[0]&0x40 != 0 {
		return 4
	}
	return 2
}

func (p *modePage) subpage() byte {
	if p.header() == 4 {
		return p.defaults[1]
	}
	return 0
}

// Page control of MODE SENSE.
const (
	modeCurrent = iota
	modeChangeable
	modeDefault
	modeSaved
)

// bytes is the page as page control asks for it, nil where the unit has none.
func (p *modePage) bytes(c *command, control byte) []byte {
	b := []byte(p.defaults)
	if p.fill != nil && !p.fill(c, b) {
		return nil
	}
	flags := modeDefaults
	switch control {
	case modeCurrent:
		flags = c.unit.mode.flags()
	case modeSaved:
		flags = c.unit.mode.lasting()
	case modeChangeable:
		flags = modeAll
		clear(b[p.header():])
	}
	for _, bit := range p.bits {
		if flags&bit.flag != 0 {
			b[bit.at] |= bit.mask
		}
	}
	if c.unit.keeper != nil && len(p.bits) > 0 {
		b[0] |= 0x80 // PS
	}
	return b
}

// pages is the mode pages that MODE SENSE asks for.
func (c *command) pages() ([]byte, error) {
	const all = 0x3f
	control, code, subpage := c.cdb[2]>>6, c.cdb[2]&0x3f, c.cdb[3]
	switch {
	case control == modeSaved && c.unit.keeper == nil:
		return nil, illegal(codeNoSaving)
	case code == all && subpage != 0 && subpage != 0xff:
		return nil, invalidCDB(3, -1)
	}
	var b []byte
	known := false
	for i := range modeTable {
		p := &modeTable[i]
		if code != all && code != p.code() {
			continue
		}
		known = true
		if subpage == 0xff || subpage == p.subpage() {
			b = append(b, p.bytes(c, control)...)
		}
	}
	switch {
	case !known:
		return nil, invalidCDB(2, 5)
	case b == nil:
		return nil, invalidCDB(3, -1)
	}
	return b, nil
}

// deviceByte is the device-specific parameter (SBC-3): WP and DPOFUA.
func (c *command) deviceByte() byte {
	b := byte(0x10)
	if c.writable() != nil {
		b |= 0x80
	}
	return b
}

// blockDescriptor is the block descriptor of SBC-3, short or long.
func (c *command) blockDescriptor(long bool) []byte {
	if long {
		b := make([]byte, 16)
		binary.BigEndian.PutUint64(b, c.blocks())
		binary.BigEndian.PutUint32(b[12:], uint32(c.bs))
		return b
	}
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(c.blocks(), 0xffffffff)))
	binary.BigEndian.PutUint32(b[4:], uint32(c.bs))
	return b
}

// modeSense6 is MODE SENSE(6) (SPC-4).
func modeSense6(c *command) error {
	pages, err := c.pages()
	if err != nil {
		return err
	}
	b := []byte{0, 0, c.deviceByte(), 0}
	if c.cdb[1]&0x08 == 0 {
		b[3] = 8
		b = append(b, c.blockDescriptor(false)...)
	}
	b = append(b, pages...)
	b[0] = byte(len(b) - 1)
	return c.reply(b, uint32(c.cdb[4]))
}

// modeSense10 is MODE SENSE(10) (SPC-4).
func modeSense10(c *command) error {
	pages, err := c.pages()
	if err != nil {
		return err
	}
	long := c.cdb[1]&0x10 != 0
	b := []byte{0, 0, 0, c.deviceByte(), 0, 0, 0, 0}
	if c.cdb[1]&0x08 == 0 {
		d := c.blockDescriptor(long)
		b[7] = byte(len(d))
		if long {
			b[4] = 0x01
		}
		b = append(b, d...)
	}
	b = append(b, pages...)
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return c.reply(b, uint32(binary.BigEndian.Uint16(c.cdb[7:])))
}

package scsi

import (
	"encoding/binary"
	"sync/atomic"
)

// modePages is the mode pages that can be changed, three bits of them.
type modePages struct {
	cache     atomic.Bool // WCE
	protect   atomic.Bool // SWP
	senseKind atomic.Bool // D_SENSE
}

func (m *modePages) reset() {
	m.cache.Store(true)
	m.protect.Store(false)
	m.senseKind.Store(false)
}

func (m *modePages) writeCache() bool        { return m.cache.Load() }
func (m *modePages) softwareProtected() bool { return m.protect.Load() }
func (m *modePages) descriptorSense() bool   { return m.senseKind.Load() }

// modePage is one page: its defaults with header, and its bits that can change.
type modePage struct {
	defaults string
	bits     []modeBit
}

// modeBit is a bit of a page that lives in modePages.
type modeBit struct {
	at   int
	mask byte
	in   func(*modePages) *atomic.Bool
}

// modeTable is sorted by page code, as MODE SENSE returns all pages.
var modeTable = []modePage{
	{defaults: "\x01\x0a\xc0\x00\x00\x00\x00\x00\x00\x00\x00\x00"}, // read-write error recovery: AWRE, ARRE
	{ // caching
		defaults: "\x08\x12\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		bits:     []modeBit{{2, 0x04, func(m *modePages) *atomic.Bool { return &m.cache }}},
	},
	{ // control: GLTSD, unrestricted reordering, TAS
		defaults: "\x0a\x0a\x02\x10\x00\x40\x00\x00\x00\x00\x00\x00",
		bits: []modeBit{
			{2, 0x04, func(m *modePages) *atomic.Bool { return &m.senseKind }},
			{4, 0x08, func(m *modePages) *atomic.Bool { return &m.protect }},
		},
	},
	{defaults: "\x1c\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}, // informational exceptions: none reported
}

// Page control of MODE SENSE.
const (
	modeCurrent = iota
	modeChangeable
	modeDefault
	modeSaved
)

// bytes is the page as page control asks for it.
func (p *modePage) bytes(m *modePages, control byte) []byte {
	b := []byte(p.defaults)
	if control == modeChangeable {
		clear(b[2:])
	}
	for _, bit := range p.bits {
		switch {
		case control == modeChangeable, control == modeCurrent && bit.in(m).Load():
			b[bit.at] |= bit.mask
		case control == modeCurrent:
			b[bit.at] &^= bit.mask
		}
	}
	return b
}

// pages is the mode pages that MODE SENSE asks for.
func (c *command) pages() ([]byte, error) {
	control, code, subpage := c.cdb[2]>>6, c.cdb[2]&0x3f, c.cdb[3]
	switch {
	case control == modeSaved:
		return nil, illegal(codeNoSaving)
	case subpage != 0 && (subpage != 0xff || code != 0x3f):
		return nil, invalidCDB(3, -1)
	}
	var b []byte
	for i := range modeTable {
		if p := &modeTable[i]; code == 0x3f || p.defaults[0] == code {
			b = append(b, p.bytes(&c.unit.mode, control)...)
		}
	}
	if b == nil {
		return nil, invalidCDB(2, 5)
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

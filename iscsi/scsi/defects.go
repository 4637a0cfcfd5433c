package scsi

import "encoding/binary"

// Which lists READ DEFECT DATA asks for (SBC-3 5.17): the one of the maker, the
// one that grew.
const askedDefects = 0x18

// readDefects10 is READ DEFECT DATA(10). A LUN has no defects of its own: both
// lists are there, in whatever format, and empty.
func readDefects10(c *command) error {
	return c.reply([]byte{0, c.cdb[2] & (askedDefects | 0x07), 0, 0}, uint32(binary.BigEndian.Uint16(c.cdb[7:])))
}

// readDefects12 is READ DEFECT DATA(12).
func readDefects12(c *command) error {
	return c.reply([]byte{0, c.cdb[1] & (askedDefects | 0x07), 0, 0, 0, 0, 0, 0}, binary.BigEndian.Uint32(c.cdb[6:]))
}

package scsi

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// vital is a vital product data page; body is what follows its header.
type vital struct {
	code byte
	body func(*command) []byte
}

// vitalPages is a function because the list itself is one of the pages.
func vitalPages() []vital {
	return []vital{
		{0x00, vitalList},
		{0x80, func(c *command) []byte { return []byte(c.serial()) }},
		{0x83, vitalDesignators},
		{0x86, vitalExtended},
		{0x8f, vitalCopy},
		{0xb0, vitalLimits},
		{0xb1, vitalMedium},
		{0xb2, vitalProvisioning},
		{0xb9, vitalRanges},
	}
}

func vitalList(*command) []byte {
	var codes []byte
	for _, p := range vitalPages() {
		codes = append(codes, p.code)
	}
	return codes
}

// vitalDesignators is page 83h (SPC-4): the unit by NAA and T10 vendor
// name, the port by relative number, group and iSCSI name, the target's name.
func vitalDesignators(c *command) []byte {
	const text, utf8 = 2, 3
	const unit, port, device = 0x00, 0x90, 0xa0 // PIV with the port's and the device's
	const iscsi = 0x50
	n := c.at.nexus()
	number := binary.BigEndian.AppendUint16([]byte{0, 0}, portNumber(n))
	var b []byte
	for _, d := range c.unit.names {
		b = appendDesignator(b, d.codeSet, d.kind, d.value)
	}
	b = appendDesignator(b, text, unit|1, []byte(vendor+c.serial()))
	b = appendDesignator(b, iscsi|binaryCode, port|4, number)
	b = appendDesignator(b, iscsi|binaryCode, port|5, number)
	b = appendDesignator(b, iscsi|utf8, port|8, padded(fmt.Sprintf("%s,t,0x%04x", n.Target, n.TPGT)))
	return appendDesignator(b, iscsi|utf8, device|8, padded(n.Target))
}

const binaryCode = 1 // CODE SET

// designator is one of page 83h.
type designator struct {
	codeSet, kind byte
	value         []byte
}

// unitDesignators name the unit in binary: so a third-party copy can say which
// one it means.
func unitDesignators(id [16]byte) []designator {
	return []designator{{binaryCode, 3, naa(id)}, {binaryCode, 2, eui(id)}}
}

func appendDesignator(b []byte, codeSet, kind byte, value []byte) []byte {
	b = append(b, codeSet, kind, 0, byte(len(value)))
	return append(b, value...)
}

// padded ends s with NUL and fills it to a multiple of 4 (SPC-4). An
// iSCSI name has at most 223 bytes (RFC 7143); longer is cut.
func padded(s string) []byte {
	s = s[:min(len(s), 240)]
	return append([]byte(s), make([]byte, 4-len(s)%4)...)
}

// portNumber is the relative target port, which is also the only port of its
// target port group. 0 is reserved in both.
func portNumber(n Nexus) uint16 { return max(n.TPGT, 1) }

// naa is an NAA 6 designator (SPC-4). No company id is registered for
// it: 027273h has the bit for local assignment, and the other 100 bits are of
// the hash of id, so that they differ wherever in id two units do.
func naa(id [16]byte) []byte {
	hash := sha256.Sum256(id[:])
	b := append([]byte{0x60, 0x27, 0x27, 0x30}, hash[:12]...)
	b[3] |= hash[12] & 0x0f
	return b
}

// eui is an EUI-64 based designator of 16 bytes (SPC-4 7.8.6.5.4): its
// extension, and an EUI-64 with the local bit set, both of the hash of id.
func eui(id [16]byte) []byte {
	hash := sha256.Sum256(id[:])
	b := hash[16:32]
	b[8] = b[8]&^0x01 | 0x02
	return b
}

// vitalExtended is page 86h (SPC-4).
func vitalExtended(*command) []byte {
	b := make([]byte, 60)
	b[1] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	b[2] = 0x01 // V_SUP: the write cache is volatile
	b[3] = 0x01 // LUICLR: unit attentions as SPC-4 says
	return b
}

// vitalLimits is page B0h (SBC-3). WSNZ: WRITE SAME of 0 blocks is none.
func vitalLimits(c *command) []byte {
	b := make([]byte, 60)
	put := binary.BigEndian.PutUint32
	b[0] = 0x01
	b[1] = maxCompare
	binary.BigEndian.PutUint16(b[2:], uint16(max(physicalBlock/c.bs, 1)))
	put(b[4:], uint32(maxTransfer/c.bs))
	put(b[8:], uint32(unmapGranule/c.bs))
	put(b[16:], maxUnmapBlocks)
	put(b[20:], maxUnmapRanges)
	put(b[24:], uint32(unmapGranule/c.bs))
	put(b[28:], 0x80000000) // UGAVALID, aligned to 0
	binary.BigEndian.PutUint64(b[32:], maxSameBlocks)
	c.putAtomicLimits(b[40:])
	return b
}

// vitalMedium is page B1h (SBC-3): nothing rotates.
func vitalMedium(*command) []byte {
	b := make([]byte, 60)
	b[1] = 1
	b[3] = 0x40 // WABEREQ: what SANITIZE, BLOCK ERASE erased can be read, as zeros
	return b
}

// vitalRanges is page B9h (SBC-5): the one range of addresses that can be
// reached at once with itself is all of the unit.
func vitalRanges(c *command) []byte {
	b := make([]byte, 60+32)
	d := b[60:]
	d[1] = 1 // storage elements
	binary.BigEndian.PutUint64(d[16:], c.blocks())
	return b
}

// vitalProvisioning is page B2h (SBC-3).
func vitalProvisioning(c *command) []byte {
	b := []byte{0, 0x80 | 0x40 | 0x20 | 0x02, 0x02, 0} // LBPU, LBPWS, LBPWS10, ANC_SUP; thin
	if _, ok := c.unit.usage(); ok {
		b[0] = thresholdExponent
	}
	if c.promisesZeros() {
		b[1] |= 0x04 // LBPRZ
	}
	return b
}

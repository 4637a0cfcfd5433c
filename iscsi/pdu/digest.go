package pdu

import "hash/crc32"

// Digest computes header and data digests (RFC 7143 section 13.1). Its bytes go on the
// wire least significant first, so that 32 zeros give aa 36 91 8a.
type Digest struct{ table *crc32.Table }

// NewDigest makes a Digest; it holds no state and serves any number of goroutines.
func NewDigest() Digest { return Digest{crc32.MakeTable(crc32.Castagnoli)} }

// Sum is the CRC32C of the parts one after another.
func (d Digest) Sum(parts ...[]byte) uint32 {
	var sum uint32
	for _, p := range parts {
		sum = crc32.Update(sum, d.table, p)
	}
	return sum
}

package prefetch

import (
	"fmt"
	"hash/crc32"
	"testing"
)

// TestLines asks for memory of all lengths up to its very end, and beyond it not.
func TestLines(t *testing.T) {
	p := make([]byte, 4096)
	for i := range p {
		p[i] = byte(i)
	}
	before := crc32.ChecksumIEEE(p)
	for n := range len(p) + 1 {
		Lines(p[len(p)-n:])
	}
	Lines(nil)
	if crc32.ChecksumIEEE(p) != before {
		t.Error("memory that was asked for has changed")
	}
	if n := testing.AllocsPerRun(100, func() { Lines(p) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCRC sums blocks of 4 KiB that are in no cache, one after the other.
func BenchmarkCRC(b *testing.B) {
	memory := make([]byte, 512<<20)
	for i := range memory {
		memory[i] = byte(i)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, ahead := range []bool{false, true} {
		b.Run(fmt.Sprintf("ahead=%v", ahead), func(b *testing.B) {
			b.SetBytes(4096)
			for i := range b.N {
				at := i * 4096 % (len(memory) - 4096)
				if ahead {
					Lines(memory[at+4096:][:4096])
				}
				crc32.Checksum(memory[at:][:4096], table)
			}
		})
	}
}

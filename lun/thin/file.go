package thin

import (
	"hash/crc32"
	"io"
	"unsafe"

	"ripstop/internal/prefetch"
)

// File is what a pool lives in. Every method may be called while another is.
// Offsets and lengths that a pool asks for are multiples of 4096 bytes.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync puts everything written before the call, and the size, on stable
	// storage. After an error nobody knows what is there.
	Sync() error
	// Size is the bytes that can be read and written.
	Size() (int64, error)
	// Grow makes the file at least size bytes large; what is new reads as zeros.
	Grow(size int64) error
	// Punch tells that n bytes at off are of no more use.
	Punch(off, n int64) error
}

const (
	blockSize   = 4096
	chunkSize   = 64 << 10
	chunkBlocks = chunkSize / blockSize
	sectorSize  = 512

	nodeSize      = 8192
	chunkNodes    = chunkSize / nodeSize
	leafBlocks    = 1024 // blocks under one leaf: 4 MiB of a volume
	leafRegions   = leafBlocks / chunkBlocks
	leafSize      = leafBlocks * blockSize
	pageLeaves    = 512 // leaves under one page: 2 GiB of a volume
	maxVolumes    = 1 << 14
	maxVolumeSize = int64(1) << 46 // bytes: 64 TiB
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// ahead begins to load block i of p, if p has one, while the one before it is
// summed.
func ahead(p []byte, i int) {
	if i *= blockSize; i < len(p) {
		prefetch.Lines(p[i:min(i+blockSize, len(p))])
	}
}

// aligned is n zero bytes at an address that is a multiple of 4096, which
// O_DIRECT asks for.
func aligned(n int) []byte {
	p := make([]byte, n+blockSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) & (blockSize - 1)
	return p[skip : skip+n : skip+n]
}

// rules switches off, in tests of the tests, what keeps a pool whole.
type rules struct {
	noOrder      bool // R1: frames are written with the data that they publish
	noIntent     bool // R2: blocks are overwritten without an intent
	shareInPlace bool // R2: blocks are overwritten in chunks that others use
	noQuarantine bool // R3: chunks are reused before the giving up is durable
	noNodeWait   bool // R3: nodes are reused before the super that forgets them
	noCarry      bool // intents end with every checkpoint
	noSuperSync  bool // a super is written with the nodes that it names
	noFailStop   bool // R6: a failed sync is tried again
	noShadow     bool // a killed process loses what is pending
	noVerify     bool // R4: data are not compared with their CRC

	lowest bool               // no rule: the lowest free chunk is taken, so that reuse comes soon
	at     func(point string) // called at named points
}

func (r *rules) point(name string) {
	if r.at != nil {
		r.at(name)
	}
}

package scsi

import (
	"encoding/binary"
	"slices"
	"sync"
)

// maxCopyResults is how many results of ended copies a nexus can leave.
const maxCopyResults = 64

// copyResult is what RECEIVE COPY RESULTS says of one EXTENDED COPY.
type copyResult struct {
	id byte

	mu       sync.Mutex
	ended    bool
	segments uint16
	bytes    int64
	sense    []byte // of one that failed
}

func (r *copyResult) segment() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.segments++
}

func (r *copyResult) count(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += n
}

// copyResults is the results of a nexus at one unit, oldest first.
type copyResults struct {
	mu   sync.Mutex
	list []*copyResult
}

// begin makes the result of a copy that starts, unless one with its list
// identifier is running. An older result of it goes.
func (q *copyResults) begin(id byte) (*copyResult, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if old := q.findLocked(id); old != nil && !old.hasEnded() {
		return nil, false
	}
	q.dropLocked(func(r *copyResult) bool { return r.id == id })
	r := &copyResult{id: id}
	q.list = append(q.list, r)
	return r, true
}

// end keeps the outcome of r, and no more outcomes than maxCopyResults.
func (q *copyResults) end(r *copyResult, sense []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.mu.Lock()
	r.ended, r.sense = true, sense
	r.mu.Unlock()
	excess := len(q.list) - maxCopyResults
	q.dropLocked(func(r *copyResult) bool {
		drop := excess > 0 && r.hasEnded()
		if drop {
			excess--
		}
		return drop
	})
}

func (r *copyResult) hasEnded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

func (q *copyResults) dropLocked(match func(*copyResult) bool) {
	q.list = slices.DeleteFunc(q.list, match)
}

func (q *copyResults) findLocked(id byte) *copyResult {
	for _, r := range q.list {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (q *copyResults) find(id byte) *copyResult {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.findLocked(id)
}

func (q *copyResults) drop(r *copyResult) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropLocked(func(other *copyResult) bool { return other == r })
}

// copyReply answers RECEIVE COPY RESULTS: the length, and data.
func (c *command) copyReply(data []byte) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	return c.reply(append(b, data...), binary.BigEndian.Uint32(c.cdb[10:]))
}

// copyStatus is RECEIVE COPY STATUS(LID1) (SPC-4 6.24). What has ended
// without an error is forgotten once it has been told.
func copyStatus(c *command) error {
	const running, good, bad = 0x00, 0x01, 0x02
	const units = 1 // of the transfer count: KiB
	r := c.at.copies.find(c.cdb[2])
	if r == nil {
		return invalidCDB(2, -1)
	}
	r.mu.Lock()
	b := [8]byte{0: running, 3: units}
	if r.ended {
		b[0] = good
	}
	if r.sense != nil {
		b[0] = bad
	}
	binary.BigEndian.PutUint16(b[1:], r.segments)
	binary.BigEndian.PutUint32(b[4:], uint32(r.bytes/1024))
	r.mu.Unlock()
	if b[0] == good {
		c.at.copies.drop(r)
	}
	return c.copyReply(b[:])
}

// copyFailure is RECEIVE COPY FAILURE DETAILS(LID1) (SPC-4 6.22): status and
// sense data of a copy that failed, told once.
func copyFailure(c *command) error {
	r := c.at.copies.find(c.cdb[2])
	if r == nil || !r.hasEnded() {
		return invalidCDB(2, -1)
	}
	if r.sense == nil {
		return c.copyReply(nil)
	}
	b := make([]byte, 56, 56+len(r.sense))
	b[52] = StatusCheckCondition
	binary.BigEndian.PutUint16(b[54:], uint16(len(r.sense)))
	c.at.copies.drop(r)
	return c.copyReply(append(b, r.sense...))
}

// copyDescriptors is the descriptor types that are known, in their order.
var copyDescriptors = []byte{segmentBlockToBlock, cscdIdentification}

// copyParameters is RECEIVE COPY OPERATING PARAMETERS (SPC-4 6.23).
func copyParameters(c *command) error {
	b := make([]byte, 40, 40+len(copyDescriptors))
	put16, put32 := binary.BigEndian.PutUint16, binary.BigEndian.PutUint32
	b[0] = 0x01 // SNLID: there may be no list identifier
	put16(b[4:], maxCopyDevices)
	put16(b[6:], maxCopySegments)
	put32(b[8:], maxCopyLength)
	put32(b[12:], maxCopySegment)
	put16(b[30:], laneDepth) // total concurrent copies
	b[32] = laneDepth        // maximum concurrent copies
	b[33] = granularity      // of segments
	b[39] = byte(len(copyDescriptors))
	return c.copyReply(append(b, copyDescriptors...))
}

// granularity of the data segments, as a power of 2: one block of 512 bytes.
const granularity = 9

// vitalCopy is page 8Fh (SPC-4 7.8.17): which commands, which limits, which
// descriptors, no CSCD descriptor identifiers of its own, and what is general.
func vitalCopy(c *command) []byte {
	put16, put32 := binary.BigEndian.PutUint16, binary.BigEndian.PutUint32
	var commands []byte
	for _, code := range []byte{0x83, 0x84} {
		ops := c.unit.table.of(code)
		commands = append(commands, code, byte(len(ops)))
		for i := range ops {
			commands = append(commands, ops[i].serviceAction())
		}
	}
	limits := make([]byte, 28)
	put16(limits[4:], maxCopyDevices)
	put16(limits[6:], maxCopySegments)
	put32(limits[8:], maxCopyLength)
	general := make([]byte, 32)
	put32(general[0:], laneDepth)
	put32(general[4:], laneDepth)
	put32(general[8:], maxCopySegment)
	general[12] = granularity
	var b []byte
	b = appendCopyDescriptor(b, 0x0001, append([]byte{byte(len(commands))}, commands...))
	b = appendCopyDescriptor(b, 0x0004, limits)
	b = appendCopyDescriptor(b, 0x0008, append([]byte{byte(len(copyDescriptors))}, copyDescriptors...))
	b = appendCopyDescriptor(b, 0x000c, []byte{0, 0})
	return appendCopyDescriptor(b, 0x8001, general)
}

// appendCopyDescriptor fills a third-party copy descriptor to a multiple of 4.
func appendCopyDescriptor(b []byte, kind uint16, value []byte) []byte {
	value = append(value, make([]byte, -len(value)&3)...)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

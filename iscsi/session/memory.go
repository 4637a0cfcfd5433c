package session

// TaskCost is the bytes that a command costs beside its data.
const TaskCost = 512

// Memory counts the bytes that the commands of a session hold: those that wait
// for data-out, which only the initiator can end, and those that run or whose
// answer is not written, which end by themselves.
type Memory struct {
	limit   int
	waiting int
	running int
}

// NewMemory is room for limit bytes.
func NewMemory(limit int) Memory { return Memory{limit: limit} }

// Room tells whether n further bytes fit.
func (m *Memory) Room(n int) bool {
	return m.waiting+m.running+n <= m.limit
}

// Used is the bytes in use.
func (m *Memory) Used() int { return m.waiting + m.running }

// Running tells whether something is in use that ends by itself.
func (m *Memory) Running() bool { return m.running > 0 }

// Wait counts a command of n bytes that waits for data-out.
func (m *Memory) Wait(n int) { m.waiting += n }

// Run counts n bytes of a command that runs.
func (m *Memory) Run(n int) { m.running += n }

// Begin has n bytes that waited run.
func (m *Memory) Begin(n int) { m.waiting, m.running = m.waiting-n, m.running+n }

// Forget frees n bytes that waited.
func (m *Memory) Forget(n int) { m.waiting -= n }

// Free frees n bytes that ran.
func (m *Memory) Free(n int) { m.running -= n }

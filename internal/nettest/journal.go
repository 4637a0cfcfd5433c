package nettest

import (
	"bytes"
	"sync"
)

// Journal keeps what is written to it, while others read it.
type Journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write keeps p.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

// String is all that was written so far.
func (j *Journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

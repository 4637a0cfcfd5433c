package scsi

import "context"

// runsAtOnce is how many runs eachRun asks for at a time.
const runsAtOnce = 64

// eachRun calls do for the runs of n bytes at off, in order, neighbours of one
// kind joined, until one fails. Unlike in Device.Extents, do may use the device.
func eachRun(ctx context.Context, dev Device, off, n int64, do func(off, n int64, mapped bool) error) error {
	runs := make([]lbaRun, 0, runsAtOnce)
	for end := off + n; off < end; {
		runs = runs[:0]
		err := dev.Extents(ctx, off, end-off, func(off, n int64, mapped bool) bool {
			if last := len(runs) - 1; last >= 0 && runs[last].mapped == mapped {
				runs[last].n += n
				return true
			}
			if len(runs) == cap(runs) {
				return false
			}
			runs = append(runs, lbaRun{extent{off, n}, mapped})
			return true
		})
		if err != nil {
			return err
		}
		if len(runs) == 0 {
			return errNoExtents
		}
		for _, r := range runs {
			if err := do(r.off, r.n, r.mapped); err != nil {
				return err
			}
		}
		last := runs[len(runs)-1]
		off = last.off + last.n
	}
	return nil
}

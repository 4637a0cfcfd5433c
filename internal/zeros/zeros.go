// Package zeros finds what need not be stored.
package zeros

import "bytes"

// Grain is the least run of zeros that Dense leaves out, in bytes.
const Grain = 4096

var grain [Grain]byte

// Only tells whether all of p is zeros.
func Only(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), Grain)
		if !bytes.Equal(p[:n], grain[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// Dense hands on the runs of p, which is at off, that are not zeros, ascending; a run
// is of whole grains but for the last of p. An error of yield ends it.
func Dense(off int64, p []byte, yield func(off int64, p []byte) error) error {
	start := -1
	for i := 0; i < len(p); i += Grain {
		empty := Only(p[i:min(i+Grain, len(p))])
		if !empty && start < 0 {
			start = i
		}
		if empty && start >= 0 {
			if err := yield(off+int64(start), p[start:i]); err != nil {
				return err
			}
			start = -1
		}
	}
	if start >= 0 {
		return yield(off+int64(start), p[start:])
	}
	return nil
}

// Package prefetch asks the processor to load memory before it is read.
//
// What a disk has just read is in no cache of the processor that looks at it. A
// CRC over a few KiB waits for memory again and again, because it reads at several
// places at once, each too short for the processor to see an order in; asked for
// beforehand, the lines come while something else is computed.
package prefetch

// Lines begins to load the cache lines of p and does not wait for them. Where the
// processor is not known it does nothing.
func Lines(p []byte) {
	if len(p) > 0 {
		lines(&p[0], len(p))
	}
}

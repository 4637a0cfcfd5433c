// Package disk reads and writes a file or block device of the host, past the page
// cache or through it, by threads, by a ring, or at once where the cache has the
// data. It knows nothing of what the bytes mean.
package disk

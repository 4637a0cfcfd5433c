package wg

import "errors"

var (
	// errWord is a value of WireGuard's configuration protocol that cannot be
	// read. It does not quote it.
	errWord = errors.New("unexpected value")
	// errInUse is a UAPI socket at which another process listens.
	errInUse = errors.New("another process serves it")
	// errClosed is a Driver after Close or Release.
	errClosed = errors.New("the tunnels' driver is closed")
	// errGone is a tunnel whose device is not there, so that nothing can be
	// changed about it.
	errGone = errors.New("its device is not there: the next pass makes it anew")
	// errForeign is a device that has a tunnel's name and is not ours.
	errForeign = errors.New("a device of this name is there that ripstop did not make: rename the one or the other")
)

package wg

import "errors"

// errWord is a value of WireGuard's configuration protocol that cannot be read.
// It does not quote it.
var errWord = errors.New("unexpected value")

// errInUse is a UAPI socket at which another process listens.
var errInUse = errors.New("another process serves it")

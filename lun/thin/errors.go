package thin

import (
	"errors"
	"fmt"

	"ripstop/lun"
)

// What can be wrong with a pool, besides the errors of package lun.
var (
	// ErrFormat: the pool was made by a newer ripstop.
	ErrFormat = errors.New("the format is not known")
	// ErrDamaged: what is on the disk contradicts itself.
	ErrDamaged = errors.New("the pool is damaged")
	// ErrExists: the name is taken.
	ErrExists = fmt.Errorf("%w already", lun.ErrExists)
	// ErrNotFound: there is no volume or snapshot of that name.
	ErrNotFound = errors.New("it does not exist")
	// ErrHasSnapshots: a volume goes after its snapshots.
	ErrHasSnapshots = errors.New("it has snapshots")
	// ErrClosed: the pool is out of service.
	ErrClosed = errors.New("the pool is out of service")

	errChecksum = errors.New("the data do not match their checksum")
)

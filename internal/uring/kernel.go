package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/io_uring.h, under the names there.
const (
	opRead  = 22 // IORING_OP_READ
	opWrite = 23 // IORING_OP_WRITE

	sqeFixedFile = 1 << 0 // IOSQE_FIXED_FILE

	setupCQSize     = 1 << 3 // IORING_SETUP_CQSIZE
	setupSubmitAll  = 1 << 7 // IORING_SETUP_SUBMIT_ALL
	setupCoopTask   = 1 << 8 // IORING_SETUP_COOP_TASKRUN
	featSingleMmap  = 1 << 0 // IORING_FEAT_SINGLE_MMAP
	featNoDrop      = 1 << 1 // IORING_FEAT_NODROP
	enterGetEvents  = 1 << 0 // IORING_ENTER_GETEVENTS
	offSQRing       = 0
	offSQEs         = 0x10000000
	registerEventfd = 4  // IORING_REGISTER_EVENTFD
	registerFiles   = 13 // IORING_REGISTER_FILES2
	updateFiles     = 6  // IORING_REGISTER_FILES_UPDATE
	sparseFiles     = 1  // IORING_RSRC_REGISTER_SPARSE
)

// sqe is struct io_uring_sqe as reads and writes use it.
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64
	addr     uint64
	length   uint32
	rwFlags  uint32
	userData uint64
	_        [3]uint64
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// params is struct io_uring_params.
type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFd uint32
	_                                                                      [3]uint32
	sqOff                                                                  struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		userAddr                                            uint64
	}
	cqOff struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		userAddr                                            uint64
	}
}

// queues is the memory that is shared with the kernel.
type queues struct {
	fd     int
	ring   []byte // both queues
	sqeMem []byte

	sqHead, sqTail *atomic.Uint32
	sqMask         uint32
	sqes           []sqe

	cqHead, cqTail *atomic.Uint32
	cqMask         uint32
	cqes           []cqe
}

// setup makes queues for depth transfers, a power of two.
func setup(depth uint32, flags uint32) (*queues, error) {
	p := params{flags: flags}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	q := &queues{fd: int(fd)}
	if p.features&featSingleMmap == 0 || p.features&featNoDrop == 0 {
		return nil, errors.Join(errors.New("io_uring_setup: the kernel is too old"), q.close())
	}
	if err := q.mmap(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("map the ring: %w", err), q.close())
	}
	return q, nil
}

func (q *queues) mmap(p *params) error {
	size := max(p.sqOff.array+4*p.sqEntries, p.cqOff.cqes+uint32(unsafe.Sizeof(cqe{}))*p.cqEntries)
	var err error
	if q.ring, err = q.mapAt(offSQRing, int(size)); err != nil {
		return err
	}
	if q.sqeMem, err = q.mapAt(offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{}))); err != nil {
		return err
	}
	word := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&q.ring[off])) }
	q.sqHead, q.sqTail, q.sqMask = word(p.sqOff.head), word(p.sqOff.tail), word(p.sqOff.mask).Load()
	q.cqHead, q.cqTail, q.cqMask = word(p.cqOff.head), word(p.cqOff.tail), word(p.cqOff.mask).Load()
	q.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&q.sqeMem[0])), p.sqEntries)
	q.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&q.ring[p.cqOff.cqes])), p.cqEntries)
	for i := range p.sqEntries { // the entries are used in their own order
		word(p.sqOff.array + 4*i).Store(i)
	}
	return nil
}

func (q *queues) mapAt(off int64, size int) ([]byte, error) {
	return unix.Mmap(q.fd, off, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// enter hands n entries to the kernel.
func (q *queues) enter(n uint32) error {
	for {
		_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(q.fd), uintptr(n), 0, 0, 0, 0)
		switch e {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return fmt.Errorf("io_uring_enter: %w", e)
	}
}

// enterWait hands n entries to the kernel and waits for some completions, or less
// where a signal comes.
func (q *queues) enterWait(n, some uint32) error {
	_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(q.fd), uintptr(n), uintptr(some), enterGetEvents, 0, 0)
	if e != 0 && e != unix.EINTR {
		return fmt.Errorf("io_uring_enter: %w", e)
	}
	return nil
}

func (q *queues) register(op uintptr, arg unsafe.Pointer, n int) error {
	_, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(q.fd), op, uintptr(arg), uintptr(n), 0, 0)
	if e != 0 {
		return fmt.Errorf("io_uring_register: %w", e)
	}
	return nil
}

// makeFiles makes an empty table of n files.
func (q *queues) makeFiles(n uint32) error {
	r := struct { // struct io_uring_rsrc_register
		nr, flags uint32
		_         [3]uint64
	}{nr: n, flags: sparseFiles}
	return q.register(registerFiles, unsafe.Pointer(&r), int(unsafe.Sizeof(r)))
}

// setFile puts a descriptor into the table of files; -1 takes it out.
func (q *queues) setFile(i uint32, fd int32) error {
	u := struct { // struct io_uring_rsrc_update
		offset, _ uint32
		fds       uint64
	}{offset: i, fds: uint64(uintptr(unsafe.Pointer(&fd)))}
	return q.register(updateFiles, unsafe.Pointer(&u), 1)
}

func (q *queues) setEventfd(fd int32) error {
	return q.register(registerEventfd, unsafe.Pointer(&fd), 1)
}

func (q *queues) close() error {
	var errs []error
	for _, m := range [][]byte{q.ring, q.sqeMem} {
		if m != nil {
			errs = append(errs, unix.Munmap(m))
		}
	}
	return errors.Join(append(errs, unix.Close(q.fd))...)
}

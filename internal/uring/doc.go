// Package uring reads and writes files through an io_uring of the kernel
// (io_uring(7), Linux 6.0 or newer): many transfers at the same time without a
// thread for each.
//
//	any goroutine ── Read ─► submission queue ─ io_uring_enter(2) ─► kernel
//	done(ok) ◄─┬─ Serve, one goroutine ◄─ eventfd ◄─ completion queue ◄─┘
//	           └─ Reap, who is awake anyhow
//
// Who has something to submit takes along what others have put into the queue
// meanwhile; who has much submits it together, by Plug and Unplug. Nothing is allocated for a transfer.
//
// # Caveats
//
// A ring is a faster way where there is one, never the only way: New fails where
// the kernel or a seccomp filter refuses it, Read and Write refuse what does not
// fit, and a transfer may end with ok = false for reasons that are not the
// file's. Each time the caller does the same by pread(2) or pwrite(2), which
// also gives the error its name.
package uring

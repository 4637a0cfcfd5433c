// Package peers runs iSCSI targets as processes, each of them over the same
// file system and behind two portals on the loopback of this network namespace:
// ripstop's real binary, Debian's tgtd and gotgt.
//
//	Daemon ── Start ──► process ──► listens on 127.0.0.1:PORT and 127.0.0.2:PORT
//	   │                                LUN 0, 1, … one file each
//	   └───── Stop, or it died ──► Start again
//
// # Caveats
//
// Work in a network namespace of your own (unshare --net): gotgt listens on all
// addresses, and the ports are fixed.
package peers

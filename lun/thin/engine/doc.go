// Package engine has thin pools in service, and their LUNs.
//
//	pool path ─► store.Open ─► thin.Format where there is none ─► thin.Open
//	                                                                 │
//	   LUN in service: volume ─────────────► thin.Volume ◄───────────┘
//	   LUN out of service: its thin.Volume, which nobody reaches
//
// A pool's size is what data may take. What the pool itself needs comes on top:
// the log, the map and the reserve, see layout.
//
// What goes wrong: a pool that takes no more writes (package thin says when)
// and its LUNs stay in service, can be read, and carry the reason as their
// fault. A disk that hangs holds what is done to its own pool, one thing after the
// other, and nothing else: see lane.
//
// # Caveats
//
// A LUN that goes out of service is put on stable storage. Its data can be found
// again under its name in the same pool, and nowhere else.
package engine

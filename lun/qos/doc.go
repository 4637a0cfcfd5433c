// Package qos keeps the promises that were made to LUNs: it decides which access
// to a pool begins next.
//
//	TryReadAt, StartReadAt, ReadAt ─► may it begin now? ─yes─► the engine's volume ─► its slot is free again
//	                                       no                                                │
//	                                       └─► queue of the LUN ◄── the next one ────────────┘
//	                                                      ▲── a limit's time has come
//
// # What decides
//
// Each LUN, and each target with a policy, has times of three kinds, and each
// access moves all of them on by what it costs, whatever it was that let it begin:
//
//   - of its reservation: is it past, the access comes before all that is not
//     reserved;
//   - of its limit: is it to come, the access waits for it, even when nobody
//     else wants anything;
//   - of its shares: a time of the pool's own, which goes on faster for who has
//     fewer. The one who is behind is next. First among targets, then among the
//     LUNs of one.
//
// So a LUN gets what its shares give it, but no less than its reservation and no
// more than its limit, and what nobody wants is everybody's. The idea is mClock's
// (Gulati, Merchant, Varman: mClock, OSDI 2010), except that there reserved
// accesses do not count as shares.
//
// Shares and reservations mean something only while there is a queue here and
// not in the disk: a pool in which they are promised has no more than a few
// accesses under way. Where there are only limits, nothing is bounded, and where
// there is no policy, an access costs one comparison more.
//
// Flush, and questions for extents, are never held back: they cost what the
// writes before them did.
package qos

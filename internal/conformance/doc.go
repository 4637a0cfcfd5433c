// Package conformance runs libiscsi's conformance suite, iscsi-test-cu, test by
// test, and knows what is expected of ours.
//
//	Tests ─► Run, each in a process of its own ─► Result ─► Regressions against expected.txt
//
// expected.txt holds the tests that may do something else than pass, each with
// its reason; it is the one list for the target's own test and for the table
// that shows other targets beside it.
//
// # Caveats
//
// The tests write on the LUN that they are given. They are of libiscsi 1.19;
// another version's tests have other names.
package conformance

//go:build race

package crash

// raceFlags builds the daemon as the tests are built.
var raceFlags = []string{"-race"}

//go:build !race

package crash

var raceFlags []string

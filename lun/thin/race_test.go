//go:build race

package thin

// fewSeeds is for the race detector, under which a seed takes ten times as long.
const fewSeeds = "60"

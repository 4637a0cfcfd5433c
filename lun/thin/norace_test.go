//go:build !race

package thin

const fewSeeds = "300"

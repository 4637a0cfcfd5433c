package config

import (
	"slices"
	"strings"
)

// listed is how many names a message lists when none of them is near.
const listed = 12

// Nearest is the valid name that a person who typed word probably meant, "" when
// none is near.
func Nearest(word string, valid []string) string { return nearest(word, valid) }

// nearest is the valid word that a person who typed word probably meant, ""
// when none is near: one slip in three letters, and one in a short word.
func nearest(word string, valid []string) string {
	if len(word) < 2 || len(word) > 64 {
		return ""
	}
	best, limit := "", max(1, len(word)/3)
	for _, v := range slices.Sorted(slices.Values(valid)) {
		if len(v) > 64 {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(v)); d <= limit {
			best, limit = v, d-1
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour to turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

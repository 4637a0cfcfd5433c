// Package config reads the file that says what a host shall be.
//
//	files ─► YAML ─► plain ─► raw ─► check ─► Config (typed, valid)
//	          │        │       │       │
//	          └────────┴───────┴───────┴─► Errors, all of them, each with its place
//
// plain refuses what YAML has and the file does not need (anchors, aliases,
// tags, merge keys, several documents, absurd nesting); raw is the file's shape
// with every value parsed alone; check follows the names from one object to
// another. Each stage goes on after a fault, so that one run tells all of them.
//
// Parse does no I/O. Load, ReadSecret and PrivateKey are the files' side of it.
//
// # Caveats
//
// A syntax error hides the rest of its file, because nobody knows where the
// next value begins; the other files are still checked. References are then not
// reported as broken, as what they name may stand in the hidden part.
//
// The schema is generated: go test ./controller/config -run TestSchema -update
package config

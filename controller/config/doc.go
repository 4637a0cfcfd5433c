// Package config reads the file that says what a host shall be.
//
//	files ─► scan ─► tree ─► raw ─► check ─► Config (typed, valid)
//	          │       │       │       │
//	          └───────┴───────┴───────┴─► Errors, all of them, each with its place
//
// scan refuses what YAML allows and the file does not need (anchors, aliases,
// tags, several documents, absurd nesting); tree is the file without YAML; raw
// is the file's shape with every value parsed alone; check follows the names
// from one object to another. Each stage goes on after a fault, so that one run
// tells all of them.
//
// Parse does no I/O. Load, ReadSecret and PrivateKey are the files' side of it.
//
// # Caveats
//
// A syntax error hides the rest of its file, because nobody knows where the
// next value begins; the other files are still checked. References into a file
// with a syntax error are then not reported as broken.
package config

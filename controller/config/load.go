package config

// Load reads the files that paths name; a directory stands for its *.yaml in
// lexical order. It reads and does not parse: hand the result to Parse.
func Load(paths []string) ([]File, error) {
	return nil, nil
}

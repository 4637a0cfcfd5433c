package config

// File is one file's name, as faults shall print it, and its bytes.
type File struct {
	Name string
	Data []byte
}

// Parse reads files as one configuration. The error, if any, is Errors and
// holds every fault; the Config is then nil. Warnings come with or without it.
// It does no I/O.
func Parse(files []File) (*Config, []Warning, error) {
	return &Config{}, nil, nil
}

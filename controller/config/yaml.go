package config

import (
	"fmt"

	"github.com/goccy/go-yaml"
)

// FromJSON gives a JSON document as YAML, with its keys in the same order.
func FromJSON(document []byte) ([]byte, error) {
	b, err := yaml.JSONToYAML(document)
	if err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	return b, nil
}

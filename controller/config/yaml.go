package config

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// FromJSON gives a JSON document as YAML, with its keys in the same order. The
// document is one of our own: JSON is read as the YAML that it is, which knows
// no surrogate pairs.
func FromJSON(document []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Load(document, &root); err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	plainStyle(&root)
	b, err := yaml.Dump(&root, yaml.WithIndent(2))
	if err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	return b, nil
}

// plainStyle lets the writer choose blocks over braces, and quotes only where
// text would read as something else.
func plainStyle(n *yaml.Node) {
	empty := n.Kind != yaml.ScalarNode && len(n.Content) == 0
	if !empty {
		n.Style = 0
	}
	for _, c := range n.Content {
		plainStyle(c)
	}
}

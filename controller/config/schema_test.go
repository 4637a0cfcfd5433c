package config

import (
	"encoding/json"
	"testing"
)

// TestSchema compares with the schema that editors fetch; -update writes it.
func TestSchema(t *testing.T) {
	got := Schema()
	if !json.Valid(got) {
		t.Fatalf("schema is not JSON: %q", got)
	}
	golden(t, "../../configs/ripstop.schema.json", string(got))
}

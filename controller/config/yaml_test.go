package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

func TestFromJSON(t *testing.T) {
	const in = `{"z":1,"a":"text","list":[{"name":"web","up":true},{"name":"db","up":null}],
		"text":["1","true","null","","~","a: b","- x","2026-11-23","<\u003e","two\nlines","é\u2028"],
		"none":[],"nothing":{},"big":9007199254740993,"f":1.5}`
	const begin = "z: 1\na: text\nlist:\n"
	out, err := FromJSON([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(out), begin) || strings.Contains(string(out), "{\"") {
		t.Errorf("got:\n%s\nwant it to begin:\n%s", out, begin)
	}
	var got, want any
	if err := yaml.Load(out, &got); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Load([]byte(in), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("YAML says %v\nJSON says %v\n%s", got, want, out)
	}
	texts := got.(map[string]any)["text"].([]any)
	var fromJSON struct{ Text []any }
	if err := json.Unmarshal([]byte(in), &fromJSON); err != nil || !reflect.DeepEqual(texts, fromJSON.Text) {
		t.Errorf("got %q, want %q, %v", texts, fromJSON.Text, err)
	}
	if _, err := FromJSON([]byte(`{"a":`)); err == nil {
		t.Error("half a document is taken")
	}
}

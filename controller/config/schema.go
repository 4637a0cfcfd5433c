package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"ripstop/vswitch"
)

// Schema is the file's JSON Schema (draft 2020-12), for editors. It knows what
// each value looks like alone; only Parse knows what belongs together.
func Schema() []byte {
	r := &jsonschema.Reflector{
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		Anonymous:                  true,
		ExpandedStruct:             true,
		Namer:                      func(t reflect.Type) string { return strings.ToLower(strings.TrimPrefix(t.Name(), "raw")) },
		Mapper:                     wordSchema,
	}
	s := r.Reflect(&rawFile{})
	s.Title = "ripstop"
	s.Description = "What a host shall be: virtual networks and virtual storage."
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil // maps and strings always encode; the golden test would see it
	}
	return append(out, '\n')
}

// What the generic raw types are in JSON's eyes.

func (value[T]) JSONSchemaAlias() any { return *new(T) }
func (list[T]) JSONSchemaAlias() any  { return []T{} }
func (table[T]) JSONSchemaAlias() any { return map[string]T{} }
func (many[T]) word() reflect.Type    { return reflect.TypeFor[T]() }

// JSONSchemaExtend adds that one rate stands for both directions.
func (rawPortLimit) JSONSchemaExtend(s *jsonschema.Schema) {
	keys := *s
	*s = jsonschema.Schema{OneOf: []*jsonschema.Schema{wordSchema(reflect.TypeFor[rate]()), &keys}}
}

// JSONSchemaExtend adds the word full.
func (rawMesh) JSONSchemaExtend(s *jsonschema.Schema) {
	keys := *s
	*s = jsonschema.Schema{OneOf: []*jsonschema.Schema{words("full"), &keys}}
}

// gatewaySchema is an address, or an address with hosts, or several of either.
func gatewaySchema() *jsonschema.Schema {
	one := func() *jsonschema.Schema {
		keys := jsonschema.NewProperties()
		keys.Set("address", wordSchema(reflect.TypeFor[hostAddr]()))
		keys.Set("on", wordSchema(reflect.TypeFor[many[name]]()))
		return anyOf(wordSchema(reflect.TypeFor[hostAddr]()),
			&jsonschema.Schema{Type: "object", Properties: keys, Required: []string{"address"}, AdditionalProperties: jsonschema.FalseSchema})
	}
	least := uint64(1)
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{one(), {Type: "array", Items: one(), MinItems: &least}}}
}

// JSONSchemaExtend adds the word none.
func (rawEncryption) JSONSchemaExtend(s *jsonschema.Schema) {
	keys := *s
	*s = jsonschema.Schema{OneOf: []*jsonschema.Schema{words("none"), &keys}}
}

// wordSchema is the schema of a word, or of one or many of them; nil leaves a
// type to the reflector.
func wordSchema(t reflect.Type) *jsonschema.Schema {
	zero := reflect.Zero(t).Interface()
	if _, ok := zero.(rawGateways); ok {
		return gatewaySchema()
	}
	if m, ok := zero.(interface{ word() reflect.Type }); ok {
		one, each, least := wordSchema(m.word()), wordSchema(m.word()), uint64(1)
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{one, {Type: "array", Items: each, MinItems: &least}}}
	}
	if s := numberSchema(zero); s != nil {
		return s
	}
	switch zero.(type) {
	case boolean:
		return &jsonschema.Schema{Type: "boolean"}
	case dataplane:
		return words("auto", "bridge", "ebpf")
	case way:
		return words("in", "out")
	case protocol:
		named := []any{}
		for _, n := range slices.Sorted(maps.Keys(protocols)) {
			named = append(named, n)
		}
		return anyOf(words(named...), between(0, vswitch.AnyProtocol-1))
	case portRange:
		return anyOf(pattern(`^[0-9]{1,5}(-[0-9]{1,5})?$`, "8000-8100"), between(0, 65535))
	case icmpType:
		return anyOf(pattern(`^[0-9]{1,3}(/[0-9]{1,3})?$`, "3/4"), between(0, 255))
	case updown:
		return words("up", "down")
	case kind:
		return words("thin", "raw")
	case cache:
		return words("writeback", "direct")
	case announced:
		return anyOf(words("vlans", "portals"), pattern(`^[0-9A-Fa-f:.]+/[0-9]{1,3}$`, "10.10.0.7/32"))
	case restart, hold, bfdInterval:
		return pattern(`^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$`, "90s")
	case tableID:
		return anyOf(words("main"), between(1, 1<<32-1))
	case reachTo:
		return anyOf(pattern(`^[0-9A-Fa-f:.]+/[0-9]{1,3}$`, "10.20.0.0/24"), pattern(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`, "san"))
	case name:
		return pattern(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`)
	case lunRef:
		return pattern(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}(@[A-Za-z0-9_][A-Za-z0-9._-]{0,63})?$`, "data", "data@monday")
	case interval:
		return pattern(`^([0-9.]+(ns|us|µs|ms|s|m|h))+$`, "1h", "24h")
	case ifName:
		return pattern(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,14}$`)
	case hostAddr, anyPrefix:
		return pattern(`^[0-9A-Fa-f:.]+/[0-9]{1,3}$`, "10.10.0.1/24", "fd00:10::1/64")
	case ipAddr, routerID:
		return pattern(`^[0-9A-Fa-f:.]+$`)
	case addrPort:
		return pattern(`^.+:[0-9]{1,5}$`, "192.0.2.1:3260", "[fd00::1]:3260")
	case iqn:
		return pattern(`^(iqn|eui|naa|IQN|EUI|NAA)\..+$`, "iqn.2026-11.org.example:offsite")
	case copyPortal:
		return pattern(`^.+:[0-9]{1,5}$`, "192.0.2.9:3260", "[2001:db8::9]:3260")
	case endpoint:
		return pattern(`^.+:[0-9]{1,5}$`, "192.0.2.7:51820", "vpn.example.org:51820")
	case mac:
		return pattern(`^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$`, "02:00:5e:00:53:01")
	case publicKey:
		return pattern(`^[A-Za-z0-9+/]{43}=$`)
	case keepalive:
		return pattern(`^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$`, "25s")
	case rate:
		return pattern(`^[0-9]+([kMGT]|[KMGT]i)?(bit|B)/s$`, "100Mbit/s", "200MiB/s")
	case burst:
		return pattern(`^([0-9.]+(ns|us|µs|ms|s))+$`, "250ms")
	case fileName, chapName:
		return pattern(`.`)
	case userName:
		return anyOf(pattern(`.`), between(0, 1<<32-2))
	case size:
		return anyOf(pattern(`^[0-9]+([KMGT]iB)?$`, "10GiB"), between(1, 1<<63-1))
	}
	return nil
}

func numberSchema(zero any) *jsonschema.Schema {
	switch zero.(type) {
	case version:
		return &jsonschema.Schema{Const: 1}
	case vlanID:
		return between(1, 4094)
	case portNumber:
		return between(1, 65535)
	case mtu:
		return between(68, 65535)
	case tapQueues:
		return between(1, 256)
	case macLimit:
		return between(1, 65535)
	case perSecond:
		return between(1, 1e9)
	case asn:
		return between(1, 1<<32-2)
	case hops:
		return between(1, 254)
	case ttl:
		return between(2, 255)
	case prefixLimit:
		return between(1, 1e6)
	case prefixBits:
		return between(0, 128)
	case multipath:
		return between(1, 64)
	case iops:
		return between(1, 1e9)
	case shares:
		return between(1, 10000)
	case kept:
		return between(1, 1000)
	case lunNumber:
		return between(0, 16383)
	case block:
		return &jsonschema.Schema{Enum: []any{512, 4096}, Default: 4096}
	case ratio:
		return &jsonschema.Schema{Type: "number", Minimum: "1", Maximum: "1000000", Default: 1}
	}
	return nil
}

func between(least, most int64) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "integer", Minimum: json.Number(fmt.Sprint(least)), Maximum: json.Number(fmt.Sprint(most))}
}

func words(all ...any) *jsonschema.Schema { return &jsonschema.Schema{Enum: all} }

func anyOf(all ...*jsonschema.Schema) *jsonschema.Schema { return &jsonschema.Schema{AnyOf: all} }

func pattern(p string, examples ...any) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: p, Examples: examples}
}

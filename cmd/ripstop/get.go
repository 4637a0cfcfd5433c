package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
)

// kind is one kind of object and how people see it: heads and the fields of the
// JSON object under them.
type kind struct {
	name    string
	columns []column
}

type column struct {
	head, field string           // a field inside an object follows a dot
	show        func(any) string // nil prints the value plainly
}

var kinds = []kind{
	{"switch", []column{{"NAME", "name", nil}, {"DATAPLANE", "dataplane", nil}, {"PORTS", "ports", nil}, {"GATEWAYS", "gateways", nil}}},
	{"vlan", []column{{"NAME", "name", nil}, {"ID", "id", nil}, {"GATEWAY", "gateway", nil}, {"SWITCHES", "switches", nil}, {"FRAMES", "frames", nil}, {"BYTES", "bytes", nil}}},
	{"port", []column{{"NAME", "name", nil}, {"SWITCH", "switch", nil}, {"KIND", "kind", nil}, {"PVID", "pvid", nil}, {"TAGGED", "tagged", nil}, {"ADDRESSES", "addresses", nil}, {"ORIGIN", "origin", nil}, {"RX", "rxFrames", nil}, {"TX", "txFrames", nil}, {"DROPS", "drops", nil}, {"MTU", "mtu", nil}, {"WHY THIS MTU", "why", nil}}},
	{"fdb", []column{{"SWITCH", "switch", nil}, {"VLAN", "vlan", nil}, {"MAC", "mac", nil}, {"PORT", "port", nil}, {"AGE", "age", seconds}}},
	{"tunnel", []column{{"NAME", "name", nil}, {"ENGINE", "engine", nil}, {"LISTEN", "listen", nil}, {"ADDRESSES", "addresses", nil}, {"MTU", "mtu", nil}, {"PEERS", "peers", nil}, {"PUBLIC KEY", "publicKey", nil}, {"WHY THIS MTU", "why", nil}}},
	{"peer", []column{{"NAME", "name", nil}, {"TUNNEL", "tunnel", nil}, {"ORIGIN", "origin", nil}, {"ENDPOINT", "endpoint", nil}, {"HANDSHAKE", "handshake", ago}, {"RX", "rxBytes", bytesOf}, {"TX", "txBytes", bytesOf}, {"PASSES", "passes", nil}, {"DROPS", "drops", nil}, {"ALLOWED IPS", "allowedIPs", nil}}},
	{"host", []column{{"NAME", "name", nil}, {"ADDRESSES", "addresses", nil}, {"ENDPOINT", "endpoint", nil}, {"PUBLIC KEY", "publicKey", nil}, {"KEY FROM", "origin", nil}, {"TOKEN EXPIRES", "token", in}}},
	{"route", []column{{"PREFIX", "prefix", nil}, {"DEVICE", "device", nil}, {"VIA", "via", nil}, {"TABLE", "table", nil}, {"NEXT HOP", "nextHop", nil}, {"AS PATH", "asPath", nil}, {"STATE", "state", nil}, {"WHY NOT", "why", nil}}},
	{"neighbor", []column{{"NAME", "name", nil}, {"ADDRESS", "address", nil}, {"ASN", "asn", nil}, {"STATE", "state", nil}, {"SINCE", "since", ago}, {"SENT", "sent", nil}, {"RECEIVED", "received", nil}, {"ACCEPTED", "accepted", nil}, {"USED", "used", nil}, {"BFD", "bfd", nil}, {"WHY NOT", "why", nil}}},
	{"pool", []column{{"NAME", "name", nil}, {"KIND", "kind", nil}, {"SIZE", "size", bytesOf}, {"USED", "used", bytesOf}, {"SNAPSHOTS", "snapshots", bytesOf}, {"PROVISIONED", "provisioned", bytesOf}, {"OVERCOMMIT", "overcommit", nil}, {"FULL", "full", in}, {"CACHE", "cache", nil}, {"PATH", "path", nil}}},
	{"lun", []column{{"NAME", "name", nil}, {"POOL", "pool", nil}, {"SIZE", "size", bytesOf}, {"USED", "used", bytesOf}, {"EXCLUSIVE", "exclusive", bytesOf}, {"SHARED", "shared", bytesOf}, {"BLOCK", "block", nil}, {"ORIGIN", "origin", nil}, {"TARGETS", "targets", nil}, {"READ P99", "readLatencyNs.p99", lasting}, {"WRITE P99", "writeLatencyNs.p99", lasting}, {"LEGS", "legs", legs}}},
	{"snapshot", []column{{"NAME", "name", nil}, {"LUN", "lun", nil}, {"POOL", "pool", nil}, {"SINCE", "since", ago}, {"SIZE", "size", bytesOf}, {"USED", "used", bytesOf}, {"EXCLUSIVE", "exclusive", bytesOf}, {"SHARED", "shared", bytesOf}, {"ORIGIN", "origin", nil}, {"TARGETS", "targets", nil}}},
	{"copy", []column{{"NAME", "name", nil}, {"OF", "of", nil}, {"HOST", "host", nil}, {"WHOLE", "whole", nil}, {"TAKEN", "taken", ago}, {"SIZE", "size", bytesOf}, {"WRITTEN", "written", ago}, {"PROBLEM", "problem", nil}}},
	{"task", []column{{"VERB", "verb", nil}, {"NAME", "name", nil}, {"SINCE", "since", ago}, {"DONE", "done", bytesOf}, {"TOTAL", "total", bytesOf}}},
	{"target", []column{{"NAME", "name", nil}, {"PORTALS", "portals", nil}, {"LUNS", "luns", nil}, {"INITIATORS", "initiators", nil}, {"SESSIONS", "sessions", nil}, {"READ", "readBytes", bytesOf}, {"WRITTEN", "writtenBytes", bytesOf}}},
	{"session", []column{{"INITIATOR", "initiator", nil}, {"TARGET", "target", nil}, {"PORTAL", "portal", nil}, {"REMOTE", "remote", nil}, {"SINCE", "since", ago}, {"LUNS", "luns", nil}, {"DEPTH", "depth", nil}, {"READ", "readBytes", bytesOf}, {"READ P99", "readLatencyNs.p99", lasting}, {"WRITTEN", "writtenBytes", bytesOf}, {"WRITE P99", "writeLatencyNs.p99", lasting}}},
}

func kindNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

func newGet(g *global) *cobra.Command {
	return &cobra.Command{
		Use:       "get KIND [NAME]",
		Short:     "Show objects of a kind, or one of them",
		Long:      "Kinds: " + strings.Join(kindNames(), ", ") + ".\nIn JSON: a list of objects; with NAME, one object.",
		Args:      cobra.RangeArgs(1, 2),
		ValidArgs: kindNames(),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := findKind(args[0])
			if err != nil {
				return err
			}
			all, err := client.New(g.socket).Get(cmd.Context(), k.name)
			if err != nil {
				return err
			}
			if len(args) == 2 {
				one, err := pick(all, k.name, args[1])
				if err != nil {
					return err
				}
				return g.print(cmd.OutOrStdout(), one, func(w io.Writer) error { return k.table(w, []json.RawMessage{one}) })
			}
			return g.print(cmd.OutOrStdout(), all, func(w io.Writer) error { return k.table(w, all) })
		},
	}
}

func findKind(name string) (kind, error) {
	// The plural is as clear as the singular.
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name || k.name+"s" == name })
	if i < 0 {
		return kind{}, fmt.Errorf("get %s: no such kind: write one of %s", name, strings.Join(kindNames(), ", "))
	}
	return kinds[i], nil
}

// pick finds the object of a name. An address table has no names: its objects
// are found by their MAC; snapshots go by LUN@SNAPSHOT.
func pick(all []json.RawMessage, kind, name string) (json.RawMessage, error) {
	for _, raw := range all {
		var o struct{ Name, LUN, MAC, Initiator, Prefix string }
		if err := json.Unmarshal(raw, &o); err != nil {
			return nil, fmt.Errorf("read the daemon's answer: %w", err)
		}
		if slices.Contains([]string{o.Name, o.MAC, o.Initiator, o.Prefix}, name) && o.LUN == "" || o.LUN != "" && o.LUN+"@"+o.Name == name {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("get %s %s: no such %s: `ripstop get %s` lists them", kind, name, kind, kind)
}

func (k kind) table(w io.Writer, all []json.RawMessage) error {
	heads := make([]string, len(k.columns))
	for i, c := range k.columns {
		heads[i] = c.head
	}
	lines := [][]string{heads}
	for _, raw := range all {
		var o map[string]any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&o); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		line := make([]string, len(k.columns))
		for i, c := range k.columns {
			line[i] = or(c.text(field(o, c.field)))
		}
		lines = append(lines, line)
	}
	return rows(w, lines)
}

// field is the value at a path like readLatencyNs.p99, nil where there is none.
func field(o map[string]any, path string) any {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return o[name]
	}
	inner, ok := o[name].(map[string]any)
	if !ok {
		return nil
	}
	return field(inner, rest)
}

func (c column) text(v any) string {
	if c.show != nil && v != nil {
		return c.show(v)
	}
	return plain(v)
}

// plain prints any JSON value in a cell: lists by commas, maps as key=value.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = plain(x)
		}
		return strings.Join(parts, ",")
	case map[string]any:
		var parts []string
		for key, x := range v {
			parts = append(parts, key+"="+plain(x))
		}
		slices.Sort(parts)
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v)
}

func number(v any) float64 {
	n, ok := v.(json.Number)
	if !ok {
		return 0
	}
	f, err := n.Float64()
	if err != nil {
		return 0
	}
	return f
}

func bytesOf(v any) string { return size(int64(number(v))) }

func seconds(v any) string { return fmt.Sprintf("%.0fs", number(v)) }

// lasting prints nanoseconds to two digits: "85µs", "1.2ms". Nothing took no time.
func lasting(v any) string {
	d := time.Duration(number(v))
	if d <= 0 {
		return ""
	}
	unit := time.Nanosecond
	for d >= 100*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}

// legs prints how the two pools of a mirror stand.
func legs(v any) string {
	all, _ := v.([]any)
	var out []string
	for _, l := range all {
		leg, _ := l.(map[string]any)
		s := fmt.Sprint(leg["pool"], " ", leg["state"])
		if left := int64(number(leg["left"])); left > 0 {
			s += ", " + size(left) + " left"
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// in prints how long it is until a time.
func in(v any) string {
	t, err := time.Parse(time.RFC3339, fmt.Sprint(v))
	if err != nil {
		return ""
	}
	return "in " + roughly(time.Until(t))
}

func ago(v any) string {
	t, err := time.Parse(time.RFC3339, fmt.Sprint(v))
	if err != nil || t.IsZero() {
		return ""
	}
	return age(t, time.Now())
}

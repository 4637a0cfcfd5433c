package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

const host = `version: 1
# NICs of this machine
vlans: {lan: {id: 10}}
switches:
  lab:
    ports:
      up:  {trunk: [lan], device: eth0} # to the rack
      alt: {vlan: lan, device: 'eth1'}
      täp: {vlan: lan, tap: {}}
pools:
  main: {path: /dev/sdb, size: 1GiB}
  slow:
    size: 1GiB
    path: "pools/slow" # under the state directory
luns: {data: {pool: main, size: 1MiB, encryption: {key: data.key, former: old.key}}}
`

func TestElsewhere(t *testing.T) {
	text := strings.Replace(host, "täp", "tap", 1)
	e := Elsewhere{Devices: map[string]string{"eth0": "ens3", "eth1": "eth0"}, Paths: map[string]string{"main": "/dev/vdb", "slow": "/srv/a b"}}
	files := []File{{"a.yaml", []byte(text)}, {"b.yaml", []byte("# nothing\n")}}
	out, err := e.Rewrite(files)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("device: eth0", `device: "ens3"`, "'eth1'", `"eth0"`, "/dev/sdb", `"/dev/vdb"`, "pools/slow", "/srv/a b").Replace(text)
	if string(out[0].Data) != want || string(out[1].Data) != "# nothing\n" || string(files[0].Data) != text {
		t.Errorf("got\n%s", out[0].Data)
	}
	if out, err := (Elsewhere{}).Rewrite(files); err != nil || !reflect.DeepEqual(out, files) {
		t.Errorf("%s, %v", out, err)
	}
	for _, tt := range []struct {
		e    Elsewhere
		text string
		want string
	}{
		{Elsewhere{Devices: map[string]string{"eth2": "ens3"}}, text, `has no device "eth2": did you mean "eth0"?`},
		{Elsewhere{Paths: map[string]string{"mian": "/dev/vdb"}}, text, `has no pool "mian": did you mean "main"?`},
		{Elsewhere{Devices: map[string]string{"x": "y"}}, "version: 1\n", `has no device "x": there is none`},
		{Elsewhere{Devices: map[string]string{"eth0": "eth1"}}, text, "eth1"},
		{Elsewhere{Paths: map[string]string{"main": "pools/slow/in"}}, text, "another pool"},
		{Elsewhere{Paths: map[string]string{"main": "/x"}}, strings.Replace(text, "/dev/sdb", `"/dev\x2fsdb"`, 1), "a.yaml:11:16: \"/dev/sdb\" is written so that it cannot be replaced"},
		{Elsewhere{}, "version: 2\n", "version"},
	} {
		if out, err := tt.e.Rewrite([]File{{"a.yaml", []byte(tt.text)}}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q\n%s", tt.e, err, tt.want, out)
		}
	}
}

// TestSecretFiles: all that raw structs read as the name of a file is a secret, but for
// the path of a pool.
func TestSecretFiles(t *testing.T) {
	c, _, err := Parse([]File{{"a.yaml", []byte(`version: 1
tunnels: {site: {listen: 1, address: [10.0.0.1/24], private-key: a, peers: {p: {public-key: "` + strings.Repeat("A", 42) + `E=", preshared-key: b, allowed-ips: [10.9.0.0/24]}}}}
bgp: {asn: 1, router-id: 1.2.3.4, neighbors: {n: {address: 10.0.0.2, asn: 2, password: c}}}
pools: {main: {path: x, size: 1GiB, encryption: {key: d, former: e}}}
luns: {data: {pool: main, size: 1MiB, encryption: {key: f, former: g}}, plain: {pool: main, size: 1MiB, encryption: none},
  far: {pool: main, size: 1MiB, copy: {portal: "192.0.2.9:3260", target: "iqn.2026-11.org.example:far", luns: [0], initiator: "iqn.2026-11.org.example:me", every: 5m, chap: {user: u, secret: l, mutual: {user: v, secret: m}}}}}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data}
    initiators:
      "iqn.2026-11.org.example:i": {chap: {user: u, secret: h, mutual: {user: v, secret: i}}}
      any: {chap: {user: u, secret: j, mutual: {user: v, secret: k}}}
`)}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.SecretFiles(), ""); got != "abcdefghijklm" {
		t.Errorf("got %s", got)
	}
	rotated := Config{Tunnels: map[string]Tunnel{"t": {Peers: map[string]Peer{"p": {PresharedKey: "a", NextPSK: "b"}}}}} // a verb's
	if got := strings.Join(rotated.SecretFiles(), ""); got != "ab" {
		t.Errorf("of a peer that goes over to another key: %s", got)
	}
	proofs := 0
	for _, typ := range []reflect.Type{reflect.TypeFor[Initiator](), reflect.TypeFor[Copy](), reflect.TypeFor[LUN](), reflect.TypeFor[Target](), reflect.TypeFor[Config]()} {
		for i := range typ.NumField() {
			if typ.Field(i).Type == reflect.TypeFor[*CHAP]() {
				proofs++
			}
		}
	}
	if proofs != 4 {
		t.Errorf("%d places have a proof: what is new belongs into SecretFiles and here", proofs)
	}
	var fields []string
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch {
		case typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map:
			walk(typ.Elem())
			return
		case typ.Kind() != reflect.Struct || seen[typ]:
			return
		}
		seen[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.Type == reflect.TypeFor[value[fileName]]() {
				fields = append(fields, typ.Name()+"."+f.Name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[rawFile]())
	slices.Sort(fields)
	want := []string{"rawCHAP.Secret", "rawEncryption.Former", "rawEncryption.Key", "rawMutual.Secret", "rawNeighbor.Password", "rawPeer.PresharedKey", "rawPool.Path", "rawTunnel.PrivateKey"}
	if !slices.Equal(fields, want) {
		t.Errorf("files are named by %v: what is new belongs into SecretFiles and here", fields)
	}
}

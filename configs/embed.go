// Package configs holds the example configurations and the JSON Schema of the
// configuration file. A test parses each of them.
//
//	quickstart.yaml          everything at once on one host
//	quickstart-branch.yaml   the other end of its tunnel
//	vm-host.yaml             VMs of two tenants behind one NIC
//	two-site-{a,b}.yaml      two sites joined by a tunnel
//	fabric.yaml              three hosts in one file
//	reference.yaml           every key, explained
//	ripstop.schema.json      for editors; generated
//
// # Caveats
//
// The keys in quickstart*.yaml belong to private keys that everybody can read.
package configs

import "embed"

// FS is the files beside this one.
//
//go:embed *.yaml ripstop.schema.json
var FS embed.FS

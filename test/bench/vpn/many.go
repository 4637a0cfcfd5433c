package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
)

// buildMany makes a tunnel without peers, and the files that give it some.
func (l *lab) buildMany(ctx context.Context) error {
	var keys []string
	for range peers {
		k := make([]byte, 32)
		rand.Read(k)
		keys = append(keys, base64.StdEncoding.EncodeToString(k))
	}
	l.changed = keys[0]
	head := fmt.Sprintf("[Interface]\nPrivateKey = %s\nListenPort = %d\n", l.keys[0].private, port)
	var conf, routes, entries strings.Builder
	for i, k := range keys {
		prefix := fmt.Sprintf("10.100.%d.%d/32", i>>8, i&0xff)
		fmt.Fprintf(&conf, "[Peer]\nPublicKey = %s\nAllowedIPs = %s\n", k, prefix)
		fmt.Fprintf(&routes, "route add %s dev %s proto static\n", prefix, l.device(0))
		fmt.Fprintf(&entries, "      p%d: {public-key: %q, allowed-ips: [%s]}\n", i, k, prefix)
	}
	all := entries.String()
	none := strings.Replace(l.tunnel(0, ""), "    peers:\n", "", 1)
	err := errors.Join(
		os.WriteFile(l.file("none.conf"), []byte(head), 0o600),
		os.WriteFile(l.file("many.conf"), []byte(head+conf.String()), 0o600),
		os.WriteFile(l.file("routes"), []byte(routes.String()), 0o600),
		os.WriteFile(l.file("none.yaml"), []byte(none), 0o600),
		os.WriteFile(l.file("many.yaml"), []byte(l.tunnel(0, all)), 0o600),
		os.WriteFile(l.file("changed.yaml"), []byte(l.tunnel(0, strings.Replace(all, "[10.100.0.0/32]", "["+changedTo+"]", 1))), 0o600))
	if err != nil {
		return err
	}
	switch l.plane {
	case ours:
		return l.serve(ctx, 0, l.bench.ripstop, none)
	case theirs, kernel:
		return errors.Join(l.make(ctx, 0, l.plane == kernel), l.set(ctx, 0, l.file("key")), l.raise(ctx, 0))
	}
	return nil // vpn/wg makes what it needs
}

// apply and wg are the commands that give a tunnel the peers of a file.
func (l *lab) apply(file string) []string {
	return []string{l.bench.ripstop, "--socket", l.socket(0), "apply", l.file(file + ".yaml")}
}

func (l *lab) wg(verb, file string) []string {
	return []string{"ip", "netns", "exec", l.space(0), "wg", verb, l.device(0), l.file(file + ".conf")}
}

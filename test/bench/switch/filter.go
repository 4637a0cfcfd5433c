package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// What filtered ports may have: the load, and what a network needs. Bridges have it
// in the same meaning, by br_netfilter and connections, as virtual machines' managers
// give it to them, or without connections, by the family of bridges, which costs less.
const (
	groups = `groups:
  load:
    rules:
      - {allow: out}
      - {allow: in, protocol: udp, ports: 4001}
`
	stateful = `table ip load {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related accept
		udp dport 4001 accept
	}
}
`
	stateless = `table bridge load {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ether type arp accept
		udp dport 4001 accept
	}
}
`
)

// callsIP has the bridges of this namespace ask the rules of IP.
const callsIP = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// filterCell is packetCell through filters.
func filterCell(c Cell, l *lab, d time.Duration) (s Sample, err error) {
	if l.filtered {
		return packetCell(c, l, d)
	}
	rules, family := stateless, "bridge"
	if c.Load == "filter" {
		rules, family = stateful, "ip"
		if err := os.WriteFile(callsIP, []byte("1"), 0); err != nil {
			return Sample{}, fmt.Errorf("this kernel's bridge knows no connections: %w", err)
		}
		defer func() { err = errors.Join(err, os.WriteFile(callsIP, []byte("0"), 0)) }()
	}
	if err := nft(rules); err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, nft("delete table "+family+" load\n")) }()
	return packetCell(c, l, d)
}

func nft(lines string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

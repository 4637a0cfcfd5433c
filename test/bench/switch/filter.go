package main

import (
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// What filtered ports may have: the load, and what a network needs.
const (
	groups = `groups:
  load:
    rules:
      - {allow: out}
      - {allow: in, protocol: udp, ports: 4001}
`
	rules = `table bridge load {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ether type arp accept
		udp dport 4001 accept
	}
}
`
)

// filterCell is packetCell through filters: groups of ripstop, which know
// connections, and rules of nftables, which do not.
func filterCell(c Cell, l *lab, d time.Duration) (s Sample, err error) {
	if l.filtered {
		return packetCell(c, l, d)
	}
	if err := nft(rules); err != nil {
		return Sample{}, err
	}
	defer func() {
		if err2 := nft("delete table bridge load\n"); err == nil {
			err = err2
		}
	}()
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

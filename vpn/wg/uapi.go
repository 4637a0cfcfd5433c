package wg

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// encode is a change of a device in the lines of WireGuard's cross-platform
// interface, without the opening "set=1" and the closing empty line
// (https://www.wireguard.com/xplatform/#configuration-protocol).
func encode(cfg wgtypes.Config) string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	if cfg.PrivateKey != nil {
		line("private_key", hexKey(*cfg.PrivateKey))
	}
	if cfg.ListenPort != nil {
		line("listen_port", *cfg.ListenPort)
	}
	if cfg.FirewallMark != nil {
		line("fwmark", *cfg.FirewallMark)
	}
	if cfg.ReplacePeers {
		line("replace_peers", true)
	}
	for _, p := range cfg.Peers {
		encodePeer(line, p)
	}
	return b.String()
}

func encodePeer(line func(key string, value any), p wgtypes.PeerConfig) {
	line("public_key", hexKey(p.PublicKey))
	if p.Remove {
		line("remove", true)
	}
	if p.UpdateOnly {
		line("update_only", true)
	}
	if p.PresharedKey != nil {
		line("preshared_key", hexKey(*p.PresharedKey))
	}
	if p.Endpoint != nil {
		line("endpoint", p.Endpoint)
	}
	if p.PersistentKeepaliveInterval != nil {
		line("persistent_keepalive_interval", int(*p.PersistentKeepaliveInterval/time.Second))
	}
	if p.ReplaceAllowedIPs {
		line("replace_allowed_ips", true)
	}
	for _, ip := range p.AllowedIPs {
		line("allowed_ip", ip.String())
	}
}

// decode reads the answer to "get=1". Lines with keys that it does not know are
// passed over, as the protocol grows by such. Its errors name keys, never values:
// a value may be a secret.
func decode(text string) (*wgtypes.Device, error) {
	d := &wgtypes.Device{Type: wgtypes.Userspace}
	handshake := [2]int64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("read device: line without =")
		}
		if key == "public_key" {
			d.Peers = append(d.Peers, wgtypes.Peer{})
			handshake = [2]int64{}
		}
		var err error
		if len(d.Peers) == 0 {
			err = decodeDevice(d, key, value)
		} else {
			err = decodePeer(&d.Peers[len(d.Peers)-1], &handshake, key, value)
		}
		if err != nil {
			return nil, fmt.Errorf("read device: %s: %w", key, err)
		}
	}
	return d, nil
}

func decodeDevice(d *wgtypes.Device, key, value string) (err error) {
	switch key {
	case "private_key":
		if d.PrivateKey, err = parseKey(value); err == nil {
			d.PublicKey = d.PrivateKey.PublicKey()
		}
	case "listen_port":
		d.ListenPort, err = parseInt[int](value, 1<<16-1)
	case "fwmark":
		d.FirewallMark, err = parseInt[int](value, 1<<32-1)
	case "errno":
		if value != "0" {
			err = errWord
		}
	}
	return err
}

func decodePeer(p *wgtypes.Peer, handshake *[2]int64, key, value string) (err error) {
	var seconds int64
	switch key {
	case "public_key":
		p.PublicKey, err = parseKey(value)
	case "preshared_key":
		p.PresharedKey, err = parseKey(value)
	case "protocol_version":
		p.ProtocolVersion, err = parseInt[int](value, 1<<31-1)
	case "endpoint":
		p.Endpoint, err = parseEndpoint(value)
	case "last_handshake_time_sec":
		handshake[0], err = parseInt[int64](value, 1<<62)
		p.LastHandshakeTime = handshakeTime(*handshake)
	case "last_handshake_time_nsec":
		handshake[1], err = parseInt[int64](value, int64(time.Second)-1)
		p.LastHandshakeTime = handshakeTime(*handshake)
	case "tx_bytes":
		p.TransmitBytes, err = parseInt[int64](value, 1<<63-1)
	case "rx_bytes":
		p.ReceiveBytes, err = parseInt[int64](value, 1<<63-1)
	case "persistent_keepalive_interval":
		seconds, err = parseInt[int64](value, 1<<16-1)
		p.PersistentKeepaliveInterval = time.Duration(seconds) * time.Second
	case "allowed_ip":
		var prefix netip.Prefix
		prefix, err = parsePrefix(value)
		p.AllowedIPs = append(p.AllowedIPs, ipNet(prefix))
	}
	return err
}

// handshakeTime is the zero time where there was none.
func handshakeTime(h [2]int64) time.Time {
	if h == [2]int64{} {
		return time.Time{}
	}
	return time.Unix(h[0], h[1])
}

func hexKey(k wgtypes.Key) string { return hex.EncodeToString(k[:]) }

func parseKey(s string) (k wgtypes.Key, err error) {
	if len(s) != hex.EncodedLen(len(k)) {
		return k, errWord
	}
	if _, err := hex.Decode(k[:], []byte(s)); err != nil {
		return wgtypes.Key{}, errWord
	}
	return k, nil
}

func parseInt[T int | int64](s string, highest int64) (T, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n > uint64(highest) {
		return 0, errWord
	}
	return T(n), nil
}

func parseEndpoint(s string) (*net.UDPAddr, error) {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, errWord
	}
	return net.UDPAddrFromAddrPort(a), nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errWord
	}
	// IPv4 within IPv6 is IPv4 in net.IPNet's eyes, whatever its mask is.
	if p = p.Masked(); p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, nil
}

// ipNet is a prefix in the standard library's old words, which wgtypes speaks.
func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefix is the reverse of ipNet; ok is false for a mask that is no prefix.
func prefix(n net.IPNet) (p netip.Prefix, ok bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return p, false
	}
	if size == 32 {
		a = a.Unmap()
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// block is a block of a pcapng file, as its specification has it.
type block struct {
	kind    uint32
	body    []byte
	options map[uint16][]byte
}

// fixed is the length of a block's body before its options.
var fixed = map[uint32]int{sectionHeader: 16, interfaceHeader: 8, interfaceStats: 12}

// parseFile reads a file and takes nothing that the specification forbids.
func parseFile(b []byte) (all []block, err error) {
	for len(b) > 0 {
		if len(b) < 12 {
			return nil, fmt.Errorf("%d bytes are left", len(b))
		}
		x := block{kind: binary.LittleEndian.Uint32(b), options: map[uint16][]byte{}}
		n := int(binary.LittleEndian.Uint32(b[4:]))
		if n%4 != 0 || n < 12 || n > len(b) || binary.LittleEndian.Uint32(b[n-4:]) != uint32(n) {
			return nil, fmt.Errorf("block %x has length %d", x.kind, n)
		}
		x.body, b = b[8:n-4], b[n:]
		at, ok := fixed[x.kind]
		if x.kind == enhancedPacket {
			at, ok = 20+(int(binary.LittleEndian.Uint32(x.body[12:]))+3)&^3, true
		}
		if !ok {
			return nil, fmt.Errorf("block %x is unknown", x.kind)
		}
		for o := x.body[at:]; ; {
			kind, n := binary.LittleEndian.Uint16(o), int(binary.LittleEndian.Uint16(o[2:]))
			if kind == 0 {
				if len(o) != 4 {
					return nil, fmt.Errorf("block %x: %d bytes after its options", x.kind, len(o)-4)
				}
				break
			}
			x.options[kind], o = o[4:4+n], o[4+(n+3)&^3:]
		}
		all = append(all, x)
	}
	return all, nil
}

func (b block) frame() []byte { return b.body[20 : 20+binary.LittleEndian.Uint32(b.body[12:])] }

func (b block) flags() uint32 { return binary.LittleEndian.Uint32(b.options[optionFlags]) }

func TestWriter(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, Interface{"web", "port web of switch lab", 1000})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 123_456_789)
	for n := range 9 { // all paddings
		if err := w.Write(Frame{now, bytes.Repeat([]byte{byte(n)}, 60+n), 60 + n, n%2 == 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Stats(now, 12, 3); err != nil {
		t.Fatal(err)
	}
	all, err := parseFile(file.Bytes())
	if err != nil || len(all) != 12 {
		t.Fatalf("%d blocks, %v", len(all), err)
	}
	if i := all[1]; string(i.options[optionName]) != "web" || i.options[optionResolution][0] != 9 || binary.LittleEndian.Uint16(i.body) != 1 {
		t.Errorf("interface is %+v", i)
	}
	for n, b := range all[2:11] {
		ns := int64(binary.LittleEndian.Uint32(b.body[4:]))<<32 | int64(binary.LittleEndian.Uint32(b.body[8:]))
		if ns != now.UnixNano() || b.flags() != uint32(1+n%2) || len(b.frame()) != 60+n || b.frame()[59] != byte(n) {
			t.Errorf("frame %d is of %d, flags %d: %x", n, ns, b.flags(), b.frame())
		}
	}
	stats := all[11]
	if binary.LittleEndian.Uint64(stats.options[optionReceived]) != 12 || binary.LittleEndian.Uint64(stats.options[optionDropped]) != 3 {
		t.Errorf("counters are %v", stats.options)
	}
}

func TestFilter(t *testing.T) {
	tcp, err := hex.DecodeString("0200000000020200000000018100000a08004500002800014000400626b70a0a00020a0a00039c400cbc00000001000000005002fffff2cc0000")
	if err != nil {
		t.Fatal(err)
	}
	untagged := append(bytes.Clone(tcp[:12]), tcp[16:]...)
	ten, none := 10, 0
	for _, tt := range []struct {
		host           string
		f              Filter
		tagged, access bool
	}{
		{"", Filter{}, true, true},
		{"", Filter{VLAN: &ten}, true, false},
		{"", Filter{VLAN: &none}, false, true},
		{"02:00:00:00:00:01", Filter{}, true, true},
		{"02:00:00:00:00:02", Filter{VLAN: &ten}, true, false},
		{"02:00:00:00:00:03", Filter{}, false, false},
		{"10.10.0.3", Filter{}, true, true},
		{"10.10.0.4", Filter{}, false, false},
		{"fd00::1", Filter{}, false, false},
		{"", Filter{Port: 3260}, true, true},
		{"10.10.0.2", Filter{Port: 40000}, true, true},
		{"", Filter{Port: 80}, false, false},
	} {
		if tt.host != "" {
			if err := tt.f.SetHost(tt.host); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := tt.f.Match(tcp), tt.f.Match(untagged); a != tt.tagged || b != tt.access {
			t.Errorf("%+v takes the tagged frame %v, the other %v; want %v, %v", tt.f, a, b, tt.tagged, tt.access)
		}
		for n := range tcp { // what is cut off anywhere
			tt.f.Match(tcp[:n])
			tt.f.Match(untagged[:min(n, len(untagged))])
		}
	}
	if (&Filter{Port: 1, IP: netip.Addr{}}).SetHost("web") == nil {
		t.Error("a name is taken for an address")
	}
}

// TestRecord captures at both ends of one cable.
func TestRecord(t *testing.T) {
	nettest.Run(t, "ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
	t.Cleanup(func() { nettest.Run(t, "sh", "-c", "ip link del near 2>/dev/null || true") })
	for _, dev := range []string{"near", "far"} {
		nettest.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/"+dev+"/disable_ipv6")
		nettest.Run(t, "ip", "link", "set", dev, "up")
	}
	near, far := socketOn(t, "near", false), socketOn(t, "far", true)
	frame := append(append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1), 0x81, 0, 0, 10, 0x88, 0xb5)
	frame = append(frame, make([]byte, 50)...)
	frames := map[string][]byte{"near": frame, "far": append(bytes.Clone(frame[:12]), frame[16:]...)}
	for _, dev := range []string{"near", "far"} { // to the port, and from it
		s := socketOn(t, dev, false)
		if _, err := unix.Write(s.fd, frames[dev]); err != nil {
			t.Fatal(err)
		}
	}
	for name, s := range map[string]*Socket{"near": near, "far": far} {
		var file bytes.Buffer
		n, seen, err := Record(t.Context(), s, &file, Interface{Name: "web"}, Filter{}, 2)
		if err != nil || n != 2 || seen.Received < 2 || seen.Dropped != 0 {
			t.Fatalf("%s: %d frames, %+v, %v", name, n, seen, err)
		}
		all, err := parseFile(file.Bytes())
		if err != nil || len(all) != 5 {
			t.Fatalf("%s: %d blocks, %v", name, len(all), err)
		}
		for i, want := range []string{"near", "far"} {
			flags := map[string]uint32{"near": flagOut, "far": flagIn}[want]
			if b := all[2+i]; !bytes.Equal(b.frame(), frames[want]) || b.flags() != flags {
				t.Errorf("%s: frame from %s is %x, flags %d", name, want, b.frame(), b.flags())
			}
		}
	}
	var file bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, _, err := Record(ctx, near, &file, Interface{}, Filter{}, 0); n != 0 || err != nil {
		t.Errorf("a capture that is ended: %d frames, %v", n, err)
	}
	nettest.Run(t, "ip", "link", "del", "near")
	if _, _, err := Record(t.Context(), near, &file, Interface{}, Filter{}, 0); !errors.Is(err, ErrGone) {
		t.Errorf("the interface went away: %v", err)
	}
}

func socketOn(t *testing.T, dev string, far bool) *Socket {
	t.Helper()
	host, err := link.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	l, err := host.Link(dev)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(l.Attrs().Index, far)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

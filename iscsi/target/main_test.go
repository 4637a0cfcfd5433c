package target

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/scsi"
)

func TestMain(m *testing.M) {
	if os.Getenv(idleServer) != "" {
		if err := serveIdle(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	nettest.Main(m)
}

// memory is a Device in memory.
type memory struct {
	info scsi.Info

	mu    sync.Mutex
	bytes []byte
	fault func() // runs inside of every read
	slow  bool   // every access waits for the medium
}

func newMemory(name string, size int64) *memory {
	m := &memory{info: scsi.Info{Name: name, Size: size, BlockSize: 512}, bytes: make([]byte, size)}
	copy(m.info.ID[:], name)
	return m
}

func (m *memory) Info() scsi.Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info
}

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		m.fault()
	}
	copy(p, m.bytes[off:])
	return nil
}

func (m *memory) TryReadAt(p []byte, off int64) (bool, error) {
	if m.slow {
		return false, nil
	}
	return true, m.ReadAt(nil, p, off)
}

func (m *memory) TryWriteAt(p []byte, off int64) (bool, error) {
	if m.slow {
		return false, nil
	}
	return true, m.WriteAt(nil, p, off, false)
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.bytes[off:], p)
	return nil
}

func (m *memory) Unmap(_ context.Context, off, n int64) error { return m.WriteZeroes(nil, off, n) }

func (m *memory) WriteZeroes(_ context.Context, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.bytes[off : off+n])
	return nil
}

func (m *memory) CompareAndWrite(_ context.Context, old, data []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range old {
		if m.bytes[off+int64(i)] != old[i] {
			return &scsi.Miscompare{Offset: int64(i)}
		}
	}
	copy(m.bytes[off:], data)
	return nil
}

func (m *memory) Flush(context.Context) error { return nil }

// Extents says that 4 KiB of zeros take no space.
func (m *memory) Extents(_ context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	zeros := make([]byte, 4096)
	for end := off + n; off < end; {
		k := min(4096-off%4096, end-off)
		if !yield(off, k, !bytes.Equal(m.bytes[off:off+k], zeros[:k])) {
			return nil
		}
		off += k
	}
	return nil
}

func (m *memory) resize(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes = append(m.bytes, make([]byte, size-m.info.Size)...)
	m.info.Size = size
}

// world is a server with its devices and its log.
type world struct {
	*Server
	t       testing.TB
	logs    nettest.Journal
	mu      sync.Mutex
	devices map[string]scsi.Device
}

func (w *world) lookup(name string) (scsi.Device, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d, ok := w.devices[name]; ok {
		return d, nil
	}
	return nil, scsi.ErrGone
}

// newWorld is a server with the LUNs data and logs and no target.
func newWorld(t testing.TB, opts Options) *world {
	w := &world{t: t, devices: map[string]scsi.Device{"data": newMemory("data", 64<<20), "logs": newMemory("logs", 8<<20)}}
	opts.LookupUnit = w.lookup
	w.Server = New(slog.New(slog.NewTextHandler(&w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})), opts)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", w.logs.String())
		}
		if w.Panics() > 0 {
			t.Errorf("%d panics", w.Panics())
		}
	})
	return w
}

// become makes the server's state want, and demands that it then is.
func (w *world) become(want map[string]iscsi.Target) {
	w.t.Helper()
	for range 2 { // the second pass must find nothing to do
		have, err := w.Observe(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range iscsi.Diff(iscsi.State{Targets: want}, have) {
			if err := w.Do(w.t.Context(), s); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	have, err := w.Observe(w.t.Context())
	if steps := iscsi.Diff(iscsi.State{Targets: want}, have); err != nil || len(steps) > 0 {
		w.t.Fatalf("still to do: %v, %v", steps, err)
	}
}

func (w *world) logged(parts ...string) {
	w.t.Helper()
	nettest.Eventually(w.t, 5*time.Second, "log line with "+strings.Join(parts, ", "), func() bool {
		for line := range strings.Lines(w.logs.String()) {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				return true
			}
		}
		return false
	})
}

const (
	dataIQN = "iqn.2026-11.org.example:data"
	openIQN = "iqn.2026-11.org.example:open"
	webName = "iqn.1993-08.org.debian:01:web"
	secret  = "websecretsecret"
	sanName = "san"
	sanPass = "targetsecretsec"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:3260")

// twoTargets is data with CHAP for web and open for anybody.
func twoTargets() map[string]iscsi.Target {
	portals := []iscsi.Portal{{Address: loopback, Via: "address"}}
	chap := &iscsi.CHAP{User: "web", Secret: secret}
	mutual := &iscsi.CHAP{User: sanName, Secret: sanPass}
	return map[string]iscsi.Target{
		dataIQN: {Portals: portals, LUNs: map[uint16]string{0: "data", 1: "logs"},
			Initiators: map[string]iscsi.Initiator{webName: {CHAP: chap, Mutual: mutual}}},
		openIQN: {Portals: portals, LUNs: map[uint16]string{0: "data", 3: "logs"}, Any: &iscsi.Initiator{}},
	}
}

// limit is how long a condition may take to hold.
const limit = 5 * time.Second

package backup

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/test/s3"
)

const lab = `version: 1
pools: {main: {path: pools/main, size: 256MiB, overcommit: 4}}
luns: {data: {pool: main, size: 64MiB}}
targets: {"iqn.2026-11.org.example:data": {portals: [{address: "127.0.0.1:3260"}], luns: {0: data}, initiators: {any: {}}}}
`

// blocks is the fenced blocks of a language of a page.
func blocks(page, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	return out
}

// TestBackupPage runs the commands of docs/backup.md as they stand there, in their order.
func TestBackupPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/backup.md")
	if err != nil {
		t.Fatal(err)
	}
	files, commands := blocks(string(page), "yaml"), blocks(string(page), "sh")
	if len(files) != 1 || len(commands) != 4 {
		t.Fatalf("the page has %d files and %d blocks of commands", len(files), len(commands))
	}
	server := s3.Start(t)
	h := newHost(t, files[0])
	h.env = append(h.env, "AWS_ENDPOINT_URL=http://"+server.Address)
	h.io(0, "write -P 1 1M 2M", "flush")
	h.io(1, "write -P 2 3M 64k", "flush")
	for i, c := range commands {
		out := h.run("sh", "-euc", c)
		if i == 1 { // the second night
			h.io(0, "write -P 3 5M 4k", "flush")
			out += h.run("sh", "-euc", c)
		}
		for _, want := range [][]string{
			{"made key", "made backup store"},
			{"backed up data", "all of it was read", "changes since", "4 backups stay"},
			{" logs ", ": well"},
			{"made LUN data-back of backup"},
		}[i] {
			if !strings.Contains(out, want) {
				t.Errorf("%s printed\n%s\nwithout %q", c, out, want)
			}
		}
		if strings.Contains(out, ": damaged") {
			t.Error(out)
		}
	}
	h.run("ripstop", "lun", "export", "data", "data.raw")
	h.run("ripstop", "lun", "export", "logs", "logs.raw")
	h.run("ripstop", "lun", "export", "data-back", "back.raw")
	h.run("cmp", "data.raw", "back.raw")
	h.run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "logs.raw", "logs.qcow2")
}

// puts notes which chunks come through a proxy.
type puts struct {
	mu    sync.Mutex
	names map[string]int
	then  func(n int) bool // asked at the n-th chunk; true says that it is not to be passed on
}

func (p *puts) fault(_ int64, w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/chunks/") {
		return false
	}
	p.mu.Lock()
	p.names[r.URL.Path]++
	n, then := len(p.names), p.then
	p.mu.Unlock()
	if then != nil && then(n) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	return false
}

// chunks is the names of those that the server has.
func chunks(t *testing.T, s *s3.Server) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(s.Dir, s3.Bucket, "a", "chunks", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		out[filepath.Base(f)] = true
	}
	return out
}

// TestInterrupted: a backup is killed in the middle, interrupted, loses its store and its daemon; each time there is no
// backup, the next one brings only what is missing, and what is restored at the end is what was there.
func TestInterrupted(t *testing.T) {
	server := s3.Start(t)
	proxy := s3.NewProxy(t, server.Address)
	store := proxy.URL + "/" + s3.Bucket + "/a"
	h := newHost(t, lab)
	h.run("ripstop", "backup", "key", "key")
	h.run("ripstop", "backup", "init", store, "--key", "key")
	disk := make([]byte, 24<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range disk {
		disk[i] = byte(r.Uint32())
	}
	h.write("disk", string(disk))
	h.io(0, "write -s disk 8M 24M", "flush")
	create := []string{"ripstop", "backup", "create", "data", "--to", store, "--key", "key", "--attempts", "2", "--timeout", "60s"}

	reached := make(chan struct{}, 1)
	p := &puts{names: map[string]int{}, then: func(n int) bool {
		if n == 6 {
			select {
			case reached <- struct{}{}:
			default:
			}
		}
		return n > 6 // what is begun ends
	}}
	proxy.With(p.fault)
	for _, end := range []struct {
		what string
		do   func(client *os.Process)
		left int // snapshots that stay
	}{
		{"the command is killed", func(c *os.Process) { _ = c.Kill() }, 1},
		{"the command is interrupted", func(c *os.Process) { _ = c.Signal(syscall.SIGINT) }, 1},
		{"the daemon is killed", func(*os.Process) { h.end(syscall.SIGKILL) }, -1},
		{"the store answers no more", func(*os.Process) {}, -1},
	} {
		p.mu.Lock()
		p.names = map[string]int{}
		p.mu.Unlock()
		had := chunks(t, server)
		var out bytes.Buffer
		cmd := h.command(create...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-reached
		end.do(cmd.Process)
		if err := cmd.Wait(); err == nil {
			t.Fatalf("%s, and it succeeded: %s", end.what, out.String())
		}
		if h.cmd == nil {
			h.serve()
		}
		if l := h.run("ripstop", "backup", "ls", store, "--key", "key"); strings.Count(l, "\n") != 1 {
			t.Errorf("%s, and there is a backup: %s", end.what, l)
		}
		for name := range p.names {
			if had[filepath.Base(name)] {
				t.Errorf("%s: %s was brought twice", end.what, name)
			}
		}
		if end.what == "the store answers no more" && !strings.Contains(out.String(), "2 attempts failed") {
			t.Errorf("%s: %s", end.what, out.String())
		}
		s := h.run("ripstop", "get", "snapshot")
		if n := strings.Count(s, "backup-"); end.left >= 0 && n != end.left {
			t.Errorf("%s: %d snapshots are left, want %d\n%s", end.what, n, end.left, s)
		}
	}

	p.mu.Lock()
	p.names, p.then = map[string]int{}, nil
	p.mu.Unlock()
	had := chunks(t, server)
	if len(had) < 4*4 {
		t.Errorf("four attempts brought %d chunks", len(had))
	}
	h.run(create...)
	if n := len(p.names); n > 26-len(had) { // 24 and pages
		t.Errorf("the last attempt brought %d chunks, and %d of 25 were there", n, len(had))
	}
	if n := strings.Count(h.run("ripstop", "get", "snapshot"), "backup-"); n != 1 {
		t.Errorf("%d snapshots are left", n)
	}

	// Changes, and what is restored after the LUN is gone.
	h.io(0, "write -P 7 40M 64k", "discard 10M 2M", "flush")
	h.run("ripstop", "lun", "export", "data", "data.raw")
	p.mu.Lock()
	p.names = map[string]int{}
	p.mu.Unlock()
	out := h.run(create...)
	if !strings.Contains(out, "changes since") || len(p.names) > 3 {
		t.Errorf("64 KiB and a discard brought %d chunks: %s", len(p.names), out)
	}
	h.write("lab.yaml", "version: 1\npools: {main: {path: pools/main, size: 256MiB, overcommit: 4}}\n")
	h.run("ripstop", "apply", "lab.yaml")
	h.run("ripstop", "lun", "delete", "data", "--snapshots")

	// A store that ends in the middle of a restore makes no LUN.
	gets := 0
	var mu sync.Mutex
	proxy.With(func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/chunks/") {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if gets++; gets > 10 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return gets > 10
	})
	restore := []string{"ripstop", "backup", "restore", "data", "data", "--from", store, "--pool", "main", "--key", "key", "--attempts", "2"}
	if out := h.fails(restore...); !strings.Contains(out, "2 attempts failed") {
		t.Error(out)
	}
	if l := h.run("ripstop", "get", "lun"); strings.Contains(l, "data") {
		t.Errorf("half a LUN is there: %s", l)
	}
	proxy.With(func(int64, http.ResponseWriter, *http.Request) bool { return false })
	h.run(restore...)
	h.run("ripstop", "lun", "export", "data", "back.raw")
	h.run("cmp", "data.raw", "back.raw")
	used := h.run("ripstop", "get", "lun", "data")
	if !strings.Contains(used, " 22.1 MiB ") { // 24 MiB without 2, and 64 KiB
		t.Errorf("thin did not stay thin: %s", used)
	}
	nettest.Eventually(t, limit, "no task is left", func() bool { return !strings.Contains(h.run("ripstop", "get", "task"), "data") })
}

// TestTwoAtOnce: of two backups of one LUN at the same time the second waits for the first, so that
// neither takes the other's snapshot, and the next one finds what it can compare with.
func TestTwoAtOnce(t *testing.T) {
	server := s3.Start(t)
	proxy := s3.NewProxy(t, server.Address)
	store := proxy.URL + "/" + s3.Bucket + "/a"
	h := newHost(t, lab)
	h.run("ripstop", "backup", "init", store)
	h.io(0, "write -P 1 0 2M", "flush")
	create := []string{"ripstop", "backup", "create", "data", "--to", store}
	reached, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	proxy.With(func(_ int64, _ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/chunks/") {
			once.Do(func() { close(reached) })
			<-gate
		}
		return false
	})
	first, second := h.command(create...), h.command(create...)
	var said, out bytes.Buffer
	first.Stdout, first.Stderr = &out, &out
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	<-reached
	waits, err := second.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	second.Stdout = &said
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	if n, err := waits.Read(line); err != nil || !strings.Contains(string(line[:n]), "this one waits for it") {
		t.Errorf("it says %q, %v", line[:n], err)
	}
	close(gate)
	if err := first.Wait(); err != nil {
		t.Errorf("the first: %v: %s", err, out.String())
	}
	if err := second.Wait(); err != nil || !strings.Contains(said.String(), "changes since") {
		t.Errorf("the second: %v: %s", err, said.String())
	}
	if n := strings.Count(h.run("ripstop", "get", "snapshot"), "backup-"); n != 1 {
		t.Errorf("%d snapshots are left", n)
	}
	if got := h.run(create...); !strings.Contains(got, "changes since") {
		t.Error(got)
	}
}

package backup

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
	"ripstop/test/s3"
)

// newHostIn is a host in a namespace of its own, which has one NIC. It is not started.
func newHostIn(t *testing.T, netns, nic string, env []string) *host {
	t.Helper()
	nettest.Namespace(t, netns)
	nettest.Run(t, "ip", "-n", netns, "link", "add", nic, "type", "veth", "peer", "name", "rack")
	nettest.Run(t, "ip", "-n", netns, "link", "set", nic, "up")
	nettest.Run(t, "ip", "-n", netns, "link", "set", "rack", "up")
	// A way to the store, which is in the test's namespace.
	at := namespaces.Add(1)
	there, here := fmt.Sprintf("10.255.%d.1/30", at), fmt.Sprintf("10.255.%d.2/30", at)
	nettest.Run(t, "ip", "link", "add", "m-"+netns, "type", "veth", "peer", "name", "mgmt", "netns", netns)
	nettest.Run(t, "ip", "addr", "add", there, "dev", "m-"+netns)
	nettest.Run(t, "ip", "link", "set", "m-"+netns, "up")
	nettest.Run(t, "ip", "-n", netns, "addr", "add", here, "dev", "mgmt")
	nettest.Run(t, "ip", "-n", netns, "link", "set", "mgmt", "up")
	nettest.Run(t, "ip", "-n", netns, "route", "add", storeAt, "via", strings.TrimSuffix(there, "/30"))
	h := &host{t: t, dir: t.TempDir(), env: append(append(os.Environ(), s3.Env()...), env...), netns: netns}
	h.write("bin/ripstop", "#!/bin/sh\nexec "+program+" --state "+h.dir+"/state --socket "+h.dir+"/sock \"$@\"\n")
	h.env = append(h.env, "PATH="+h.dir+"/bin:"+os.Getenv("PATH"))
	if err := os.Mkdir(filepath.Join(h.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.end(syscall.SIGTERM) })
	return h
}

// storeAt is the address of the test's namespace for the others.
const storeAt = "192.0.2.1"

var namespaces atomic.Int32

// passOn lets what is in other namespaces reach an address of this one, and gives the one
// that they use.
func passOn(t *testing.T, to string) string {
	t.Helper()
	nettest.Run(t, "ip", "addr", "replace", storeAt+"/32", "dev", "lo")
	l, err := net.Listen("tcp", storeAt+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			onward, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.Close()
				continue
			}
			pipe := func(a, b net.Conn) {
				_, _ = io.Copy(a, b)
				_ = a.Close()
				_ = b.Close()
			}
			go pipe(from, onward)
			go pipe(onward, from)
		}
	}()
	return l.Addr().String()
}

// secret writes a file that only its owner reads.
func (h *host) secret(name, text string) {
	h.t.Helper()
	h.write(name, text)
	if err := os.Chmod(filepath.Join(h.dir, name), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

const chapSecret = "correct-horse"

// worker has the initiator of the page work on LUN n, with what it knows of CHAP.
func (h *host) worker(n int, commands ...string) {
	h.t.Helper()
	words := []string{"qemu-io", "--object", "secret,id=chap,data=" + chapSecret, "--image-opts", fmt.Sprintf(
		"driver=iscsi,transport=tcp,portal=10.30.0.1:3260,target=iqn.2026-11.org.example:data,lun=%d,initiator-name=iqn.2026-11.org.example:worker,user=worker,password-secret=chap", n)}
	for _, c := range commands {
		words = append(words, "-c", c)
	}
	if out := h.run(words...); strings.Contains(out, "failed") {
		h.t.Fatal(out)
	}
}

// sums is what each LUN and snapshot holds.
func (h *host) sums() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	for _, name := range []string{"data", "logs", "data@monday", "logs@monday", "data@tuesday"} {
		h.run("ripstop", "lun", "export", name, "sum.raw", "--force")
		out[name] = h.run("sha256sum", "sum.raw")
	}
	return out
}

// pageHost is the old host of the page, with data and snapshots.
func pageHost(t *testing.T, file string, env []string) *host {
	t.Helper()
	a := newHostIn(t, "old", "eth0", env)
	a.write("lab.yaml", file)
	a.secret("state/worker.secret", chapSecret)
	a.secret("state/fast.key", a.run("openssl", "rand", "-base64", "32"))
	a.serve()
	a.worker(0, "write -P 1 0 1M", "write -P 2 9M 64k", "flush")
	a.worker(1, "write -P 3 3M 512", "flush")
	a.run("ripstop", "lun", "snapshot", "data,logs", "monday")
	a.worker(0, "write -P 4 4k 4k", "discard 9M 64k", "flush")
	a.run("ripstop", "lun", "snapshot", "data", "tuesday")
	a.worker(0, "write -P 5 12M 128k", "flush")
	a.worker(1, "write -P 6 3M 1k", "flush")
	return a
}

// isWorker sees at another host what the worker wrote.
func isWorker(h *host) {
	h.t.Helper()
	h.worker(0, "read -P 1 0 4k", "read -P 4 4k 4k", "read -P 1 8k 1016k", "read -P 0 9M 64k", "read -P 5 12M 128k")
	h.worker(1, "read -P 6 3M 1k", "read -P 0 0 3M")
}

func pageOf(t *testing.T) (file string, commands []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/restore-a-host.md")
	if err != nil {
		t.Fatal(err)
	}
	files, commands := blocks(string(page), "yaml"), blocks(string(page), "sh")
	if len(files) != 1 || len(commands) != 2 {
		t.Fatalf("the page has %d files and %d blocks of commands", len(files), len(commands))
	}
	return files[0], commands
}

// TestRestoreAHostPage runs the commands of docs/restore-a-host.md as they stand there: the first on one
// host, the others on one with another state directory, another NIC and other disks.
func TestRestoreAHostPage(t *testing.T) {
	file, commands := pageOf(t)
	server := s3.Start(t)
	env := []string{"AWS_ENDPOINT_URL=http://" + passOn(t, server.Address)}
	a := pageHost(t, file, env)
	want, key := a.sums(), a.run("ripstop", "get", "tunnel", "site", "-o", "json")
	for i, wanted := range []string{"saved host .* as capsule .*: 2 LUNs, 3 snapshots;", "3 snapshots; .* read, 0 B stored"} {
		c := commands[0]
		if i == 1 { // the next one reads nothing but what changed
			c = c[strings.LastIndex(strings.TrimSpace(c), "\n"):]
		}
		if out := a.run("sh", "-euc", c); !regexp.MustCompile(wanted).MatchString(out) {
			t.Errorf("%s printed\n%s\nwithout %s", c, out, wanted)
		}
	}
	if n := strings.Count(a.run("ripstop", "get", "snapshot"), "backup-"); n != 2 {
		t.Errorf("%d snapshots are left, of two LUNs", n)
	}
	clear := exec.Command("grep", "-rqaE", chapSecret+"|"+strings.TrimSpace(a.run("cat", "state/site.key")), server.Dir)
	if err := clear.Run(); err == nil {
		t.Error("a secret lies in the store in clear")
	}
	a.end(syscall.SIGTERM)

	b := newHostIn(t, "new", "ens3", env)
	b.serveNothing()
	b.secret("backup.key", a.run("cat", "backup.key"))
	out := b.run("sh", "-euc", commands[1])
	for _, wanted := range []string{"restored host .* as revision 2: 2 LUNs, 3 snapshots", `(?m)^data +main +16.0 MiB`, `(?m)^logs +fast +16.0 MiB`} {
		if !regexp.MustCompile(wanted).MatchString(out) {
			t.Errorf("%s printed\n%s\nwithout %s", commands[1], out, wanted)
		}
	}
	nettest.Eventually(t, limit, "the new host is well", func() bool { return b.command("ripstop", "status").Run() == nil })
	if got := b.run("ripstop", "get", "tunnel", "site", "-o", "json"); publicKey(got) != publicKey(key) || publicKey(key) == "" {
		t.Errorf("the tunnel's key is another: %s, and was %s", got, key)
	}
	if got := b.sums(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the disks hold\n%v\nand held\n%v", got, want)
	}
	isWorker(b)
	text := b.run("ripstop", "history", "2")
	if !strings.Contains(text, `device: "ens3"} # to the rack`) || !strings.Contains(text, `path: "disks/main"`) {
		t.Errorf("the file is\n%s", text)
	}
	// Thin stays thin: what it takes is what was written, and little more.
	if used := b.run("ripstop", "get", "pool", "main"); !regexp.MustCompile(`1\.[0-9] MiB`).MatchString(used) {
		t.Errorf("pool main: %s", used)
	}
	// After a restart all of it is there.
	b.end(syscall.SIGTERM)
	b.serveNothing()
	nettest.Eventually(t, limit, "the new host is well", func() bool { return b.command("ripstop", "status").Run() == nil })
	isWorker(b)
}

func publicKey(j string) string {
	return regexp.MustCompile(`"publicKey": "([^"]+)"`).FindString(j)
}

// TestCapsuleRefuses: what is wrong is said before anything is changed, and nothing is lost
// by what goes wrong in the middle.
func TestCapsuleRefuses(t *testing.T) {
	file, _ := pageOf(t)
	server := s3.Start(t)
	proxy := s3.NewProxy(t, server.Address)
	store := "http://" + passOn(t, strings.TrimPrefix(proxy.URL, "http://")) + "/" + s3.Bucket + "/a"
	a := pageHost(t, file, nil)
	a.secret("phrase", "a passphrase that is long\n")
	a.secret("short", "short\n")
	a.run("ripstop", "backup", "key", "key")
	a.run("ripstop", "backup", "key", "other")
	a.run("mkdir", "plain")
	a.run("ripstop", "backup", "init", "plain")
	refuses := func(h *host, want string, words ...string) {
		t.Helper()
		if out := h.fails(words...); !strings.Contains(out, want) {
			t.Errorf("%s says\n%s\nand not %q", strings.Join(words, " "), out, want)
		}
	}
	refuses(a, "never in clear", "ripstop", "capsule", "save", "plain")
	refuses(a, "LUN logs is encrypted, and the store is not", "ripstop", "capsule", "save", "plain", "--passphrase", "phrase")
	refuses(a, "fewer than 12 bytes", "ripstop", "capsule", "save", "plain", "--passphrase", "short")
	refuses(a, "there is no backup store", "ripstop", "capsule", "save", store, "--key", "key")
	a.run("ripstop", "backup", "init", store, "--key", "key", "--chunk", "64KiB")
	refuses(a, "the daemon's state directory is", "ripstop", "--state", a.dir, "capsule", "save", store, "--key", "key")
	a.run("ripstop", "capsule", "save", store, "--key", "key", "--passphrase", "phrase")
	want := a.sums()
	if out := a.run("ripstop", "capsule", "ls", store, "--key", "key"); !regexp.MustCompile(`(?m) 2 +3 +passphrase$`).MatchString(out) {
		t.Error(out)
	}

	b := newHostIn(t, "new", "ens3", nil)
	b.serveNothing()
	for _, name := range []string{"key", "other", "phrase"} {
		b.secret(name, a.run("cat", name))
	}
	b.secret("wrong", "another passphrase")
	restore := []string{"ripstop", "capsule", "restore", store, "--key", "key", "--passphrase", "phrase", "--rename", "eth0=ens3", "--attempts", "2"}
	but := func(from, to string) (out []string) {
		for _, w := range restore {
			out = append(out, strings.Replace(w, from, to, 1))
		}
		return out
	}
	refuses(b, "the key is not the store's", "ripstop", "capsule", "restore", store, "--key", "other", "--passphrase", "phrase")
	refuses(b, "sealed with a passphrase", "ripstop", "capsule", "restore", store, "--key", "key")
	refuses(b, "what was given is not what the capsule was sealed with", append(append([]string{}, restore[:7]...), "wrong", "--rename", "eth0=ens3")...)
	refuses(b, `has no device "eth1": did you mean "eth0"?`, but("eth0=", "eth1=")...)
	refuses(b, "interface eth0, which this host has not: it has ens3, mgmt, rack: write --rename eth0=NAME", restore[:8]...)
	refuses(b, "there is no capsule x", append(restore, "x")...)
	if out := b.run("ls", "state"); strings.Contains(out, ".key") {
		t.Errorf("a refused restore left %s", out)
	}
	b.secret("state/site.key", "something else")
	refuses(b, "there is another one: move that away", restore...)
	b.run("rm", "state/site.key")

	// Cut off in the middle, by the store and by a kill of each side, and run again.
	gets, most := 0, 8
	var mu sync.Mutex
	proxy.With(func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/chunks/") {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if gets++; gets > most {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return gets > most
	})
	for most = 8; most < 60; most += 13 {
		mu.Lock()
		gets = 0
		mu.Unlock()
		cmd := b.command(restore...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		if !strings.Contains(string(out), "2 attempts failed") {
			t.Fatalf("%s", out)
		}
		if l := b.run("ripstop", "get", "target"); strings.Contains(l, "iqn") {
			t.Fatalf("targets are there before LUNs: %s", l)
		}
		b.end(syscall.SIGKILL)
		b.serveNothing()
	}
	proxy.With(func(int64, http.ResponseWriter, *http.Request) bool { return false })
	b.run(restore...)
	if got := b.sums(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the disks hold\n%v\nand held\n%v", got, want)
	}
	isWorker(b)
	b.run(restore...) // what is there is there
	// A later capsule's LUNs are of another moment, also where its files are the same.
	a.run("ripstop", "capsule", "save", store, "--key", "key", "--passphrase", "phrase")
	refuses(b, "this host has a configuration", restore...)

	// A host that has something.
	refuses(a, "this host has a configuration", "ripstop", "capsule", "restore", store, "--key", "key", "--passphrase", "phrase", "--pool", "main=x")
	isWorker(a)
	c := newHostIn(t, "third", "eth0", nil)
	c.serveNothing()
	c.write("pools.yaml", `version: 1
pools: {main: {path: pools/main, size: 64MiB, overcommit: 4}}
luns: {mine: {pool: main, size: 8MiB}}
targets: {"iqn.2026-11.org.example:data": {portals: [{address: "127.0.0.1:3260"}], luns: {0: mine}, initiators: {any: {}}}}
`)
	c.run("ripstop", "apply", "pools.yaml")
	c.io(0, "write -P 9 0 1M", "flush")
	c.write("nothing.yaml", "version: 1\n")
	c.run("ripstop", "apply", "nothing.yaml")
	for _, name := range []string{"key", "phrase"} {
		c.secret(name, a.run("cat", name))
	}
	refuses(c, "has data already", "ripstop", "capsule", "restore", store, "--key", "key", "--passphrase", "phrase")
	// A restore that is killed before it looks into the pools looks when it goes on.
	var pools v1.RevisionText
	if err := json.Unmarshal([]byte(c.run("ripstop", "history", "3", "-o", "json")), &pools); err != nil {
		t.Fatal(err)
	}
	if len(pools.Files) != 1 || !strings.Contains(pools.Files[0].Data, "restored from capsule") {
		t.Fatalf("the pools alone were not the third: %+v", pools)
	}
	c.write("pools.yaml", pools.Files[0].Data)
	c.run("ripstop", "apply", "pools.yaml")
	refuses(c, "has data already", "ripstop", "capsule", "restore", store, "--key", "key", "--passphrase", "phrase")
	if out := c.run("ripstop", "get", "pool"); strings.Contains(out, "main") {
		t.Errorf("a pool of others is in service: %s", out)
	}
	c.run("ripstop", "capsule", "restore", store, "--key", "key", "--passphrase", "phrase", "--pool", "main=other")
	c.run("ripstop", "lun", "export", "data", "data.raw")
	isWorker(c)

	// A damaged capsule.
	for _, f := range glob(t, filepath.Join(server.Dir, s3.Bucket, "a", "capsules", "*")) {
		p, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		p[len(p)/2] ^= 1
		if err := os.WriteFile(f, p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := newHostIn(t, "fourth", "eth0", nil)
	d.serveNothing()
	d.secret("key", a.run("cat", "key"))
	d.secret("phrase", a.run("cat", "phrase"))
	refuses(d, "damaged, cut off, or of another store", "ripstop", "capsule", "restore", store, "--key", "key", "--passphrase", "phrase")
	if out := d.run("ripstop", "history"); strings.Count(out, "\n") > 1 {
		t.Errorf("it has a history: %s", out)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %v, %v", pattern, all, err)
	}
	return all
}

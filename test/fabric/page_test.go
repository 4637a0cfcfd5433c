package fabric

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

// page is what docs/fabric.md shows in a language, one block after the other.
func page(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/fabric.md")
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		out += m[1]
	}
	return out
}

// TestPage runs the commands of docs/fabric.md on the hosts that their prompts name.
func TestPage(t *testing.T) {
	w := newWire(t)
	sites := map[string]*host{"a": newHost(t, "a"), "b": newHost(t, "b")}
	w.plug("a", "192.0.2.1/24")
	w.plug("b", "192.0.2.2/24")
	file := page(t, "yaml")
	for line := range strings.Lines(page(t, "sh")) {
		name, command, ok := strings.Cut(strings.TrimSpace(line), "# ")
		h := sites[name]
		if !ok || h == nil {
			t.Fatalf("%q is on no host", line)
		}
		name = strings.ToUpper(name)
		var words []string
		switch all := strings.Fields(command); {
		case all[0] == "ripstop" && all[1] == "key":
			key := strings.TrimSpace(h.ripstop(all[1:]...))
			if !strings.Contains(file, "KEY-OF-"+name) {
				t.Fatalf("the page has no place for the key of %s", name)
			}
			file = strings.ReplaceAll(file, "KEY-OF-"+name, `"`+key+`"`)
			continue
		case all[0] == "ripstop":
			for i, word := range all {
				if word == "fabric.yaml" {
					all[i] = filepath.Join(h.dir, word)
					if err := os.WriteFile(all[i], []byte(file), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if h.proc == nil {
				h.serve()
			}
			words = h.words(all[1:]...)
		default:
			words = append([]string{"nsenter", "--net=/run/netns/" + h.name}, all...)
		}
		last := ""
		nettest.Eventually(t, limit, command, func() bool {
			out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
			if last = string(out); err != nil && strings.HasPrefix(command, "ripstop apply") {
				t.Fatalf("%s: %s", command, out)
			}
			return err == nil
		})
		t.Logf("%s# %s\n%s", h.name, command, last)
	}
	w.clean()
}

// TestRefused gives hosts files that are not for them, or that take the mesh away
// which they are reached by, and finds everything as it was.
func TestRefused(t *testing.T) {
	w, a, b, c, file := hosts(t, "{hub: b}")
	refused := func(h *host, config, why string, flags ...string) {
		t.Helper()
		name := filepath.Join(h.dir, "wrong.yaml")
		if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		words := h.words(append([]string{"apply", name}, flags...)...)
		out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), why) {
			t.Errorf("apply on %s: %v, want %q of\n%s", h.name, err, why, out)
		}
	}
	lines := strings.SplitAfter(file, "\n")
	without := strings.Join(append(append([]string{}, lines[:2]...), lines[3:]...), "")
	refused(a, strings.NewReplacer("on: a}", "on: b}").Replace(without), `there is no host "a": the hosts are b, c`)
	key := regexp.MustCompile(`public-key: "([^"]*)"`)
	keys := key.FindAllStringSubmatch(file, -1)
	swapped := strings.NewReplacer(keys[0][1], keys[2][1], keys[2][1], keys[0][1]).Replace(file)
	refused(c, swapped, "has the public key "+keys[2][1]+", and the file says "+keys[0][1]+" of host c")
	refused(c, strings.ReplaceAll(file, `"192.0.2.2:51820"`, `"10.10.0.9:51820"`), "is inside 10.10.0.0/24, which is reached through the mesh")
	refused(b, file, "the daemon at "+filepath.Join(b.dir, "sock")+" is host b", "--host", "c")

	// c speaks with a through b, and its part of the mesh goes on trial without a.
	reaches(t, "till", "10.10.0.2")
	alone := strings.ReplaceAll(file, "mesh: {hub: b}}", "mesh: {hub: b}, on: [a, b]}")
	config := filepath.Join(c.dir, "alone.yaml")
	if err := os.WriteFile(config, []byte(alone), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ripstop("apply", config, "--confirm", "2s")
	inMesh := func() bool { return strings.Contains(c.ripstop("get", "tunnel"), "mesh") }
	if inMesh() {
		t.Error("c is in a mesh that is on a and b")
	}
	nettest.Eventually(t, limit, "the mesh comes back", inMesh)
	reaches(t, "till", "10.10.0.2")

	// The hub ends and comes back. A pass of its loop has noted where the others are.
	b.apply(file)
	b.end(syscall.SIGKILL)
	if pings("till", "10.10.0.2") {
		t.Error("till reaches web without the hub")
	}
	b.serve()
	reaches(t, "till", "10.10.0.2")
	w.clean()
}

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestSnapshotsPage(t *testing.T)   { page(t, "snapshots") }
func TestMoveAndCopyPage(t *testing.T) { page(t, "move-and-copy") }
func TestMirrorPage(t *testing.T)      { page(t, "mirror") }
func TestFiltersPage(t *testing.T)     { page(t, "filters") }
func TestConfirmPage(t *testing.T)     { page(t, "confirm") }
func TestBGPPage(t *testing.T)         { page(t, "bgp") }
func TestLeafSpinePage(t *testing.T)   { page(t, "leaf-spine") }
func TestEncryptionPage(t *testing.T)  { page(t, "encryption") }
func TestOffsitePage(t *testing.T)     { page(t, "offsite") }

// TestSANOverTunnelsPage has a machine behind one host work on a LUN of another.
func TestSANOverTunnelsPage(t *testing.T) { page(t, "san-over-tunnels") }

// TestEVPNPage has the page show the files that TestVXLAN, TestEVPN, TestPrefixes and test/fabric run.
func TestEVPNPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/evpn.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts := ""
	for _, name := range []string{"vxlan", "evpn", "prefixes"} {
		b, err := os.ReadFile("testdata/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		scripts += string(b)
	}
	b, err := os.ReadFile("../../test/fabric/testdata/one-vlan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	scripts += "-- a.yaml --\n" + string(b)
	files := blocks(string(page), "yaml")
	if len(files) == 0 {
		t.Fatal("the page has no file")
	}
	for _, f := range files {
		if !strings.Contains(scripts, "-- a.yaml --\n"+f) {
			t.Errorf("no script has\n%s", f)
		}
	}
}

// page runs the commands of a page of docs over the page's files: its script has
// each of them, in the page's order, and sees what comes of it.
func page(t *testing.T, name string) { runScripts(t, pageParams(t, name)) }

func pageParams(t *testing.T, name string) testscript.Params {
	page, err := os.ReadFile("../../docs/" + name + ".md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/" + name + "-page.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, b := range blocks(string(page), "sh") {
		told = append(told, strings.Split(strings.TrimSpace(b), "\n")...)
	}
	var run []string
	for _, m := range regexp.MustCompile(`(?m)^exec ripstop --socket \$SOCK (.*)$`).FindAllStringSubmatch(string(script), -1) {
		run = append(run, "ripstop "+m[1])
	}
	if len(told) == 0 || !slices.Equal(told, run) {
		t.Fatalf("the page tells\n%s\nand the script runs\n%s", strings.Join(told, "\n"), strings.Join(run, "\n"))
	}
	names, files := regexp.MustCompile("`([a-z0-9]+\\.yaml)`:\n").FindAllStringSubmatch(string(page), -1), blocks(string(page), "yaml")
	if len(names) != len(files) {
		t.Fatalf("%d files have a name, and there are %d", len(names), len(files))
	}
	params := scriptParams(name + "-page")
	setup := params.Setup
	params.Setup = func(e *testscript.Env) error {
		for i, n := range names {
			if err := os.WriteFile(filepath.Join(e.WorkDir, n[1]), []byte(files[i]), 0o600); err != nil {
				return err
			}
		}
		for _, b := range blocks(string(page), "frr") {
			if err := os.WriteFile(filepath.Join(e.WorkDir, "bgpd.conf"), []byte(b), 0o644); err != nil {
				return err
			}
		}
		return setup(e)
	}
	return params
}

// blocks is the fenced blocks of a language.
func blocks(page, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	return out
}

// Package ripstop_test holds the laws of the house: who may import whom, who
// owns which module, and that every package says what it is. A law that is
// broken prints its reason.
package ripstop_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath string
	Doc        string
	Dir        string
	Standard   bool
	GoFiles    []string
	Imports    []string
}

// name is the path inside the module: "vswitch/bridge".
func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, "ripstop/") }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Dir,Standard,GoFiles,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
}

// law says what a package may import of the module's own packages.
type law struct {
	pkgs   string // regular expression of package names
	may    string // of its own packages' names; others are forbidden
	reason string
}

var laws = []law{
	{`iscsi`, `internal/hist`, "the root of targets is words, diffs and what was counted"},
	{`vswitch|vpn|lun`, `^$`, "a subsystem's root is words and diffs: it imports nothing of ours"},
	{`vswitch/device|vswitch/vswitchtest`, `vswitch|internal/.*`, "what dataplanes share knows no dataplane"},
	{`vswitch/(bridge|ebpf)`, `vswitch|vswitch/device|internal/.*`, "a dataplane knows its root and no other room"},
	{`vpn/.*`, `vpn|internal/.*`, "a tunnel driver knows its root alone"},
	{`lun/thin/engine`, `lun|lun/lane|lun/thin|lun/thin/store|internal/.*`, "an engine over a format and a disk"},
	{`lun/raw`, `lun|lun/lane|internal/.*`, "an engine over files"},
	{`lun/image`, `internal/zeros`, "formats of files know no store"},
	{`lun/backup`, `internal/zeros`, "the format of backups knows no engine, and no place where they are"},
	{`lun/backup/store`, `lun/backup`, "a place knows objects alone"},
	{`lun/.*`, `lun|internal/.*`, "an engine knows its root and no initiator"},
	{`iscsi/pdu|iscsi/scsi`, `^$`, "wire formats and commands are values that stand alone"},
	{`iscsi/(login|session)`, `iscsi|iscsi/pdu`, "a protocol is a value over its wire format"},
	{`iscsi/initiator`, `iscsi|iscsi/(pdu|login)|internal/.*`, "the other side of a target shares the wire format with it, and nothing else"},
	{`iscsi/target`, `iscsi|iscsi/(pdu|login|session|scsi)|internal/.*`, "the target knows no store: cmd hands it devices"},
	{`controller`, `controller/config|vswitch|vpn|lun|iscsi|internal/reconcile|internal/run`, "the controller sees roots, never drivers"},
	{`controller/config`, `vswitch|vpn`, "the file knows words, not engines"},
	{`controller/beside`, `controller/config|internal/keep|vpn|vswitch`, "what verbs made is objects of the file's kind"},
	{`controller/revision`, `controller/config`, "a revision is files"},
	{`controller/commit`, `controller|controller/(config|revision)`, "what becomes of a configuration is said in files and passes"},
	{`api/v1`, `^$`, "the language of clients drags nothing along"},
	{`api/(server|client)`, `api/v1`, "the interface reaches the daemon through functions that it declares"},
	{`internal/.*`, `internal/.*`, "machinery knows nothing above it"},
	{`configs`, `^$`, "examples are files"},
	{`test/peers/gotgt`, `^$`, "a yardstick shares nothing with what it measures"},
	{`test/bench/store`, `test/bench/figures|internal/.*|lun|lun/thin(/store)?`, "an engine is measured beside a bare file, through one harness"},
	{`test/.*`, `test/.*|internal/.*`, "what measures the program knows it as a program"},
	{`cmd/.*`, `(api|configs|controller|internal|iscsi|lun|vpn|vswitch)(/.*)?`, "nothing that is shipped links a yardstick"},
}

func TestImportLaws(t *testing.T) {
	for _, p := range packages(t) {
		for _, l := range laws {
			if !regexp.MustCompile(`^(` + l.pkgs + `)$`).MatchString(p.name()) {
				continue
			}
			allowed := regexp.MustCompile(`^(` + l.may + `)$`)
			for _, i := range p.Imports {
				own, ours := strings.CutPrefix(i, "ripstop/")
				if ours && !allowed.MatchString(own) {
					t.Errorf("%s imports %s: %s", p.name(), own, l.reason)
				}
			}
			break
		}
	}
}

// pure packages take bytes, times and states, and give bytes and states.
var pure = regexp.MustCompile(`^(vswitch|vpn|lun|lun/image|lun/backup|iscsi|iscsi/(pdu|login|session|scsi))$`)

// packs is what turns bytes into fewer, and is pure, too.
var packs = regexp.MustCompile(`^github.com/klauspost/compress/`)

// inputOutput is what reaches outside of the process.
var inputOutput = []string{"os", "os/exec", "net", "net/http", "syscall", "io/ioutil"}

func TestRootsDoNoIO(t *testing.T) {
	for _, p := range packages(t) {
		if !pure.MatchString(p.name()) {
			continue
		}
		for _, i := range p.Imports {
			if slices.Contains(inputOutput, i) {
				t.Errorf("%s imports %s: what is pure can be tested without a kernel", p.name(), i)
			}
			if strings.Contains(i, ".") && !packs.MatchString(i) {
				t.Errorf("%s imports %s: roots and protocols stand on the standard library alone", p.name(), i)
			}
		}
	}
}

// owners says which packages may import a third-party module, by its prefix.
var owners = map[string]string{
	"github.com/vishvananda/netlink":   `internal/link|vswitch/(bridge|ebpf|device|vswitchtest)|vpn/(wg|bgp)`,
	"github.com/vishvananda/netns":     `internal/link|vswitch/(bridge|ebpf|device)|vpn/wg`,
	"github.com/cilium/ebpf":           `vswitch/ebpf(/.*)?`,
	"golang.zx2c4.com/wireguard":       `vpn/wg`,
	"github.com/google/nftables":       `vpn/wg`,
	"github.com/mdlayher/netlink":      `vpn/wg`,
	"gvisor.dev/gvisor":                `vpn/wg`,
	"github.com/osrg/gobgp/v4":         `vpn/bgp`,
	"go.yaml.in/yaml/v4":               `controller/config`,
	"github.com/invopop/jsonschema":    `controller/config`,
	"github.com/danielgtaylor/huma/v2": `api/server`,
	"github.com/spf13/":                `cmd/ripstop`,
	"github.com/rogpeppe/go-internal":  `controller/revision`,
	"github.com/coreos/go-systemd/v22": `cmd/ripstop`,
	"github.com/klauspost/compress":    `lun/(image|backup)`,
	"rsc.io/qr":                        `cmd/ripstop`,
	"github.com/minio/minio-go":        `lun/backup/store`,
	"github.com/gostor/gotgt":          `test/peers/gotgt`,
	"github.com/sirupsen/logrus":       `test/peers/gotgt`,
	"golang.org/x/sys":                 `.*`,
	"golang.org/x/crypto":              `vpn|vpn/wg|iscsi/login`,
}

func TestEachModuleHasItsOwner(t *testing.T) {
	for _, p := range packages(t) {
		for _, i := range p.Imports {
			if !strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
				continue
			}
			if may, ok := owner(i); !ok {
				t.Errorf("%s imports %s, which has no owner: choose one here and write down why in docs/decisions", p.name(), i)
			} else if !regexp.MustCompile(`^(` + may + `)$`).MatchString(p.name()) {
				t.Errorf("%s imports %s: its owner is %s", p.name(), i, may)
			}
		}
	}
}

func owner(path string) (string, bool) {
	for prefix, may := range owners {
		if strings.HasPrefix(path, prefix) {
			return may, true
		}
	}
	return "", false
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.name())
		}
	}
}

// drivers is the one file of the command that may know drivers.
const drivers = "drivers.go"

func TestOnlyOneFileKnowsDrivers(t *testing.T) {
	isDriver := regexp.MustCompile(`^ripstop/(vswitch/.+|vpn/.+|lun/.+|iscsi/.+)$`)
	ofFiles := regexp.MustCompile(`^ripstop/lun/(image|backup|backup/store)$`) // what the client does itself
	files, err := filepath.Glob("cmd/ripstop/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == drivers {
			continue
		}
		for _, i := range parse(t, name, parser.ImportsOnly).Imports {
			if path := strings.Trim(i.Path.Value, `"`); isDriver.MatchString(path) && !ofFiles.MatchString(path) {
				t.Errorf("%s imports %s: only %s knows drivers", name, path, drivers)
			}
		}
	}
}

func parse(t *testing.T, name string, mode parser.Mode) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// contextOutsideMain is where a context may begin.
var contextOutsideMain = regexp.MustCompile(`^(cmd|test)/.*/main\.go$`)

func TestContextsComeFromMain(t *testing.T) {
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			name := filepath.Join(p.Dir, file)
			rel, err := filepath.Rel(mustGetwd(t), name)
			if err != nil {
				t.Fatal(err)
			}
			if contextOutsideMain.MatchString(rel) {
				continue
			}
			ast.Inspect(parse(t, name, 0), func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					x, ok := s.X.(*ast.Ident)
					if ok && x.Name == "context" && (s.Sel.Name == "Background" || s.Sel.Name == "TODO") {
						t.Errorf("%s calls context.%s: take the caller's", rel, s.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

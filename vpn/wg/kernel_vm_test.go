//go:build vm

package wg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

func TestKernelWithKernel(t *testing.T) {
	loadTun(t)
	suite(t, vpn.Kernel, vpn.Kernel)
}

// What the two have to agree on.
func TestProcessWithKernel(t *testing.T) {
	loadTun(t)
	for _, test := range []labTest{
		{"packets pass", testPacketsPass}, {"a peer roams", testRoaming},
		{"keys are rotated", testRotation}, {"pre-shared keys", testPresharedKey},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(newLab(t, vpn.Process, vpn.Kernel)) })
	}
}

// loadTun does what udev does elsewhere: the VM has none.
func loadTun(t *testing.T) { nettest.Run(t, "modprobe", "tun") }

func TestKernelReachIsHeld(t *testing.T) {
	loadTun(t)
	reachIsHeld(t, vpn.Kernel)
}

func TestKernelClampIsHeld(t *testing.T) {
	loadTun(t)
	clampIsHeld(t, vpn.Kernel)
}

func TestKernelNarrowPath(t *testing.T) {
	loadTun(t)
	narrowPath(t, vpn.Kernel)
}

func TestKernelIsTheChoice(t *testing.T) {
	if got := newDriver(t, Options{}).Engine(); got != vpn.Kernel {
		t.Errorf("the choice is %s", got)
	}
}

// The far end is what wg(8) and ip(8) make, in both engines' eyes.
func TestAgainstHandMadeInterface(t *testing.T) {
	loadTun(t)
	for _, engine := range []vpn.Engine{vpn.Kernel, vpn.Process} {
		t.Run(string(engine), func(t *testing.T) {
			l := newLab(t, engine, vpn.Kernel)
			file := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(file, []byte(l.site2.Key+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, c := range []string{
				"ip -n far link add hand type wireguard",
				"ip netns exec far wg set hand listen-port 51821 private-key " + file +
					" peer " + l.site2.Peers[0].Key + " allowed-ips 10.99.0.1/32,fd99::1/128",
				"ip -n far address add 10.99.0.2/24 dev hand",
				"ip -n far address add fd99::2/64 dev hand",
				"ip -n far link set hand up",
			} {
				words := strings.Fields(c)
				nettest.Run(t, words[0], words[1:]...)
			}
			l.apply(l.site)
			l.reaches("10.99.0.2")
			l.reaches("fd99::2")
			l.copies("10.99.0.2:7001", 256<<10)
			if a := l.far.ask(request{Verb: "apply"}); len(a.Steps) != 0 {
				t.Errorf("the far end's driver takes the interface for its own: %q", a.Steps)
			}
			l.reaches("10.99.0.2")
		})
	}
}

// A daemon that goes and comes again finds its tunnels as it left them.
func TestKernelTunnelOutlivesDriver(t *testing.T) {
	for _, tt := range []struct {
		name, endpoint string
		memory         bool
	}{
		{"with its memory", "192.0.2.2:51821", true},
		{"with its memory of a name", "localhost.far.invalid:51821", true},
		{"without", "192.0.2.2:51821", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, vpn.Kernel, vpn.Kernel)
			o := Options{Memory: filepath.Join(t.TempDir(), "tunnels.json")}
			first := newDriver(t, o)
			first.resolve.lookup = farIsThere
			l.site.Peers[0].Endpoint = tt.endpoint
			l.driver = first
			l.both()
			l.reaches("10.50.0.1")
			stop := l.flow("10.50.0.1:7001", patience)
			before := l.peer().LastHandshake
			if err := first.Release(); err != nil {
				t.Fatal(err)
			}
			if !tt.memory {
				o.Memory = ""
			}
			l.driver = newDriver(t, o)
			l.driver.resolve.lookup = farIsThere
			steps, err := apply(t.Context(), l.driver, want(l.site))
			if err != nil || tt.memory && len(steps) != 0 || !tt.memory && (len(steps) != 1 || !strings.HasSuffix(steps[0], "# is called branch")) {
				t.Errorf("after a restart: %v, steps %q", err, steps)
			}
			stop()
			if !l.peer().LastHandshake.Equal(before) {
				t.Error("the session began anew")
			}
		})
	}
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	v1 "ripstop/api/v1"
)

// examine tries what a host can do; a probe that passes a frame is believed,
// a version number is not.
func examine(ctx context.Context) []v1.Check {
	bridge, plane := probeBridge(ctx), probeEBPF(ctx)
	checks := []v1.Check{
		kernel(),
		result("root", rootError(), v1.Check{Needed: true, Found: "uid 0", Means: "switches and tunnels need root"}),
		result("dataplane bridge", bridge, v1.Check{Found: "a frame crossed a VLAN-filtering bridge", Means: "`dataplane: auto` means ebpf, `bridge` fails"}),
		result("dataplane ebpf", plane, v1.Check{Found: "a frame crossed the eBPF switch", Means: "`dataplane: ebpf` fails"}),
		// One of the two is enough.
		result("a dataplane for auto", either(bridge, plane), v1.Check{Needed: true, Found: "yes", Means: "no switch can be made"}),
		tunnels(),
		openable("/dev/net/tun", "taps, and tunnels where the kernel has no WireGuard"),
		forwarding(),
	}
	return checks
}

// result fills a check: what was found when it went well, else why not and what
// that means.
func result(name string, err error, c v1.Check) v1.Check {
	c.Name, c.OK = name, err == nil
	if err != nil {
		c.Found = err.Error()
		return c
	}
	c.Means = ""
	return c
}

func either(a, b error) error {
	if a == nil || b == nil {
		return nil
	}
	return fmt.Errorf("neither bridge nor ebpf: %w", b)
}

func kernel() v1.Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return result("kernel", err, v1.Check{})
	}
	return v1.Check{Name: "kernel", OK: true, Found: unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])}
}

func rootError() error {
	if uid := os.Getuid(); uid != 0 {
		return fmt.Errorf("uid %d", uid)
	}
	return nil
}

func tunnels() v1.Check {
	engine, err := probeWireGuard(slog.New(slog.DiscardHandler))
	return result("tunnels", err, v1.Check{Found: "WireGuard in the " + engine, Means: "no tunnel can be made"})
}

func openable(name, need string) v1.Check {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	return result(name, err, v1.Check{Found: "can be opened", Means: "not to be had: " + need})
}

// forwarding tells how the host treats packets between VLANs, which ripstop
// leaves as it is.
func forwarding() v1.Check {
	const name = "/proc/sys/net/ipv4/ip_forward"
	b, err := os.ReadFile(name)
	if err != nil {
		return result("routing between VLANs", err, v1.Check{})
	}
	c := v1.Check{Name: "routing between VLANs", OK: true, Found: "net.ipv4.ip_forward = " + strings.TrimSpace(string(b))}
	if strings.TrimSpace(string(b)) == "0" {
		c.Means = "gateways answer, and route nothing on to other VLANs"
		return c
	}
	c.Means = "gateways route between their VLANs: filter there if that is not wanted"
	return c
}

package wg

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernelEngine has the kernel carry tunnels.
type kernelEngine struct {
	links  *links
	client *wgctrl.Client
}

// probeKernel tells whether this kernel makes WireGuard devices, by making one
// in a network namespace that ends with the probe. That a module is listed, or
// is not, says little: it may be built in, not yet loaded, or of another kernel.
func probeKernel() error {
	result := make(chan error)
	go func() {
		// The thread is left in the new namespace and never unlocked, so that it
		// ends with this goroutine, and the namespace with it.
		runtime.LockOSThread()
		result <- probeHere()
	}()
	return <-result
}

func probeHere() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	if err := h.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs("probe", 0)}); err != nil {
		return fmt.Errorf("make a wireguard device: %w", err)
	}
	return nil
}

func attrs(name string, mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	return a
}

func newKernelEngine(l *links) (*kernelEngine, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open the kernel's wireguard: %w", err)
	}
	return &kernelEngine{l, client}, nil
}

func (e *kernelEngine) make(name string, mtu int) error {
	if err := e.links.plain.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs(name, mtu)}); err != nil {
		return fmt.Errorf("make wireguard device %s: %w", name, err)
	}
	return nil
}

// device is os.ErrNotExist for a tunnel that the kernel does not carry. Without
// the kernel's answer wgctrl asks at the socket of the name, where anybody may
// listen, be it in another namespace: such a device is none.
func (e *kernelEngine) device(name string) (*wgtypes.Device, error) {
	d, err := e.client.Device(name)
	if err == nil && d.Type != wgtypes.LinuxKernel {
		err = os.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read tunnel %s: %w", name, err)
	}
	return d, nil
}

// configure looks at the link alone, which is cheap where the device has many peers.
func (e *kernelEngine) configure(name string, cfg wgtypes.Config) error {
	link, err := e.links.own(name)
	if err == nil && !isKernel(link) {
		err = os.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("configure tunnel %s: %w", name, err)
	}
	return e.client.ConfigureDevice(name, cfg)
}

// up has nothing to do: the kernel opens the port when the device is set up.
func (e *kernelEngine) up(string) error { return nil }

func (e *kernelEngine) remove(name string) error {
	link, err := e.links.own(name)
	if errors.Is(err, errGone) || errors.Is(err, errForeign) {
		return nil
	}
	if err != nil {
		return err
	}
	return e.links.remove(link)
}

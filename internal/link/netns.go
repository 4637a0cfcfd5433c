package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// namespaces is where ip-netns(8) keeps names.
	namespaces = "/run/netns"
	// namespaceMark is the alias of lo in a namespace that ripstop made.
	namespaceMark = prefix + " netns"
)

// OpenNamespace opens a named namespace. The error is an fs.ErrNotExist when
// there is none of that name.
func OpenNamespace(name string) (*Space, error) {
	path, err := namespacePath(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace %q: %w", name, err)
	}
	var st unix.Statfs_t
	err = unix.Fstatfs(int(f.Fd()), &st)
	if err == nil && st.Type != unix.NSFS_MAGIC {
		// A name whose namespace is gone or was never mounted.
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open namespace %q: %w", name, err), f.Close())
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(int(f.Fd())), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink in namespace %q: %w", name, err), f.Close())
	}
	return &Space{Handle: h, name: name, file: f}, nil
}

func namespacePath(name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("namespace %q: a name is one element of a path: choose another", name)
	}
	return filepath.Join(namespaces, name), nil
}

// EnsureNamespace opens a named namespace and makes it, with its loopback up,
// when there is none.
func EnsureNamespace(name string) (*Space, error) {
	s, err := OpenNamespace(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := makeNamespace(name); err != nil {
		return nil, fmt.Errorf("make namespace %q: %w", name, err)
	}
	return OpenNamespace(name)
}

func makeNamespace(name string) error {
	path, err := namespacePath(name)
	if err != nil {
		return err
	}
	if err := shareNamespaces(); err != nil {
		return err
	}
	return inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		// Marked before it has a name: no crash leaves one that nobody owns.
		if err := furnish(); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	})
}

// furnish marks the thread's namespace as ripstop's and brings its loopback up.
func furnish() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetAlias(lo, namespaceMark); err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// shareNamespaces makes the directory a shared mount as ip-netns(8) does, so
// that names made here are seen in every mount namespace.
func shareNamespaces() error {
	if err := os.MkdirAll(namespaces, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", namespaces, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := unix.Mount(namespaces, namespaces, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", namespaces, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// ReleaseNamespace removes a named namespace that ripstop made, unless a link
// still stands in it. One that ripstop did not make, or that is gone, stays as
// it is.
func ReleaseNamespace(name string) error {
	s, err := OpenNamespace(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	free, err := s.free()
	if err := errors.Join(err, s.Close()); err != nil || !free {
		return err
	}
	path := filepath.Join(namespaces, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount namespace %q: %w", name, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove namespace: %w", err)
	}
	return nil
}

// OwnNamespaces is the names of the namespaces that ripstop made, sorted. A process that
// may enter none has none: a daemon without rights made none and removes none.
func OwnNamespaces() ([]string, error) {
	if may, err := mayEnter(); err != nil || !may {
		return nil, err
	}
	entries, err := os.ReadDir(namespaces)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		s, err := OpenNamespace(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lo, err := s.Link("lo")
		if err := errors.Join(err, s.Close()); err != nil {
			return nil, err
		}
		if lo.Attrs().Alias == namespaceMark {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// mayEnter tells whether this process has the right to enter network namespaces: it enters
// the one that it is in.
func mayEnter() (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return false, fmt.Errorf("open this process's namespace: %w", err)
	}
	err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		return false, f.Close()
	}
	return err == nil, errors.Join(err, f.Close())
}

// free tells whether the namespace is ripstop's and holds nothing but what the
// kernel puts into each.
func (s *Space) free() (bool, error) {
	links, err := s.Links()
	if err != nil {
		return false, err
	}
	ours := false
	for _, l := range links {
		switch l.Attrs().Name {
		case "lo":
			ours = l.Attrs().Alias == namespaceMark
		case "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0":
			// Every namespace has these while the tunnel modules are loaded.
		default:
			return false, nil
		}
	}
	return ours, nil
}

// Run calls f on a thread inside the namespace.
func (s *Space) Run(f func() error) error {
	if s.file == nil {
		return f()
	}
	return inThread(func() error {
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %q: %w", s.name, err)
		}
		return f()
	})
}

// inThread calls f, which may change the network namespace, on a thread of its
// own. A thread that does not come back ends with the goroutine.
func inThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- fmt.Errorf("open own namespace: %w", err)
			return
		}
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- errors.Join(err, home.Close())
	}()
	return <-done
}

// Scratch calls f on a thread inside a new namespace without a name, which is
// gone with all that f made in it when f returns.
func Scratch(f func() error) error {
	return inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
		return f()
	})
}

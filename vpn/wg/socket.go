package wg

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// socketDir is where wg(8) looks for tunnels that no kernel carries. It is one
// directory for all network namespaces of a mount namespace, so two of them that
// have a tunnel of the same name compete for its socket.
const socketDir = "/run/wireguard"

// socket answers wg(8) for one tunnel.
type socket struct {
	path     string
	listener net.Listener
	self     fs.FileInfo // the file that we made, to remove no other

	mu    sync.Mutex
	conns map[net.Conn]bool // nil when closed
	wait  sync.WaitGroup
}

// serve listens at the tunnel's socket and hands every connection to handle,
// which closes it. A socket file at which nobody listens is replaced; errInUse
// when somebody does.
func serve(tunnel string, handle func(net.Conn)) (*socket, error) {
	if err := os.MkdirAll(socketDir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(socketDir, tunnel+".sock")
	listener, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", path, err)
	}
	self, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &socket{path: path, listener: listener, self: self, conns: map[net.Conn]bool{}}
	s.wait.Add(1)
	go s.accept(handle)
	return s, nil
}

// listen makes the socket under another name and links it into place when it is
// ready: at no time can it be reached with the wrong mode, and an existing one is
// never overwritten.
func listen(path string) (*net.UnixListener, error) {
	draft := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: draft, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(draft, 0o600); err == nil {
		err = place(draft, path)
	}
	err = errors.Join(err, os.Remove(draft))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// place links the draft to its path, removing a socket of the dead that is there.
func place(draft, path string) error {
	err := os.Link(draft, path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(errInUse, c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Link(draft, path)
}

func (s *socket) accept(handle func(net.Conn)) {
	defer s.wait.Done()
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors: give others time to close some
			continue
		}
		if !s.open(c) {
			return
		}
		go func() {
			defer s.done(c)
			handle(c)
		}()
	}
}

// open notes a connection; false when the socket has been closed meanwhile.
func (s *socket) open(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		// Nobody was answered on it yet; what its closing says helps nobody.
		_ = c.Close()
		return false
	}
	s.conns[c] = true
	s.wait.Add(1)
	return true
}

func (s *socket) done(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.wait.Done()
}

// close ends all connections, waits for their goroutines and removes the file
// unless another process has put its own there.
func (s *socket) close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		// The handler closes it, too; only that it ends matters.
		_ = c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wait.Wait()
	if now, e := os.Lstat(s.path); e == nil && os.SameFile(now, s.self) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

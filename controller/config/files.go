package config

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ripstop/vpn"
)

// maxSecret is the most bytes that a secret's file may have; a key has 44, a
// CHAP secret at most 255.
const maxSecret = 1024

// ReadSecret reads a CHAP secret or a pre-shared key: a regular file of root's
// or our own that nobody else may read or write, with one line. The error is an
// os.ErrNotExist when there is none.
func ReadSecret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s: %w: write the secret into it, with mode 0600", path, os.ErrNotExist)
	}
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	if err := guarded(path, fi); err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case len(data) > maxSecret:
		return "", fmt.Errorf("%s: the file has more than %d bytes: it holds the secret and nothing else", path, maxSecret)
	case s == "":
		return "", fmt.Errorf("%s: the file is empty: write the secret into it", path)
	case strings.ContainsAny(s, "\n\x00"):
		return "", fmt.Errorf("%s: the file has several lines: it holds the secret in one line and nothing else", path)
	}
	return s, nil
}

// guarded refuses a secret's file that others may read or exchange.
func guarded(path string, fi os.FileInfo) error {
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file: put the secret into one", path)
	}
	if mode := fi.Mode().Perm(); mode&0o177 != 0 {
		return fmt.Errorf("%s: mode %04o lets others in: chmod 0600 it", path, mode)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the file's owner is unknown", path)
	}
	if int(st.Uid) != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: it belongs to uid %d: chown it to root or to uid %d", path, st.Uid, os.Geteuid())
	}
	return nil
}

// PrivateKey reads a WireGuard private key in base64, as ReadSecret reads. When
// there is no file, it makes a key and writes it there with mode 0600; the
// folder must exist. Two that make one at the same time get the same key.
func PrivateKey(path string) (vpn.Secret, error) {
	s, err := ReadSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		if s, err = makeKey(path); errors.Is(err, os.ErrExist) {
			s, err = ReadSecret(path)
		}
	}
	if err != nil {
		return vpn.Secret{}, err
	}
	k, err := vpn.ParseKey(s)
	if err != nil {
		return vpn.Secret{}, fmt.Errorf("%s: not a private key: write one with wg genkey", path)
	}
	if k == (vpn.Key{}) {
		return vpn.Secret{}, fmt.Errorf("%s: the zero key is no private key: write one with wg genkey", path)
	}
	return vpn.NewSecret(k), nil
}

// makeKey writes a new key under a name of its own and links it into place, so
// that no reader and no power cut finds half a key. It is an os.ErrExist when
// somebody was faster.
func makeKey(path string) (string, error) {
	var k vpn.Key
	if _, err := rand.Read(k[:]); err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	k[0] &= 248 // RFC 7748 section 5, as wg genkey does
	k[31] = k[31]&127 | 64
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // opens with O_EXCL and 0600
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(k.String() + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	return k.String(), syncDir(dir)
}

// syncDir makes a new name in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	return nil
}

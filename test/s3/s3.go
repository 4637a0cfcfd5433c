// Package s3 starts a real S3 server, versitygw, for tests. scripts/versitygw builds it.
package s3

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// The credentials of a Server.
const (
	AccessKey = "ripstop-tests"
	SecretKey = "only-for-tests-0123456789"
	Bucket    = "backups"
)

// Server is an S3 server with one bucket, in a process of its own.
type Server struct {
	Address string // HOST:PORT
	Dir     string // where its objects are files
}

// Install builds the server where that was not done, which needs a network, and gives its path.
func Install() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	cmd := exec.Command(filepath.Join(filepath.Dir(string(bytes.TrimSpace(mod))), "scripts", "versitygw"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/versitygw: %w", err)
	}
	return string(bytes.TrimSpace(out)), nil
}

// Start gives a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	path, err := Install()
	if err != nil {
		t.Fatal(err)
	}
	// The port may be taken by another between the two: then it is tried again.
	for n := 0; ; n++ {
		s, err := start(t, path)
		if err == nil {
			return s
		}
		if n == 4 {
			t.Fatal(err)
		}
	}
}

func start(t testing.TB, path string) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Address: l.Addr().String(), Dir: filepath.Join(t.TempDir(), "objects")}
	if err := errors.Join(l.Close(), os.MkdirAll(filepath.Join(s.Dir, Bucket), 0o700)); err != nil {
		return nil, err
	}
	var log bytes.Buffer
	cmd := exec.Command(path, "--quiet", "--port", s.Address, "posix", "--nometa", s.Dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := nettest.Begin(cmd); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // the poll interval of a condition
		c, err := net.Dial("tcp", s.Address)
		if err == nil {
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				<-ended
			})
			return s, c.Close()
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("versitygw ended: %w: %s", err, log.String())
		default:
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			<-ended
			return nil, fmt.Errorf("versitygw does not listen: %s", log.String())
		}
	}
}

// Env is what a client of the server has in its environment.
func Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey, "AWS_REGION=us-east-1"}
}

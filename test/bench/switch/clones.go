package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// makeClones makes ports of which the first has a program that does nothing but
// give all others a clone of each frame: what the kernel's helper takes by itself.
func (l *lab) makeClones(ctx context.Context, dir string) error {
	var lines strings.Builder
	for i := range l.ports {
		fmt.Fprintf(&lines, "link add %s type veth peer name %s netns %s\nlink set %[1]s up\n", l.port(i), l.port(i), l.space(i))
	}
	if err := batch(ctx, l.host(), lines.String()); err != nil {
		return err
	}
	space := l.spaces[l.host()]
	if space == nil {
		return l.cloneToOthers(ctx, dir)
	}
	return space.Run(func() error { return l.cloneToOthers(ctx, dir) })
}

// cloneToOthers is called in the namespace of the ports.
func (l *lab) cloneToOthers(ctx context.Context, dir string) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	var to []int
	for _, i := range all {
		if strings.HasPrefix(i.Name, l.name+"-") && i.Name != l.port(0) {
			to = append(to, i.Index)
		}
	}
	return runClones(ctx, dir, l.port(0), to)
}

// runClones has a device run a program of clones.
func runClones(ctx context.Context, dir, device string, to []int) error {
	bpffs := filepath.Join(dir, "bpf") // of this mount namespace
	var is unix.Statfs_t
	if err := os.MkdirAll(bpffs, 0o755); err != nil {
		return err
	}
	if err := unix.Statfs(bpffs, &is); err != nil || is.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
			return fmt.Errorf("mount bpf at %s: %w", bpffs, err)
		}
	}
	pin := filepath.Join(bpffs, device)
	if err := pinClones(to, pin); err != nil {
		return err
	}
	for _, command := range []string{"qdisc add dev %s clsact", "filter add dev %s ingress bpf da object-pinned " + pin} {
		command = fmt.Sprintf(command, device)
		if out, err := exec.CommandContext(ctx, "tc", strings.Fields(command)...).CombinedOutput(); err != nil {
			return fmt.Errorf("tc %s: %w: %s", command, err, out)
		}
	}
	return nil
}

// pinClones loads the program and gives it a name in a BPF file system.
func pinClones(to []int, name string) error {
	code, license, path := clones(to), []byte("GPL\x00"), append([]byte(name), 0)
	load := struct {
		kind, insns   uint32
		code, license uintptr
		_             [24]uint32
	}{kind: 3, insns: uint32(len(code) / 8), code: uintptr(unsafe.Pointer(&code[0])), license: uintptr(unsafe.Pointer(&license[0]))} // BPF_PROG_TYPE_SCHED_CLS
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return fmt.Errorf("load a program of clones: %w", errno)
	}
	defer unix.Close(int(fd))
	pin := struct {
		path  uintptr
		fd, _ uint32
	}{path: uintptr(unsafe.Pointer(&path[0])), fd: uint32(fd)}
	_, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_PIN, uintptr(unsafe.Pointer(&pin)), unsafe.Sizeof(pin))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	runtime.KeepAlive(path)
	if errno != 0 {
		return fmt.Errorf("pin %s: %w", name, errno)
	}
	return nil
}

// clones is the program's code: a clone for each device, and the frame itself for
// the last.
func clones(to []int) []byte {
	const (
		move  = 0xbf // 64 bits
		set   = 0xb7
		call  = 0x85
		exit  = 0x95
		clone = 13 // bpf_clone_redirect
		last  = 23 // bpf_redirect
	)
	var code []byte
	add := func(op, registers byte, value int) {
		code = append(code, op, registers, 0, 0)
		code = binary.LittleEndian.AppendUint32(code, uint32(value))
	}
	add(move, 0x16, 0) // r6 = r1
	for _, index := range to[:len(to)-1] {
		add(move, 0x61, 0) // r1 = r6
		add(set, 2, index)
		add(set, 3, 0)
		add(call, 0, clone)
	}
	add(set, 1, to[len(to)-1])
	add(set, 2, 0)
	add(call, 0, last)
	add(exit, 0, 0)
	return code
}

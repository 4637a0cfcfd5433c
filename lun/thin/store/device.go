package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
)

const (
	minDevice = 64 << 20 // bytes: a log, and some data
	edge      = 1 << 20  // bytes at both ends of a device that must be zeros
)

// openDevice claims a block device. What a ring has had a kernel before 6.4 closes
// up to a second late; so the claim, which must end with Close, is another open.
func openDevice(path string, o Options) (*File, error) {
	claim, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, busy(path)
	}
	if err != nil {
		return nil, err
	}
	f := &File{lock: claim, device: true}
	if err := f.takeDevice(path, o); err != nil {
		return nil, errors.Join(err, claim.Close())
	}
	return f, nil
}

// takeDevice opens a device that is claimed.
func (f *File) takeDevice(path string, o Options) error {
	var err error
	if f.file, err = disk.Open(path, os.O_RDWR, o.Ring); err != nil {
		return err
	}
	if o.StateDir != "" {
		f.record.dir = filepath.Join(o.StateDir, "thin")
		var st unix.Stat_t
		if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
			return errors.Join(os.NewSyscallError("stat", err), f.file.Close())
		}
		f.shadowPath = filepath.Join(f.record.dir, fmt.Sprintf("device-%d-%d.shadow", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	}
	if err := f.inspect(); err != nil {
		return errors.Join(err, f.file.Close())
	}
	return nil
}

// inspect refuses a device that is not ours to write.
func (f *File) inspect() error {
	size, err := f.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < minDevice {
		return fmt.Errorf("the device has %d bytes and a pool takes %d: choose a larger one", size, minDevice)
	}
	f.size.Store(size)
	ours, err := holdsPool(f.file)
	if ours || err != nil {
		return err
	}
	f.fresh = true
	for _, at := range []int64{0, size - edge} {
		p := make([]byte, edge)
		if _, err := f.file.ReadAt(p, at); err != nil {
			return err
		}
		if i := firstByte(p); i >= 0 {
			return fmt.Errorf("it holds %s, and nothing is overwritten: choose another device, "+
				"or if nobody needs that, wipe it (`blkdiscard -z %s`)", content(p, at, i), f.file.Name())
		}
	}
	return nil
}

// firstByte is the first byte that is not 0, -1 where all are.
func firstByte(p []byte) int {
	for i, b := range p {
		if b != 0 {
			return i
		}
	}
	return -1
}

// signatures are what is found most often on devices, with its place.
var signatures = []struct {
	name  string
	at    int
	bytes string
}{
	{"an ext2, ext3 or ext4 file system", 0x438, "\x53\xef"},
	{"an XFS file system", 0, "XFSB"},
	{"a Btrfs file system", 0x10040, "_BHRfS_M"},
	{"an encrypted volume (LUKS)", 0, "LUKS\xba\xbe"},
	{"a part of a volume group (LVM)", 0x218, "LVM2 001"},
	{"swap space", 4086, "SWAPSPACE2"},
	{"a partition table (GPT)", 512, "EFI PART"},
	{"a partition table or boot sector", 510, "\x55\xaa"},
}

// content names what lies at an end of a device whose byte i, from at on, is not 0.
func content(p []byte, at int64, i int) string {
	for _, s := range signatures {
		if at == 0 && bytes.HasPrefix(p[s.at:], []byte(s.bytes)) {
			return s.name
		}
	}
	return fmt.Sprintf("data (byte %d is not zero)", at+int64(i))
}

// busy is who has a device that cannot be claimed.
func busy(path string) error {
	at, err := mountedAt(path)
	if err != nil {
		return err
	}
	if at != "" {
		return fmt.Errorf("the device is mounted at %s: unmount it, or choose another device", at)
	}
	return errors.New("the device is in use, by another ripstop, a partition of it, LVM or RAID: stop that one, or choose another device")
}

// mountedAt is where a device, or a link to one, is mounted; "" is nowhere.
func mountedAt(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", os.NewSyscallError("stat", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[2] == number {
			return fields[4], nil
		}
	}
	return "", nil
}

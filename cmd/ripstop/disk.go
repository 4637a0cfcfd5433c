package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/internal/disk"
	"ripstop/lun/image"
)

// The command reads and writes files itself, with the rights of who calls it, and
// speaks with the daemon of bytes at places alone: a file that lies is taken apart
// in a process that has nothing to lose, and the daemon opens no path of a client.

func newLUNExport(g *global) *cobra.Command {
	var format string
	var force bool
	cmd := &cobra.Command{
		Use:   "export LUN[@SNAPSHOT] FILE",
		Short: "Write what a LUN or a snapshot holds to a file, as qcow2 or raw; I/O goes on",
		Long: "The format is that of the file's name (.qcow2, .raw, .img), or --format. Of a LUN in a thin pool the file is\n" +
			"what it holds when the export begins. FILE - is the standard output, which is raw.\n" +
			"Until all of it is written there is no file of that name.",
		Example: "  ripstop lun export data@monday /backup/data.qcow2\n  ripstop lun export data - | zstd > data.raw.zst",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := formatFor(args[1], format, image.Written)
			if err != nil {
				return fmt.Errorf("export %s: %w", args[0], err)
			}
			c := client.New(g.socket)
			ask := v1.ExportLUN{Name: args[0], Mark: newMark()}
			end := showProgress(cmd.Context(), c, cmd.ErrOrStderr(), ask.Mark)
			if args[1] == "-" {
				_, err = export(cmd.Context(), c, ask, f, &pipe{w: cmd.OutOrStdout()})
				end()
				return err
			}
			n, err := exportFile(cmd.Context(), c, ask, f, args[1], force)
			end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "exported %s to %s: %s of data\n", args[0], args[1], size(n))
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "raw or qcow2, where the name does not say it")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that exists")
	return cmd
}

// formatFor is the format of a word, or else of the name of a file.
func formatFor(name, word string, of []image.Format) (image.Format, error) {
	if name == "-" && word == "" {
		word = string(image.Raw)
	}
	if word != "" {
		f, err := image.ParseFormat(word, of)
		if err == nil && name == "-" && f != image.Raw {
			err = fmt.Errorf("format %s cannot be written to a pipe: write --format raw, or name a file", f)
		}
		return f, err
	}
	f, err := image.FormatOf(name)
	if err != nil {
		return "", err
	}
	return image.ParseFormat(string(f), of)
}

// export writes what the daemon sends, and gives how many bytes of data that was.
func export(ctx context.Context, c *client.Client, ask v1.ExportLUN, f image.Format, to image.File) (n int64, err error) {
	disk, in, body, err := c.ExportLUN(ctx, ask)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	w, err := image.NewWriter(to, f, disk.Size)
	if err != nil {
		return 0, fmt.Errorf("export %s: %w", ask.Name, err)
	}
	for {
		off, p, err := in.Next()
		if errors.Is(err, io.EOF) {
			return n, w.Close()
		}
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return n, err
		}
		if err := w.Write(off, p); err != nil {
			return n, fmt.Errorf("export %s: %w: make room, or name another place", ask.Name, err)
		}
		n += int64(len(p))
	}
}

// exportFile writes a file that has its name only when it is whole and on stable storage.
func exportFile(ctx context.Context, c *client.Client, ask v1.ExportLUN, f image.Format, path string, force bool) (n int64, err error) {
	err = wholeFile("export "+ask.Name, path, force, func(t *os.File) error {
		n, err = export(ctx, c, ask, f, t)
		return err
	})
	return n, err
}

// wholeFile has a file written that has its name only when it is whole and on stable storage.
func wholeFile(what, path string, force bool, write func(*os.File) error) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return fmt.Errorf("%s: %s exists: name another file, or replace it with --force", what, path)
	}
	dir := filepath.Dir(path)
	t, err := os.CreateTemp(dir, "."+filepath.Base(path)+".part-*")
	if err != nil {
		return fmt.Errorf("%s: %w: name a place that can be written to", what, err)
	}
	if err = write(t); err == nil {
		err = t.Sync()
	}
	err = errors.Join(err, t.Close())
	if err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	return disk.SyncDir(dir)
}

// pipe is a file that is written from front to end, holes as zeros.
type pipe struct {
	w  io.Writer
	at int64
}

func (p *pipe) WriteAt(b []byte, off int64) (int, error) {
	if err := p.Truncate(off); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	p.at += int64(n)
	return n, err
}

// Truncate writes zeros up to a place.
func (p *pipe) Truncate(size int64) error {
	zeros := make([]byte, min(max(0, size-p.at), diskPiece))
	for p.at < size {
		n, err := p.w.Write(zeros[:min(size-p.at, diskPiece)])
		p.at += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

func newLUNImport(g *global) *cobra.Command {
	var format string
	var ask v1.ImportLUN
	cmd := &cobra.Command{
		Use:   "import FILE LUN --pool POOL",
		Short: "Make a LUN of a disk in a file: qcow2, VMDK, VHDX or raw",
		Long: "The format is that of the file's name (.qcow2, .vmdk, .vhdx, .raw, .img), or --format. What the file has\n" +
			"no data for takes no space. The LUN is there when all of it is; an import that fails or is ended with Ctrl-C leaves none.",
		Example: "  ripstop lun import debian-12-generic-amd64.qcow2 vm7 --pool main\n  ripstop lun import appliance.vmdk app --pool main",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.Name, ask.Mark = args[1], newMark()
			if ask.Pool == "" {
				return fmt.Errorf("import LUN %s: it needs a pool: write --pool POOL", ask.Name)
			}
			d, err := openDisk(args[0], format)
			if err != nil {
				return fmt.Errorf("import %s: %w", args[0], err)
			}
			c := client.New(g.socket)
			end := showProgress(cmd.Context(), c, cmd.ErrOrStderr(), ask.Mark)
			done, err := d.send(cmd.Context(), c, ask)
			end()
			if err = errors.Join(err, d.file.Close()); err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "made LUN %s of %s: %s\n", ask.Name, args[0], size(d.image.Size()))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "raw, qcow2, vmdk or vhdx, where the name does not say it")
	cmd.Flags().StringVar(&ask.Pool, "pool", "", "the pool that it takes its space from")
	cmd.Flags().BoolVar(&ask.Thick, "thick", false, "keep room of the pool for all of it")
	cmd.Flags().IntVar(&ask.Block, "block", 4096, "bytes of a logical block: 512, which most guests' disks have been, or 4096")
	return cmd
}

// opened is an image in an open file.
type opened struct {
	file  *os.File
	image image.Image
	since time.Time // the file's last change
	size  int64     // bytes of the file
}

// openDisk opens a file or a device.
func openDisk(path, word string) (*opened, error) {
	if path == "-" {
		return nil, errors.New("a pipe does not say how long the disk is: write it to a file first")
	}
	format, err := formatFor(path, word, image.Formats)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d := &opened{file: f}
	if err := d.read(format, word != ""); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

func (d *opened) read(format image.Format, sure bool) error {
	s, err := d.file.Stat()
	if err != nil {
		return err
	}
	if !s.Mode().IsRegular() && s.Mode()&os.ModeDevice == 0 {
		return errors.New("it is no file and no disk: name one")
	}
	d.since = s.ModTime()
	if d.size, err = d.file.Seek(0, io.SeekEnd); err != nil { // Stat says nothing of devices
		return err
	}
	if is, ok := image.Begins(d.file); ok && !sure && format == image.Raw {
		return fmt.Errorf("it begins as %s, and its name says raw: write --format %s, or --format raw if these are the disk's own bytes", is, is)
	}
	d.image, err = image.Open(holes{d.file}, d.size, format)
	return err
}

// send makes a LUN of the disk.
func (d *opened) send(ctx context.Context, c *client.Client, ask v1.ImportLUN) (v1.Applied, error) {
	block := int64(ask.Block)
	if block != 512 && block != 4096 {
		return v1.Applied{}, fmt.Errorf("--block %d: it is neither 512 nor 4096", block)
	}
	ask.Size = (d.image.Size() + block - 1) / block * block
	if ask.Size == 0 {
		return v1.Applied{}, fmt.Errorf("import %s: the disk in it has 0 bytes: name another file", d.file.Name())
	}
	return c.ImportLUN(ctx, ask, func(to *v1.DiskWriter) error {
		a := aligned{to: to, block: block}
		err := d.image.Walk(a.add)
		if err == nil {
			err = a.flush()
		}
		if err == nil {
			err = d.unchanged()
		}
		if err != nil {
			return fmt.Errorf("import %s: %w", d.file.Name(), err)
		}
		return nil
	})
}

// unchanged tells whether the file was left alone.
func (d *opened) unchanged() error {
	s, err := d.file.Stat()
	if err == nil && s.Mode().IsRegular() && (s.Size() != d.size || !s.ModTime().Equal(d.since)) {
		err = errors.New("the file was changed meanwhile: shut down what uses it, and import it again")
	}
	return err
}

// aligned makes whole blocks of pieces that begin and end at any 512 bytes.
type aligned struct {
	to    *v1.DiskWriter
	block int64
	off   int64 // of buf, a multiple of the block
	buf   []byte
}

func (a *aligned) add(off int64, p []byte) error {
	if end := a.off + int64(len(a.buf)); off/a.block > end/a.block {
		if err := a.flush(); err != nil {
			return err
		}
	} else if len(a.buf) > diskPiece { // p may go on with the last block
		whole := int64(len(a.buf)) / a.block * a.block
		if err := a.to.Data(a.off, a.buf[:whole]); err != nil {
			return err
		}
		a.off += whole
		a.buf = a.buf[:copy(a.buf, a.buf[whole:])]
	}
	if len(a.buf) == 0 {
		a.off = off / a.block * a.block
	}
	a.buf = append(a.buf, make([]byte, off-a.off-int64(len(a.buf)))...)
	a.buf = append(a.buf, p...)
	return nil
}

// flush sends what there is, the last block filled with zeros.
func (a *aligned) flush() error {
	if len(a.buf) == 0 {
		return nil
	}
	a.buf = append(a.buf, make([]byte, (a.block-int64(len(a.buf))%a.block)%a.block)...)
	err := a.to.Data(a.off, a.buf)
	a.off += int64(len(a.buf))
	a.buf = a.buf[:0]
	return err
}

// holes is a file that knows where it has data.
type holes struct{ *os.File }

func (h holes) NextData(off int64) (start, end int64, err error) {
	start, err = unix.Seek(int(h.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = unix.Seek(int(h.Fd()), start, unix.SEEK_HOLE)
	}
	if err != nil { // a device, or a file system without holes
		end, err = h.Seek(0, io.SeekEnd)
		start = off
	}
	return start, end, err
}

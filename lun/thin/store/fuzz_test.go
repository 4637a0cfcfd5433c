package store

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzRecord takes anything for pool.json: a clear error, or a record that is
// written as it was read.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"format":1,"kind":"thin","id":"00112233445566778899aabbccddeeff","block":4096,"chunk":65536,"epoch":3,"generation":9}`))
	f.Add([]byte(`{"block":4096,"size":1}`))
	f.Add([]byte(`{"format":2,"kind":"thin"}`))
	f.Add([]byte(`{"format":1,"kind":"thin","block":4096,"chunk":65536,"epoch":-1}{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		r := record{path: filepath.Join(t.TempDir(), "pool.json"), m: m}
		must(t, r.save())
		if known, err := r.load(); !known || err != nil || r.m != m {
			t.Fatalf("%+v is written and read as %+v: %v", m, r.m, err)
		}
	})
}

// FuzzShadowFile takes anything for the file that a killed process left, with a
// boot that is this one or not: memory of a bounded size, which can be written.
func FuzzShadowFile(f *testing.F) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(true, uint32(200<<10), []byte("kept"))
	f.Add(true, uint32(1<<31), []byte{})
	f.Add(true, uint32(5000), []byte{})
	f.Add(false, uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, same bool, size uint32, data []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, shadowName)
		head := data
		if same {
			head = append(boot[:bootLen:bootLen], data...)
		}
		must(t, os.WriteFile(path, head, 0o600))
		must(t, os.Truncate(path, max(int64(size), int64(len(head)))))
		s := &File{shadowPath: path}
		mem, err := s.Shadow(leastShadow)
		if err != nil {
			return // the file system has no room for it
		}
		if len(mem) < leastShadow || len(mem) > mostShadow {
			t.Fatalf("%d bytes", len(mem))
		}
		for i := 0; i < len(mem); i += 1 << 20 {
			mem[i] = 1
		}
		must(t, s.unmapShadow())
	})
}

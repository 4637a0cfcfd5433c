package raw

import "testing"

// BenchmarkPrompt compares an access of 4 KiB at once with one by the long way,
// both of the page cache.
func BenchmarkPrompt(b *testing.B) {
	_, v := promptLUN(b, 4096)
	ctx, p := b.Context(), make([]byte, 4096)
	for name, do := range map[string]func(off int64) error{
		"tryread":  func(off int64) error { _, err := v.TryReadAt(p, off); return err },
		"trywrite": func(off int64) error { _, err := v.TryWriteAt(p, off); return err },
		"read":     func(off int64) error { return v.ReadAt(ctx, p, off) },
		"write":    func(off int64) error { return v.WriteAt(ctx, p, off, false) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				must(b, do(int64(i)%512*4096))
			}
		})
	}
}

package scsi

import "testing"

// TestCluster is what a failover cluster does with a shared disk: both nodes
// register, one reserves for the registrants, the other defends itself, takes
// over, and in the end everything is cleared.
func TestCluster(t *testing.T) {
	const first, second = 0xa1, 0xb2
	a, b := pair(t)
	out := func(s *Session, action byte, key, service uint64, kind byte) func() string {
		return func() string { return prOutDo(s, action, key, service, kind) }
	}
	send := func(s *Session, cdb string, n int) func() string {
		return func() string { return do(s, cdb, make([]byte, n)).answer() }
	}
	const readBlock, writeBlock = "28 00 00000000 00 0001 00", "2a 00 00000000 00 0001 00"
	steps := []struct {
		name string
		do   func() string
		want string
	}{
		{"a registers", out(a, 6, 0, first, 0), "good"},
		{"a reserves", out(a, 1, first, 0, typeWriteRegistrants), "good"},
		{"b reads", send(b, readBlock, 0), "good"},
		{"b writes", send(b, writeBlock, 512), "conflict"},
		{"b reserves without a key", out(b, 1, second, 0, typeWriteRegistrants), "conflict"},
		{"b registers", out(b, 6, 0, second, 0), "good"},
		{"b writes as a registrant", send(b, writeBlock, 512), "good"},
		{"b reserves", out(b, 1, second, 0, typeWriteRegistrants), "conflict"},
		{"b releases what is not its own", out(b, 2, second, 0, typeWriteRegistrants), "good"},
		{"a reserves again", out(a, 1, first, 0, typeWriteRegistrants), "good"},
		{"b preempts with a wrong key", out(b, 4, first, first, typeWriteRegistrants), "conflict"},
		{"b preempts", out(b, 4, second, first, typeWriteRegistrants), "good"},
		{"a hears of it", send(a, tur, 0), "6 2a/05"},
		{"a writes", send(a, writeBlock, 512), "conflict"},
		{"a registers with its old key", out(a, 0, first, first, 0), "conflict"},
		{"a registers anew", out(a, 0, 0, first, 0), "good"},
		{"a writes as a registrant", send(a, writeBlock, 512), "good"},
		{"a preempts and aborts", out(a, 5, first, second, typeExclusiveRegistr), "good"},
		{"b hears of it", send(b, tur, 0), "6 2a/05"},
		{"b reads", send(b, readBlock, 0), "conflict"},
		{"a clears", out(a, 3, first, 0, 0), "good"},
		{"b reads", send(b, readBlock, 0), "good"},
		{"b writes", send(b, writeBlock, 512), "good"},
	}
	for _, step := range steps {
		want(t, step.name, step.do(), step.want)
	}
	want(t, "no keys are left", len(prInData(a, 0)), 8)
}

// TestReadDefects: both lists are there and empty.
func TestReadDefects(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	for cdb, answer := range map[string]string{
		"37 00 1d 00000000 00ff 00":     "00 1d 0000",
		"37 00 05 00000000 00ff 00":     "00 05 0000",
		"37 00 18 00000000 0002 00":     "00 18",
		"b7 1d 00000000 000000ff 00 00": "00 1d 0000 00000000",
		"b7 08 00000000 00000004 00 00": "00 08 0000",
	} {
		task := do(s, cdb, nil)
		want(t, cdb, task.answer(), "good")
		want(t, cdb, task.In, unhex(answer))
	}
}

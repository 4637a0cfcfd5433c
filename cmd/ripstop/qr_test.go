package main

import (
	"strings"
	"testing"

	"rsc.io/qr"
)

// TestQRIsDrawnWhole reads the drawing back into modules.
func TestQRIsDrawnWhole(t *testing.T) {
	text := strings.Repeat("PrivateKey = AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 8)
	var b strings.Builder
	if err := printQR(&b, text); err != nil {
		t.Fatal(err)
	}
	var rows []string // a character a module, # is dark
	for line := range strings.SplitSeq(strings.TrimSpace(b.String()), "\n") {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[40;97m"), "\x1b[0m")
		rows = append(rows, strings.NewReplacer("█", ".", "▀", ".", "▄", "#", " ", "#").Replace(line),
			strings.NewReplacer("█", ".", "▀", "#", "▄", ".", " ", "#").Replace(line))
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < code.Size+2*quiet {
		t.Fatalf("%d rows of a code of %d", len(rows), code.Size)
	}
	for y, row := range rows {
		if len(row) != code.Size+2*quiet {
			t.Fatalf("row %d has %d modules of %d", y, len(row), code.Size+2*quiet)
		}
		for x, c := range row {
			if (c == '#') != code.Black(x-quiet, y-quiet) {
				t.Fatalf("module %d,%d is %c", x, y, c)
			}
		}
	}
	if err := printQR(&b, strings.Repeat("x", 8000)); err == nil {
		t.Error("more than a QR code holds is drawn")
	}
}

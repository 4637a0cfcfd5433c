package main

import (
	"fmt"
	"io"
	"strings"

	"rsc.io/qr"
)

// quiet is how many light modules a QR code has around it (ISO/IEC 18004 section 6.3.8).
const quiet = 4

// printQR draws a text as a QR code with two modules in a character, light ones white
// and dark ones black whatever the terminal's colors are.
func printQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("draw a QR code: %w", err)
	}
	light := func(x, y int) bool { return y >= code.Size+quiet || !code.Black(x, y) }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[40;97m")
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString(modules[light(x, y)][light(x, y+1)])
		}
		b.WriteString("\x1b[0m\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// modules is the character whose upper and lower half are light, or not.
var modules = map[bool]map[bool]string{
	true:  {true: "█", false: "▀"},
	false: {true: "▄", false: " "},
}

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

const (
	progressEvery = 200 * time.Millisecond
	barWidth      = 30
)

// newMark is a word by which a command finds its task among others.
func newMark() string { return rand.Text() }

// showProgress draws how far the task of a mark is, when w is a terminal, until
// end is called, which leaves nothing of it.
func showProgress(ctx context.Context, c *client.Client, w io.Writer, mark string) (end func()) {
	if !terminal(w) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		drawn := false
		for {
			select {
			case <-ctx.Done():
				if drawn {
					fmt.Fprint(w, "\r\x1b[K") // ECMA-48 EL
				}
				return
			case <-time.After(progressEvery):
			}
			tasks, err := c.Tasks(ctx)
			if err != nil {
				continue // the verb itself says what is wrong
			}
			for _, t := range tasks {
				if t.Mark == mark {
					fmt.Fprint(w, "\r"+bar(t, time.Now())+"\x1b[K")
					drawn = true
				}
			}
		}
	}()
	return func() { cancel(); <-over }
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// bar is one line: what, how far, and how long it may still take.
func bar(t v1.Task, now time.Time) string {
	part := 0.0
	if t.Total > 0 {
		part = float64(t.Done) / float64(t.Total)
	}
	full := int(part * barWidth)
	line := fmt.Sprintf("%s %s [%s%s] %3.0f%%  %s of %s", t.Verb, t.Name,
		strings.Repeat("#", full), strings.Repeat(".", barWidth-full), part*100, size(t.Done), size(t.Total))
	if past := now.Sub(t.Since); part > 0.01 && past > time.Second {
		line += ", " + (time.Duration(float64(past) * (1 - part) / part)).Round(time.Second).String() + " left"
	}
	return line
}

package vswitchtest

import (
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// Log is what drivers under test are made with: the cases look at what they tell.
var Log = slog.New(slog.NewTextHandler(&told, nil))

var told journal

// journal keeps the lines of a log.
type journal struct {
	mu    sync.Mutex
	lines []string
}

// Write takes one line, as slog's handlers do.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, string(b))
	return len(b), nil
}

// forget empties the journal.
func (j *journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = nil
}

// text is all lines.
func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "")
}

// await demands that a line comes, by its end.
func (j *journal) await(t *testing.T, end string) {
	t.Helper()
	line := regexp.MustCompile(`(?m)` + regexp.QuoteMeta(end) + `$`)
	nettest.Eventually(t, 30*time.Second, "the log has a line with "+end, func() bool { return line.MatchString(j.text()) })
}

package main

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ripstop/lun"
)

// accountsEvery is how often somebody looks how full pools are.
const accountsEvery = 10 * time.Second

// soon is how far away a full pool is worth a warning.
const soon = 7 * 24 * time.Hour

// accounts follows how pools fill, and tells the log of thresholds that they cross.
type accounts struct {
	log  *slog.Logger
	fill func() []lun.Fill

	mu      sync.Mutex
	outlook lun.Outlook
	last    map[string]lun.Fill
}

// look takes what pools use now.
func (a *accounts) look(now time.Time) {
	fills := a.fill()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.outlook.Note(now, fills) {
		if x.Over {
			a.log.Warn("pool over threshold", "pool", x.Pool, "percent", x.Threshold, "used", x.Used, "size", x.Size)
		} else {
			a.log.Info("pool below threshold", "pool", x.Pool, "percent", x.Threshold, "used", x.Used, "size", x.Size)
		}
	}
	a.last = map[string]lun.Fill{}
	for _, f := range fills {
		a.last[f.Pool] = f
	}
}

// level is the threshold that a pool is over, in percent, 0 for none.
func (a *accounts) level(pool string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.outlook.Level(pool)
}

// full is when a pool will be full, nil where nobody can tell.
func (a *accounts) full(pool string) *time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.outlook.Full(pool)
	if !ok {
		return nil
	}
	at = at.Round(time.Second)
	return &at
}

// warnings says which pools are over a threshold or full within days.
func (a *accounts) warnings(now time.Time) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []string{}
	for _, name := range a.outlook.Pools() {
		at, growing := a.outlook.Full(name)
		wait := at.Sub(now)
		if a.outlook.Level(name) == 0 && (!growing || wait > soon) {
			continue
		}
		f := a.last[name]
		text := fmt.Sprintf("pool %s: %d%% of %s are used or kept", name, int(float64(f.Used)/float64(f.Size)*100), size(f.Size))
		if growing {
			text += fmt.Sprintf(", full in %s at this rate", roughly(wait))
		}
		out = append(out, text+": give it more `size:`, or delete snapshots and LUNs")
	}
	return out
}

// roughly prints a time span in its largest unit: "40 min", "3 h", "5 days".
func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

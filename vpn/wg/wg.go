// Package wg makes WireGuard tunnels real: it observes the ones that are there
// and does the steps of package vpn.
package wg

import (
	"context"
	"errors"
	"log/slog"

	"ripstop/vpn"
)

// Options are what a Driver may be told.
type Options struct {
	// Engine is what new tunnels are made of; "" takes the kernel's WireGuard
	// where it works and this process where it does not.
	Engine vpn.Engine
	// Memory is a file that keeps over a restart of the daemon what WireGuard
	// itself does not: the names of peers, their endpoints as configured, and
	// whether an MTU was chosen. "" keeps it in this process alone.
	Memory string
}

// Driver is the target of the steps of package vpn. It works in the network
// namespace of its process and is safe for concurrent use.
type Driver struct{}

// New finds out what WireGuard this host has and is ready for work. It fails
// where the wanted engine does not work here.
func New(log *slog.Logger, o Options) (*Driver, error) { return nil, errors.New("not yet") }

// Engine is what new tunnels are made of.
func (d *Driver) Engine() vpn.Engine { return "" }

// Observe reads the tunnels that ripstop made.
func (d *Driver) Observe(ctx context.Context) (vpn.State, error) { return vpn.State{}, nil }

// Do carries out one step; one that has been done already succeeds.
func (d *Driver) Do(ctx context.Context, step vpn.Step) error { return nil }

// Stats is what every tunnel is doing, sorted by name.
func (d *Driver) Stats(ctx context.Context) ([]vpn.TunnelStats, error) { return nil, nil }

// Close removes every tunnel and waits until this process carries none.
func (d *Driver) Close() error { return nil }

// Release ends this process's part and leaves kernel tunnels at work; those in
// this process end with it.
func (d *Driver) Release() error { return nil }

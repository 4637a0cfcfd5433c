package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

// version is set by the linker in a release.
var version = "devel"

func thisVersion() v1.Version {
	v := v1.Version{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

func newVersion(g *global) *cobra.Command {
	var daemon bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print this program's version, or the daemon's",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := thisVersion()
			if daemon {
				var err error
				if v, err = client.New(g.socket).Version(cmd.Context()); err != nil {
					return err
				}
			}
			return g.print(cmd.OutOrStdout(), v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "ripstop %s %s %s\n", v.Version, or(v.Commit), v.Go)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&daemon, "daemon", false, "ask the daemon")
	return cmd
}

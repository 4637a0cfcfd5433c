package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	v1 "ripstop/api/v1"
	"ripstop/configs"
	"ripstop/controller/config"
)

func newValidate(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE...",
		Short: "Read files and say everything that is wrong with them",
		Long: "Reads only: needs no daemon and no root. Of files with hosts it checks every host's part, and with --host tells what that one has.\n" +
			"Exit: 0 when the files are valid, 1 when not.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := config.Load(args)
			if err != nil {
				return err
			}
			c, warnings, err := config.Parse(files)
			if err == nil && g.host != "" {
				c, err = c.ForHost(g.host)
			}
			var bad config.Errors
			if err != nil && !errors.As(err, &bad) {
				return err
			}
			if g.output != "table" {
				return g.printFaults(cmd.OutOrStdout(), bad, warnings)
			}
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), w.String()+" (warning)")
			}
			if err != nil {
				return refuse(cmd.ErrOrStderr(), err)
			}
			return valid(cmd.OutOrStdout(), c)
		},
	}
}

// valid tells what a configuration asks for, or of a fabric what each host's part does.
func valid(w io.Writer, c *config.Config) error {
	if c.Host != "" || c.Hosts == nil {
		_, err := fmt.Fprintln(w, "valid: "+contents(c))
		return err
	}
	lines := fmt.Sprintf("valid: %d hosts\n", len(c.Hosts))
	for _, host := range slices.Sorted(maps.Keys(c.Hosts)) {
		part, err := c.ForHost(host)
		if err != nil {
			return err
		}
		lines += host + ": " + contents(part) + "\n"
	}
	_, err := io.WriteString(w, lines)
	return err
}

func contents(c *config.Config) string {
	ports := 0
	for _, s := range c.Switches {
		ports += len(s.Ports)
	}
	return fmt.Sprintf("%d VLANs, %d switches with %d ports, %d tunnels, %d pools, %d LUNs, %d targets",
		len(c.VLANs), len(c.Switches), ports, len(c.Tunnels), len(c.Pools), len(c.LUNs), len(c.Targets))
}

// printFaults is validate's answer for programs.
func (g *global) printFaults(w io.Writer, bad config.Errors, warnings []config.Warning) error {
	answer := struct {
		Valid    bool       `json:"valid"`
		Faults   []v1.Fault `json:"faults"`
		Warnings []v1.Fault `json:"warnings"`
	}{len(bad) == 0, faults(bad), []v1.Fault{}}
	for _, x := range warnings {
		answer.Warnings = append(answer.Warnings, faults(config.Errors{config.Error(x)})...)
	}
	if err := g.print(w, answer, nil); err != nil {
		return err
	}
	if !answer.Valid {
		return exit(exitError)
	}
	return nil
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the file, for editors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := configs.FS.ReadFile("ripstop.schema.json")
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}

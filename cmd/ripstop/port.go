package main

import (
	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newPort(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "port",
		Short: "Attach and detach ports beside those of the file, for hypervisors and container runtimes",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPortAttach(g), newPortDetach(g))
	return cmd
}

func newPortAttach(g *global) *cobra.Command {
	var p v1.NewPort
	cmd := &cobra.Command{
		Use:   "attach NAME --switch SWITCH --vlan VLAN (--tap | --netns NETNS | --device DEVICE)",
		Short: "Make an access port; it stays over restarts until it is detached",
		Long: "The port is a tap of the port's name for a VM, a veth pair into a network namespace, or an\n" +
			"interface of the host. No apply touches it.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name = args[0]
			done, err := client.New(g.socket).AttachPort(cmd.Context(), p)
			return g.printMade(cmd, done, err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.Switch, "switch", "", "the switch")
	f.StringVar(&p.VLAN, "vlan", "", "the VLAN")
	f.BoolVar(&p.Tap, "tap", false, "a tap of the port's name")
	f.StringVar(&p.User, "user", "", "with --tap: who may open it besides root")
	f.IntVar(&p.Queues, "queues", 0, "with --tap: queues that the VM opens, as QEMU's queues= (1)")
	f.StringVar(&p.Netns, "netns", "", "a veth pair whose far end is in this namespace, made if absent")
	f.StringVar(&p.IfName, "ifname", "", "with --netns: the far end's name (eth0)")
	f.StringSliceVar(&p.Addresses, "address", nil, "with --netns: an address of the far end, as 10.0.0.2/24; several by commas")
	f.StringVar(&p.Device, "device", "", "an interface of the host")
	return cmd
}

func newPortDetach(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "detach NAME",
		Short: "Take away a port that attach made; one that is not there is no error",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := client.New(g.socket).DetachPort(cmd.Context(), args[0])
			return g.printMade(cmd, done, err)
		},
	}
}

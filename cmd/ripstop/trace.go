package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newTrace(g *global) *cobra.Command {
	var ask v1.NewTrace
	var frame string
	cmd := &cobra.Command{
		Use:   "trace --port PORT (--frame HEX|FILE | --to IP [--proto PROTO]) | --initiator IQN --target IQN --from IP",
		Short: "Tell what a switch would do with a frame, or a target with a login, and why",
		Long: "The frame runs through the program that the port's frames run through, over its own tables, or\n" +
			"through the guard and the state of the bridge. Nothing is sent, learned or counted.\n" +
			"Without --frame one is made: of the port's own addresses and those of the port that has --to,\n" +
			"unless others are given. A file holds the frame as bytes, or as hexadecimal digits.\n" +
			"With --initiator and --target it tells whether the one may log in to the other from the address --from,\n" +
			"and which LUNs it sees: by which key its packets come, the portal, the initiators of the file.\n" +
			"Exit status: 0 somebody hears the frame or the login succeeds, 4 not.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if ask.Target == "" {
				if ask.Frame, err = readFrame(frame); err != nil {
					return err
				}
			}
			t, err := client.New(g.socket).Trace(cmd.Context(), ask)
			if err != nil {
				return err
			}
			if err := g.print(cmd.OutOrStdout(), t, func(w io.Writer) error { return traceTable(w, t) }); err != nil {
				return err
			}
			if !t.Reaches {
				return exit(exitDropped)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&ask.Port, "port", "", "the port or gateway at which the frame comes in")
	f.StringVar(&frame, "frame", "", "the frame from the receiver's address on, without FCS: hexadecimal digits, or a file")
	f.IntVar(&ask.VLAN, "vlan", 0, "put an 802.1Q tag with this id on the frame")
	f.StringVar(&ask.Src, "src", "", "the sender's Ethernet address")
	f.StringVar(&ask.Dst, "dst", "", "the receiver's Ethernet address")
	f.StringVar(&ask.Protocol, "proto", "", "tcp, udp, icmp or arp (icmp)")
	f.StringVar(&ask.From, "from", "", "the sender's IP address")
	f.StringVar(&ask.To, "to", "", "the receiver's IP address")
	f.IntVar(&ask.FromPort, "sport", 0, "the sender's TCP or UDP port")
	f.IntVar(&ask.ToPort, "dport", 0, "the receiver's TCP or UDP port")
	f.StringVar(&ask.Initiator, "initiator", "", "iSCSI name of who would log in")
	f.StringVar(&ask.Target, "target", "", "iSCSI name of the target")
	f.StringVar(&ask.Through, "through", "", "the tunnel or VLAN out of which the initiator comes, where its address does not tell")
	cmd.MarkFlagsRequiredTogether("initiator", "target")
	cmd.MarkFlagsOneRequired("port", "target")
	cmd.MarkFlagsMutuallyExclusive("port", "target")
	return cmd
}

// readFrame is a frame in hexadecimal digits, given so, or in a file.
func readFrame(arg string) (string, error) {
	if _, err := hex.DecodeString(compact(arg)); err == nil {
		return compact(arg), nil
	}
	b, err := os.ReadFile(arg)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("--frame %s: neither a frame in hexadecimal digits nor a file", arg)
	}
	if err != nil {
		return "", fmt.Errorf("--frame: %w", err)
	}
	if text := compact(string(bytes.TrimSpace(b))); text != "" {
		if _, err := hex.DecodeString(text); err == nil {
			return text, nil
		}
	}
	return hex.EncodeToString(b), nil
}

// compact takes out what people put between bytes.
func compact(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == ':' {
			return -1
		}
		return r
	}, s)
}

func traceTable(w io.Writer, t v1.Trace) error {
	lines := [][]string{{"STAGE", "RESULT", "RULE"}}
	for _, d := range t.Decisions {
		lines = append(lines, []string{d.Stage, d.Result, or(d.Rule)})
	}
	if err := rows(w, lines); err != nil {
		return err
	}
	var to []string
	for _, e := range t.Egress {
		to = append(to, e.Port)
	}
	end := "reaches " + strings.Join(to, ", ")
	switch {
	case len(to) == 0 && t.Reaches:
		end = "may log in"
	case t.Port == "" && t.Frame == "":
		end = "may not log in: " + t.Reason
	case !t.Reaches:
		end = "reaches nobody: " + t.Reason
	}
	_, err := fmt.Fprintf(w, "%s\n", end)
	return err
}

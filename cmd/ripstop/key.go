package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"ripstop/controller/config"
)

func newKey(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Print the public key of a private key's file, which is made when absent",
		Long: "FILE is what the configuration says behind private-key: under the state directory unless absolute.\n" +
			"What is printed goes behind public-key, of the host in a fabric's file or of a peer elsewhere.\n" +
			"Needs no daemon.\nExit: 0 when it is printed, 1 when not.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			if !filepath.IsAbs(path) {
				path = filepath.Join(g.state, path)
			}
			// A new host has no state directory yet: no daemon ran on it.
			if err := os.MkdirAll(g.state, 0o700); err != nil {
				return fmt.Errorf("key: %w", err)
			}
			secret, err := config.PrivateKey(path)
			if err != nil {
				return fmt.Errorf("key: %w", err)
			}
			answer := struct {
				File      string `json:"file"`
				PublicKey string `json:"publicKey"`
			}{path, secret.Public().String()}
			return g.print(cmd.OutOrStdout(), answer, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, answer.PublicKey)
				return err
			})
		},
	}
}

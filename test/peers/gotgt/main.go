// Command gotgt is github.com/gostor/gotgt as a program of its own: a yardstick
// that the conformance table and the benchmark put beside ripstop.
//
//	gotgt DIRECTORY PORT     DIRECTORY holds gotgt's config.json
//
// It listens on PORT of all addresses, so it belongs into a network namespace
// of its own, and it ends the process where it meets what it cannot do.
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/gostor/gotgt/pkg/config"
	_ "github.com/gostor/gotgt/pkg/port/iscsit" // registers the driver "iscsi"
	"github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore" // registers the store "file"
	"github.com/sirupsen/logrus"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gotgt DIRECTORY PORT")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "gotgt:", err)
		os.Exit(1)
	}
}

func serve(dir, port string) error {
	logrus.SetLevel(logrus.ErrorLevel) // it logs each command otherwise
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("read port: %w", err)
	}
	c, err := config.Load(dir)
	if err != nil {
		return fmt.Errorf("load configuration: %w", err)
	}
	if err := scsi.InitSCSILUMap(c); err != nil {
		return fmt.Errorf("open stores: %w", err)
	}
	driver, err := scsi.NewTargetDriver("iscsi", scsi.NewSCSITargetService())
	if err != nil {
		return fmt.Errorf("make driver: %w", err)
	}
	for name := range c.ISCSITargets {
		if err := driver.NewTarget(name, c); err != nil {
			return fmt.Errorf("make target %q: %w", name, err)
		}
	}
	return driver.Run(n)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller/config"
)

// load reads the configuration files that paths name, for sending to a daemon.
func load(paths []string) ([]v1.File, error) {
	files, err := config.Load(paths)
	if err != nil {
		return nil, err
	}
	out := make([]v1.File, len(files))
	for i, f := range files {
		out[i] = v1.File{Name: f.Name, Data: string(f.Data)}
	}
	return out, nil
}

// isHost refuses a daemon that is another host than the one that --host names: its
// part of the files is another one.
func (g *global) isHost(ctx context.Context, c *client.Client) error {
	if g.host == "" {
		return nil
	}
	s, err := c.Status(ctx)
	if err == nil && s.Host != g.host {
		is := "no host of a fabric"
		if s.Host != "" {
			is = "host " + s.Host
		}
		err = fmt.Errorf("--host %s: the daemon at %s is %s: leave --host out, or name the socket of the other daemon with --socket", g.host, g.socket, is)
	}
	return err
}

// refuse tells what is wrong with configuration files, one fault a line without
// anything before it, so that editors can jump to the place.
func refuse(w io.Writer, err error) error {
	var faults config.Errors
	var answer *v1.Error
	switch {
	case errors.As(err, &faults):
		fmt.Fprintln(w, faults.Error())
		return exit(exitError)
	case errors.As(err, &answer) && len(answer.Faults) > 0:
		fmt.Fprintln(w, answer.Error())
		return exit(exitError)
	}
	return err
}

func faults(errs config.Errors) []v1.Fault {
	out := make([]v1.Fault, len(errs))
	for i, e := range errs {
		out[i] = v1.Fault{File: e.File, Line: e.Line, Column: e.Column, Path: e.Path, Message: e.Message}
	}
	return out
}

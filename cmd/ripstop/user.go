package main

import (
	"fmt"
	"os/user"
)

// lookupUser gives the decimal uid of a user's name.
func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", fmt.Errorf("user %q: %w: write an existing user's name or a number", name, err)
	}
	return u.Uid, nil
}

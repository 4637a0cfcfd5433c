package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	maxName   = 64 // bytes of an object's name
	maxIfName = 15 // bytes of an interface's name: IFNAMSIZ of linux/if.h less its end
)

type version int

func (v *version) parse(s string) error {
	if s != "1" {
		return fmt.Errorf("%s is not a version that this ripstop reads: write 1", quoted(s))
	}
	*v = 1
	return nil
}

type boolean bool

func (v *boolean) parse(s string) error {
	*v = s == "true"
	return oneOf(s, "true", "false")
}

// name is an object's name. It can be a file's name and an operator can type
// it in a shell.
type name string

func (v *name) parse(s string) error {
	*v = name(s)
	if why := badName(s); why != "" {
		return fmt.Errorf("%s %s", quoted(s), why)
	}
	return nil
}

// CheckName tells what is wrong with the name of an object.
func CheckName(s string) error {
	var v name
	return v.parse(s)
}

// badName says why s is no name, "" when it is one.
func badName(s string) string {
	switch {
	case s == "":
		return "is empty: a name has 1 to 64 characters"
	case len(s) > maxName:
		return fmt.Sprintf("has %d characters: a name has at most %d", len(s), maxName)
	case strings.ContainsFunc(s, notInNames):
		return "is not a name: names are made of letters, digits and . _ -"
	case s[0] == '.' || s[0] == '-':
		return "is not a name: names begin with a letter, a digit or _"
	}
	return ""
}

func notInNames(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-')
}

// ifName is the name of a network interface.
type ifName string

func (v *ifName) parse(s string) error {
	*v = ifName(s)
	if why := badIfName(s); why != "" {
		return fmt.Errorf("%s %s", quoted(s), why)
	}
	return nil
}

// badIfName says why an interface cannot be called s. The kernel keeps lo for
// itself and all and default for its settings.
func badIfName(s string) string {
	switch {
	case len(s) > maxIfName && badName(s) == "":
		return fmt.Sprintf("has %d characters: an interface's name has at most %d", len(s), maxIfName)
	case s == "lo" || s == "all" || s == "default":
		return "is a word of the kernel's own: choose another name"
	}
	return badName(s)
}

// fileName names a file under the state directory, or anywhere when absolute.
type fileName string

func (v *fileName) parse(s string) error {
	switch {
	case s == "" || strings.ContainsRune(s, 0) || strings.ContainsRune(s, '\n'):
		return fmt.Errorf("%s is not the name of a file", quoted(s))
	case len(s) > 1024:
		return fmt.Errorf("has %d characters: the name of a file has at most 1024", len(s))
	case !filepath.IsAbs(s) && !filepath.IsLocal(s):
		return fmt.Errorf("%s leads out of the state directory: write the absolute name", quoted(s))
	}
	*v = fileName(filepath.Clean(s))
	return nil
}

// userName is a user's name or decimal uid.
type userName string

func (v *userName) parse(s string) error {
	if s == "" || len(s) > 255 || strings.ContainsAny(s, ": \t\n/\x00") {
		return fmt.Errorf("%s is not a user's name or uid", quoted(s))
	}
	if strings.Trim(s, "0123456789") == "" {
		if _, err := number(s, 0, 1<<32-2); err != nil {
			return fmt.Errorf("uid %w", err)
		}
	}
	*v = userName(s)
	return nil
}

// number reads a decimal number within bounds.
func number(s string, least, most int64) (int64, error) {
	plain := strings.Trim(s, "0123456789") == "" && s != "" && (s == "0" || s[0] != '0')
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case !plain && (s == "" || s[0] != '-' || err != nil):
		return 0, fmt.Errorf("%s is not a decimal number", quoted(s))
	case err != nil || n < least || n > most:
		return 0, fmt.Errorf("%s is not in %d–%d", quoted(s), least, most)
	}
	return n, nil
}

// oneOf refuses what is not one of the words.
func oneOf(s string, words ...string) error {
	if slices.Contains(words, s) {
		return nil
	}
	if n := nearest(s, words); n != "" {
		return fmt.Errorf("%s is not valid: did you mean %q?", quoted(s), n)
	}
	return fmt.Errorf("%s is not valid: it is one of %s", quoted(s), strings.Join(words, ", "))
}

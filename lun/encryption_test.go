package lun

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const someKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func TestParseKey(t *testing.T) {
	for text, ok := range map[string]bool{
		someKey:                       true,
		someKey + "\n":                false,
		someKey[:43]:                  false,
		strings.Repeat("A", 43) + "=": false, // zeros
		strings.Repeat("-", 44):       false,
		"":                            false,
		"correct horse battery staple, and so on, 44 b": false,
	} {
		k, err := ParseKey(text)
		if ok != (err == nil) || ok == k.IsZero() {
			t.Errorf("%q: %v, %v", text, k, err)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error quotes what may be a secret: %v", err)
		}
	}
	k, _ := ParseKey(someKey)
	for i, b := range k.Reveal() {
		if int(b) != i {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
}

// TestKeyStaysSecret: no way of printing shows a key.
func TestKeyStaysSecret(t *testing.T) {
	k, err := ParseKey(someKey)
	if err != nil {
		t.Fatal(err)
	}
	l := LUN{Pool: "p", Encryption: Encryption{Key: k, Former: k}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("a key", "key", k, "lun", l)
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		all += fmt.Sprintf(verb, k) + fmt.Sprintf(verb, l) + fmt.Sprintf(verb, &l) + fmt.Sprintf(verb, RekeyLUN{"a", l.Encryption, l.Encryption})
	}
	for _, leak := range []string{someKey, "0001020304", "1 2 3 4", "1, 2, 3", "0x1, 0x2", "000102"} {
		if strings.Contains(all, leak) {
			t.Errorf("%q is printed: %s", leak, all)
		}
	}
}

// TestEncryptionChanges: what a file can change of data that are there.
func TestEncryptionChanges(t *testing.T) {
	key := func(n byte) (k Key) { k.k[0] = n; return k }
	none, one, two, both := Encryption{}, Encryption{Key: key(1)}, Encryption{Key: key(2)}, Encryption{Key: key(2), Former: key(1)}
	for _, x := range []struct {
		is, want Encryption
		text     string
		err      error
	}{
		{none, none, "", nil},
		{one, one, "", nil},
		{none, one, "", ErrPlain},
		{one, none, "", ErrEncrypted},
		{one, two, "", ErrOtherKey},
		{one, both, "# LUN a: sealed with the key and with the former one", nil},
		{both, two, "# LUN a: the former key opens it no more", nil},
		{both, one, "# LUN a: sealed with another key, the one it had opens it no more", nil},
	} {
		pool := map[string]Pool{"p": {Kind: Thin, Path: "/p", Size: 1 << 30, Overcommit: 1}}
		state := func(e Encryption) State {
			return State{pool, map[string]LUN{"a": {Pool: "p", Size: 4096, Block: 4096, Encryption: e}}}
		}
		steps := Diff(state(x.want), state(x.is))
		switch {
		case x.err != nil:
			if len(steps) != 1 || !strings.Contains(steps[0].String(), x.err.Error()) {
				t.Errorf("%v, want a refusal: %v", steps, x.err)
			}
			sim := NewSim(state(x.is))
			if err := sim.Do(t.Context(), RekeyLUN{"a", x.is, x.want}); !errors.Is(err, x.err) {
				t.Errorf("done nevertheless: %v", err)
			}
		case x.text == "" && len(steps) > 0, x.text != "" && (len(steps) != 1 || steps[0].String() != x.text):
			t.Errorf("%v, want %q", steps, x.text)
		}
	}
	missing := Encryption{Missing: "its key: /k: file does not exist: write the secret into it"}
	want := State{map[string]Pool{}, map[string]LUN{"a": {Pool: "p", Size: 4096, Block: 4096, Encryption: missing}}}
	for _, have := range []State{{}, {LUNs: map[string]LUN{"a": {Pool: "p", Size: 4096, Block: 4096, Encryption: one}}}} {
		steps := Diff(want, have)
		if len(steps) != 1 || steps[0].String() != "# refused: LUN a: "+missing.Missing {
			t.Errorf("without the key: %v", steps)
		}
	}
	sim := NewSim(State{})
	if err := sim.Do(t.Context(), RekeyLUN{"a", one, both}); err == nil {
		t.Error("a LUN that is not in service got another key")
	}
}

package crypt

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"ripstop/lun"
)

// keyOf is a key that every call with the same letter gives.
func keyOf(t testing.TB, letter string) lun.Key {
	t.Helper()
	k, err := lun.ParseKey(strings.Repeat(letter, 43) + "=")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealedHeader(t testing.TB, e lun.Encryption) ([]byte, *[keySize]byte) {
	t.Helper()
	h, key := newHeader(4096)
	h, err := h.sealed(key, e)
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b, key
}

func TestSeal(t *testing.T) {
	b, c := keyOf(t, "E"), keyOf(t, "I")
	record, key := sealedHeader(t, lun.Encryption{Key: b, Former: c})
	if len(record) > lun.MaxRecord {
		t.Errorf("a header of %d bytes does not fit into a record", len(record))
	}
	h, err := decode(record)
	if err != nil {
		t.Fatal(err)
	}
	other := keyOf(t, "M")
	for name, x := range map[string]struct {
		e           lun.Encryption
		opens, same bool
	}{
		"both":       {lun.Encryption{Key: b, Former: c}, true, true},
		"swapped":    {lun.Encryption{Key: c, Former: b}, true, true},
		"one":        {lun.Encryption{Key: b}, true, false},
		"the other":  {lun.Encryption{Key: c}, true, false},
		"a new one":  {lun.Encryption{Key: other, Former: c}, true, false},
		"none of it": {lun.Encryption{Key: other}, false, false},
	} {
		got, same, err := h.open(x.e)
		if x.opens != (err == nil) || same != x.same {
			t.Errorf("%s: same %v, %v", name, same, err)
		}
		if !x.opens && !errors.Is(err, lun.ErrOtherKey) {
			t.Errorf("%s: %v, want that the key is another", name, err)
		}
		if x.opens && *got != *key {
			t.Errorf("%s: another volume key", name)
		}
	}
	for _, secret := range [][]byte{key[:], key[:32], key[32:]} {
		if bytes.Contains(record, secret) {
			t.Error("the volume key is in the header")
		}
	}
}

// TestDamage: every flipped bit of a header is damage, and never a wrong key.
func TestDamage(t *testing.T) {
	k := lun.Encryption{Key: keyOf(t, "E")}
	record, _ := sealedHeader(t, k)
	for i := range record {
		for bit := range 8 {
			bad := bytes.Clone(record)
			bad[i] ^= 1 << bit
			_, err := decode(bad)
			if err == nil {
				t.Fatalf("byte %d, bit %d: taken", i, bit)
			}
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, errNewer) {
				t.Fatalf("byte %d, bit %d: %v", i, bit, err)
			}
		}
	}
	for n := range record {
		if _, err := decode(record[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d bytes of it: %v", n, err)
		}
	}
	for _, more := range []string{"{}", "x"} {
		if _, err := decode(append(bytes.Clone(record), more...)); !errors.Is(err, ErrDamaged) {
			t.Errorf("with %s behind it: %v", more, err)
		}
	}
	if _, err := decode([]byte(`{"format":2,"later":true}`)); !errors.Is(err, errNewer) {
		t.Errorf("a newer format: %v", err)
	}
}

func FuzzHeader(f *testing.F) {
	k := lun.Encryption{Key: keyOf(f, "E")}
	record, _ := sealedHeader(f, k)
	f.Add(record)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decode(b)
		if err != nil {
			return
		}
		again, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("what was read is not read again: %v", err)
		}
		_, _, _ = h.open(k)
	})
}

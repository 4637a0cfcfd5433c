package main

import (
	"strings"
	"testing"

	"ripstop/internal/conformance"
)

func sample() *table {
	t := newTable([]string{"Read6.Simple", "Read6.Beyond", "Unmap.Simple"}, "")
	t.add("ripstop", map[string]conformance.Result{"Read6.Simple": conformance.Pass, "Read6.Beyond": conformance.Pass, "Unmap.Simple": conformance.Skip})
	t.add("gotgt", map[string]conformance.Result{"Read6.Simple": conformance.Fail, "Read6.Beyond": conformance.Hang, "Unmap.Simple": conformance.Crash})
	return t
}

func TestFamilies(t *testing.T) {
	got := sample().families()
	for _, want := range []string{
		"| Read6 | 2 | 2 | · | · | · | · | 1 | 1 | · |",
		"| Unmap | 1 | · | · | · | 1 | · | · | 1 | · |",
		"| **all** | 3 | **2** | · | · | **1** | · | **1** | **2** | · |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestDocumentGivesReasons(t *testing.T) {
	got := sample().document(map[string]conformance.Exception{"Unmap.Simple": {Result: conformance.Skip, Reason: "no holes"}})
	for _, want := range []string{"| Unmap.Simple | skip | no holes |", "\ncrash: Unmap.Simple\n", "\nhang: Read6.Beyond\n", "\nfail: Read6.Simple\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "| Read6.Simple | pass") {
		t.Error("a test that passes needs no reason")
	}
}

func TestOnly(t *testing.T) {
	if got := newTable([]string{"Read6.Simple", "Read10.Simple"}, "Read10").tests; len(got) != 1 || got[0] != "Read10.Simple" {
		t.Errorf("%v", got)
	}
}

package initproc

import (
	"os"
	"strings"
	"testing"
)

// With -ldflags '-E _tele_entry' all tests here run with inits that start before the Go runtime: what
// they execute is a copy of this program. `make test-entry` does so; this makes sure that it does.
func TestEarlyEntry(t *testing.T) {
	early := EarlyEntry()
	t.Log("early entry:", early)
	if strings.Contains(","+os.Getenv("TELE_REQUIRE")+",", ",entry,") && !early {
		t.Error("TELE_REQUIRE names entry, and this binary was linked without -E _tele_entry")
	}
}

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// A folder, a device and a file, written out by hand from the description of the format.
const smallArchive = "" +
	"070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000001" + "00000000" +
	"00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" +
	"dev\x00" + "\x00\x00" +
	"070701" + "00000002" + "00002180" + "00000000" + "00000000" + "00000001" + "00000000" +
	"00000000" + "00000000" + "00000000" + "00000005" + "00000001" + "0000000C" + "00000000" +
	"dev/console\x00" + "\x00\x00" +
	"070701" + "00000003" + "000081ED" + "00000000" + "00000000" + "00000001" + "00000000" +
	"00000005" + "00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" +
	"init\x00" + "\x00" +
	"hello" + "\x00\x00\x00" +
	"070701" + "00000004" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" +
	"00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "0000000B" + "00000000" +
	"TRAILER!!!\x00" + "\x00\x00\x00"

func TestCpio(t *testing.T) {
	var b bytes.Buffer
	archive := cpioWriter{w: &b}
	archive.Dir("dev")
	archive.CharDevice("dev/console", 0o600, 5, 1)
	archive.File("init", 0o755, []byte("hello"))
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != smallArchive {
		t.Errorf("archive\n%q, want\n%q", got, smallArchive)
	}
}

// Header with name, and data, each end on a multiple of four, whatever their lengths.
func TestCpioAlignment(t *testing.T) {
	for name := 1; name <= 5; name++ {
		for size := range 5 {
			var b bytes.Buffer
			archive := cpioWriter{w: &b}
			archive.File(strings.Repeat("n", name), 0o644, bytes.Repeat([]byte("d"), size))
			if b.Len()%4 != 0 {
				t.Errorf("name of %d, data of %d: entry of %d bytes", name, size, b.Len())
			}
		}
	}
}

type fullDisk struct{}

var errFull = errors.New("full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestCpioKeepsTheFirstError(t *testing.T) {
	archive := cpioWriter{w: fullDisk{}}
	archive.Dir("dev")
	if err := archive.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: %v, want %v", err, errFull)
	}
}

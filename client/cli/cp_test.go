package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestJobPath(t *testing.T) {
	for text, want := range map[string]string{"job:": "job .", "job:a/b": "job a/b", "abc:/x:y": "abc /x:y", "a.b-c_d:x": "a.b-c_d x",
		"./a:b": "", "a/b:c": "", ":x": "", "x": "", "-": "", "": "", "../x:y": "", "a b:c": "", "ä:b": ""} {
		id, name, is := jobPath(text)
		if got := strings.TrimSpace(id + " " + name); got != want || is != (want != "") {
			t.Errorf("%q: %q, %v", text, got, is)
		}
	}
}

func TestBar(t *testing.T) {
	b := &bar{done: 1 << 20}
	if got := b.text(2 * time.Second); got != "1.0M  512K/s" {
		t.Errorf("%q", got)
	}
	b.total = 4 << 20
	if got := b.text(0); got != "1.0M of 4.0M  25%" {
		t.Errorf("%q", got)
	}
	b.total = 1000 // more came than there was
	if got := b.text(0); got != "1.0M of 1000  100%" {
		t.Errorf("%q", got)
	}
	var out bytes.Buffer
	if newBar(&out, false).shown() {
		t.Error("it is drawn where there is no terminal")
	}
	drawn := &bar{out: &out}
	drawn.add(100)
	long := out.String()
	drawn.add(1) // too soon
	if out.String() != long || !strings.HasPrefix(long, "\r100  ") {
		t.Errorf("%q", out.String())
	}
	drawn.end()
	if got := strings.TrimPrefix(out.String(), long); strings.Trim(got, " \r") != "" || len(got) < len(long) {
		t.Errorf("%q", got)
	}
	drawn.add(1 << 20)
	if got := out.String(); strings.Contains(got, "1.0M") {
		t.Errorf("it is drawn after its end: %q", got)
	}
}

// A write to a pipe that nobody reads ends with its context.
func TestUntilDone(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	ctx, cancel := context.WithCancel(context.Background())
	w := untilDone{ctx, write}
	if n, err := w.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := w.Write(make([]byte, 1<<20)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	read.Close() // ends what still writes
}

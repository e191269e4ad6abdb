package spec

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func TestStream(t *testing.T) {
	for name, output := range map[string]string{
		"nothing":  "",
		"a line":   "hello\n",
		"any byte": "\x00\x00\x00\x00\x07\xff",
		"long":     strings.Repeat("0123456789", 3*maxFrame/10),
	} {
		t.Run(name, func(t *testing.T) {
			var port, stdout bytes.Buffer
			if err := SendOutput(&port, strings.NewReader(output)); err != nil {
				t.Fatal(err)
			}
			if err := SendAlive(&port); err != nil {
				t.Fatal(err)
			}
			if err := SendExit(&port, 42); err != nil {
				t.Fatal(err)
			}
			code, err := Receive(iotest.OneByteReader(&port), &stdout)
			if err != nil || code != 42 {
				t.Errorf("Receive = %d, %v; want 42", code, err)
			}
			if stdout.String() != output {
				t.Errorf("%d bytes arrived, not equal to the %d sent", stdout.Len(), len(output))
			}
		})
	}
}

// Wherever the machine dies, the runner must not take it for a success.
func TestStreamCutShort(t *testing.T) {
	var whole bytes.Buffer
	if err := SendOutput(&whole, strings.NewReader("output")); err != nil {
		t.Fatal(err)
	}
	if err := SendAlive(&whole); err != nil {
		t.Fatal(err)
	}
	if err := SendExit(&whole, 0); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		_, err := Receive(bytes.NewReader(whole.Bytes()[:n]), &bytes.Buffer{})
		if !errors.Is(err, ErrNoExit) {
			t.Errorf("after %d bytes: error %v, want ErrNoExit", n, err)
		}
	}
}

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	file, large := filepath.Join(dir, "file"), filepath.Join(dir, "large")
	for path, size := range map[string]int{file: maxSecret, large: maxSecret + 1} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := Spec{Secret: []string{"a=" + file, "b=-", "c=" + os.DevNull}}
	list, err := s.secrets(strings.NewReader("from stdin"), &telev1.JobSpec{})
	if err != nil || len(list) != 3 || list[0].Name != "a" || len(list[0].Data) != maxSecret ||
		string(list[1].Data) != "from stdin" || len(list[2].Data) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	for flag, want := range map[string]string{
		"a":              "--secret a: write it like NAME=FILE",
		"a=":             "--secret a: write it like NAME=FILE",
		"=value":         "write it like NAME=FILE",
		"a=" + large:     "there is more in it than the 65536 bytes",
		"a=/dev/zero":    "there is more in it",
		"a=" + dir:       "is a directory",
		"a=/no/such/one": "no such file",
	} {
		s := Spec{Secret: []string{flag}}
		if _, err := s.secrets(nil, &telev1.JobSpec{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--secret %s: %v", flag, err)
		}
	}
	twice := Spec{Secret: []string{"a=-", "b=-"}}
	if _, err := twice.secrets(strings.NewReader("x"), &telev1.JobSpec{}); err == nil || !strings.Contains(err.Error(), "standard input is a already") {
		t.Errorf("stdin twice: %v", err)
	}
	interactive := Spec{Secret: []string{"a=-"}, Stdin: true}
	if _, err := interactive.secrets(strings.NewReader("x"), &telev1.JobSpec{Stdin: true}); err == nil || !strings.Contains(err.Error(), "with -i") {
		t.Errorf("with -i: %v", err)
	}
	fromFile := Spec{Secret: []string{"a=-"}, File: "-"}
	if _, err := fromFile.secrets(strings.NewReader("x"), &telev1.JobSpec{}); err == nil || !strings.Contains(err.Error(), "standard input is the job file already") {
		t.Errorf("with -f -: %v", err)
	}
}

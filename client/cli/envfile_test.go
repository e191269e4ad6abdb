package cli

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadEnv(t *testing.T) {
	here := func(name string) (string, bool) { return "from here", name == "HERE" }
	got := map[string]string{}
	text := "\xef\xbb\xbfA=1\r\n\n  # remark\nB= two = 2 \n\tC=\"quoted\" # not a remark\nHERE\nGONE\nA=3\n" +
		"EMPTY=\nLAST='x'"
	if err := readEnv(got, "file", []byte(text), here); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "3", "B": " two = 2 ", "C": `"quoted" # not a remark`, "HERE": "from here",
		"EMPTY": "", "LAST": "'x'"}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, text := range []string{"A=1\n=2\n", "A=1\nexport B=2\n", "A=1\nB C\n"} {
		err := readEnv(map[string]string{}, "file", []byte(text), here)
		if err == nil || !strings.Contains(err.Error(), "file, line 2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte("A=file\nB=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := Spec{EnvFile: []string{path}, Env: map[string]string{"B": "flag"}, Command: []string{"true"}}
	job, err := spec.proto(nil)
	if err != nil || !maps.Equal(job.Env, map[string]string{"A": "file", "B": "flag"}) {
		t.Errorf("got %v, %v", job, err)
	}
	spec.EnvFile = append(spec.EnvFile, path+".gone")
	if _, err := spec.proto(nil); err == nil || !strings.Contains(err.Error(), path+".gone") {
		t.Errorf("a file that is not there: %v", err)
	}
}

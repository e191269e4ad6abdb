package initproc

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// secretsFile is what Run is to have for s: each secret is an S as often as it has bytes.
func secretsFile(t *testing.T, s Spec) []*os.File {
	t.Helper()
	if len(s.Secrets) == 0 {
		return nil
	}
	var data [][]byte
	for _, secret := range s.Secrets {
		data = append(data, bytes.Repeat([]byte("S"), secret.Size))
	}
	f, err := SecretsFile(data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // it was read
	return []*os.File{f}
}

// Secrets of all sizes are there whole, only the user's, and read-only; also beside an input, and in a user
// namespace. Of what they came in, nothing is left to the command.
func TestSecrets(t *testing.T) {
	needRoot(t)
	const look = "cd " + SecretsDir + "; for f in *; do stat -c '%n %a %s' $f; tr -d S <$f; done; touch x 2>&1 | grep -o 'Read-only.*'; ls /proc/self/fd | tr '\\n' ' '"
	const want = "a 400 0\nb 400 1\nc 400 4096\nd 400 65536\nRead-only file system\n0 1 2 3 "
	for name, change := range map[string]func(*Spec){
		"plain": func(*Spec) {}, "input": func(s *Spec) { s.Stdin = true }, "user namespace": func(s *Spec) { s.UserNamespace = true },
		"in memory": func(s *Spec) { s.Work = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := spec(t, "sh", "-c", look)
			s.Secrets = []Secret{{"c", 4096}, {"a", 0}, {"d", 64 << 10}, {"b", 1}}
			change(&s)
			var in *Input
			if s.Stdin {
				in = input(t, "")
				defer in.Close()
			}
			i, err := startWith(t, s, in)
			if err != nil {
				t.Fatal(err)
			}
			if _, out := finish(t, i); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
			if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", i.Pid)); err != nil || strings.Contains(string(maps), "secrets") {
				t.Errorf("init's memory, %v:\n%s", err, maps)
			}
		})
	}
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReadResults reads what the testing package really prints.
func TestReadResults(t *testing.T) {
	for _, test := range []struct {
		name, body string
		want       results
	}{
		{"pass", `func TestA(t *testing.T) {}; func TestB(t *testing.T) {}`, results{passed: 2}},
		{"fail", `func TestA(t *testing.T) { t.Error("no") }; func TestB(t *testing.T) {}`,
			results{passed: 1, failed: 1}},
		{"subtests count as one", `func TestA(t *testing.T) {
			t.Run("x", func(t *testing.T) { t.Error("no") })
			t.Run("y", func(t *testing.T) {})
		}`, results{failed: 1}},
		{"skip", `func TestA(t *testing.T) { t.Log("looking"); t.Skip("no disk") }`,
			results{skips: []string{"TestA: no disk"}}},
		{"skipped subtests", `func TestA(t *testing.T) {
			for _, n := range []string{"x", "y"} {
				t.Run(n, func(t *testing.T) { t.Parallel(); t.Skip("no", n) })
			}
		}`, results{passed: 1, skips: []string{"TestA/x: no x", "TestA/y: no y"}}},
		{"output without a newline", `func TestA(t *testing.T) { print("half a line") }
			func TestB(t *testing.T) { print("--- FAIL: TestB (0.00s)\n") }`, results{passed: 2}},
		{"panic", `func TestA(t *testing.T) {}; func TestB(t *testing.T) { panic("oh") }`,
			results{passed: 1, failed: 1}},
		{"exit", `func TestA(t *testing.T) { os.Exit(3) }`, results{failed: 1}},
		{"TestMain finds fault", `func TestA(t *testing.T) {}
			func TestMain(m *testing.M) { m.Run(); os.Exit(1) }`, results{passed: 1, failed: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			output, ok := runTests(t, test.body)
			got := readResults(output, ok)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(results{})); diff != "" {
				t.Errorf("results (-want +got):\n%s\nof\n%q", diff, output)
			}
		})
	}
}

// runTests runs tests with this body as the guest does.
func runTests(t *testing.T, body string) (output string, ok bool) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"go.mod": "module example\n\ngo 1.26\n",
		"a_test.go": "package example\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n" +
			"var _ = os.Exit\n\n" + body + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "pkg.test")
	compile := exec.Command("go", "test", "-c", "-o", binary)
	compile.Dir = dir
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", compile, err, out)
	}
	file, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ok, err = testPackage{Name: "example", Dir: dir, Binary: binary}.execute(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data), ok
}

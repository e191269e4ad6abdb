package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A build is the place of what is compiled for the machine. It is in the repository, since that is
// in the machine's sight, as folders like /tmp are not.
type build struct {
	root  string            // of the repository
	out   string            // build/vmtest in it
	goEnv map[string]string // settings of go that tests in the machine share
}

// A testPackage is one package with tests.
type testPackage struct {
	Name   string // import path within the module, "." for its root
	Import string
	Dir    string
	Binary string
}

func findBuild(ctx context.Context) (*build, error) {
	out, err := goOutput(ctx, "", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	b := &build{root: strings.TrimSpace(out)}
	b.out = filepath.Join(b.root, "build/vmtest")
	out, err = goOutput(ctx, b.root, "env", "-json", "GOFLAGS", "GOCACHE", "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	return b, json.Unmarshal([]byte(out), &b.goEnv)
}

// tool returns the path of a program of ours for the machine.
func (b *build) tool(name string) string {
	return filepath.Join(b.out, "bin", name)
}

// packages lists the packages that match the patterns and have tests.
func (b *build) packages(ctx context.Context, patterns string) ([]testPackage, error) {
	const format = `{{if or .TestGoFiles .XTestGoFiles}}` +
		`{{.ImportPath}}{{"\t"}}{{.Dir}}{{"\t"}}{{.Module.Path}}{{end}}`
	all := strings.Fields(patterns)
	everything := len(all) == 0
	if everything {
		all = []string{"./..."}
	}
	out, err := goOutput(ctx, b.root, append([]string{"list", "-f", format}, all...)...)
	if err != nil {
		return nil, err
	}
	var packages []testPackage
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			continue
		}
		p := b.testPackage(fields[0], fields[1], fields[2])
		if everything && strings.HasPrefix(p.Name, "test/") && p.Name != "test/attacks" {
			continue
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("no package with tests in %s", strings.Join(all, " "))
	}
	return packages, nil
}

func (b *build) testPackage(importPath, dir, module string) testPackage {
	name := strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
	if name == "" {
		name = "."
	}
	return testPackage{
		Name: name, Import: importPath, Dir: dir, Binary: filepath.Join(b.out, name, "pkg.test"),
	}
}

// compile builds the test binaries, the machine, and this program for the machine. All are static:
// a binary that starts faster is worth much there.
func (b *build) compile(ctx context.Context, packages []testPackage) error {
	for _, name := range []string{"vm", "vmtest"} {
		if _, err := goOutput(ctx, b.root, "build", "-o", b.tool(name), "./test/"+name); err != nil {
			return err
		}
	}
	for _, p := range packages {
		if _, err := goOutput(ctx, b.root, "test", "-c", "-o", p.Binary, p.Import); err != nil {
			return err
		}
	}
	return nil
}

// goOutput runs go and returns its stdout; on failure, the error ends in what it said.
func goOutput(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	err = fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s", err, bytes.TrimSpace(exit.Stderr))
	}
	return "", err
}

func writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

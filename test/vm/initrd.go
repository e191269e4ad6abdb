package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/telerun/tele/test/vm/internal/spec"
)

// writeInitrd makes the initial RAM disk: the init, the modules, and the orders for both.
func writeInitrd(path string, init []byte, modules []module, orders spec.Spec) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	buffered := bufio.NewWriter(file)
	archive := cpioWriter{w: buffered}
	archive.Dir("dev")
	// The kernel opens it as init's stdin, stdout and stderr, before init can mount anything.
	archive.CharDevice("dev/console", 0o600, 5, 1)
	for _, dir := range []string{"proc", "sys", "host", "writable", "root", "modules"} {
		archive.Dir(dir)
	}
	archive.File("init", 0o755, init)
	for _, m := range modules {
		name := "modules/" + m.name + ".ko"
		archive.File(name, 0o644, m.data)
		orders.Modules = append(orders.Modules, "/"+name)
	}
	data, err := json.Marshal(orders)
	if err != nil {
		return err
	}
	archive.File(spec.Path[1:], 0o644, data)
	if err := archive.Close(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	return file.Close()
}

// buildInit compiles the guest's init, static as there is no C library where it starts.
func buildInit(ctx context.Context, repository, dir string) ([]byte, error) {
	path := filepath.Join(dir, "init")
	_, err := output(ctx, repository, "env", "CGO_ENABLED=0", "GOFLAGS=",
		"go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "./test/vm/guest")
	if err != nil {
		return nil, fmt.Errorf("build the guest's init: %w", err)
	}
	return os.ReadFile(path)
}

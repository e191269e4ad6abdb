package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const kernelMetaPackage = "linux-image-cloud-amd64"

// A kernel is an unpacked kernel package.
type kernel struct {
	image   string // path of vmlinuz
	modules string // path of the modules' tree
}

// findKernel returns Debian's current cloud kernel, downloaded and unpacked into the cache when
// it is not there yet. Nothing is installed on this machine.
func findKernel(ctx context.Context, cache string) (kernel, error) {
	name, err := kernelPackage(ctx)
	if err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(cache, name)
	if !isDir(dir) {
		if err := fetchKernel(ctx, name, dir); err != nil {
			return kernel{}, err
		}
	}
	images, _ := filepath.Glob(filepath.Join(dir, "vmlinuz-*"))
	if len(images) != 1 {
		return kernel{}, fmt.Errorf("kernel in %s: %d images, want one; remove it to fetch it anew",
			dir, len(images))
	}
	return kernel{image: images[0], modules: filepath.Join(dir, "modules")}, nil
}

// kernelCache is the folder of unpacked kernels; git ignores it.
func kernelCache(repository string) string {
	return filepath.Join(repository, "build/vm")
}

// kernelPackage asks apt for the name, as it changes with each kernel: the old one is soon gone
// from the mirrors.
func kernelPackage(ctx context.Context) (string, error) {
	out, err := output(ctx, "", "apt-cache", "depends", kernelMetaPackage)
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(out, "\n") {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, "linux-image-") {
			return name, nil
		}
	}
	return "", fmt.Errorf("apt-cache depends %s: names no kernel; use --setup, "+
		"or run apt-get update", kernelMetaPackage)
}

// fetchKernel keeps a package's image and the modules that the guest needs. The folder appears
// whole or not at all: another runner may be at the same work.
func fetchKernel(ctx context.Context, name, dir string) error {
	note("fetching %s", name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := unpackKernel(ctx, name, work); err != nil {
		return err
	}
	kept := filepath.Join(work, "kept")
	if err := keepNeeded(ctx, filepath.Join(work, "root"), kept); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	if err := os.Rename(kept, dir); err != nil && !isDir(dir) {
		return err
	}
	return nil
}

// unpackKernel leaves the files of the package in work/root.
func unpackKernel(ctx context.Context, name, work string) error {
	// apt would fetch as its own user, which may not be allowed to write here.
	_, err := output(ctx, work, "apt-get", "-o", "APT::Sandbox::User=root", "download", name)
	if err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(work, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s: left %d packages, want one", name, len(debs))
	}
	_, err = output(ctx, work, "dpkg-deb", "-x", debs[0], "root")
	return err
}

// keepNeeded copies from the unpacked package what the guest needs: 14 modules of thousands.
func keepNeeded(ctx context.Context, root, kept string) error {
	if err := os.MkdirAll(filepath.Join(kept, "modules"), 0o755); err != nil {
		return err
	}
	images, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return fmt.Errorf("%d images in boot, want one", len(images))
	}
	if err := os.Rename(images[0], filepath.Join(kept, filepath.Base(images[0]))); err != nil {
		return err
	}
	files, err := findModules(os.DirFS(root), decompressor(ctx))
	if err != nil {
		return err
	}
	modules, err := moduleClosure(files, wantedModules)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := os.WriteFile(filepath.Join(kept, "modules", m.name+".ko"), m.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// loadModules reads the kept modules, in the order to load them in.
func (k kernel) loadModules() ([]module, error) {
	files, err := findModules(os.DirFS(k.modules),
		func(_ string, data []byte) ([]byte, error) { return data, nil })
	if err != nil {
		return nil, err
	}
	return moduleClosure(files, wantedModules)
}

// decompressor unpacks a module by the tool that its file name asks for.
func decompressor(ctx context.Context) func(string, []byte) ([]byte, error) {
	tools := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}
	return func(path string, data []byte) ([]byte, error) {
		tool, ok := tools[filepath.Ext(path)]
		if !ok {
			return data, nil
		}
		cmd := exec.CommandContext(ctx, tool, "-dc")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %s: %w", path, tool, err)
		}
		return out, nil
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// findSystemd returns a folder with systemd and its libraries, as a Debian release has them,
// downloaded and unpacked into the cache when it is not there yet. In the machine, its files lie
// over those of the host; nothing is installed on this machine, which may have another systemd or
// none.
func findSystemd(ctx context.Context, cache, release string) (string, error) {
	dir := filepath.Join(cache, "systemd-"+release)
	if isDir(dir) {
		return dir, nil
	}
	note("fetching systemd of %s", release)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(cache, ".fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := unpackSystemd(ctx, release, work); err != nil {
		return "", fmt.Errorf("fetch systemd of %s: %w", release, err)
	}
	kept := filepath.Join(work, "kept")
	if err := keepPrograms(ctx, filepath.Join(work, "root"), kept); err != nil {
		return "", err
	}
	// Whole or not at all: another runner may be at the same work.
	if err := os.Rename(kept, dir); err != nil && !isDir(dir) {
		return "", err
	}
	return dir, nil
}

// unpackSystemd leaves the files of systemd and of all that it depends on in work/root. apt gets
// lists, a state and a cache of its own, so that this machine's stay as they are.
func unpackSystemd(ctx context.Context, release, work string) error {
	mirror, err := debianMirror(ctx)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`Dir::State %[1]q; Dir::State::status "%[1]s/status"; Dir::Cache %[1]q;
Dir::Etc::sourcelist "%[1]s/sources"; Dir::Etc::sourceparts "/dev/null"; APT::Sandbox::User "root";`, work)
	sources := fmt.Sprintf("deb [target=Packages] %s %s main\n", mirror, release)
	for name, text := range map[string]string{"config": config, "sources": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return err
		}
	}
	own := "APT_CONFIG=" + filepath.Join(work, "config")
	for _, args := range [][]string{
		{"update", "-q"},
		// No package is on record as installed, so this takes the C library with it.
		{"install", "-y", "-q", "--download-only", "--no-install-recommends", "systemd"},
	} {
		if _, err := output(ctx, work, "env", append([]string{own, "apt-get"}, args...)...); err != nil {
			return err
		}
	}
	debs, _ := filepath.Glob(filepath.Join(work, "archives/*.deb"))
	if len(debs) == 0 {
		return errors.New("apt-get downloaded nothing")
	}
	for _, deb := range debs {
		if _, err := output(ctx, work, "dpkg-deb", "-x", deb, "root"); err != nil {
			return err
		}
	}
	return nil
}

// debianMirror is where this machine's apt gets Debian from.
func debianMirror(ctx context.Context) (string, error) {
	out, err := output(ctx, "", "apt-get", "indextargets", "--format", "$(REPO_URI)",
		"Created-By: Packages", "Origin: Debian", "Label: Debian")
	if err != nil {
		return "", err
	}
	mirror, _, _ := strings.Cut(out, "\n")
	if mirror == "" {
		return "", errors.New("apt-get indextargets names no mirror of Debian; use --setup, or run apt-get update")
	}
	return mirror, nil
}

// keepPrograms copies what runs, without documentation, translations and character sets. What a
// package still has in /lib goes to /usr/lib: a folder /lib would hide the host's link of that name.
func keepPrograms(ctx context.Context, root, kept string) error {
	if err := os.RemoveAll(filepath.Join(root, "usr/lib/x86_64-linux-gnu/gconv")); err != nil {
		return err
	}
	for _, name := range []string{"lib", "lib64", "bin", "sbin"} {
		to := filepath.Join(kept, "usr", name)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		for _, from := range []string{filepath.Join(root, name), filepath.Join(root, "usr", name)} {
			if !isDir(from) {
				continue
			}
			if _, err := output(ctx, "", "cp", "-a", from+"/.", to); err != nil {
				return err
			}
		}
	}
	return nil
}

package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// wantedModules is what the guest needs beyond what is built into Debian's cloud kernel: the
// virtio devices that the runner gives it, its root file system, and what tests of networks and of
// disks use.
var wantedModules = []string{
	"virtio_pci", "virtio_blk", "virtio_console", "virtiofs", "overlay", "veth", "bridge",
	"loop", "ext4", "quota_v2",
}

// A module is one kernel module, uncompressed.
type module struct {
	name string
	data []byte
}

// modInfo returns the values of one key of a module's .modinfo section, which is a row of
// NUL-terminated "key=value" strings.
func modInfo(ko []byte, key string) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo section: not a kernel module")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	var values []string
	for _, entry := range strings.Split(string(data), "\x00") {
		if value, ok := strings.CutPrefix(entry, key+"="); ok {
			values = append(values, value)
		}
	}
	return values, nil
}

// moduleClosure returns the wanted modules and all that they depend on, each after those that it
// depends on. A wanted module that is not a file is taken to be built into the kernel; a
// dependency that is not there is an error.
func moduleClosure(files moduleFiles, wanted []string) ([]module, error) {
	c := closure{files: files, seen: map[string]bool{}}
	for _, name := range wanted {
		if _, ok := files.paths[moduleName(name)]; !ok {
			continue
		}
		if err := c.add(name); err != nil {
			return nil, err
		}
	}
	return c.order, nil
}

type closure struct {
	files moduleFiles
	seen  map[string]bool
	order []module
}

func (c *closure) add(name string) error {
	name = moduleName(name)
	if c.seen[name] {
		return nil
	}
	c.seen[name] = true
	ko, err := c.files.read(name)
	if err != nil {
		return err
	}
	depends, err := modInfo(ko, "depends")
	if err != nil {
		return fmt.Errorf("read dependencies of module %s: %w", name, err)
	}
	for _, list := range depends {
		for _, dependency := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
			if err := c.add(dependency); err != nil {
				return fmt.Errorf("module %s: %w", name, err)
			}
		}
	}
	c.order = append(c.order, module{name, ko})
	return nil
}

// moduleFiles finds modules by name in a tree such as /lib/modules/VERSION.
type moduleFiles struct {
	tree       fs.FS
	paths      map[string]string
	decompress func(path string, data []byte) ([]byte, error)
}

// findModules lists the modules in a tree. Newer Debians compress them; decompress is given each
// file that is needed and returns a plain one as it is.
func findModules(tree fs.FS, decompress func(string, []byte) ([]byte, error)) (moduleFiles, error) {
	files := moduleFiles{tree: tree, paths: map[string]string{}, decompress: decompress}
	err := fs.WalkDir(tree, ".", func(p string, entry fs.DirEntry, err error) error {
		name, _, ok := strings.Cut(path.Base(p), ".ko")
		if err == nil && ok && !entry.IsDir() {
			files.paths[moduleName(name)] = p
		}
		return err
	})
	return files, err
}

func (m moduleFiles) read(name string) ([]byte, error) {
	file, ok := m.paths[name]
	if !ok {
		return nil, fmt.Errorf("module %s is not in the kernel package", name)
	}
	data, err := fs.ReadFile(m.tree, file)
	if err != nil {
		return nil, err
	}
	return m.decompress(file, data)
}

// moduleName is a module's one name: the kernel takes "-" and "_" in it for the same.
func moduleName(name string) string {
	return strings.ReplaceAll(name, "-", "_")
}

package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// fakeModule makes the smallest file that has a .modinfo section as a module has it.
func fakeModule(t *testing.T, info ...string) []byte {
	t.Helper()
	const names = "\x00.shstrtab\x00.modinfo\x00"
	modinfo := strings.Join(info, "\x00") + "\x00"
	headerSize := uint64(binary.Size(elf.Header64{}))
	body := names + modinfo
	header := elf.Header64{
		Ident:     [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', 2, 1, 1},
		Type:      uint16(elf.ET_REL),
		Machine:   uint16(elf.EM_X86_64),
		Version:   1,
		Shoff:     headerSize + uint64(len(body)),
		Shentsize: uint16(binary.Size(elf.Section64{})),
		Shnum:     3,
		Shstrndx:  1,
	}
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: headerSize, Size: uint64(len(names))},
		{Name: 11, Type: uint32(elf.SHT_PROGBITS), Off: headerSize + uint64(len(names)),
			Size: uint64(len(modinfo))},
	}
	var file bytes.Buffer
	for _, part := range []any{header, []byte(body), sections} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}

func plain(_ string, data []byte) ([]byte, error) { return data, nil }

// moduleTree is a /lib/modules with modules of these names and dependencies.
func moduleTree(t *testing.T, depends map[string]string) moduleFiles {
	t.Helper()
	tree := fstest.MapFS{"kernel/README": {}}
	for path, list := range depends {
		tree[path] = &fstest.MapFile{Data: fakeModule(t, "license=GPL", "depends="+list)}
	}
	files, err := findModules(tree, plain)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestModInfo(t *testing.T) {
	ko := fakeModule(t, "license=GPL", "alias=one", "depends=a,b", "alias=two", "aliases=none")
	for key, want := range map[string][]string{
		"alias": {"one", "two"}, "depends": {"a,b"}, "parm": nil,
	} {
		got, err := modInfo(ko, key)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("modInfo %s = %q, %v; want %q", key, got, err, want)
		}
	}
	if _, err := modInfo([]byte("no module"), "depends"); err == nil {
		t.Error("modInfo of a text: no error")
	}
}

func TestModuleClosure(t *testing.T) {
	files := moduleTree(t, map[string]string{
		"kernel/drivers/virtio/virtio.ko":       "",
		"kernel/drivers/virtio/virtio_ring.ko":  "virtio",
		"kernel/drivers/virtio/virtio_pci.ko":   "virtio,virtio_ring,legacy",
		"kernel/drivers/virtio/legacy.ko.xz":    "",
		"kernel/fs/fuse/fuse.ko":                "",
		"kernel/fs/fuse/virtiofs.ko":            "fuse,virtio,virtio-ring",
		"kernel/net/veth.ko":                    "",
		"kernel/drivers/char/virtio-console.ko": "virtio",
	})
	modules, err := moduleClosure(files,
		[]string{"virtio_pci", "built_in", "virtiofs", "virtio_console", "virtio_pci"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range modules {
		got = append(got, m.name)
	}
	want := []string{"virtio", "virtio_ring", "legacy", "virtio_pci", "fuse", "virtiofs",
		"virtio_console"}
	if !slices.Equal(got, want) {
		t.Errorf("closure %q, want %q", got, want)
	}
}

func TestModuleClosureMissesDependency(t *testing.T) {
	files := moduleTree(t, map[string]string{"a.ko": "b", "b.ko": "lost"})
	_, err := moduleClosure(files, []string{"a"})
	if err == nil || !strings.Contains(err.Error(), "module lost is not in the kernel package") {
		t.Errorf("error %v, want one that names module lost", err)
	}
}

package main

import (
	"fmt"
	"io"
)

// File types of cpio's mode field, as in stat(2).
const (
	cpioDir  = 0o040000
	cpioChar = 0o020000
	cpioFile = 0o100000
)

// A cpioWriter writes an archive in the "newc" format, the one that the kernel unpacks as its
// initial RAM disk (Documentation/driver-api/early-userspace/buffer-format.rst). The first error
// sticks, and Close reports it.
type cpioWriter struct {
	w     io.Writer
	inode int
	size  int64
	err   error
}

// Dir adds a directory; its parents must be there already.
func (c *cpioWriter) Dir(name string) {
	c.entry(name, cpioDir|0o755, [2]int{}, nil)
}

// File adds a regular file.
func (c *cpioWriter) File(name string, perm int, data []byte) {
	c.entry(name, cpioFile|perm, [2]int{}, data)
}

// CharDevice adds a character device.
func (c *cpioWriter) CharDevice(name string, perm, major, minor int) {
	c.entry(name, cpioChar|perm, [2]int{major, minor}, nil)
}

// Close writes the trailer. It does not close the underlying writer.
func (c *cpioWriter) Close() error {
	c.entry("TRAILER!!!", 0, [2]int{}, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode int, device [2]int, data []byte) {
	c.inode++
	// Owner, group and time stay zero, so that the same input gives the same bytes.
	const uid, gid, links, mtime, checksum = 0, 0, 1, 0, 0
	c.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.inode, mode, uid, gid, links, mtime, len(data),
		0, 0, device[0], device[1], len(name)+1, checksum, name))
	c.pad()
	c.write(data)
	c.pad()
}

// pad fills up to a multiple of four: header with name, and data, both start on one.
func (c *cpioWriter) pad() {
	c.write(make([]byte, (4-c.size%4)%4))
}

func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.size += int64(n)
	c.err = err
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/telerun/tele/test/vm/internal/spec"
)

// findDevices loads the modules, and returns the port to the host when that and the scratch disk
// have come up.
func findDevices(modules []string) (*os.File, error) {
	// Listening starts before there is something to miss: the name of a port arrives from the
	// host some time after its driver is loaded.
	events, err := listen()
	if err != nil {
		return nil, err
	}
	defer unix.Close(events)
	for _, path := range modules {
		if err := load(path); err != nil {
			return nil, err
		}
	}
	for {
		device := portDevice()
		if _, err := os.Stat(spec.Disk); err == nil && device != "" {
			return os.OpenFile(device, os.O_RDWR, 0)
		}
		if err := nextEvent(events); err != nil {
			return nil, err
		}
	}
}

// listen opens a socket that gets the kernel's messages about devices.
func listen() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC,
		unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	const fromKernel = 1 // the multicast group; 2 is udev's
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: fromKernel})
	return fd, os.NewSyscallError("bind", err)
}

// nextEvent waits for a message. What it says does not matter: the caller looks for itself. Nor
// does it that some were dropped (ENOBUFS).
func nextEvent(fd int) error {
	for {
		_, err := unix.Read(fd, make([]byte, 8192))
		switch err {
		case unix.EINTR:
		case nil, unix.ENOBUFS:
			return nil
		default:
			return os.NewSyscallError("read", err)
		}
	}
}

func load(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

// portDevice returns the device of the port to the host, or nothing.
func portDevice() string {
	names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, path := range names {
		if name, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(name)) == spec.Port {
			return "/dev/" + filepath.Base(filepath.Dir(path))
		}
	}
	return ""
}

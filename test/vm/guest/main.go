// Guest is process 1 of the virtual machine that package vm starts: /init in its initial RAM disk.
// It loads the modules that it finds there, makes a root file system of the host's root and
// memory, runs one command on it, and sends the command's output and exit code to the host, which
// then ends the machine. It never returns; when a step goes wrong it says so on the console and
// powers off.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/telerun/tele/test/vm/internal/spec"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == keeperArg {
		fmt.Fprintln(os.Stderr, "init:", keeper(os.Args[2]))
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	fmt.Fprintln(os.Stderr, "init:", run())
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// run returns only when a step has gone wrong.
func run() error {
	// Order: devices need their modules and /sys to find them; the port must be open before /dev
	// goes out of sight below the new root.
	if err := mountAll(early); err != nil {
		return err
	}
	orders, err := readSpec()
	if err != nil {
		return err
	}
	port, err := findDevices(orders.Modules)
	if err != nil {
		return err
	}
	if err := enterRoot(orders); err != nil {
		return err
	}
	if err := setUp(); err != nil {
		return err
	}
	if orders.Systemd {
		return becomeSystemd(orders, port)
	}
	return serve(orders, port)
}

// serve runs the command and sends what came of it. It returns only when that has gone wrong.
func serve(orders spec.Spec, port io.Writer) error {
	if err := spec.SendAlive(port); err != nil {
		return err
	}
	// It may come between two frames of output, but not into one: each is one Write, and a file takes one
	// after the other.
	go func() {
		for range time.Tick(spec.Beat) {
			_ = spec.SendAlive(port) // the output and the exit code go the same way, and tell
		}
	}()
	code, err := runCommand(orders, port)
	if err != nil {
		return err
	}
	if err := spec.SendExit(port, code); err != nil {
		return err
	}
	for {
		unix.Pause() // until the host has read it all
	}
}

func readSpec() (orders spec.Spec, err error) {
	data, err := os.ReadFile(spec.Path)
	if err != nil {
		return orders, err
	}
	return orders, json.Unmarshal(data, &orders)
}

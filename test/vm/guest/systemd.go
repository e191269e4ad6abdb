package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/telerun/tele/test/vm/internal/spec"
)

// keeperArg makes this program the keeper: with systemd as process 1, another process has to hold
// the port and run the command.
const keeperArg = "keeper"

// The keeper's descriptors.
const (
	keeperPort   = 3 // the port to the host
	keeperNotify = 4 // where systemd says that it is up
)

const systemdPath = "/usr/lib/systemd/systemd"

// firstBoot is what systemd does after an update of the system. It takes as long as all the rest.
var firstBoot = []string{"ldconfig.service", "systemd-journal-catalog-update.service"}

// becomeSystemd starts the keeper and replaces this program, process 1, by systemd.
func becomeSystemd(orders spec.Spec, port *os.File) error {
	// Bound here, before systemd can send to it. systemd in a virtual machine or a container says
	// READY=1 there, sd_notify(3), as its services do to it.
	const address = "/run/vm-notify"
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	socket, err := notify.File()
	if err != nil {
		return err
	}
	text, err := json.Marshal(orders)
	if err != nil {
		return err
	}
	_, err = os.StartProcess("/proc/self/exe", []string{"init", keeperArg, string(text)}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, keeperPort: port, keeperNotify: socket},
	})
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	if err := mask(firstBoot); err != nil {
		return err
	}
	// A crash ends the machine; a systemd that froze would be found out only by the time limit.
	argv := []string{systemdPath, "--unit=basic.target", "--crash-reboot=yes"}
	err = unix.Exec(systemdPath, argv, []string{"NOTIFY_SOCKET=" + address})
	return fmt.Errorf("exec %s: %w", systemdPath, err)
}

// mask keeps units from being started.
func mask(units []string) error {
	const dir = "/run/systemd/system"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, unit := range units {
		if err := os.Symlink(os.DevNull, filepath.Join(dir, unit)); err != nil {
			return err
		}
	}
	return nil
}

// keeper waits until systemd is up, and then is to the command what process 1 is without systemd.
func keeper(text string) error {
	var orders spec.Spec
	if err := json.Unmarshal([]byte(text), &orders); err != nil {
		return err
	}
	notify := os.NewFile(keeperNotify, "notify")
	message := make([]byte, 4096)
	for {
		n, err := notify.Read(message)
		if err != nil {
			return err
		}
		if strings.Contains("\n"+string(message[:n])+"\n", "\nREADY=1\n") {
			break
		}
	}
	// systemd goes on to send its status, and would wait for ever when nobody reads that.
	if err := notify.Close(); err != nil {
		return err
	}
	return serve(orders, os.NewFile(keeperPort, spec.Port))
}

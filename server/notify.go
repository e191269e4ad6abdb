package server

import (
	"fmt"
	"net"
	"os"
)

// A notifier tells the service manager that started this process how it is, sd_notify(3). The zero
// value tells nobody.
type notifier struct{ socket string }

// takeNotifier takes the manager's socket out of the environment: it is not for children.
func takeNotifier() notifier {
	const variable = "NOTIFY_SOCKET"
	defer os.Unsetenv(variable)
	return notifier{os.Getenv(variable)}
}

// ready says that the server can be used; nothing is to be started before that needs it.
func (n notifier) ready(status string) error { return n.tell("READY=1", status) }

// stopping says that the server has begun to end.
func (n notifier) stopping(status string) error { return n.tell("STOPPING=1", status) }

func (n notifier) tell(state, status string) error {
	if n.socket == "" {
		return nil
	}
	// A name that begins with @ is one of the abstract namespace, to package net as well.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\nSTATUS=%s\n", state, status); err != nil {
		return fmt.Errorf("tell the service manager %s: %w", state, err)
	}
	return nil
}

package access

import (
	"os"
	"os/user"
	"path/filepath"
)

// DefaultStateDir is where a server keeps its state when nobody says otherwise: /var/lib/tele for
// root, $XDG_STATE_HOME/tele or ~/.local/state/tele for others.
func DefaultStateDir() string {
	return stateDirFor(os.Geteuid(), os.Getenv("XDG_STATE_HOME"), homeDir())
}

func stateDirFor(uid int, xdg, home string) string {
	switch {
	case uid == 0:
		return "/var/lib/tele"
	case filepath.IsAbs(xdg): // the XDG specification has relative ones ignored
		return filepath.Join(xdg, "tele")
	case home != "":
		return filepath.Join(home, ".local", "state", "tele")
	}
	// Neither HOME nor a home in the user database. Making this one fails with a message that
	// names it, where a directory in /tmp could be somebody else's trap.
	return "/var/lib/tele"
}

func homeDir() string {
	if home := os.Getenv("HOME"); home != "" {
		return home
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// CertDir is where the certificates are in the state directory of a server.
func CertDir(stateDir string) string {
	return filepath.Join(stateDir, "certs")
}

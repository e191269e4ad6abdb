// Package spec is what the runner on the host and the init in the guest agree on: the names of
// things both of them touch, and the orders that travel inside the initial RAM disk.
package spec

// Where the two sides meet.
const (
	// Path is the Spec, as JSON, in the initial RAM disk.
	Path = "/spec.json"
	// HostTag names the virtiofs share that holds the host's root.
	HostTag = "hostroot"
	// Port names the virtio-serial port that carries the command's output and exit code.
	Port = "result"
	// Disk is the scratch disk in the guest.
	Disk = "/dev/vda"
)

// A Spec tells the guest's init what to do.
type Spec struct {
	Modules []string // files in the initial RAM disk, in the order to load them in
	Keep    string   // folder that stays in sight, even in /tmp, which is otherwise the guest's own
	Dir     string   // working directory of the command
	Layer   string   // folder whose files lie over the host's, or nothing
	Systemd bool     // whether systemd is process 1 and the command waits for it
	Argv    []string
	Env     []string
}

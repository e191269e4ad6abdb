// Package limits says what a limit on a job is: which ones there are, how people write them, and
// what the answer about each looks like. It enforces nothing; limits/cgroup does.
//
// Parse turns what a person wrote into a value and Format turns it back. A set of values is
// Limits; Default is what a job gets that asks for nothing, and CheckMax holds a set against the
// most that a server allows.
package limits

import "math"

// Name is the name of one limit, as the API, the record and the messages write it.
type Name string

// The limits, in the order in which they are shown.
const (
	CPU     Name = "cpu"
	Memory  Name = "memory"
	Swap    Name = "swap"
	IORead  Name = "io_read"
	IOWrite Name = "io_write"
	Pids    Name = "pids"
)

// Output is the limit on how many bytes of a job's output are kept. It is not in Names: the server
// holds it itself, without the kernel.
const Output Name = "output"

// The limits on what a job writes into its work directory, into each of /tmp and /dev/shm, and into a
// writable root. They are not in Names either: the sandbox has them, or the file system of the work directory.
const (
	Work Name = "work"
	Tmp  Name = "tmp"
	Root Name = "root"
)

// Names are all limits, in the order in which they are shown.
var Names = [...]Name{CPU, Memory, Swap, IORead, IOWrite, Pids}

// Max is the value of a limit that does not limit.
const Max = math.MaxInt64

// Limits are the values for one job. Each may be Max.
type Limits struct {
	CPU     int64 // thousandths of one CPU
	Memory  int64 // bytes
	Swap    int64 // bytes on top of Memory
	IORead  int64 // bytes a second, from each disk
	IOWrite int64 // bytes a second, to each disk
	Pids    int64 // processes and threads at one time, the sandbox's init not counted
}

// Default is what a job gets that asks for nothing.
func Default() Limits {
	return Limits{
		CPU:     1000,
		Memory:  500 << 20,
		Swap:    0,
		IORead:  5 << 20,
		IOWrite: 5 << 20,
		Pids:    512,
	}
}

// Get returns the value of the limit called name; an unknown name is a bug and returns 0.
func (l Limits) Get(name Name) int64 {
	if p := l.field(name); p != nil {
		return *p
	}
	return 0
}

// Set changes the value of the limit called name; an unknown name is a bug and changes nothing.
func (l *Limits) Set(name Name, value int64) {
	if p := l.field(name); p != nil {
		*p = value
	}
}

func (l *Limits) field(name Name) *int64 {
	switch name {
	case CPU:
		return &l.CPU
	case Memory:
		return &l.Memory
	case Swap:
		return &l.Swap
	case IORead:
		return &l.IORead
	case IOWrite:
		return &l.IOWrite
	case Pids:
		return &l.Pids
	}
	return nil
}

// CheckMax returns an *Error that names the first limit which is above the one in max.
func (l Limits) CheckMax(max Limits) error {
	for _, name := range Names {
		if value, most := l.Get(name), max.Get(name); value > most {
			return &Error{
				Name: name,
				Text: Format(name, value),
				Why:  "above this server's maximum, " + Format(name, most),
			}
		}
	}
	return nil
}

// Status is what became of one limit of a job. All values are written as Format writes them.
type Status struct {
	Name    Name
	Asked   string // what was asked for, or the server's default
	Applied string // what the kernel said when it was read back; empty when it is not enforced
	How     string // the file and the value that enforce it: "/sys/fs/cgroup/tele/ID/memory.max 524288000"
	WhyNot  string // why it is not enforced, or not everywhere; empty when it is
}

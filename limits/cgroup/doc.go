// Package cgroup enforces limits on jobs, and holds a job's processes together, by means of the
// kernel's control groups.
//
// Open looks at the host, says with Layout and Explain what it found, and makes the server's own
// group. Create, or Begin and Complete, makes the group of one job below it and sets the limits; from then on the Group is
// the handle: CloneFD and JoinFiles start a process in it, Status says which limits hold and how,
// Usage what was used, Change changes limits while it runs, Freeze and Thaw make it rest and go on, Kill and
// WaitEmpty end it, Delete takes it away. A server that comes after one that died finds its groups with
// List and takes them over with Adopt.
//
// # Layouts
//
// What decides is where each controller (cpu, memory, io, pids) is, and Layout only names the sum:
//
//	v2      one tree for everything
//	hybrid  limits in trees of version 1, a tree a controller; and a version 2 tree beside them,
//	        for starting a process inside, for killing all at once, and for the news of the end
//	v1      trees of version 1 only: processes are killed one by one
//	none    no cgroups for us: an unprivileged user to whom none was delegated. Groups are then
//	        empty: nothing is limited, Status says why, Kill, WaitEmpty and Delete do nothing
//
// A backend sets and reads limits in one version; each controller has one of them.
//
// A job has a group in a tree of version 1 only where it needs one of its own, for each takes a start and
// an end some 0.1 ms:
//
//	devices  is closed for all jobs alike, in the server's own group, which they join (nodes.go)
//	cpuacct  has none beside a version 2 tree, whose groups count CPU time without a controller
//
// unless another controller that is needed is in the same tree. Servers before this one may have made
// groups there all the same: List, Adopt and Close know them.
//
// # Where the groups are
//
//	version 1  MOUNT/NAME/ID in the tree of each controller; MOUNT/NAME in that of devices
//	version 2  UNIT/NAME/ID when systemd has put the server into UNIT/LEAF, with UNIT delegated to
//	           it (Delegate=yes and DelegateSubgroup=LEAF)
//	           MOUNT/NAME/ID for root else
//	           OWN/NAME/ID for others, when the server's own group is theirs
//
// A group of version 2 that hands controllers to its children has no processes of its own
// (cgroups(7), "no internal processes"). So in OWN the server moves itself into OWN/server, and
// Close undoes this; but not when it runs as root: with jobs in it, systemd could not start the next
// server in OWN (delegate.go). Close leaves what jobs are still in; the next server takes these
// groups over by their paths, wherever its own are.
//
// # Failures
//
// A limit that cannot be enforced is no error, but a Status with WhyNot: whether the job may run
// all the same is for the caller to decide. Errors are what keeps a group from being made or ended,
// and an error leaves nothing behind.
//
// # No waiting for RCU
//
// Writing a pid to cgroup.procs waits for an RCU grace period, some 10 ms. So nothing on the way to
// a job's start does it: version 2 has clone3 with CLONE_INTO_CGROUP, and on version 1 the child
// itself writes "0", which is itself, to `tasks`.
//
// # Few and short calls
//
// A start sets some ten limits. Each file is opened once, below a directory that is held open, written and
// read back through the same descriptor, by one read (files.go).
package cgroup

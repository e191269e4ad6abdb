// Package initproc makes a job's sandbox: it holds both halves of it, the server's, which builds a
// plan and starts an init, and the init's, which is that process.
//
// A caller fills in a Spec, turns it into a Plan with NewPlan, hands it to Start and asks the Init
// that it gets to Run it. From then on Stdout and Stderr are what the job writes, and Exit tells how the
// command ended, once FD is readable: nothing here waits for that, so a server needs no goroutine for it.
//
// # The plan
//
// Making a sandbox is a list of system calls in an order that matters, so it is data. The server
// builds it (order.go is the order; one file for each kernel facility adds the steps), and init
// carries it out (interp.go) knowing nothing about sandboxes: it can be held in mind whole, and
// every step can be printed, and made to fail in a test. The format is in blob.go.
//
// What has happened when, and why in this order. Before there is a job:
//
//  1. init joins the version 1 cgroups: nothing of the job may be made outside of its limits
//     (on version 2, clone3 has put init into the group)
//  2. its mounts become private: from here on nothing it mounts can reach the host
//  3. the host's devices, the work directory and what was asked for are picked up, while their paths
//     still lead there
//  4. the new root is cloned from the host's, detached, and made read-only as a whole before
//     anything writable is put into it; or it is an overlay
//  5. pivot_root, and the host's tree goes: from here on no path leads back, nor a link
//  6. /dev and /home go into the new root, and private places are covered
//  7. /proc, terminals, /tmp and the work directory of the job's own; then what was asked for; loopback
//
// Steps 2 to 6 are the same for most jobs. Where init begins in a copy of a Template it has them from
// there. Then init says that it is ready, and waits for the second part:
//
//  8. sizes other than the usual, secrets, host name
//  9. the command's own process begins: session, resource limits, no capability in reach, group
//     before user, no_new_privs, seccomp, working directory, close-on-exec for all descriptors
//     that are not its own, exec: of the command, or of an agent that came with the plan
//
// # The exchange
//
//	server                                         init (PID 1)            command
//	  | clone3, every namespace, into the cgroup ---> |
//	  | PLAN, pieces of the first part, files ------> | (sent while the kernel is at it)
//	  |                                               | steps …
//	  | <------------------------------------- PARKED |
//	  | PLAN, pieces of the second part, files -----> |
//	  |                                               | fork -------------> | steps …
//	  | <----------------- FAILED step, errno --------|---------------------| (any step)
//	  | <----------------- RUNNING pid ---------------| <-- exec'ed ------- |
//	  | SIGNAL signal, whom ------------------------> | ------------------> |
//	  |                                               | <-- exits --------- |
//	  |                                               | kills the rest, reaps all
//	  | <----------------- EXIT status, rusage -------|
//	  | (drains the output, reads the usage)          |
//	  | SIGKILL ------------------------------------> | and the namespaces with it
//
// Init starts before the Go runtime does, or without the linker's flag from this package's
// initialisation: entry.go.
//
// From then on init takes further plans, of commands beside the main one: beside.go.
//
// All of it goes over one SOCK_SEQPACKET socket pair, of which init keeps both ends, as it does of
// the two output pipes (fds.go): a server that dies takes nothing with it.
package initproc

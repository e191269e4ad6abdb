// Package seccomp is the filter that a job's system calls go through: what it refuses (rules.go),
// and the program that the kernel runs (assemble.go).
//
// Filter is the program for initproc.Spec.Seccomp. LogFilter is the same one for a job whose
// refusals are to be named: it asks the server instead of refusing by itself, and the server answers
// what Judge says, which is what Filter would have done.
//
// It is a deny list in the spirit of Docker's default profile: everything is allowed but what
// manages the machine, makes namespaces or mounts, or has been the way out of many a sandbox. It is
// the second wall. The first is that a job has no capability, and most of what is refused here the
// kernel would refuse for that reason; what counts is the rest, and that the code behind a refused
// call, and its bugs, are out of reach.
//
// Not refused, though often suspected:
//
//   - ptrace, process_vm_readv, pidfd_getfd: they reach processes that the caller may trace, and in
//     the job's PID namespace these are the job's own; init is not dumpable. Since Linux 4.8 a
//     tracer cannot bring a call past a filter. Debuggers work.
//   - adjtimex, clock_adjtime: programs read the clock's state with them; setting it takes a
//     capability of the host.
//   - name_to_handle_at: a handle is of no use without open_by_handle_at.
//   - statmount, listmount: they tell what /proc/self/mountinfo tells.
//   - landlock, seccomp: a job may build walls of its own.
package seccomp

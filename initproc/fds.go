package initproc

import "golang.org/x/sys/unix"

// The descriptors of an init, fixed by number so that a later server finds them with
// pidfd_getfd(2). The command gets 0, 1 and 2 alone.
//
//	fd  what                          direction      closed by
//	 0  /dev/null                     read           the command's end
//	 1  stdout pipe                   write          the command's end; init's copy stays
//	 2  stderr pipe                   write          the same
//	 3  control socket, init's end    both           init's end
//	 4  control socket, server's end  kept, unused   init's end
//	 5  stdout pipe                   kept, unused   init's end
//	 6  stderr pipe                   kept, unused   init's end
//	 7  eventfd, SIGCHLD happened     both           init's end
//	 8  pidfd of the server           poll           init, once it has the plan
//	 9  first what init executes,     execute        the plan
//	    then oom_score_adj of init    write          init's end
//	10… what comes with a plan:       –              the plan
//	    `tasks` of v1 cgroups; then
//	    input, secrets, program
//	57  the master of a terminal of a command beside the main one, until the server has it
//	58  the terminal, its slave       the command    init's end; there with Spec.Terminal alone
//	59  the terminal, its master      kept, unused   init's end; there with Spec.Terminal alone
//	60  the file that stdin comes from position      init's end; there with Spec.Stdin alone
//	61  stdin pipe                    kept, unused   CloseInput, or init's end; the same, but with no terminal
//	62  upper layer of an overlay     kept, unused   init's end; there with Spec.Overlay alone
//	63  the filter's listener         kept, unused   init's end; there with Spec.SeccompListener alone
const (
	fdStdout        = 1
	fdStderr        = 2
	fdControl       = 3
	fdServerControl = 4
	fdStdoutRead    = 5
	fdStderrRead    = 6
	fdChild         = 7
	fdServer        = 8
	fdExe           = 9
	fdOOM           = 9
	fdFiles         = 10
	fdStatus        = 11 // of a plan beside the main one
	fdBesideMaster  = 57 // above all that a plan opens, as are those that follow
	fdSlave         = 58
	fdTerminal      = 59
	fdSpool         = 60
	fdInput         = 61
	fdUpper         = 62
	fdListener      = 63 // the last for which the table need not grow
)

// keep moves a descriptor to a number of its own.
func (b *builder) keep(name string, fd arg, at int) {
	b.step(name, unix.SYS_DUP3, fd, number(at), number(unix.O_CLOEXEC))
	b.step(name, unix.SYS_CLOSE, fd)
}

package initproc

import "golang.org/x/sys/unix"

// mergeOutput makes standard error the pipe of standard output, so that what is written to either comes in the
// order in which it was. It comes after closeOnExec, which would close the copy.
func mergeOutput(b *builder, s Spec) {
	if s.Merge {
		b.step("merge the output", unix.SYS_DUP3, number(fdStdout), number(fdStderr), number(0))
	}
}

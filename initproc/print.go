package initproc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// String is the plan for people, a line a step: its index, its name, and the system call as
// strace(1) would show it. $1 is the result of the step that says "= $1".
func (p *Plan) String() string {
	if p == nil {
		return ""
	}
	var out strings.Builder
	for _, part := range p.parts {
		v, err := decode(part)
		if err != nil {
			return err.Error() + "\n"
		}
		for i, s := range v.steps {
			fmt.Fprintf(&out, "%3d  %-42s  %s\n", v.before+i, v.string(uint64(s.name)), v.call(&s))
		}
	}
	return out.String()
}

// A StepError is a step of a plan that failed.
type StepError struct {
	Step  int    // its index in the plan, or -1 for the checks before the first
	Name  string // "mount /proc"
	Call  string // mount("proc", "proc", …)
	Errno syscall.Errno
}

func (e *StepError) Error() string {
	if e.Call == "" {
		return e.Name + ": " + e.Errno.Error()
	}
	return fmt.Sprintf("%s: %s: %s", e.Name, e.Call, e.Errno.Error())
}

func (e *StepError) Unwrap() error { return e.Errno }

// BadCwd tells that the job's user cannot go to the working directory.
func (e *StepError) BadCwd() bool { return e.Name == nameChangeDir }

// NotFound tells that there is no such program.
func (e *StepError) NotFound() bool {
	return e.Name == nameExecute && (e.Errno == syscall.ENOENT || e.Errno == syscall.ENOTDIR)
}

// NotExecutable tells that the program is there and cannot be executed.
func (e *StepError) NotExecutable() bool { return e.Name == nameExecute && !e.NotFound() }

// stepError is the error of a step of p, or of a plan that an earlier server sent and nobody has any
// more: then p is nil.
func (p *Plan) stepError(index uint32, errno syscall.Errno) error {
	if index == stepRefused {
		return &StepError{-1, "check the plan", "", errno}
	}
	if p == nil {
		return fmt.Errorf("step %d of the plan: %w", index, errno)
	}
	for _, part := range p.parts {
		v, err := decode(part)
		if err != nil {
			return err
		}
		if i := int(index) - v.before; i >= 0 && i < len(v.steps) {
			s := v.steps[i]
			return &StepError{int(index), v.string(uint64(s.name)), v.call(&s), errno}
		}
	}
	return fmt.Errorf("step %d of the plan: %w", index, errno)
}

// A view is a decoded part of a plan.
type view struct {
	blob    []byte
	before  int // steps of the parts before
	steps   []step
	relocs  map[uint64]uint64
	results map[uint64]int // offset of a result to its number
}

// decode reads a part of a plan and makes sure that nothing in it points outside of it.
func decode(blob []byte) (*view, error) {
	if len(blob) < headerSize || len(blob) > maxPlan {
		return nil, fmt.Errorf("plan of %d bytes", len(blob))
	}
	var h header
	copy(raw(&h), blob)
	size := uint64(len(blob))
	if h.magic != planMagic || h.version != planVersion || uint64(h.size) != size {
		return nil, fmt.Errorf("plan with magic %#x, version %d, size %d", h.magic, h.version, h.size)
	}
	if uint64(h.steps)+uint64(h.nsteps)*uint64(stepSize) > size ||
		uint64(h.relocs)+uint64(h.nrelocs)*uint64(relocSize) > size {
		return nil, errors.New("plan with tables outside of it")
	}
	v := &view{blob: blob, before: int(h.before), relocs: map[uint64]uint64{}, results: map[uint64]int{}}
	v.steps = make([]step, h.nsteps)
	for i := range v.steps {
		s := &v.steps[i]
		copy(raw(s), blob[int(h.steps)+i*stepSize:])
		if err := v.checkStep(s); err != nil {
			return nil, fmt.Errorf("plan with step %d %w", i, err)
		}
	}
	for i := range int(h.nrelocs) {
		var r reloc
		copy(raw(&r), blob[int(h.relocs)+i*relocSize:])
		if uint64(r.where)+8 > size || uint64(r.target) >= size {
			return nil, fmt.Errorf("plan with relocation %d outside of it", i)
		}
		v.relocs[uint64(r.where)] = uint64(r.target)
	}
	return v, nil
}

func (v *view) checkStep(s *step) error {
	size := uint64(len(v.blob))
	if uint64(s.name) >= size || s.dest != 0 && uint64(s.dest)+8 > size {
		return errors.New("outside of it")
	}
	if s.dest != 0 {
		v.results[uint64(s.dest)] = len(v.results) + 1
	}
	for i, kind := range s.kinds[:len(s.args)] {
		switch {
		case kind > argResult:
			return fmt.Errorf("with an argument of kind %d", kind)
		case kind == argAddr && s.args[i] >= size, kind == argResult && s.args[i] > size-8:
			return errors.New("with an argument outside of it")
		case kind == argResult && v.results[s.args[i]] == 0:
			return errors.New("with the result of a later one")
		}
	}
	return nil
}

// string is the NUL-terminated string at offset.
func (v *view) string(offset uint64) string {
	s, _, _ := strings.Cut(unsafe.String(unsafe.SliceData(v.blob[offset:]), len(v.blob[offset:])), "\x00")
	return strings.Clone(s)
}

func (v *view) word(offset uint64) uint64 {
	var p [8]byte
	copy(p[:], v.blob[offset:])
	return binary.NativeEndian.Uint64(p[:])
}

// A signature says how a system call is shown: its name and a letter for each argument.
//
//	s string, d number, x hexadecimal, o octal, f descriptor, v array of strings, r two numbers
//	m mount flags, a struct mount_attr, c clone flags, O open flags, T open_tree flags
//	H struct open_how, i struct ifreq, F struct sock_fprog, P prctl option, S seccomp operation, N seccomp flags
//	C close_range flags, p bytes that need no showing
type signature struct{ name, args string }

var signatures = map[uint32]signature{
	unix.SYS_WRITE:          {"write", "fsd"},
	unix.SYS_CLOSE:          {"close", "f"},
	unix.SYS_UNSHARE:        {"unshare", "c"},
	unix.SYS_UMASK:          {"umask", "o"},
	unix.SYS_PRCTL:          {"prctl", "Pd"},
	unix.SYS_OPENAT:         {"openat", "fsOo"},
	unix.SYS_OPENAT2:        {"openat2", "fsHd"},
	unix.SYS_MOUNT:          {"mount", "sssms"},
	unix.SYS_OPEN_TREE:      {"open_tree", "fsT"},
	unix.SYS_MOUNT_SETATTR:  {"mount_setattr", "fsTad"},
	unix.SYS_MOVE_MOUNT:     {"move_mount", "fsfsx"},
	unix.SYS_FCHDIR:         {"fchdir", "f"},
	unix.SYS_CHDIR:          {"chdir", "s"},
	unix.SYS_MKNODAT:        {"mknodat", "fsod"},
	unix.SYS_MKDIRAT:        {"mkdirat", "fso"},
	unix.SYS_SYMLINKAT:      {"symlinkat", "sfs"},
	unix.SYS_PIVOT_ROOT:     {"pivot_root", "ss"},
	unix.SYS_UMOUNT2:        {"umount2", "sx"},
	unix.SYS_SETHOSTNAME:    {"sethostname", "sd"},
	unix.SYS_SOCKET:         {"socket", "ddx"},
	unix.SYS_IOCTL:          {"ioctl", "fxi"},
	unix.SYS_SETSID:         {"setsid", ""},
	unix.SYS_RT_SIGPROCMASK: {"rt_sigprocmask", "dpdd"},
	unix.SYS_PRLIMIT64:      {"prlimit64", "ddrd"},
	unix.SYS_FALLOCATE:      {"fallocate", "fddd"},
	unix.SYS_SENDFILE:       {"sendfile", "ffsd"},
	unix.SYS_FCHOWN:         {"fchown", "fdd"},
	unix.SYS_SETRESGID:      {"setresgid", "ddd"},
	unix.SYS_SETGROUPS:      {"setgroups", "dd"},
	unix.SYS_SETRESUID:      {"setresuid", "ddd"},
	unix.SYS_KEYCTL:         {"keyctl", "dd"},
	unix.SYS_DUP3:           {"dup3", "fdO"},
	unix.SYS_CAPSET:         {"capset", "pp"},
	unix.SYS_SECCOMP:        {"seccomp", "SNF"},
	unix.SYS_CLOSE_RANGE:    {"close_range", "ddC"},
	unix.SYS_EXECVE:         {"execve", "svv"},
	unix.SYS_EXECVEAT:       {"execveat", "fsvvT"},
	opFork:                  {"fork", "dc"},
	opFail:                  {"fail", "e"},
	opReport:                {"report", ""},
	opPark:                  {"park", ""},
	opSupervise:             {"supervise", ""},
}

func (v *view) call(s *step) string {
	sig, known := signatures[s.nr]
	if !known {
		sig = signature{fmt.Sprintf("syscall_%d", s.nr), "xxxxxx"}
	}
	if s.nr == unix.SYS_IOCTL && s.args[1] != unix.SIOCSIFFLAGS {
		sig.args = "fxp"
	}
	var args []string
	for i := range len(sig.args) {
		args = append(args, v.argument(sig.args[i], s.kinds[i], s.args[i]))
	}
	text := sig.name + "(" + strings.Join(args, ", ") + ")"
	if s.dest != 0 {
		text += fmt.Sprintf(" = $%d", v.results[uint64(s.dest)])
	}
	for _, e := range s.tolerate {
		if e != 0 {
			text += " or " + unix.ErrnoName(syscall.Errno(e))
		}
	}
	return text
}

func (v *view) argument(letter byte, kind uint8, value uint64) string {
	switch kind {
	case argResult:
		return fmt.Sprintf("$%d", v.results[value])
	case argAddr:
		return v.pointer(letter, value)
	}
	switch letter {
	case 's', 'v':
		if value == 0 {
			return "NULL"
		}
	case 'f':
		if int32(value) == unix.AT_FDCWD {
			return "AT_FDCWD"
		}
	case 'o':
		return fmt.Sprintf("%#o", value)
	case 'x':
		return fmt.Sprintf("%#x", value)
	case 'e':
		return unix.ErrnoName(syscall.Errno(value))
	}
	if names, found := flagNames[letter]; found {
		return flags(names, value)
	}
	return strconv.FormatInt(int64(value), 10)
}

func (v *view) pointer(letter byte, offset uint64) string {
	switch letter {
	case 's':
		return strconv.Quote(v.string(offset))
	case 'v':
		var list []string
		for at := offset; v.relocs[at] != 0; at += 8 {
			list = append(list, strconv.Quote(v.string(v.relocs[at])))
		}
		return "[" + strings.Join(list, ", ") + "]"
	case 'r':
		return fmt.Sprintf("{%d, %d}", v.word(offset), v.word(min(offset+8, uint64(len(v.blob)))))
	case 'F':
		return fmt.Sprintf("{%d instructions}", v.word(offset)&0xffff)
	case 'a':
		if clear := v.word(min(offset+8, uint64(len(v.blob)))); clear != 0 {
			return "{clear " + flags(flagNames['a'], clear) + "}"
		}
		return "{set " + flags(flagNames['a'], v.word(offset)) + "}"
	case 'H':
		return fmt.Sprintf("{%s, %s}", flags(flagNames['O'], v.word(offset)), flags(flagNames['R'], v.word(min(offset+16, uint64(len(v.blob))))))
	case 'i':
		name := v.string(offset)
		return fmt.Sprintf("{%q, %#x}", name, v.word(min(offset+unix.IFNAMSIZ, uint64(len(v.blob))))&0xffff)
	}
	return "{…}"
}

type flagName struct {
	bit  uint64
	name string
}

var flagNames = map[byte][]flagName{
	'm': {
		{unix.MS_RDONLY, "MS_RDONLY"}, {unix.MS_NOSUID, "MS_NOSUID"}, {unix.MS_NODEV, "MS_NODEV"},
		{unix.MS_NOEXEC, "MS_NOEXEC"}, {unix.MS_REMOUNT, "MS_REMOUNT"}, {unix.MS_BIND, "MS_BIND"},
		{unix.MS_REC, "MS_REC"}, {unix.MS_PRIVATE, "MS_PRIVATE"},
	},
	'a': {
		{unix.MOUNT_ATTR_RDONLY, "RDONLY"}, {unix.MOUNT_ATTR_NOSUID, "NOSUID"},
		{unix.MOUNT_ATTR_NODEV, "NODEV"}, {unix.MOUNT_ATTR_NOEXEC, "NOEXEC"},
	},
	'c': {{unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"}, {unix.CLONE_FILES, "CLONE_FILES"}, {0, "0"}},
	'O': {
		{unix.O_WRONLY, "O_WRONLY"}, {unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_PATH, "O_PATH"},
		{unix.O_DIRECTORY, "O_DIRECTORY"}, {unix.O_CLOEXEC, "O_CLOEXEC"},
	},
	'R': {
		{unix.RESOLVE_NO_SYMLINKS, "RESOLVE_NO_SYMLINKS"}, {unix.RESOLVE_NO_MAGICLINKS, "RESOLVE_NO_MAGICLINKS"},
		{unix.RESOLVE_BENEATH, "RESOLVE_BENEATH"},
	},
	'T': {
		{unix.OPEN_TREE_CLONE, "OPEN_TREE_CLONE"}, {unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLOEXEC"},
		{unix.AT_RECURSIVE, "AT_RECURSIVE"}, {unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"},
	},
	'S': {{unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"}},
	'N': {{unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, "SECCOMP_FILTER_FLAG_NEW_LISTENER"}, {0, "0"}},
	'C': {
		{unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC"}, {unix.CLOSE_RANGE_UNSHARE, "CLOSE_RANGE_UNSHARE"},
	},
	'P': {
		{unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"}, {unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"},
		{unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"},
	},
}

// flags writes a number as the names of its bits, or as the one name that it is.
func flags(names []flagName, value uint64) string {
	var list []string
	rest := value
	for _, f := range names {
		if value == f.bit {
			return f.name
		}
		if f.bit != 0 && rest&f.bit == f.bit {
			list = append(list, f.name)
			rest &^= f.bit
		}
	}
	if rest != 0 || value == 0 {
		list = append(list, fmt.Sprintf("%#x", rest))
	}
	return strings.Join(list, "|")
}

package seccomp

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where things are in struct seccomp_data, on a little-endian machine.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16 // six of 8 bytes, the low half first
)

// An instruction is one of the program before its jumps are counted: a load of the word at an
// offset, or a comparison with two ways to go on.
type instruction struct {
	load    bool
	test    bpf.JumpTest
	value   uint32 // what is compared with, or the offset
	yes, no verdict
	over    int // where yes is next: how many instructions to pass over
}

// next as a way to go on is the next instruction.
const next = verdict(255)

// A program is under construction. It ends in the checks of arguments and the verdicts themselves,
// one of each, so that most of it are comparisons that go straight to one of them. Its length is
// what loading it takes: the kernel runs it for every system call that there is, to remember those
// that are allowed whatever their arguments, which from then on cost the same however long it is
// (seccomp_cache_prepare, Linux 5.11).
type program []instruction

func (p *program) load(offset uint32) { *p = append(*p, instruction{load: true, value: offset}) }

func (p *program) jump(test bpf.JumpTest, value uint32, yes, no verdict) {
	*p = append(*p, instruction{test: test, value: value, yes: yes, no: no})
}

// A span is the verdict on all numbers from first to the next span's.
type span struct {
	first   uint32
	verdict verdict
}

// spans are the rules by number.
func (a arch) spans() []span {
	numbers := map[uint32]verdict{newest + 1: checkNewer}
	for _, r := range rules {
		n := a.number(r)
		if n < 0 {
			continue
		}
		if _, twice := numbers[uint32(n)]; twice || n > newest {
			panic(fmt.Sprintf("the rule for %s has the number %d, as another one or none", r.name, n))
		}
		numbers[uint32(n)] = r.verdict
	}
	list := []span{{0, allow}}
	for n, v := range numbers {
		list = append(list, span{n, v})
		if _, ruled := numbers[n+1]; !ruled && n < newest {
			list = append(list, span{n + 1, allow})
		}
	}
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	return slices.CompactFunc(list, func(a, b span) bool { return a.verdict == b.verdict })
}

// search appends a binary search for the number in the spans, unless there is nothing to search, and
// returns how to go on to its outcome.
func (p *program) search(list []span) verdict {
	if len(list) == 1 {
		return list[0].verdict
	}
	at, middle := len(*p), len(list)/2
	p.jump(bpf.JumpGreaterOrEqual, list[middle].first, next, next)
	no := p.search(list[:middle])
	over := len(*p) - at - 1
	yes := p.search(list[middle:])
	node := &(*p)[at]
	node.yes, node.no, node.over = yes, no, over
	return next
}

// checks are the ends of the search that look at an argument. Only its low half counts: the kernel
// cuts off, or refuses, what is above it.
var checks = []struct {
	verdict verdict
	append  func(*program)
}{
	{checkNamespaces, func(p *program) {
		p.load(offArgs)
		p.jump(bpf.JumpBitsSet, newNamespaces, refuse, allow)
	}},
	{checkTerminal, func(p *program) {
		p.load(offArgs + 8)
		p.anyOf(terminalRequests, refuse, allow)
	}},
	{checkFamily, func(p *program) {
		p.load(offArgs)
		p.anyOf(families, allow, noFamily)
	}},
	{checkPersonality, func(p *program) {
		p.load(offArgs)
		p.jump(bpf.JumpEqual, askPersonality, allow, next)
		p.jump(bpf.JumpBitsSet, forbidPersonality, refuse, allow)
	}},
	// The number -1 is what a tracer makes of a call that is not to happen, and nothing happens.
	{checkNewer, func(p *program) { p.jump(bpf.JumpEqual, 0xffffffff, allow, closed) }},
}

func (p *program) anyOf(values []uint32, yes, no verdict) {
	for i, value := range values {
		otherwise := next
		if i == len(values)-1 {
			otherwise = no
		}
		p.jump(bpf.JumpEqual, value, yes, otherwise)
	}
}

// assemble returns the program of an architecture; with log, what is refused is asked for instead.
func assemble(a arch, log bool) []bpf.Instruction {
	var p program
	p.load(offArch)
	p.jump(bpf.JumpEqual, a.audit, next, closed)
	p.load(offNumber)
	p.search(a.spans())
	where := map[verdict]int{}
	for _, c := range checks {
		where[c.verdict] = len(p)
		c.append(&p)
	}
	var ends []bpf.Instruction
	for _, end := range []verdict{allow, refuse, absent, closed, noFamily} {
		value := uint32(unix.SECCOMP_RET_ALLOW)
		if errno, refused := errnos[end]; refused {
			value = unix.SECCOMP_RET_ERRNO | uint32(errno)
			if log && end != absent {
				value = unix.SECCOMP_RET_USER_NOTIF
			}
		}
		at := slices.Index(ends, bpf.Instruction(bpf.RetConstant{Val: value}))
		if at < 0 {
			at = len(ends)
			ends = append(ends, bpf.RetConstant{Val: value})
		}
		where[end] = len(p) + at
	}
	return append(p.resolve(where), ends...)
}

// resolve counts the jumps.
func (p program) resolve(where map[verdict]int) []bpf.Instruction {
	skip := func(at int, to verdict, over int) uint8 {
		n := over
		if to != next {
			n = where[to] - at - 1
		}
		if n < 0 || n > 255 {
			panic(fmt.Sprintf("a jump over %d instructions at %d", n, at))
		}
		return uint8(n)
	}
	var out []bpf.Instruction
	for at, i := range p {
		if i.load {
			out = append(out, bpf.LoadAbsolute{Off: i.value, Size: 4})
			continue
		}
		out = append(out, bpf.JumpIf{Cond: i.test, Val: i.value,
			SkipTrue: skip(at, i.yes, i.over), SkipFalse: skip(at, i.no, 0)})
	}
	return out
}

// encode returns a program as seccomp(2) takes it, an array of struct sock_filter.
func encode(list []bpf.Instruction) []byte {
	raw, err := bpf.Assemble(list)
	if err != nil {
		panic(err) // the rules are constant, and so is this
	}
	var out []byte
	for _, r := range raw {
		out = binary.NativeEndian.AppendUint16(out, r.Op)
		out = append(out, r.Jt, r.Jf)
		out = binary.NativeEndian.AppendUint32(out, r.K)
	}
	return out
}

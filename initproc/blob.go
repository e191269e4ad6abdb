package initproc

import (
	"bytes"
	"encoding/binary"
	"unsafe"
)

// A part of a plan is one flat piece of memory: a header, data, the table of steps, and the table of
// relocations. Every place in it is named by its offset from the beginning, so it can be built by
// one process and used by another at any address. Numbers are in the machine's byte order: a plan
// never leaves the machine.
const (
	planMagic   = 0x656c6574 // "tele"
	planVersion = 1
	maxPlan     = 4 << 20
)

type header struct {
	magic   uint32
	version uint32
	size    uint32 // of the whole part
	steps   uint32 // offset of the first step
	nsteps  uint32
	relocs  uint32 // offset of the first relocation
	nrelocs uint32
	before  uint32 // how many steps the parts of the plan before this one have
	hostMnt uint64 // inode of the mount namespace in which this plan must never run
}

// A step is a system call, or one of the control steps below.
type step struct {
	nr       uint32
	_        uint32
	name     uint32    // offset of the step's name, NUL-terminated
	dest     uint32    // offset of 8 bytes that take the result; 0 for none
	tolerate [4]uint16 // errors with which the plan goes on; 0 for none
	kinds    [8]uint8  // what each argument is
	args     [6]uint64
}

// The kinds of arguments.
const (
	argNumber = iota // the number itself
	argAddr          // the address of the byte at this offset
	argResult        // the 8 bytes at this offset, which a step before has filled in
)

// Control steps have numbers that no system call has.
const (
	// opFork starts the command's process. The child goes on with the next step, and init, once the
	// child has executed a program or ended, with the step whose index is argument 0. Argument 1 are
	// further flags of clone(2).
	opFork = 1<<31 + iota
	// opFail ends a list of tries: it fails with the EACCES that one of them met, or else with
	// argument 0.
	opFail
	// opReport tells the server that the command runs.
	opReport
	// opPark tells the server that this part is done, and waits for the next.
	opPark
	// opSupervise turns init into the sandbox's PID 1, for good.
	opSupervise
)

// A reloc makes the 8 bytes at offset where the address of the byte at offset target.
type reloc struct{ where, target uint32 }

const (
	headerSize = int(unsafe.Sizeof(header{}))
	stepSize   = int(unsafe.Sizeof(step{}))
	relocSize  = int(unsafe.Sizeof(reloc{}))
)

// A builder collects what a plan is made of. Its zero value is empty and ready.
type builder struct {
	data     []byte // what comes behind the header
	steps    []step
	relocs   []reloc
	interned map[string]uint32
	before   int // steps of the parts before this one
}

// An arg is an argument of a step.
type arg struct {
	kind  uint8
	value uint64
}

// number is an argument that is a plain number.
func number[T ~int | ~int64 | ~uint32 | ~uint64 | ~uintptr](n T) arg {
	return arg{argNumber, uint64(n)}
}

// bytes puts p into the plan, aligned for any type, and returns its address.
func (b *builder) bytes(p []byte) arg {
	for len(b.data)%8 != 0 {
		b.data = append(b.data, 0)
	}
	offset := headerSize + len(b.data)
	b.data = append(b.data, p...)
	return arg{argAddr, uint64(offset)}
}

// string puts s into the plan once, NUL-terminated, and returns its address.
func (b *builder) string(s string) arg {
	if offset, found := b.interned[s]; found {
		return arg{argAddr, uint64(offset)}
	}
	address := b.bytes(append([]byte(s), 0))
	if b.interned == nil {
		b.interned = map[string]uint32{}
	}
	b.interned[s] = uint32(address.value)
	return address
}

// words puts 64-bit numbers into the plan and returns their address.
func (b *builder) words(words ...uint64) arg {
	var p []byte
	for _, w := range words {
		p = binary.NativeEndian.AppendUint64(p, w)
	}
	return b.bytes(p)
}

// strings puts a NULL-terminated array of strings into the plan, as execve(2) takes it.
func (b *builder) strings(list []string) arg {
	array := b.words(make([]uint64, len(list)+1)...)
	for i, s := range list {
		b.relocs = append(b.relocs, reloc{uint32(array.value) + uint32(8*i), uint32(b.string(s).value)})
	}
	return array
}

// step appends a step.
func (b *builder) step(name string, nr uintptr, args ...arg) {
	s := step{nr: uint32(nr), name: uint32(b.string(name).value)}
	for i, a := range args {
		s.kinds[i], s.args[i] = a.kind, a.value
	}
	b.steps = append(b.steps, s)
}

// stepResult appends a step whose result is an argument of later ones.
func (b *builder) stepResult(name string, nr uintptr, args ...arg) arg {
	b.step(name, nr, args...)
	cell := b.words(0)
	b.steps[len(b.steps)-1].dest = uint32(cell.value)
	return arg{argResult, cell.value}
}

// tolerate lets the plan go on when the last step ends in one of these errors.
func (b *builder) tolerate(errnos ...uint16) {
	copy(b.steps[len(b.steps)-1].tolerate[:], errnos)
}

// encode returns the whole part.
func (b *builder) encode(hostMnt uint64) []byte {
	b.bytes(nil)
	h := header{
		magic: planMagic, version: planVersion, hostMnt: hostMnt,
		steps: uint32(headerSize + len(b.data)), nsteps: uint32(len(b.steps)),
		nrelocs: uint32(len(b.relocs)), before: uint32(b.before),
	}
	h.relocs = h.steps + uint32(len(b.steps)*stepSize)
	h.size = h.relocs + uint32(len(b.relocs)*relocSize)
	var out bytes.Buffer
	out.Grow(int(h.size))
	out.Write(raw(&h))
	out.Write(b.data)
	for i := range b.steps {
		out.Write(raw(&b.steps[i]))
	}
	for i := range b.relocs {
		out.Write(raw(&b.relocs[i]))
	}
	return out.Bytes()
}

// raw is the memory of *v.
func raw[T header | step | reloc | message](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

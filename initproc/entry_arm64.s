#include "go_asm.h"
#include "textflag.h"

// What an init has below the stack's first words: room for the call, a g, and the machine. On the
// stack, as one page of it is there anyway.
#define CALLROOM 16
#define G CALLROOM
#define GSIZE 512
#define MACHINE (G+GSIZE)
#define ROOM ((MACHINE+machine__size+15) & ~15)

// _tele_entry is where the kernel enters, in a binary linked with -E _tele_entry: argc at 0(RSP), then
// argv, and no register with anything in it. Called by InitName this process is an init, and never
// has a Go runtime. Called by any other name it is what it would be without this.
TEXT _tele_entry(SB), NOSPLIT|NOFRAME, $0
	MOVD  8(RSP), R0 // argv[0], or NULL
	CBZ   R0, go
	MOVD  0(R0), R1
	MOVD  $0x696e692d656c6574, R2 // "tele-ini"
	CMP   R1, R2
	BNE   go
	MOVHU 8(R0), R1
	CMP   $0x0074, R1 // "t", and the end
	BNE   go

	MOVD RSP, R1
	SUB  $ROOM, R1, R0
	MOVD R0, RSP // by a register: nothing of Go's stack is used, on which the linker would count it
zero:
	STP.P (ZR, ZR), 16(R0)
	CMP   R0, R1
	BNE   zero

	// Code of the compiler's has g in a register, though none of ours looks at what it points to. It
	// finds zeros, which say that no stack is ever full.
	ADD  $G, RSP, g
	ADD  $MACHINE, RSP, R0
	MOVD R0, 8(RSP)
	CALL ·beInit(SB)
	BRK  // does not return

go:
	MOVD ZR, R0
	MOVD ZR, R1
	MOVD ZR, R2
	JMP  _rt0_arm64_linux(SB)

// func entryAddress() uintptr
TEXT ·entryAddress(SB), NOSPLIT, $0-8
	MOVD $_tele_entry(SB), R0
	MOVD R0, ret+0(FP)
	RET

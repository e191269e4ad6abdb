#include "go_asm.h"
#include "textflag.h"

// What an init has below the stack's first words: room for the call, a block that is fake thread-local
// storage and a g, and the machine. On the stack, as one page of it is there anyway.
#define CALLROOM 16
#define TLS CALLROOM // the runtime's g is the word below FS, and in the block the first one
#define G (TLS+16)
#define GSIZE 512
#define MACHINE (G+GSIZE)
#define ROOM ((MACHINE+machine__size+15) & ~15)

// _tele_entry is where the kernel enters, in a binary linked with -E _tele_entry: argc at 0(SP), then
// argv, and no register with anything in it. Called by InitName this process is an init, and never
// has a Go runtime. Called by any other name it is what it would be without this.
TEXT _tele_entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ 8(SP), AX // argv[0], or NULL
	TESTQ AX, AX
	JEQ  go
	CMPL 0(AX), $0x656c6574 // "tele"
	JNE  go
	CMPL 4(AX), $0x696e692d // "-ini"
	JNE  go
	CMPW 8(AX), $0x0074 // "t", and the end
	JNE  go

	ANDQ $~15, SP
	SUBQ $ROOM, SP
	MOVQ SP, DI
	MOVL $(ROOM/8), CX
	XORL AX, AX
	CLD
	REP
	STOSQ

	// Code of the compiler's loads g into a register after each call of assembler, though none of ours
	// looks at what it points to. It finds zeros, which say that no stack is ever full.
	LEAQ G(SP), AX
	MOVQ AX, TLS(SP)
	MOVL $158, AX // arch_prctl
	MOVL $0x1002, DI // ARCH_SET_FS
	LEAQ (TLS+8)(SP), SI
	SYSCALL

	LEAQ MACHINE(SP), AX
	MOVQ AX, 0(SP)
	CALL ·beInit(SB)
	INT  $3 // does not return

go:
	XORL AX, AX
	JMP  _rt0_amd64_linux(SB)

// func entryAddress() uintptr
TEXT ·entryAddress(SB), NOSPLIT, $0-8
	LEAQ _tele_entry(SB), AX
	MOVQ AX, ret+0(FP)
	RET

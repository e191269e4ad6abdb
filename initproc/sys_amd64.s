#include "textflag.h"

// func sys(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr
TEXT ·sys(SB), NOSPLIT, $0-64
	MOVQ nr+0(FP), AX
	MOVQ a1+8(FP), DI
	MOVQ a2+16(FP), SI
	MOVQ a3+24(FP), DX
	MOVQ a4+32(FP), R10
	MOVQ a5+40(FP), R8
	MOVQ a6+48(FP), R9
	SYSCALL
	MOVQ AX, ret+56(FP)
	RET

DATA ·one<>+0(SB)/8, $1
GLOBL ·one<>(SB), RODATA|NOPTR, $8

// The kernel enters here with a return address to leave<> on the stack; sigreturn restores every
// register, so none needs to be saved.
TEXT ·handle<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ $1, AX // write
	MOVQ $7, DI // fdChild
	LEAQ ·one<>(SB), SI
	MOVQ $8, DX
	SYSCALL
	RET

TEXT ·leave<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ $15, AX // rt_sigreturn
	SYSCALL
	INT  $3 // does not return

// func onChild() uintptr
TEXT ·onChild(SB), NOSPLIT, $0-8
	LEAQ ·handle<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// func restorer() uintptr
TEXT ·restorer(SB), NOSPLIT, $0-8
	LEAQ ·leave<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

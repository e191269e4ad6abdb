#include "textflag.h"

// func sys(nr, a1, a2, a3, a4, a5, a6 uintptr) uintptr
TEXT ·sys(SB), NOSPLIT, $0-64
	MOVD nr+0(FP), R8
	MOVD a1+8(FP), R0
	MOVD a2+16(FP), R1
	MOVD a3+24(FP), R2
	MOVD a4+32(FP), R3
	MOVD a5+40(FP), R4
	MOVD a6+48(FP), R5
	SVC
	MOVD R0, ret+56(FP)
	RET

DATA ·one<>+0(SB)/8, $1
GLOBL ·one<>(SB), RODATA|NOPTR, $8

// The kernel enters here with leave<> in the link register; sigreturn restores every register, so
// none needs to be saved.
TEXT ·handle<>(SB), NOSPLIT|NOFRAME, $0
	MOVD $64, R8 // write
	MOVD $7, R0  // fdChild
	MOVD $·one<>(SB), R1
	MOVD $8, R2
	SVC
	RET

TEXT ·leave<>(SB), NOSPLIT|NOFRAME, $0
	MOVD $139, R8 // rt_sigreturn
	SVC
	BRK           // does not return

// func onChild() uintptr
TEXT ·onChild(SB), NOSPLIT, $0-8
	MOVD $·handle<>(SB), R0
	MOVD R0, ret+0(FP)
	RET

// func restorer() uintptr
TEXT ·restorer(SB), NOSPLIT, $0-8
	MOVD $·leave<>(SB), R0
	MOVD R0, ret+0(FP)
	RET

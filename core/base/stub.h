/*
 * stub.h - functions that stand before another one and decide, call by call,
 * whether to answer themselves or to be as if they were not there.
 *
 * dlopen and dlsym use their return address to find out who calls them, and so
 * where to search. A function in front of them must therefore jump to them
 * rather than call them. HAK_STUB(bind, name, decide) defines `name`, a
 * function with at most three arguments of a word each; `bind` is ".weak name"
 * or the like. It calls
 *
 *     hak_function *decide(uintptr_t *args)
 *
 * where args[0..2] are the arguments, which it may change, and args[3] is the
 * caller's return address, which it must not change. The stub jumps to the
 * function that `decide` returns, with the arguments; if that is NULL, args[0]
 * is the result of the call.
 */
#ifndef HAK_STUB_H
#define HAK_STUB_H

#include "base/base.h"

#if defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))
#define HAK_HAS_STUBS 1

/* For `decide`, which only the stub calls. */
#define HAK_STUB_ONLY __attribute__((used, visibility("hidden")))

#define HAK_STUB_HEAD(bind, name)                                              \
    ".text\n" bind "\n"                                                        \
    ".type " name ", %function\n"                                              \
    ".p2align 4\n" name ":\n"                                                  \
    ".cfi_startproc\n"

#define HAK_STUB_FOOT(name)                                                    \
    ".cfi_endproc\n"                                                           \
    ".size " name ", . - " name "\n"

#ifdef __x86_64__
#define HAK_STUB(bind, name, decide)                                           \
    __asm__(HAK_STUB_HEAD(bind, name) "endbr64\n"                              \
                                      "pushq %rdx\n"                           \
                                      ".cfi_adjust_cfa_offset 8\n"             \
                                      "pushq %rsi\n"                           \
                                      ".cfi_adjust_cfa_offset 8\n"             \
                                      "pushq %rdi\n"                           \
                                      ".cfi_adjust_cfa_offset 8\n"             \
                                      "movq %rsp, %rdi\n"                      \
                                      "call " decide "\n"                      \
                                      "popq %rdi\n"                            \
                                      ".cfi_adjust_cfa_offset -8\n"            \
                                      "popq %rsi\n"                            \
                                      ".cfi_adjust_cfa_offset -8\n"            \
                                      "popq %rdx\n"                            \
                                      ".cfi_adjust_cfa_offset -8\n"            \
                                      "testq %rax, %rax\n"                     \
                                      "jz 1f\n"                                \
                                      "jmpq *%rax\n"                           \
                                      "1: movq %rdi, %rax\n"                   \
                                      "ret\n" HAK_STUB_FOOT(name))
#else
/* hint #34 is `bti c`; a jump through x16 may land on one. */
#define HAK_STUB(bind, name, decide)                                           \
    __asm__(HAK_STUB_HEAD(bind, name) "hint #34\n"                             \
                                      "stp x29, x30, [sp, #-48]!\n"            \
                                      ".cfi_def_cfa_offset 48\n"               \
                                      ".cfi_offset x29, -48\n"                 \
                                      ".cfi_offset x30, -40\n"                 \
                                      "mov x29, sp\n"                          \
                                      "stp x0, x1, [sp, #16]\n"                \
                                      "stp x2, x30, [sp, #32]\n"               \
                                      "add x0, sp, #16\n"                      \
                                      "bl " decide "\n"                        \
                                      "mov x16, x0\n"                          \
                                      "ldp x0, x1, [sp, #16]\n"                \
                                      "ldr x2, [sp, #32]\n"                    \
                                      "ldp x29, x30, [sp], #48\n"              \
                                      ".cfi_restore x30\n"                     \
                                      ".cfi_restore x29\n"                     \
                                      ".cfi_def_cfa_offset 0\n"                \
                                      "cbz x16, 1f\n"                          \
                                      "br x16\n"                               \
                                      "1: ret\n" HAK_STUB_FOOT(name))
#endif

#else
#define HAK_HAS_STUBS 0
#endif

#endif /* HAK_STUB_H */

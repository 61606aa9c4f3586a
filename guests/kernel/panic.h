/* The end of the kernel, for reasons that are not the program's fault. */
#pragma once
#include "types.h"

struct regs;

/* Exit code of a machine whose kernel gave up. */
#define PANIC_EXIT_CODE 70

NORETURN void panic(const char *reason);
NORETURN void panic_regs(const char *reason, const struct regs *regs, u32 vector, u32 error, u64 address);

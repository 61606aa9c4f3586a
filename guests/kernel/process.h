/* The one process. */
#pragma once
#include "types.h"

struct regs;
struct inode;

#define PROCESS_ID 1

/* Last component of the program's path, for messages. */
extern const char *process_name;

/* End the program and the machine. `signal` is 0 for a voluntary exit. */
NORETURN void process_exit(int code, int signal);

/* Load an ELF program and build its stack; fills the registers to start it with. Panics on a bad image. */
void process_exec(struct inode *image, const char *path, struct regs *regs);

/* ---- signals (signal.c) ---- */
/* A fault of the program: deliver the signal now, or end the program with a message. */
void signal_fault(struct regs *regs, int signal, int code, u64 address, u32 vector, u32 error);
/* Deliver what is pending before the program continues. */
void signal_deliver_pending(struct regs *regs);

/* Called from entry code. */
void user_work(struct regs *regs);
void trap_from_user(struct regs *regs, u64 cr2);
void trap_from_kernel(struct regs *regs, u64 cr2);

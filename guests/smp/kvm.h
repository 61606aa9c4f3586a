#ifndef KVM_H
#define KVM_H

#include "machine.h"

typedef void job(u32 cpu);

/* Whether the machine offers what `check_kvm` checks. */
int has_kvm(void);
void kvm_end_of_interrupt(u32 cpu);
void kvm_enable(u32 cpu);
void check_kvm(u32 count, u8 wake_vector);

/* main.c: all CPUs do a job, the boot CPU in between `begin` and `finish` something else. */
void together(job *what);
void begin(job *what);
void finish(void);
void expect(const char *what, u64 got, u64 expected);
void passed(const char *what);
u32 wake_count(void);

#endif

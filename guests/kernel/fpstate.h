/* x87, SSE and AVX state: enabled at start, saved in signal frames. The kernel itself uses none of it. */
#pragma once
#include "types.h"

/* FXSAVE's image; XSAVE's header and the upper halves of the YMM registers after it; and the word that ends it in a signal frame. */
#define FXSAVE_SIZE 512
#define XSAVE_AVX_SIZE 832
#define FPSTATE_MAX (XSAVE_AVX_SIZE + 4)

struct fpstate {
	u8 image[FPSTATE_MAX];
} __attribute__((aligned(64)));

/* Let the program use SSE, and AVX where the CPU has it. */
void fpstate_enable(void);
/* Save the program's state in the form of Linux's signal frames; the number of bytes. */
u64 fpstate_save(struct fpstate *to);
/* Load it again from `size` bytes that the program may have changed, and that may be just FXSAVE's. */
void fpstate_restore(struct fpstate *from, u64 size);
/* Bytes of a frame that starts with these FXSAVE_SIZE bytes. */
u64 fpstate_frame_size(const struct fpstate *start);

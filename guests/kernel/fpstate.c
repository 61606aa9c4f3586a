#include "fpstate.h"
#include "cpu.h"
#include "string.h"

#define CR4_OSFXSR (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_FSGSBASE (1ull << 16)
#define CR4_OSXSAVE (1ull << 18)
#define CPUID_1_ECX_XSAVE (1u << 26)
/* Components: x87, SSE, AVX. */
#define XFEATURE_AVX 4u
#define XFEATURES 7u
#define MXCSR_OFFSET 24
#define MXCSR_VALID 0xffffu

/* Linux's struct _fpx_sw_bytes, in bytes that FXSAVE leaves alone: what a signal frame has beyond FXSAVE's image. */
#define SW_OFFSET 464
#define FP_XSTATE_MAGIC1 0x46505853u
#define FP_XSTATE_MAGIC2 0x46505845u
struct sw_bytes {
	u32 magic1, extended_size;
	u64 xfeatures;
	u32 xstate_size, padding[7];
};
/* XSAVE's header, after FXSAVE's image. */
struct xsave_header {
	u64 xstate_bv, xcomp_bv, reserved[6];
};

bool cpu_has_fsgsbase;
/* What XCR0 enables; 0 without XSAVE. */
static u32 xfeatures;

void fpstate_enable(void)
{
	u32 leaf[4];
	u64 cr4;

	cpuid(1, leaf);
	asm volatile("movq %%cr4, %0" : "=r"(cr4));
	cpu_has_fsgsbase = cr4 & CR4_FSGSBASE;
	cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
	if (leaf[2] & CPUID_1_ECX_XSAVE)
		cr4 |= CR4_OSXSAVE;
	asm volatile("movq %0, %%cr4" : : "r"(cr4));
	if (leaf[2] & CPUID_1_ECX_XSAVE) {
		cpuid(0xd, leaf);
		xfeatures = leaf[0] & XFEATURES;
		asm volatile("xsetbv" : : "a"(xfeatures), "d"(0), "c"(0));
	}
}

u64 fpstate_save(struct fpstate *to)
{
	u32 end = FP_XSTATE_MAGIC2;

	memset(to, 0, sizeof(*to));
	if (!(xfeatures & XFEATURE_AVX)) {
		asm volatile("fxsave64 %0" : "=m"(*to));
		return FXSAVE_SIZE;
	}
	struct sw_bytes sw = { FP_XSTATE_MAGIC1, FPSTATE_MAX, xfeatures, XSAVE_AVX_SIZE, { 0 } };
	asm volatile("xsave64 %0" : "+m"(*to) : "a"(xfeatures), "d"(0));
	memcpy(to->image + SW_OFFSET, &sw, sizeof(sw));
	memcpy(to->image + XSAVE_AVX_SIZE, &end, sizeof(end));
	return FPSTATE_MAX;
}

u64 fpstate_frame_size(const struct fpstate *start)
{
	struct sw_bytes sw;

	memcpy(&sw, start->image + SW_OFFSET, sizeof(sw));
	return sw.magic1 == FP_XSTATE_MAGIC1 && sw.extended_size == FPSTATE_MAX && sw.xstate_size == XSAVE_AVX_SIZE ? FPSTATE_MAX : FXSAVE_SIZE;
}

void fpstate_restore(struct fpstate *from, u64 size)
{
	u32 mxcsr;

	/* Reserved MXCSR bits would fault here, and so would a header that is not valid. */
	memcpy(&mxcsr, from->image + MXCSR_OFFSET, sizeof(mxcsr));
	mxcsr &= MXCSR_VALID;
	memcpy(from->image + MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
	if (!(xfeatures & XFEATURE_AVX)) {
		asm volatile("fxrstor64 %0" : : "m"(*from));
		return;
	}
	struct xsave_header header;
	memcpy(&header, from->image + FXSAVE_SIZE, sizeof(header));
	/* Without a whole frame the registers' upper halves become zero, as after FXRSTOR on Linux. */
	u64 present = size == FPSTATE_MAX ? header.xstate_bv & xfeatures : xfeatures & ~(u64)XFEATURE_AVX;
	header = (struct xsave_header){ .xstate_bv = present };
	memcpy(from->image + FXSAVE_SIZE, &header, sizeof(header));
	asm volatile("xrstor64 %0" : : "m"(*from), "a"(xfeatures), "d"(0));
}

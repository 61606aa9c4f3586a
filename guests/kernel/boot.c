/*
 * Early boot: runs at the load address under the loader's identity map. Builds the page tables of the
 * linked address space. Only position-independent code and data without pointers may be used here.
 */
#include "boot.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "mm.h"
#include "panic.h"
#include "paravirt/pvm.h"
#include "string.h"

/* Offsets in the Linux boot_params ("zero page"). */
#define BP_EXT_RAMDISK_IMAGE 0x0c0
#define BP_EXT_RAMDISK_SIZE 0x0c4
#define BP_EXT_CMD_LINE_PTR 0x0c8
#define BP_E820_ENTRIES 0x1e8
#define BP_RAMDISK_IMAGE 0x218
#define BP_RAMDISK_SIZE 0x21c
#define BP_CMD_LINE_PTR 0x228
#define BP_E820_TABLE 0x2d0

#define LARGE_PAGE 0x200000
#define GIB 0x40000000ull
#define MAX_RAM (4 * GIB)

struct e820_entry {
	u64 address, size;
	u32 type;
} PACKED;

struct boot_info boot_info;

typedef u64 table[512] __attribute__((aligned(PAGE_SIZE)));

static table root, kernel_pdpt, kernel_pd, kernel_pt[2];
static table direct_pdpt, direct_pd[MAX_RAM / GIB];
static table identity_pdpt, identity_pd;

extern char kernel_start[], kernel_data[], kernel_end[];

static u32 read32(const u8 *p, u32 offset)
{
	u32 v;
	memcpy(&v, p + offset, sizeof(v));
	return v;
}

static u64 read_pair(const u8 *p, u32 low, u32 high)
{
	return read32(p, low) | (u64)read32(p, high) << 32;
}

static void parse_boot_params(const u8 *bp)
{
	boot_info.initrd = read_pair(bp, BP_RAMDISK_IMAGE, BP_EXT_RAMDISK_IMAGE);
	boot_info.initrd_size = read_pair(bp, BP_RAMDISK_SIZE, BP_EXT_RAMDISK_SIZE);

	const char *line = (const char *)read_pair(bp, BP_CMD_LINE_PTR, BP_EXT_CMD_LINE_PTR);
	for (u32 i = 0; line && i + 1 < sizeof(boot_info.command_line) && line[i]; i++)
		boot_info.command_line[i] = line[i];

	/* The one RAM region this kernel uses is the one it was loaded into. */
	for (u32 i = 0; i < bp[BP_E820_ENTRIES]; i++) {
		struct e820_entry e;
		memcpy(&e, bp + BP_E820_TABLE + i * sizeof(e), sizeof(e));
		if (e.type == 1 && e.address <= KERNEL_PHYS && KERNEL_PHYS < e.address + e.size)
			boot_info.ram_end = min_u64(e.address + e.size, MAX_RAM);
	}
}

static void link_table(u64 *parent, u64 address, u32 level, u64 *child)
{
	parent[(address >> (12 + 9 * (level - 1))) & 511] = virt_to_phys(child) | PTE_KERNEL;
}

static void map_kernel_image(void)
{
	u64 data = (u64)kernel_data - (u64)kernel_start + KERNEL_PHYS;
	u64 end = (u64)kernel_end - (u64)kernel_start + KERNEL_PHYS;

	for (u64 p = KERNEL_PHYS; p < end; p += PAGE_SIZE)
		kernel_pt[p / LARGE_PAGE][(p / PAGE_SIZE) & 511] =
			p | (p < data ? PTE_P | PTE_A : PTE_KERNEL | PTE_NX);
	for (u32 i = 0; i < ARRAY_SIZE(kernel_pt); i++)
		link_table(kernel_pd, KERNEL_BASE + i * LARGE_PAGE, 2, kernel_pt[i]);
	link_table(kernel_pdpt, KERNEL_BASE, 3, kernel_pd);
	link_table(root, KERNEL_BASE, 4, kernel_pdpt);
}

static void map_ram(void)
{
	for (u64 p = 0; p < boot_info.ram_end; p += LARGE_PAGE)
		direct_pd[p / GIB][(p / LARGE_PAGE) & 511] = p | PTE_KERNEL | PTE_PS | PTE_NX;
	for (u64 p = 0; p < boot_info.ram_end; p += GIB)
		link_table(direct_pdpt, DIRECT_BASE + p, 3, direct_pd[p / GIB]);
	link_table(root, DIRECT_BASE, 4, direct_pdpt);
}

static void map_identity(void)
{
	identity_pd[0] = 0 | PTE_KERNEL | PTE_PS;
	link_table(identity_pdpt, 0, 3, identity_pd);
	link_table(root, 0, 4, identity_pdpt);
}

/* The tables below use the NX bit, which is reserved until EFER says otherwise. */
static void enable_no_execute(void)
{
	u64 efer = read_msr(MSR_EFER);

	if (!(efer & EFER_NXE))
		write_msr(MSR_EFER, efer | EFER_NXE);
}

/* A PVM hypervisor runs its guests at privilege level 3; everything else enters a kernel at level 0. */
static enum layer find_layer(void)
{
	const char *problem;

	if (privilege_level() == 0)
		return LAYER_NATIVE;
	problem = pvm_detect();
	if (problem)
		panic(problem);
	if (!pvm_address_is_legal(KERNEL_BASE) || !pvm_address_is_legal(DIRECT_BASE))
		panic("the hypervisor's address range does not contain this kernel's addresses");
	return pvm_is_rfc() ? LAYER_PVM_RFC : LAYER_PVM_V2;
}

u64 boot_relocate(const u8 *boot_params)
{
	boot_info.layer = find_layer();
	parse_boot_params(boot_params);
	if (!boot_info.ram_end)
		panic("the memory map has no RAM at 1 MiB");
	enable_no_execute();
	boot_info.kernel_end = (u64)kernel_end - (u64)kernel_start + KERNEL_PHYS;
	boot_info.root = virt_to_phys(root);
	map_kernel_image();
	map_ram();
	map_identity();
	return boot_info.root;
}

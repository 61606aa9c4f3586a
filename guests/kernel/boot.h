/* What the boot loader said. */
#pragma once
#include "paravirt/paravirt.h"
#include "types.h"

struct boot_info {
	/* Physical addresses. RAM in use is [1 MiB, ram_end). */
	u64 ram_end;
	u64 kernel_end;
	u64 initrd, initrd_size;
	/* The kernel's top-level page table. */
	u64 root;
	enum layer layer;
	char command_line[1024];
};

extern struct boot_info boot_info;

/* Called from head.S: returns the physical address of the new top-level page table. */
u64 boot_relocate(const u8 *boot_params);

/* Kernel start at its linked address, up to the program's first instruction. */
#include "boot.h"
#include "fpstate.h"
#include "mm.h"
#include "panic.h"
#include "paravirt/paravirt.h"
#include "percpu.h"
#include "process.h"
#include "regs.h"
#include "string.h"
#include "timekeeping.h"
#include "vfs.h"

#define PROGRAM_PATH "/.pvm/init"
#define KERNEL_STACK_SIZE 32768

const struct paravirt_ops *pv;
struct percpu cpu0;

static u8 kernel_stack[KERNEL_STACK_SIZE] __attribute__((aligned(4096)));

/* The identity map of early boot lies where programs go. */
static void drop_identity_map(void)
{
	u64 *root = phys_to_virt(page_table_root);

	pv->set_entry(root, 0);
	pv->flush_all();
}

NORETURN void kernel_main(void);
void kernel_main(void)
{
	struct inode *program;

	static const struct paravirt_ops *const layers[] = {
		[LAYER_NATIVE] = &native_ops,
		[LAYER_PVM_V2] = &pvm_v2_ops,
		[LAYER_PVM_RFC] = &pvm_rfc_ops,
	};

	pv = layers[boot_info.layer];
	/* The entry code expects 19 words below this to end 16-byte aligned. */
	cpu0.kernel_stack = (u64)kernel_stack + KERNEL_STACK_SIZE - 8;
	pv->cpu_init();
	page_table_root = boot_info.root;
	drop_identity_map();
	fpstate_enable();
	pages_init(boot_info.kernel_end, boot_info.initrd ? boot_info.initrd : boot_info.ram_end);
	time_init();
	vfs_init();
	if (boot_info.initrd_size)
		initrd_unpack(phys_to_virt(boot_info.initrd), boot_info.initrd_size);
	devices_init();
	files_init();
	if (lookup_existing(root_inode, PROGRAM_PATH, true, &program))
		panic("the initrd has no program (" PROGRAM_PATH ")");

	/* The program starts from the frame a system call would have left. */
	struct regs *regs = (struct regs *)cpu0.kernel_stack - 1;
	memset(regs, 0, sizeof(*regs));
	process_exec(program, PROGRAM_PATH, regs);
	pv->enter_user(regs);
}

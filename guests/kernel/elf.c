/* Loading the program: ELF segments, stack and auxiliary vector. */
#include "abi.h"
#include "console.h"
#include "cpu.h"
#include "mm.h"
#include "panic.h"
#include "process.h"
#include "regs.h"
#include "string.h"
#include "uaccess.h"
#include "vfs.h"

#define ET_EXEC 2
#define ET_DYN 3
#define EM_X86_64 62
#define PT_LOAD 1
#define PT_INTERP 3
#define PF_X 1
#define PF_W 2
#define PF_R 4
#define MAX_PROGRAM_HEADERS 64
/* Most argument and environment strings together. */
#define MAX_STRINGS 4096

struct elf_header {
	u8 ident[16];
	u16 type, machine;
	u32 version;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct program_header {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};

struct image {
	struct elf_header header;
	struct program_header segments[MAX_PROGRAM_HEADERS];
	u64 bias;
	/* Where the program headers are in memory, and the end of the highest segment. */
	u64 phdr_address, end;
};

const char *process_name = "init";

static void map_segment(struct inode *file, struct image *image, const struct program_header *p)
{
	u32 prot = (p->flags & PF_R ? PROT_READ : 0) | (p->flags & PF_W ? PROT_WRITE : 0) |
		   (p->flags & PF_X ? PROT_EXEC : 0);
	u64 start = ALIGN_DOWN(p->vaddr + image->bias, PAGE_SIZE);
	u64 head = (p->vaddr + image->bias) - start;
	u64 file_end = start + ALIGN_UP(head + p->filesz, PAGE_SIZE);
	u64 end = ALIGN_UP(p->vaddr + image->bias + p->memsz, PAGE_SIZE);
	result_t r = 0;

	if (p->filesz > p->memsz || p->offset + p->filesz > file->size || p->vaddr >= TASK_SIZE ||
	    p->memsz > TASK_SIZE || end > MMAP_TOP || start < TASK_START || ((p->vaddr ^ p->offset) & (PAGE_SIZE - 1)))
		panic("the program has a bad segment");
	if (!vma_range_is_free(start, end))
		panic("the program's segments overlap");
	if (p->filesz)
		r = mmap_inode(start, file_end - start, prot, VMA_IMAGE, file, p->offset - head, head + p->filesz);
	else
		file_end = start;
	if (r >= 0 && end > file_end)
		r = mmap_inode(file_end, end - file_end, prot, VMA_IMAGE, NULL, 0, 0);
	if (r < 0)
		panic("no memory to load the program");
	if (p->offset <= image->header.phoff && image->header.phoff < p->offset + p->filesz)
		image->phdr_address = p->vaddr + image->bias + (image->header.phoff - p->offset);
	image->end = max_u64(image->end, end);
}

static void load_image(struct inode *file, struct image *image)
{
	struct elf_header *h = &image->header;

	if (inode_read_kernel(file, 0, h, sizeof(*h)) != sizeof(*h) || memcmp(h->ident, "\177ELF\2\1", 6) ||
	    h->machine != EM_X86_64 || (h->type != ET_EXEC && h->type != ET_DYN))
		panic("the program is not a 64-bit x86 ELF executable");
	u64 size = (u64)h->phnum * sizeof(struct program_header);
	if (h->phentsize != sizeof(struct program_header) || h->phnum > MAX_PROGRAM_HEADERS ||
	    inode_read_kernel(file, h->phoff, image->segments, size) != size)
		panic("the program's headers are damaged");
	image->bias = h->type == ET_DYN ? PIE_BASE : 0;
	for (u32 i = 0; i < h->phnum; i++) {
		if (image->segments[i].type == PT_INTERP)
			panic("the program needs a dynamic loader; link with -static");
		if (image->segments[i].type == PT_LOAD && image->segments[i].memsz)
			map_segment(file, image, &image->segments[i]);
	}
	brk_start = brk_end = image->end;
}

/* A stack under construction: grows down in the program's memory. */
struct builder {
	u64 sp;
};

static u64 push_bytes(struct builder *b, const void *data, u64 n)
{
	b->sp -= n;
	if (copy_to_user(b->sp, data, n))
		panic("no memory for the program's stack");
	return b->sp;
}

/* Copy a file of NUL-terminated strings to the stack; appends the strings' addresses. Their number. */
static u32 push_strings(struct builder *b, const char *path, u64 *addresses, u32 room)
{
	struct inode *file;
	u32 count = 0;
	u8 chunk[256];

	if (lookup_existing(root_inode, path, true, &file) || !file->size)
		return 0;
	u64 base = b->sp - file->size - 1;
	bool at_start = true;
	for (u64 done = 0, n; done < file->size; done += n) {
		n = inode_read_kernel(file, done, chunk, sizeof(chunk));
		for (u64 i = 0; i < n; i++) {
			if (at_start && count == room)
				panic("too many program arguments");
			if (at_start)
				addresses[count++] = base + done + i;
			at_start = !chunk[i];
		}
		if (copy_to_user(base + done, chunk, n))
			panic("no memory for the program's arguments");
	}
	b->sp = base;
	return count;
}

static u64 build_stack(const struct image *image, const char *path)
{
	static u64 words[MAX_STRINGS + 64], strings[MAX_STRINGS];
	struct builder b = { STACK_TOP };
	u8 random[16];
	u32 features[4];

	cpuid(1, features);
	host_random(random, sizeof(random));
	u64 execfn = push_bytes(&b, path, strlen(path) + 1);
	u64 platform = push_bytes(&b, "x86_64", 7);
	u32 argc = push_strings(&b, "/.pvm/argv", strings, MAX_STRINGS);
	u32 envc = push_strings(&b, "/.pvm/envp", strings + argc, MAX_STRINGS - argc);
	b.sp = ALIGN_DOWN(b.sp, 16);
	u64 random_at = push_bytes(&b, random, sizeof(random));

	const u64 auxv[][2] = {
		{ AT_PHDR, image->phdr_address },
		{ AT_PHENT, sizeof(struct program_header) },
		{ AT_PHNUM, image->header.phnum },
		{ AT_PAGESZ, PAGE_SIZE },
		{ AT_BASE, 0 },
		{ AT_FLAGS, 0 },
		{ AT_ENTRY, image->header.entry + image->bias },
		{ AT_UID, 0 }, { AT_EUID, 0 }, { AT_GID, 0 }, { AT_EGID, 0 },
		{ AT_PLATFORM, platform },
		{ AT_HWCAP, features[3] },
		{ AT_HWCAP2, cpu_has_fsgsbase ? HWCAP2_FSGSBASE : 0 },
		{ AT_CLKTCK, 100 },
		{ AT_SECURE, 0 },
		{ AT_RANDOM, random_at },
		{ AT_EXECFN, execfn },
		{ AT_MINSIGSTKSZ, 2048 },
		{ AT_NULL, 0 },
	};
	u32 n = 0;
	words[n++] = argc;
	for (u32 i = 0; i < argc; i++)
		words[n++] = strings[i];
	words[n++] = 0;
	for (u32 i = 0; i < envc; i++)
		words[n++] = strings[argc + i];
	words[n++] = 0;
	u64 size = n * sizeof(u64) + sizeof(auxv);
	b.sp = ALIGN_DOWN(b.sp - size, 16);
	if (copy_to_user(b.sp, words, n * sizeof(u64)) || PUT_USER(b.sp + n * sizeof(u64), auxv))
		panic("no memory for the program's stack");
	return b.sp;
}

static void set_name(void)
{
	static char name[64];
	struct inode *file;

	if (lookup_existing(root_inode, "/.pvm/argv", true, &file))
		return;
	inode_read_kernel(file, 0, name, sizeof(name) - 1);
	process_name = name;
	for (const char *p = name; *p; p++)
		if (*p == '/' && p[1])
			process_name = p + 1;
}

void process_exec(struct inode *file, const char *path, struct regs *regs)
{
	static struct image image;

	set_name();
	load_image(file, &image);
	/* One page to begin with: faults grow the area. */
	if (mmap_inode(STACK_TOP - PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE, VMA_STACK, NULL, 0, 0) < 0)
		panic("no memory for the program's stack");
	regs->rsp = build_stack(&image, path);
	regs->rip = image.header.entry + image.bias;
	regs->rflags = 0x202;
}

/* Memory: physical pages, page tables, the program's address space. */
#pragma once
#include "layout.h"
#include "types.h"

struct inode;

/* ---- page table entries (Intel SDM 3A, 4.5) ---- */
#define PTE_P (1ull << 0)
#define PTE_W (1ull << 1)
#define PTE_U (1ull << 2)
#define PTE_A (1ull << 5)
#define PTE_D (1ull << 6)
#define PTE_PS (1ull << 7)
/* Software: the frame belongs to a file, so unmapping must not free it. */
#define PTE_SHARED (1ull << 9)
#define PTE_NX (1ull << 63)
#define PTE_FRAME 0x000ffffffffff000ull
/* Accessed and dirty are preset: the hypervisor then never has to write an entry. */
#define PTE_KERNEL (PTE_P | PTE_W | PTE_A | PTE_D)
#define PTE_TABLE (PTE_P | PTE_W | PTE_U | PTE_A | PTE_D)

/* Physical address of kernel data, direct-mapped memory or (before relocation) identity-mapped memory. */
static inline u64 virt_to_phys(const volatile void *p)
{
	u64 a = (u64)p;
	if (a >= KERNEL_BASE)
		return a - KERNEL_BASE;
	return a >= DIRECT_BASE ? a - DIRECT_BASE : a;
}

static inline void *phys_to_virt(u64 physical)
{
	return (void *)(DIRECT_BASE + physical);
}

/* ---- physical pages (page_alloc.c) ---- */
/* Physical memory [first, end) is free. */
void pages_init(u64 first, u64 end);
/* A page in the direct map, or NULL when memory is exhausted. */
void *page_alloc(void);
void *page_alloc_zeroed(void);
void page_free(void *page);
u64 pages_free_count(void);
u64 pages_total_count(void);
/* Small kernel objects, zeroed; n <= PAGE_SIZE. NULL when memory is exhausted. */
void *kmalloc(size_t n);
void kfree(void *object, size_t n);

/* ---- page tables (pagetable.c) ---- */
extern u64 page_table_root;
/* Enter a translation for a page that has none. 0 or -ENOMEM. */
result_t map_page(u64 address, u64 entry);
/* The last-level entry of an address, or NULL when its table does not exist. */
u64 *find_entry(u64 address);
void unmap_range(u64 start, u64 end);
void protect_range(u64 start, u64 end, u32 prot);
/* Move the translations of [from, from + length) to `to`. 0 or -ENOMEM. */
result_t move_range(u64 from, u64 to, u64 length);
u64 prot_to_entry(u32 prot);

/* ---- the program's address space (vma.c, mmap.c) ---- */
struct vma {
	u64 start, end;
	u32 prot;
	u32 flags;
	/* Backing file or NULL, file position of `start`, and valid bytes from there (the rest is zero). */
	struct inode *inode;
	u64 offset;
	u64 file_bytes;
	struct vma *previous, *next;
};

/* Beside MAP_SHARED: a stack that grows down; the program's image or heap, in which bytes behind file_bytes are zero instead of SIGBUS. */
#define VMA_STACK 0x10000
#define VMA_IMAGE 0x20000

extern struct vma *vma_first;
/* The area that contains or follows an address. */
struct vma *vma_find(u64 address);
/* Insert [start, start + length), which must be free. Merges anonymous neighbours. 0 or -ENOMEM. */
result_t vma_insert(struct vma area);
result_t vma_remove(u64 start, u64 end);
result_t vma_protect(u64 start, u64 end, u32 prot);
/* A free range of that length (page multiple), or 0. */
u64 vma_find_free(u64 length);
bool vma_range_is_free(u64 start, u64 end);

extern u64 brk_start, brk_end;
result_t mmap_inode(u64 address, u64 length, u32 prot, u32 flags, struct inode *inode, u64 offset, u64 file_bytes);

/* Resolve a fault of the program's memory. 0 or the signal it means. */
#define FAULT_WRITE 2
#define FAULT_FETCH 16
int handle_fault(u64 address, u32 error);

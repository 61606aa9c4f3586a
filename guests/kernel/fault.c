/* Demand paging: what a page fault at a user address means. */
#include "abi.h"
#include "mm.h"
#include "paravirt/paravirt.h"
#include "string.h"
#include "vfs.h"

/* Bytes of the program's image or heap that are mapped together, and free pages that must be there for that. */
#define AROUND_BYTES (16 * PAGE_SIZE)
#define FREE_FOR_AROUND 1024

static bool access_allowed(const struct vma *v, u32 error)
{
	if (error & FAULT_FETCH)
		return v->prot & PROT_EXEC;
	if (error & FAULT_WRITE)
		return v->prot & PROT_WRITE;
	return v->prot & (PROT_READ | PROT_WRITE | PROT_EXEC);
}

/* The stack area grows to the faulting page, within its limit. */
static bool grow_stack(struct vma *v, u64 page)
{
	if (!(v->flags & VMA_STACK) || v->end - page > STACK_LIMIT)
		return false;
	if (v->previous && v->previous->end > page)
		return false;
	v->start = page;
	return true;
}

/* A frame with the file's contents for one page of a private area. NULL: out of memory. */
static void *private_file_page(const struct vma *v, u64 page)
{
	u64 distance = page - v->start;
	u64 valid = v->file_bytes > distance ? min_u64(v->file_bytes - distance, PAGE_SIZE) : 0;
	u8 *frame = page_alloc();

	if (!frame)
		return NULL;
	u64 n = inode_read_kernel(v->inode, v->offset + distance, frame, valid);
	memset(frame + n, 0, PAGE_SIZE - n);
	return frame;
}

/* A frame for one page of an area that is not shared. NULL: out of memory. */
static void *private_page(const struct vma *v, u64 page)
{
	return v->inode ? private_file_page(v, page) : page_alloc_zeroed();
}

/*
 * The other pages of a block of the program's image or heap. Their frames follow one another, so that a table which lies in several
 * pages is in one piece for whoever looks their translations up ahead, and the program faults less often.
 */
static void map_around(const struct vma *v, u64 page)
{
	u64 first = max_u64(v->start, ALIGN_DOWN(page, AROUND_BYTES));
	u64 end = min_u64(v->end, ALIGN_DOWN(page, AROUND_BYTES) + AROUND_BYTES);

	for (u64 p = first; p < end; p += PAGE_SIZE) {
		u64 *entry = find_entry(p);
		if (entry && *entry)
			continue;
		void *frame = private_page(v, p);
		if (!frame || map_page(p, virt_to_phys(frame) | prot_to_entry(v->prot)))
			return;
	}
}

int handle_fault(u64 address, u32 error)
{
	u64 page = address & PAGE_MASK;
	struct vma *v = vma_find(page);
	u64 software = 0;
	void *frame;

	if (!v || (v->start > page && !grow_stack(v, page)) || !access_allowed(v, error))
		return SIGSEGV;
	u64 *entry = find_entry(page);
	if (entry && (*entry & PTE_P))
		return 0;
	if ((v->flags & VMA_IMAGE) && pages_free_count() > FREE_FOR_AROUND) {
		map_around(v, page);
		entry = find_entry(page);
		return entry && (*entry & PTE_P) ? 0 : SIGKILL;
	}
	if (!v->inode) {
		frame = page_alloc_zeroed();
	} else {
		u64 position = v->offset + (page - v->start);
		if (!(v->flags & VMA_IMAGE) && position >= v->inode->size)
			return SIGBUS;
		if (v->flags & MAP_SHARED) {
			frame = inode_page(v->inode, position, true);
			software = PTE_SHARED;
		} else {
			frame = private_file_page(v, page);
		}
	}
	if (!frame || map_page(page, virt_to_phys(frame) | prot_to_entry(v->prot) | software))
		return SIGKILL;
	return 0;
}

/* Physical pages: a bump pointer over never-used memory and a list of freed pages. */
#include "mm.h"
#include "string.h"

struct free_page {
	struct free_page *next;
};

static struct free_page *free_list;
static u64 bump, bump_end, free_count, total_count;

void pages_init(u64 first, u64 end)
{
	bump = ALIGN_UP(first, PAGE_SIZE);
	bump_end = ALIGN_DOWN(end, PAGE_SIZE);
	total_count = (bump_end - bump) / PAGE_SIZE;
	free_count = total_count;
}

void *page_alloc(void)
{
	void *page = free_list;

	if (page) {
		free_list = free_list->next;
	} else if (bump < bump_end) {
		page = phys_to_virt(bump);
		bump += PAGE_SIZE;
	} else {
		return NULL;
	}
	free_count--;
	return page;
}

void *page_alloc_zeroed(void)
{
	void *page = page_alloc();
	return page ? memset(page, 0, PAGE_SIZE) : NULL;
}

void page_free(void *page)
{
	struct free_page *p = page;

	p->next = free_list;
	free_list = p;
	free_count++;
}

u64 pages_free_count(void)
{
	return free_count;
}

u64 pages_total_count(void)
{
	return total_count;
}

/* Objects come in powers of two from 32 bytes; freed ones are kept for the next of their size. */
static struct free_page *free_objects[PAGE_SHIFT + 1];

static u32 size_class(size_t n)
{
	u32 class = 5;
	while ((1u << class) < n)
		class++;
	return class;
}

void *kmalloc(size_t n)
{
	u32 class = size_class(n);
	u64 size = 1ull << class;

	if (!free_objects[class]) {
		u8 *page = page_alloc();
		if (!page)
			return NULL;
		for (u64 i = 0; i < PAGE_SIZE; i += size)
			kfree(page + i, n);
	}
	struct free_page *object = free_objects[class];
	free_objects[class] = object->next;
	return memset(object, 0, size);
}

void kfree(void *object, size_t n)
{
	struct free_page *o = object;
	u32 class = size_class(n);

	o->next = free_objects[class];
	free_objects[class] = o;
}

/* The program's virtual memory areas: a list sorted by address, adjacent areas of one kind merged. */
#include "abi.h"
#include "mm.h"
#include "vfs.h"

struct vma *vma_first;
static struct vma *last_found;

struct vma *vma_find(u64 address)
{
	struct vma *v = last_found;

	if (v && v->start <= address && address < v->end)
		return v;
	for (v = vma_first; v && v->end <= address; v = v->next)
		;
	last_found = v;
	return v;
}

bool vma_range_is_free(u64 start, u64 end)
{
	struct vma *v = vma_find(start);
	return !v || v->start >= end;
}

static void unlink_area(struct vma *v)
{
	if (v->previous)
		v->previous->next = v->next;
	else
		vma_first = v->next;
	if (v->next)
		v->next->previous = v->previous;
	if (last_found == v)
		last_found = NULL;
	if (v->inode)
		inode_put(v->inode);
	kfree(v, sizeof(*v));
}

static void link_area(struct vma *v, struct vma *previous)
{
	v->previous = previous;
	v->next = previous ? previous->next : vma_first;
	if (previous)
		previous->next = v;
	else
		vma_first = v;
	if (v->next)
		v->next->previous = v;
}

static bool can_merge(const struct vma *a, const struct vma *b)
{
	return a->end == b->start && a->prot == b->prot && a->flags == b->flags &&
	       !a->inode && !b->inode && !(a->flags & VMA_STACK);
}

/* Merge v with the area after it where possible. */
static void merge_next(struct vma *v)
{
	if (v && v->next && can_merge(v, v->next)) {
		v->end = v->next->end;
		unlink_area(v->next);
	}
}

result_t vma_insert(struct vma area)
{
	struct vma *previous = NULL;
	struct vma *v = kmalloc(sizeof(*v));

	if (!v)
		return -ENOMEM;
	for (struct vma *p = vma_first; p && p->start < area.start; p = p->next)
		previous = p;
	*v = area;
	if (v->inode)
		inode_get(v->inode);
	link_area(v, previous);
	merge_next(v);
	merge_next(previous);
	return 0;
}

/* Make `address` a border between areas. 0 or -ENOMEM. */
static result_t split(u64 address)
{
	struct vma *v = vma_find(address);

	if (!v || v->start >= address)
		return 0;
	struct vma *upper = kmalloc(sizeof(*upper));
	if (!upper)
		return -ENOMEM;
	u64 distance = address - v->start;
	*upper = *v;
	upper->start = address;
	upper->offset += distance;
	upper->file_bytes -= min_u64(upper->file_bytes, distance);
	v->file_bytes = min_u64(v->file_bytes, distance);
	v->end = address;
	if (upper->inode)
		inode_get(upper->inode);
	link_area(upper, v);
	return 0;
}

static result_t split_both(u64 start, u64 end)
{
	result_t r = split(start);
	return r ? r : split(end);
}

result_t vma_remove(u64 start, u64 end)
{
	result_t r = split_both(start, end);

	if (r)
		return r;
	for (struct vma *v = vma_find(start), *next; v && v->start < end; v = next) {
		next = v->next;
		unmap_range(v->start, v->end);
		unlink_area(v);
	}
	return 0;
}

result_t vma_protect(u64 start, u64 end, u32 prot)
{
	u64 covered = start;

	for (struct vma *v = vma_find(start); v && v->start <= covered && covered < end; v = v->next)
		covered = v->end;
	if (covered < end)
		return -ENOMEM;
	result_t r = split_both(start, end);
	if (r)
		return r;
	for (struct vma *v = vma_find(start); v && v->start < end; v = v->next) {
		v->prot = prot;
		protect_range(v->start, v->end, prot);
	}
	for (struct vma *v = vma_first; v; v = v->next)
		while (v->next && can_merge(v, v->next))
			merge_next(v);
	return 0;
}

u64 vma_find_free(u64 length)
{
	u64 top = MMAP_TOP;
	struct vma *v = vma_first;

	if (length > MMAP_TOP)
		return 0;
	while (v && v->next)
		v = v->next;
	for (; v; v = v->previous) {
		if (v->end <= top && top - v->end >= length)
			return top - length;
		top = min_u64(top, v->start);
	}
	return top >= length + TASK_START ? top - length : 0;
}

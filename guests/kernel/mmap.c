/* The system calls on the address space. */
#include "abi.h"
#include "mm.h"
#include "syscall.h"
#include "vfs.h"

u64 brk_start, brk_end;

static bool bad_range(u64 address, u64 length)
{
	return (address & (PAGE_SIZE - 1)) || length > TASK_SIZE || address > TASK_SIZE - length;
}

result_t mmap_inode(u64 address, u64 length, u32 prot, u32 flags, struct inode *inode, u64 offset, u64 file_bytes)
{
	struct vma area = {
		.start = address,
		.end = address + length,
		.prot = prot & (PROT_READ | PROT_WRITE | PROT_EXEC),
		.flags = flags & (MAP_SHARED | VMA_IMAGE | VMA_STACK),
		.inode = inode,
		.offset = offset,
		.file_bytes = file_bytes,
	};
	result_t r = vma_insert(area);
	return r ? r : (result_t)address;
}

result_t sys_mmap(u64 address, u64 length, u64 prot, u64 flags, u64 fd, u64 offset)
{
	struct inode *inode = NULL;

	length = ALIGN_UP(length, PAGE_SIZE);
	if (!length || (offset & (PAGE_SIZE - 1)))
		return -EINVAL;
	/* Like Linux by default, refuse only what can never be touched in full. */
	if ((prot & PROT_WRITE) && !(flags & MAP_NORESERVE) && length / PAGE_SIZE > pages_total_count())
		return -ENOMEM;
	if (!(flags & MAP_ANONYMOUS)) {
		struct file *file = file_get((int)fd);
		if (!file)
			return -EBADF;
		if (file->inode->ops == &zero_ops)
			flags |= MAP_ANONYMOUS;
		else if (!S_ISREG(file->inode->mode))
			return -ENODEV;
		else
			inode = file->inode;
		if (inode && (flags & MAP_SHARED) && (prot & PROT_WRITE) && !(file->flags & O_RDWR))
			return -EACCES;
	}
	if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
		if (bad_range(address, length))
			return -EINVAL;
		if (address < TASK_START)
			return -EPERM;
		if (flags & MAP_FIXED_NOREPLACE) {
			if (!vma_range_is_free(address, address + length))
				return -EEXIST;
		} else {
			result_t r = vma_remove(address, address + length);
			if (r)
				return r;
		}
	} else if (!address || bad_range(address, length) || address < TASK_START ||
		   !vma_range_is_free(address, address + length)) {
		address = vma_find_free(length);
		if (!address)
			return -ENOMEM;
	}
	result_t r = mmap_inode(address, length, (u32)prot, inode ? (u32)flags & MAP_SHARED : 0, inode, offset, ~0ull);
	if (r > 0 && (flags & MAP_POPULATE))
		for (u64 a = address; a < address + length; a += PAGE_SIZE)
			handle_fault(a, prot & PROT_WRITE ? FAULT_WRITE : 0);
	return r;
}

result_t sys_munmap(u64 address, u64 length)
{
	length = ALIGN_UP(length, PAGE_SIZE);
	if (!length || bad_range(address, length))
		return -EINVAL;
	return vma_remove(address, address + length);
}

result_t sys_mprotect(u64 address, u64 length, u64 prot)
{
	length = ALIGN_UP(length, PAGE_SIZE);
	if (bad_range(address, length) || (prot & ~7ull))
		return -EINVAL;
	return length ? vma_protect(address, address + length, (u32)prot) : 0;
}

result_t sys_brk(u64 address)
{
	u64 old = ALIGN_UP(brk_end, PAGE_SIZE), new = ALIGN_UP(address, PAGE_SIZE);

	if (address < brk_start || address >= TASK_SIZE)
		return (result_t)brk_end;
	if (new > old) {
		if (!vma_range_is_free(old, new) || (new - old) / PAGE_SIZE > pages_free_count())
			return (result_t)brk_end;
		if (mmap_inode(old, new - old, PROT_READ | PROT_WRITE, VMA_IMAGE, NULL, 0, 0) < 0)
			return (result_t)brk_end;
	} else if (new < old) {
		vma_remove(new, old);
	}
	brk_end = address;
	return (result_t)brk_end;
}

result_t sys_mremap(u64 address, u64 old_length, u64 new_length, u64 flags, u64 new_address)
{
	old_length = ALIGN_UP(old_length, PAGE_SIZE);
	new_length = ALIGN_UP(new_length, PAGE_SIZE);
	if (!new_length || !old_length || bad_range(address, old_length))
		return -EINVAL;
	struct vma *v = vma_find(address);
	if (!v || v->start > address || v->end < address + old_length)
		return -EFAULT;
	if (!(flags & MREMAP_FIXED)) {
		if (new_length <= old_length) {
			if (new_length < old_length)
				vma_remove(address + new_length, address + old_length);
			return (result_t)address;
		}
		if (v->end == address + old_length && !bad_range(address, new_length) &&
		    vma_range_is_free(v->end, address + new_length)) {
			v->end = address + new_length;
			return (result_t)address;
		}
		if (!(flags & MREMAP_MAYMOVE))
			return -ENOMEM;
		new_address = vma_find_free(new_length);
		if (!new_address)
			return -ENOMEM;
	} else {
		bool overlap = new_address < address + old_length && address < new_address + new_length;
		if (bad_range(new_address, new_length) || new_address < TASK_START || overlap)
			return -EINVAL;
		result_t removed = vma_remove(new_address, new_address + new_length);
		if (removed)
			return removed;
		/* That may have split the area. */
		v = vma_find(address);
	}
	u64 distance = address - v->start;
	result_t r = mmap_inode(new_address, new_length, v->prot, v->flags, v->inode, v->offset + distance,
				v->file_bytes - min_u64(v->file_bytes, distance));
	if (r < 0)
		return r;
	r = move_range(address, new_address, min_u64(old_length, new_length));
	vma_remove(address, address + old_length);
	return r ? r : (result_t)new_address;
}

result_t sys_madvise(u64 address, u64 length, u64 advice)
{
	length = ALIGN_UP(length, PAGE_SIZE);
	if (bad_range(address, length))
		return -EINVAL;
	if (advice == MADV_DONTNEED)
		unmap_range(address, address + length);
	return 0;
}

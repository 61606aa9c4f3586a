/* Contents of regular files and symlinks, in memory. Initrd data is used in place until it is written. */
#include "mm.h"
#include "string.h"
#include "timekeeping.h"
#include "uaccess.h"
#include "vfs.h"

#define PER_TABLE (PAGE_SIZE / sizeof(void *))
#define MAX_SIZE (PER_TABLE * PER_TABLE * PAGE_SIZE)

static u8 **page_slot(struct inode *inode, u64 position, bool create)
{
	u64 index = position / PAGE_SIZE;

	if (position >= MAX_SIZE)
		return NULL;
	if (!inode->pages && (!create || !(inode->pages = page_alloc_zeroed())))
		return NULL;
	u8 ***table = &inode->pages[index / PER_TABLE];
	if (!*table && (!create || !(*table = page_alloc_zeroed())))
		return NULL;
	return &(*table)[index % PER_TABLE];
}

/* Move initrd contents into pages of their own. False: out of memory. */
static bool own_contents(struct inode *inode)
{
	const u8 *data = inode->data;

	if (!data)
		return true;
	for (u64 p = 0; p < inode->size; p += PAGE_SIZE) {
		u8 **slot = page_slot(inode, p, true);
		if (!slot || !(*slot = page_alloc_zeroed()))
			return false;
		memcpy(*slot, data + p, min_u64(PAGE_SIZE, inode->size - p));
	}
	inode->data = NULL;
	return true;
}

u8 *inode_page(struct inode *inode, u64 position, bool create)
{
	if (!own_contents(inode))
		return NULL;
	u8 **slot = page_slot(inode, position, create);
	if (slot && !*slot && create)
		*slot = page_alloc_zeroed();
	return slot ? *slot : NULL;
}

static const u8 *chunk_at(struct inode *inode, u64 position)
{
	if (inode->data)
		return inode->data + position;
	u8 **slot = page_slot(inode, position, false);
	return slot && *slot ? *slot + (position & (PAGE_SIZE - 1)) : NULL;
}

static u64 chunk_length(const struct inode *inode, u64 position, u64 n)
{
	n = min_u64(n, inode->size - position);
	return inode->data ? n : min_u64(n, PAGE_SIZE - (position & (PAGE_SIZE - 1)));
}

u64 inode_read_kernel(struct inode *inode, u64 position, void *to, u64 n)
{
	u64 done = 0;

	while (done < n && position + done < inode->size) {
		u64 length = chunk_length(inode, position + done, n - done);
		const u8 *chunk = chunk_at(inode, position + done);
		if (chunk)
			memcpy((u8 *)to + done, chunk, length);
		else
			memset((u8 *)to + done, 0, length);
		done += length;
	}
	return done;
}

static result_t ramfile_read(struct inode *inode, u64 position, uaddr_t to, u64 n)
{
	u64 done = 0;

	if (S_ISDIR(inode->mode))
		return -EISDIR;
	while (done < n && position + done < inode->size) {
		u64 length = chunk_length(inode, position + done, n - done);
		const u8 *chunk = chunk_at(inode, position + done);
		if (chunk ? copy_to_user(to + done, chunk, length) : clear_user(to + done, length))
			return done ? (result_t)done : -EFAULT;
		done += length;
	}
	return (result_t)done;
}

static result_t ramfile_write(struct inode *inode, u64 position, uaddr_t from, u64 n)
{
	u64 done = 0;

	if (position >= MAX_SIZE)
		return -EFBIG;
	while (done < n) {
		u64 at = position + done;
		u64 length = min_u64(n - done, PAGE_SIZE - (at & (PAGE_SIZE - 1)));
		u8 *page = inode_page(inode, at, true);
		if (!page)
			return done ? (result_t)done : -ENOSPC;
		if (copy_from_user(page + (at & (PAGE_SIZE - 1)), from + done, length))
			return done ? (result_t)done : -EFAULT;
		done += length;
		inode->size = max_u64(inode->size, position + done);
	}
	inode->mtime = time_now(CLOCK_REALTIME);
	return (result_t)done;
}

/* Frames beyond the new end stay with the file, cleared: a mapping may still name them. */
result_t inode_truncate(struct inode *inode, u64 size)
{
	if (size > MAX_SIZE)
		return -EFBIG;
	if (!own_contents(inode))
		return -ENOSPC;
	for (u64 p = size; p < inode->size; p = ALIGN_DOWN(p, PAGE_SIZE) + PAGE_SIZE) {
		u8 **slot = page_slot(inode, p, false);
		u64 offset = p & (PAGE_SIZE - 1);
		if (slot && *slot)
			memset(*slot + offset, 0, PAGE_SIZE - offset);
	}
	inode->size = size;
	inode->mtime = time_now(CLOCK_REALTIME);
	return 0;
}

void inode_free_data(struct inode *inode)
{
	for (u64 i = 0; inode->pages && i < PER_TABLE; i++) {
		for (u64 j = 0; inode->pages[i] && j < PER_TABLE; j++)
			if (inode->pages[i][j])
				page_free(inode->pages[i][j]);
		if (inode->pages[i])
			page_free(inode->pages[i]);
	}
	if (inode->pages)
		page_free(inode->pages);
}

const struct inode_ops ramfile_ops = { ramfile_read, ramfile_write };

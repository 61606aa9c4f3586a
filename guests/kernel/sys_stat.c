/* System calls on what is known about files: size, kind, mode, times, free space. */
#include "mm.h"
#include "syscall.h"
#include "timekeeping.h"
#include "uaccess.h"
#include "vfs.h"

static result_t put_stat(const struct inode *inode, uaddr_t to)
{
	struct stat s = {
		.st_dev = 1,
		.st_ino = inode->ino,
		.st_nlink = S_ISDIR(inode->mode) ? 2 : inode->linked,
		.st_mode = inode->mode,
		.st_rdev = inode->rdev,
		.st_size = (s64)inode->size,
		.st_blksize = PAGE_SIZE,
		.st_blocks = (s64)(inode->size + 511) / 512,
		.st_atime = (u64)inode->mtime.tv_sec,
		.st_mtime = (u64)inode->mtime.tv_sec,
		.st_mtime_nsec = (u64)inode->mtime.tv_nsec,
		.st_ctime = (u64)inode->mtime.tv_sec,
	};
	return PUT_USER(to, s);
}

result_t sys_newfstatat(u64 dirfd, uaddr_t path, uaddr_t to, u64 flags)
{
	struct inode *inode;
	char first;

	if ((flags & AT_EMPTY_PATH) && !GET_USER(first, path) && !first)
		return (int)dirfd == AT_FDCWD ? put_stat(current_directory, to) : sys_fstat(dirfd, to);
	result_t r = user_inode(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), &inode);
	return r ? r : put_stat(inode, to);
}

result_t sys_stat(uaddr_t path, uaddr_t to)
{
	return sys_newfstatat((u64)AT_FDCWD, path, to, 0);
}

result_t sys_lstat(uaddr_t path, uaddr_t to)
{
	return sys_newfstatat((u64)AT_FDCWD, path, to, AT_SYMLINK_NOFOLLOW);
}

result_t sys_fstat(u64 fd, uaddr_t to)
{
	struct file *file = file_get((int)fd);
	return file ? put_stat(file->inode, to) : -EBADF;
}

static result_t put_statfs(uaddr_t to)
{
	struct statfs s = {
		.type = 0x01021994, /* TMPFS_MAGIC */
		.block_size = PAGE_SIZE,
		.blocks = pages_total_count(),
		.free = pages_free_count(),
		.available = pages_free_count(),
		.name_length = NAME_MAX,
		.fragment = PAGE_SIZE,
	};
	return PUT_USER(to, s);
}

result_t sys_statfs(uaddr_t path, uaddr_t to)
{
	struct inode *inode;
	result_t r = user_inode((u64)AT_FDCWD, path, true, &inode);
	return r ? r : put_statfs(to);
}

result_t sys_fstatfs(u64 fd, uaddr_t to)
{
	return file_get((int)fd) ? put_statfs(to) : -EBADF;
}

static result_t change_mode(struct inode *inode, u64 mode)
{
	inode->mode = (inode->mode & S_IFMT) | ((u32)mode & 07777);
	return 0;
}

result_t sys_fchmodat(u64 dirfd, uaddr_t path, u64 mode)
{
	struct inode *inode;
	result_t r = user_inode(dirfd, path, true, &inode);
	return r ? r : change_mode(inode, mode);
}

result_t sys_chmod(uaddr_t path, u64 mode)
{
	return sys_fchmodat((u64)AT_FDCWD, path, mode);
}

result_t sys_fchmod(u64 fd, u64 mode)
{
	struct file *file = file_get((int)fd);
	return file ? change_mode(file->inode, mode) : -EBADF;
}

result_t sys_utimensat(u64 dirfd, uaddr_t path, uaddr_t times, u64 flags)
{
	struct inode *inode;
	struct timespec t[2];
	struct file *file = path ? NULL : file_get((int)dirfd);
	result_t r = 0;

	if (path)
		r = user_inode(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), &inode);
	else if (file)
		inode = file->inode;
	else
		r = -EBADF;
	if (r)
		return r;
	inode->mtime = time_now(CLOCK_REALTIME);
	if (times) {
		if (GET_USER(t, times))
			return -EFAULT;
		/* UTIME_NOW and UTIME_OMIT are above any nanosecond count. */
		if (t[1].tv_nsec < 1000000000)
			inode->mtime = t[1];
	}
	return 0;
}

/* System calls on the tree of files. */
#include "mm.h"
#include "string.h"
#include "syscall.h"
#include "timekeeping.h"
#include "uaccess.h"
#include "vfs.h"

/* Resolve a user path relative to a directory descriptor. */
static result_t user_lookup(u64 dirfd, uaddr_t user_path, bool follow, struct lookup *l)
{
	static char path[PATH_MAX];
	struct inode *base = current_directory;
	result_t r = string_from_user(path, user_path, sizeof(path));

	if (r < 0)
		return r;
	if ((int)dirfd != AT_FDCWD && path[0] != '/') {
		struct file *file = file_get((int)dirfd);
		if (!file)
			return -EBADF;
		base = file->inode;
	}
	return lookup_path(base, path, follow, l);
}

static result_t user_inode(u64 dirfd, uaddr_t path, bool follow, struct inode **inode)
{
	struct lookup l;
	result_t r = user_lookup(dirfd, path, follow, &l);

	if (r)
		return r;
	*inode = l.found;
	return l.found ? 0 : -ENOENT;
}

result_t sys_openat(u64 dirfd, uaddr_t path, u64 flags, u64 mode)
{
	struct lookup l;
	bool created = false;
	result_t r = user_lookup(dirfd, path, !(flags & O_NOFOLLOW), &l);

	if (r)
		return r;
	if (!l.found) {
		if (!(flags & O_CREAT))
			return -ENOENT;
		l.found = inode_create(l.parent, l.last, S_IFREG | ((u32)mode & 07777));
		if (!l.found)
			return -ENOSPC;
		created = true;
	} else if ((flags & O_CREAT) && (flags & O_EXCL)) {
		return -EEXIST;
	}
	if (S_ISLNK(l.found->mode))
		return -ELOOP;
	if ((flags & O_DIRECTORY) && !S_ISDIR(l.found->mode))
		return -ENOTDIR;
	if ((flags & O_ACCMODE) && S_ISDIR(l.found->mode))
		return -EISDIR;
	if ((flags & O_TRUNC) && (flags & O_ACCMODE) && !created && S_ISREG(l.found->mode)) {
		r = inode_truncate(l.found, 0);
		if (r)
			return r;
	}
	return file_open(l.found, (u32)flags, 0);
}

result_t sys_open(uaddr_t path, u64 flags, u64 mode)
{
	return sys_openat((u64)AT_FDCWD, path, flags, mode);
}

result_t sys_creat(uaddr_t path, u64 mode)
{
	return sys_openat((u64)AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

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

/* The program is root: what exists may be accessed, and executed if any execute bit is set. */
result_t sys_faccessat(u64 dirfd, uaddr_t path, u64 mode)
{
	struct inode *inode;
	result_t r = user_inode(dirfd, path, true, &inode);

	if (r)
		return r;
	return (mode & 1) && !S_ISDIR(inode->mode) && !(inode->mode & 0111) ? -EACCES : 0;
}

result_t sys_access(uaddr_t path, u64 mode)
{
	return sys_faccessat((u64)AT_FDCWD, path, mode);
}

result_t sys_readlinkat(u64 dirfd, uaddr_t path, uaddr_t to, u64 n)
{
	struct inode *inode;
	char target[512];
	result_t r = user_inode(dirfd, path, false, &inode);

	if (r)
		return r;
	if (!S_ISLNK(inode->mode))
		return -EINVAL;
	u64 length = inode_read_kernel(inode, 0, target, min_u64(n, sizeof(target)));
	return copy_to_user(to, target, length) ? -EFAULT : (result_t)length;
}

result_t sys_readlink(uaddr_t path, uaddr_t to, u64 n)
{
	return sys_readlinkat((u64)AT_FDCWD, path, to, n);
}

result_t sys_getcwd(uaddr_t to, u64 n)
{
	static char path[PATH_MAX];
	u64 length = inode_path(current_directory, path, sizeof(path)) + 1;

	if (length > n)
		return -ERANGE;
	return copy_to_user(to, path, length) ? -EFAULT : (result_t)length;
}

static result_t change_directory(struct inode *inode)
{
	if (!S_ISDIR(inode->mode))
		return -ENOTDIR;
	inode_get(inode);
	inode_put(current_directory);
	current_directory = inode;
	return 0;
}

result_t sys_chdir(uaddr_t path)
{
	struct inode *inode;
	result_t r = user_inode((u64)AT_FDCWD, path, true, &inode);
	return r ? r : change_directory(inode);
}

result_t sys_fchdir(u64 fd)
{
	struct file *file = file_get((int)fd);
	return file ? change_directory(file->inode) : -EBADF;
}

struct dirent64 {
	u64 ino;
	s64 offset;
	u16 record_length;
	u8 type;
	char name[];
} PACKED;

static result_t put_dirent(uaddr_t to, u64 room, const struct inode *inode, const char *name, u64 next)
{
	u64 name_size = strlen(name) + 1;
	u64 length = ALIGN_UP(sizeof(struct dirent64) + name_size, 8);
	struct dirent64 d = {
		.ino = inode->ino,
		.offset = (s64)next,
		.record_length = (u16)length,
		.type = (u8)((inode->mode & S_IFMT) >> 12),
	};

	if (length > room)
		return -EINVAL;
	if (PUT_USER(to, d) || copy_to_user(to + sizeof(d), name, name_size))
		return -EFAULT;
	return (result_t)length;
}

/* The file position counts entries: ".", "..", then the children. */
result_t sys_getdents64(u64 fd, uaddr_t to, u64 n)
{
	struct file *file = file_get((int)fd);
	u64 done = 0;

	if (!file)
		return -EBADF;
	if (!S_ISDIR(file->inode->mode))
		return -ENOTDIR;
	struct inode *child = file->inode->children;
	for (u64 i = 2; i < file->position && child; i++)
		child = child->sibling;
	for (;; file->position++) {
		const struct inode *entry = file->position == 0 ? file->inode :
					    file->position == 1 ? file->inode->parent : child;
		const char *name = file->position == 0 ? "." : file->position == 1 ? ".." : "";
		if (!entry)
			return (result_t)done;
		result_t r = put_dirent(to + done, n - done, entry, *name ? name : entry->name, file->position + 1);
		if (r < 0)
			return done ? (result_t)done : r;
		done += (u64)r;
		if (file->position >= 2)
			child = child->sibling;
	}
}

result_t sys_unlinkat(u64 dirfd, uaddr_t path, u64 flags)
{
	struct lookup l;
	bool directory = flags & AT_REMOVEDIR;
	result_t r = user_lookup(dirfd, path, false, &l);

	if (r)
		return r;
	if (!l.found)
		return -ENOENT;
	if (directory != S_ISDIR(l.found->mode))
		return directory ? -ENOTDIR : -EISDIR;
	if (l.found->children)
		return -ENOTEMPTY;
	if (l.found == root_inode)
		return -EBUSY;
	inode_unlink(l.found);
	return 0;
}

result_t sys_unlink(uaddr_t path)
{
	return sys_unlinkat((u64)AT_FDCWD, path, 0);
}

result_t sys_rmdir(uaddr_t path)
{
	return sys_unlinkat((u64)AT_FDCWD, path, AT_REMOVEDIR);
}

result_t sys_mkdirat(u64 dirfd, uaddr_t path, u64 mode)
{
	struct lookup l;
	result_t r = user_lookup(dirfd, path, true, &l);

	if (r)
		return r;
	if (l.found)
		return -EEXIST;
	return inode_create(l.parent, l.last, S_IFDIR | ((u32)mode & 07777)) ? 0 : -ENOSPC;
}

result_t sys_mkdir(uaddr_t path, u64 mode)
{
	return sys_mkdirat((u64)AT_FDCWD, path, mode);
}

result_t sys_renameat(u64 from_fd, uaddr_t from, u64 to_fd, uaddr_t to)
{
	struct lookup source, target;
	result_t r = user_lookup(from_fd, from, false, &source);

	if (!r)
		r = user_lookup(to_fd, to, false, &target);
	if (r)
		return r;
	if (!source.found)
		return -ENOENT;
	if (source.found == target.found)
		return 0;
	/* A directory cannot become its own descendant. */
	for (struct inode *p = target.parent; p != root_inode; p = p->parent)
		if (p == source.found)
			return -EINVAL;
	if (source.found == root_inode || target.found == root_inode)
		return -EBUSY;
	if (target.found) {
		if (S_ISDIR(target.found->mode) != S_ISDIR(source.found->mode))
			return S_ISDIR(target.found->mode) ? -EISDIR : -ENOTDIR;
		if (target.found->children)
			return -ENOTEMPTY;
		inode_unlink(target.found);
	}
	inode_move(source.found, target.parent, target.last);
	return 0;
}

result_t sys_rename(uaddr_t from, uaddr_t to)
{
	return sys_renameat((u64)AT_FDCWD, from, (u64)AT_FDCWD, to);
}

result_t sys_symlink(uaddr_t target, uaddr_t path)
{
	struct lookup l;
	char text[512];
	result_t length = string_from_user(text, target, sizeof(text));
	result_t r = length < 0 ? length : user_lookup((u64)AT_FDCWD, path, false, &l);

	if (r)
		return r;
	if (l.found)
		return -EEXIST;
	struct inode *inode = inode_create(l.parent, l.last, S_IFLNK | 0777);
	u8 *page = inode ? inode_page(inode, 0, true) : NULL;
	if (!page)
		return -ENOSPC;
	memcpy(page, text, (u64)length);
	inode->size = (u64)length;
	return 0;
}

result_t sys_truncate(uaddr_t path, u64 size)
{
	struct inode *inode;
	result_t r = user_inode((u64)AT_FDCWD, path, true, &inode);

	if (r)
		return r;
	return S_ISREG(inode->mode) ? inode_truncate(inode, size) : -EINVAL;
}

result_t sys_ftruncate(u64 fd, u64 size)
{
	struct file *file = file_get((int)fd);

	if (!file)
		return -EBADF;
	return S_ISREG(file->inode->mode) && (file->flags & O_ACCMODE) ? inode_truncate(file->inode, size) : -EINVAL;
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

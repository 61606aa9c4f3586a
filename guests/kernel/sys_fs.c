/* System calls on the tree of files. */
#include "mm.h"
#include "string.h"
#include "syscall.h"
#include "uaccess.h"
#include "vfs.h"

result_t user_lookup(u64 dirfd, uaddr_t user_path, bool follow, struct lookup *l)
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

result_t user_inode(u64 dirfd, uaddr_t path, bool follow, struct inode **inode)
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

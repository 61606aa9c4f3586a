/* The descriptor table. */
#include "vfs.h"
#include "mm.h"
#include "panic.h"
#include "string.h"
#include "syscall.h"

static struct {
	struct file *file;
	bool close_on_exec;
} table[FD_MAX];

struct file *file_get(int fd)
{
	return fd >= 0 && fd < FD_MAX ? table[fd].file : NULL;
}

static result_t free_descriptor(int from)
{
	if (from < 0)
		return -EINVAL;
	for (int fd = from; fd < FD_MAX; fd++)
		if (!table[fd].file)
			return fd;
	return -EMFILE;
}

result_t file_open(struct inode *inode, u32 flags, int from)
{
	result_t fd = free_descriptor(from);

	if (fd < 0)
		return fd;
	struct file *file = kmalloc(sizeof(*file));
	if (!file)
		return -ENOMEM;
	inode_get(inode);
	file->inode = inode;
	file->flags = flags & ~(u32)(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC);
	file->refs = 1;
	table[fd].file = file;
	table[fd].close_on_exec = flags & O_CLOEXEC;
	return fd;
}

result_t sys_close(u64 descriptor)
{
	int fd = (int)descriptor;
	struct file *file = file_get(fd);

	if (!file)
		return -EBADF;
	table[fd].file = NULL;
	if (!--file->refs) {
		inode_put(file->inode);
		kfree(file, sizeof(*file));
	}
	return 0;
}

result_t file_duplicate(int old, int from, bool exact, u32 flags)
{
	struct file *file = file_get(old);

	if (!file)
		return -EBADF;
	if (exact && (from < 0 || from >= FD_MAX))
		return -EBADF;
	if (exact && from == old)
		return old;
	if (exact && table[from].file)
		sys_close((u64)from);
	result_t fd = exact ? from : free_descriptor(from);
	if (fd < 0)
		return fd;
	file->refs++;
	table[fd].file = file;
	table[fd].close_on_exec = flags & O_CLOEXEC;
	return fd;
}

result_t sys_dup(u64 fd)
{
	return file_duplicate((int)fd, 0, false, 0);
}

result_t sys_dup2(u64 old, u64 new)
{
	return file_duplicate((int)old, (int)new, true, 0);
}

result_t sys_dup3(u64 old, u64 new, u64 flags)
{
	return old == new ? -EINVAL : file_duplicate((int)old, (int)new, true, (u32)flags);
}

result_t sys_fcntl(u64 descriptor, u64 command, u64 argument)
{
	int fd = (int)descriptor;
	struct file *file = file_get(fd);

	if (!file)
		return -EBADF;
	switch (command) {
	case F_DUPFD:
		return file_duplicate(fd, (int)argument, false, 0);
	case F_DUPFD_CLOEXEC:
		return file_duplicate(fd, (int)argument, false, O_CLOEXEC);
	case F_GETFD:
		return table[fd].close_on_exec ? FD_CLOEXEC : 0;
	case F_SETFD:
		table[fd].close_on_exec = argument & FD_CLOEXEC;
		return 0;
	case F_GETFL:
		return file->flags;
	case F_SETFL:
		file->flags = (file->flags & ~(u32)(O_APPEND | O_NONBLOCK)) | (argument & (O_APPEND | O_NONBLOCK));
		return 0;
	default:
		return -EINVAL;
	}
}

void files_init(void)
{
	static const char *const paths[] = { "/dev/stdin", "/dev/stdout", "/dev/stderr" };

	for (u32 i = 0; i < ARRAY_SIZE(paths); i++) {
		struct inode *inode;
		if (lookup_existing(root_inode, paths[i], true, &inode) || file_open(inode, O_RDWR, 0) != (result_t)i)
			panic("cannot open the standard descriptors");
	}
}

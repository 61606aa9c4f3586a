/* System calls that move data through descriptors. */
#include "console.h"
#include "mm.h"
#include "string.h"
#include "syscall.h"
#include "timekeeping.h"
#include "uaccess.h"
#include "vfs.h"

static bool readable(const struct file *file)
{
	return (file->flags & O_ACCMODE) != O_WRONLY;
}

static bool writable(const struct file *file)
{
	return file->flags & O_ACCMODE;
}

result_t sys_read(u64 fd, uaddr_t to, u64 n)
{
	struct file *file = file_get((int)fd);

	if (!file || !readable(file))
		return -EBADF;
	result_t r = file->inode->ops->read(file->inode, file->position, to, n);
	if (r > 0)
		file->position += (u64)r;
	return r;
}

result_t sys_write(u64 fd, uaddr_t from, u64 n)
{
	struct file *file = file_get((int)fd);

	if (!file || !writable(file))
		return -EBADF;
	if (file->flags & O_APPEND)
		file->position = file->inode->size;
	result_t r = file->inode->ops->write(file->inode, file->position, from, n);
	if (r > 0)
		file->position += (u64)r;
	return r;
}

result_t sys_pread64(u64 fd, uaddr_t to, u64 n, u64 position)
{
	struct file *file = file_get((int)fd);

	if (!file || !readable(file))
		return -EBADF;
	if (!S_ISREG(file->inode->mode))
		return -ESPIPE;
	return file->inode->ops->read(file->inode, position, to, n);
}

result_t sys_pwrite64(u64 fd, uaddr_t from, u64 n, u64 position)
{
	struct file *file = file_get((int)fd);

	if (!file || !writable(file))
		return -EBADF;
	if (!S_ISREG(file->inode->mode))
		return -ESPIPE;
	return file->inode->ops->write(file->inode, position, from, n);
}

static result_t vectored(result_t (*transfer)(u64, uaddr_t, u64), u64 fd, uaddr_t vector, u64 count)
{
	result_t total = 0;

	if (count > IOV_MAX)
		return -EINVAL;
	for (u64 i = 0; i < count; i++) {
		struct iovec v;
		if (GET_USER(v, vector + i * sizeof(v)))
			return total ? total : -EFAULT;
		if (!v.length)
			continue;
		result_t r = transfer(fd, v.base, v.length);
		if (r < 0)
			return total ? total : r;
		total += r;
		if ((u64)r < v.length)
			break;
	}
	return total;
}

result_t sys_readv(u64 fd, uaddr_t vector, u64 count)
{
	return vectored(sys_read, fd, vector, count);
}

/* Small pieces for the console are joined, so that one line of output is one exit. */
static result_t console_writev(int host_fd, uaddr_t vector, u64 count)
{
	static u8 joined[4096];
	u64 n = 0;

	for (u64 i = 0; i < count; i++) {
		struct iovec v;
		if (GET_USER(v, vector + i * sizeof(v)))
			return -EFAULT;
		if (v.length > sizeof(joined) - n)
			return 0;
		if (copy_from_user(joined + n, v.base, v.length))
			return -EFAULT;
		n += v.length;
	}
	return host_request(host_fd == 2 ? HOST_WRITE_STDERR : HOST_WRITE_STDOUT, joined, n, 0);
}

result_t sys_writev(u64 fd, uaddr_t vector, u64 count)
{
	struct file *file = file_get((int)fd);

	if (file && file->inode->ops == &console_ops && count > 1 && count <= IOV_MAX) {
		result_t r = console_writev((file->inode->rdev & 0xff) == 2 ? 2 : 1, vector, count);
		if (r)
			return r;
	}
	return vectored(sys_write, fd, vector, count);
}

result_t sys_lseek(u64 fd, u64 offset, u64 whence)
{
	struct file *file = file_get((int)fd);

	if (!file)
		return -EBADF;
	if (file->inode->ops == &console_ops)
		return -ESPIPE;
	u64 base = whence == SEEK_CUR ? file->position : whence == SEEK_END ? file->inode->size : 0;
	s64 position = (s64)(base + offset);
	if (whence > SEEK_END || position < 0)
		return -EINVAL;
	file->position = (u64)position;
	return position;
}

result_t sys_ioctl(u64 fd, u64 request, uaddr_t argument)
{
	struct file *file = file_get((int)fd);
	static const u16 window[4] = { 24, 80, 0, 0 };
	/* struct termios: a cooked terminal at 38400 baud. */
	static const u32 termios[9] = { 0x500, 5, 0xbf, 0x8a3b };

	if (!file)
		return -EBADF;
	if (file->inode->ops != &console_ops)
		return -ENOTTY;
	u32 host_fd = file->inode->rdev & 0xff;
	if (!(console_terminals() & (1u << host_fd)))
		return -ENOTTY;
	if (request == TIOCGWINSZ)
		return PUT_USER(argument, window);
	if (request == TCGETS)
		return PUT_USER(argument, termios);
	return -EINVAL;
}

struct pollfd {
	s32 fd;
	s16 events, revents;
};
#define POLLIN 1
#define POLLOUT 4
#define POLLNVAL 32

/* Everything is always ready: reading the console blocks the whole machine anyway. */
static result_t poll_ready(uaddr_t fds, u64 count)
{
	result_t ready = 0;

	for (u64 i = 0; i < count; i++) {
		struct pollfd p;
		if (GET_USER(p, fds + i * sizeof(p)))
			return -EFAULT;
		p.revents = 0;
		if (p.fd >= 0)
			p.revents = file_get(p.fd) ? p.events & (POLLIN | POLLOUT) : POLLNVAL;
		ready += p.revents != 0;
		if (PUT_USER(fds + i * sizeof(p), p))
			return -EFAULT;
	}
	return ready;
}

result_t sys_poll(uaddr_t fds, u64 count, u64 timeout_ms)
{
	result_t ready = poll_ready(fds, count);

	if (!ready && (s32)timeout_ms > 0)
		time_sleep((u64)(s32)timeout_ms * 1000000);
	return ready;
}

result_t sys_ppoll(uaddr_t fds, u64 count, uaddr_t timeout)
{
	struct timespec t = { 0, 0 };

	if (timeout && GET_USER(t, timeout))
		return -EFAULT;
	return sys_poll(fds, count, (u64)(t.tv_sec * 1000 + t.tv_nsec / 1000000));
}

/* The sets are returned as they came: all ready. */
result_t sys_select(u64 count, uaddr_t in, uaddr_t out, uaddr_t except, uaddr_t timeout)
{
	result_t ready = 0;
	u64 words = (count + 63) / 64;

	if (count > 1024)
		return -EINVAL;
	for (u64 i = 0; i < words; i++) {
		u64 bits;
		const uaddr_t sets[] = { in, out };
		for (u32 s = 0; s < 2; s++) {
			if (!sets[s])
				continue;
			if (GET_USER(bits, sets[s] + i * 8))
				return -EFAULT;
			for (; bits; bits &= bits - 1)
				ready++;
		}
	}
	if (except && clear_user(except, words * 8))
		return -EFAULT;
	if (!ready && timeout) {
		/* A timeval or (pselect6) a timespec: the second field differs, whole seconds do not. */
		struct timespec t;
		if (GET_USER(t, timeout))
			return -EFAULT;
		time_sleep((u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec * 1000);
	}
	return ready;
}

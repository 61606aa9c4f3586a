/* Character devices and the few files of /proc that programs look at. */
#include "console.h"
#include "mm.h"
#include "string.h"
#include "uaccess.h"
#include "vfs.h"

#define RDEV(major, minor) ((major) << 8 | (minor))

static result_t null_read(struct inode *inode UNUSED, u64 position UNUSED, uaddr_t to UNUSED, u64 n UNUSED)
{
	return 0;
}

static result_t null_write(struct inode *inode UNUSED, u64 position UNUSED, uaddr_t from UNUSED, u64 n)
{
	return (result_t)n;
}

static result_t zero_read(struct inode *inode UNUSED, u64 position UNUSED, uaddr_t to, u64 n)
{
	return clear_user(to, n) ? -EFAULT : (result_t)n;
}

static result_t full_write(struct inode *inode UNUSED, u64 position UNUSED, uaddr_t from UNUSED, u64 n UNUSED)
{
	return -ENOSPC;
}

static result_t random_read(struct inode *inode UNUSED, u64 position UNUSED, uaddr_t to, u64 n)
{
	u8 chunk[256];

	for (u64 done = 0; done < n; done += sizeof(chunk)) {
		u64 length = min_u64(n - done, sizeof(chunk));
		host_random(chunk, length);
		if (copy_to_user(to + done, chunk, length))
			return -EFAULT;
	}
	return (result_t)n;
}

/* rdev's minor is the host's descriptor. */
static result_t host_read(struct inode *inode UNUSED, u64 position UNUSED, uaddr_t to, u64 n)
{
	return console_read(to, n);
}

static result_t host_write(struct inode *inode, u64 position UNUSED, uaddr_t from, u64 n)
{
	return console_write((inode->rdev & 0xff) == 2 ? 2 : 1, from, n);
}

static const struct inode_ops null_ops = { null_read, null_write };
const struct inode_ops zero_ops = { zero_read, null_write };
static const struct inode_ops full_ops = { zero_read, full_write };
static const struct inode_ops random_ops = { random_read, null_write };
const struct inode_ops console_ops = { host_read, host_write };

static void add_device(const char *path, const struct inode_ops *ops, u32 rdev)
{
	struct inode *inode = create_path(path, S_IFCHR | 0666);

	if (inode) {
		inode->ops = ops;
		inode->rdev = rdev;
	}
}

/* A file that came with the initrd wins. */
static void add_text(const char *path, const char *text)
{
	struct inode *inode;

	if (!lookup_existing(root_inode, path, false, &inode))
		return;
	inode = create_path(path, S_IFREG | 0444);
	if (inode) {
		inode->data = (const u8 *)text;
		inode->size = strlen(text);
	}
}

static void add_link(const char *path, const char *target)
{
	struct inode *inode = create_path(path, S_IFLNK | 0777);

	if (inode) {
		inode->data = (const u8 *)target;
		inode->size = strlen(target);
	}
}

void devices_init(void)
{
	static char memory[128];

	add_device("/dev/null", &null_ops, RDEV(1, 3));
	add_device("/dev/zero", &zero_ops, RDEV(1, 5));
	add_device("/dev/full", &full_ops, RDEV(1, 7));
	add_device("/dev/random", &random_ops, RDEV(1, 8));
	add_device("/dev/urandom", &random_ops, RDEV(1, 9));
	add_device("/dev/tty", &console_ops, RDEV(5, 0));
	add_device("/dev/stdin", &console_ops, RDEV(136, 0));
	add_device("/dev/stdout", &console_ops, RDEV(136, 1));
	add_device("/dev/stderr", &console_ops, RDEV(136, 2));
	add_link("/proc/self/exe", "/.pvm/init");
	add_text("/proc/cpuinfo",
		 "processor\t: 0\nvendor_id\t: pvm\nmodel name\t: pvm x86-64 on WebAssembly\ncpu MHz\t\t: 1000.000\n\n");
	format(memory, sizeof(memory), "MemTotal: %lu kB\nMemFree: %lu kB\nMemAvailable: %lu kB\n",
	       pages_total_count() * 4, pages_free_count() * 4, pages_free_count() * 4);
	add_text("/proc/meminfo", memory);
	add_text("/proc/mounts", "rootfs / tmpfs rw 0 0\n");
	add_text("/etc/passwd", "root:x:0:0:root:/:/bin/sh\n");
	add_text("/etc/group", "root:x:0:\n");
}

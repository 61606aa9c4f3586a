/* Files: an in-memory tree of inodes, filled from the initrd, and the program's descriptor table. */
#pragma once
#include "abi.h"
#include "types.h"

#define NAME_MAX 255
#define FD_MAX 256

struct inode;

/* Behaviour of a kind of file. Buffers are user addresses; results are bytes or -errno. */
struct inode_ops {
	result_t (*read)(struct inode *inode, u64 position, uaddr_t to, u64 n);
	result_t (*write)(struct inode *inode, u64 position, uaddr_t from, u64 n);
};

struct inode {
	const struct inode_ops *ops;
	u32 mode;
	/* Holders other than the tree: open files, mappings, the current directory. */
	u32 refs;
	u32 rdev;
	bool linked;
	u64 ino;
	u64 size;
	struct timespec mtime;
	char name[NAME_MAX + 1];
	struct inode *parent, *children, *sibling;
	/* Contents of a regular file or symlink: read-only memory until the first write, then pages. */
	const u8 *data;
	u8 ***pages;
};

struct file {
	struct inode *inode;
	u64 position;
	u32 flags;
	u32 refs;
};

#define S_ISREG(mode) (((mode) & S_IFMT) == S_IFREG)
#define S_ISDIR(mode) (((mode) & S_IFMT) == S_IFDIR)
#define S_ISLNK(mode) (((mode) & S_IFMT) == S_IFLNK)
#define S_ISCHR(mode) (((mode) & S_IFMT) == S_IFCHR)

/* ---- the tree (vfs.c) ---- */
extern struct inode *root_inode, *current_directory;

void vfs_init(void);
void inode_get(struct inode *inode);
void inode_put(struct inode *inode);
/* A new inode linked into a directory, or NULL when memory is exhausted. */
struct inode *inode_create(struct inode *parent, const char *name, u32 mode);
void inode_unlink(struct inode *inode);
void inode_move(struct inode *inode, struct inode *parent, const char *name);

/* Follow a path from `base`. On success *parent and *last name the last component, whether it exists or not
 * (*found may be NULL); `last` has NAME_MAX + 1 bytes. 0 or -errno. */
struct lookup {
	struct inode *parent;
	struct inode *found;
	char last[NAME_MAX + 1];
};
result_t lookup_path(struct inode *base, const char *path, bool follow, struct lookup *result);
/* The inode of an existing path, or -errno. */
result_t lookup_existing(struct inode *base, const char *path, bool follow, struct inode **inode);
/* Absolute path of a directory or file. Its length. */
u64 inode_path(const struct inode *inode, char *to, u64 n);
/* Create `path` with its missing directories. For the kernel's own use. */
struct inode *create_path(const char *path, u32 mode);

/* ---- file contents (ramfile.c) ---- */
extern const struct inode_ops ramfile_ops;
/* The frame that holds a position; `create` makes missing ones. NULL: a hole, or out of memory. */
u8 *inode_page(struct inode *inode, u64 position, bool create);
u64 inode_read_kernel(struct inode *inode, u64 position, void *to, u64 n);
result_t inode_truncate(struct inode *inode, u64 size);
void inode_free_data(struct inode *inode);

/* ---- devices (dev.c) ---- */
extern const struct inode_ops zero_ops, console_ops;
void devices_init(void);

/* ---- initrd (initrd.c) ---- */
void initrd_unpack(const u8 *archive, u64 size);

/* ---- descriptors (file.c) ---- */
struct file *file_get(int fd);
/* Lowest free descriptor from `from` for an inode. fd or -errno. */
result_t file_open(struct inode *inode, u32 flags, int from);
result_t file_duplicate(int old, int from, bool exact, u32 flags);
void files_init(void);

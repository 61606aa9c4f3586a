/* The tree of inodes and path lookup. There are no hard links: an inode has one name. */
#include "vfs.h"
#include "mm.h"
#include "panic.h"
#include "string.h"
#include "timekeeping.h"

#define MAX_SYMLINKS 16

struct inode *root_inode, *current_directory;
static u64 next_ino = 1;

void inode_get(struct inode *inode)
{
	inode->refs++;
}

static void inode_release(struct inode *inode)
{
	if (inode->refs || inode->linked)
		return;
	inode_free_data(inode);
	kfree(inode, sizeof(*inode));
}

void inode_put(struct inode *inode)
{
	inode->refs--;
	inode_release(inode);
}

static void attach(struct inode *inode, struct inode *parent, const char *name)
{
	memcpy(inode->name, name, strlen(name) + 1);
	inode->parent = parent;
	inode->linked = true;
	/* Append: directories list in order of creation. */
	struct inode **end = &parent->children;
	while (*end)
		end = &(*end)->sibling;
	*end = inode;
	inode->sibling = NULL;
}

static void detach(struct inode *inode)
{
	struct inode **p = &inode->parent->children;

	while (*p != inode)
		p = &(*p)->sibling;
	*p = inode->sibling;
	inode->linked = false;
}

static struct inode *inode_alloc(u32 mode)
{
	struct inode *inode = kmalloc(sizeof(*inode));

	if (!inode)
		return NULL;
	inode->ino = next_ino++;
	inode->mode = mode;
	inode->ops = &ramfile_ops;
	inode->mtime = time_now(CLOCK_REALTIME);
	return inode;
}

struct inode *inode_create(struct inode *parent, const char *name, u32 mode)
{
	struct inode *inode = inode_alloc(mode);

	if (inode)
		attach(inode, parent, name);
	return inode;
}

void inode_unlink(struct inode *inode)
{
	detach(inode);
	inode_release(inode);
}

void inode_move(struct inode *inode, struct inode *parent, const char *name)
{
	detach(inode);
	attach(inode, parent, name);
}

static struct inode *find_child(struct inode *directory, const char *name)
{
	for (struct inode *c = directory->children; c; c = c->sibling)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

/* Copy the next component of *path to `name` and step over it. 0 or -ENAMETOOLONG. */
static result_t next_component(const char **path, char *name)
{
	const char *p = *path;
	u32 n = 0;

	while (*p && *p != '/') {
		if (n == NAME_MAX)
			return -ENAMETOOLONG;
		name[n++] = *p++;
	}
	name[n] = 0;
	while (*p == '/')
		p++;
	*path = p;
	return 0;
}

static result_t walk(struct inode *base, const char *path, bool follow, struct lookup *l, u32 links)
{
	struct inode *at = *path == '/' ? root_inode : base;

	while (*path == '/')
		path++;
	l->parent = at;
	l->found = at;
	l->last[0] = 0;
	while (*path) {
		if (!at)
			return -ENOENT;
		if (!S_ISDIR(at->mode))
			return -ENOTDIR;
		result_t r = next_component(&path, l->last);
		if (r)
			return r;
		l->parent = at;
		if (!strcmp(l->last, "."))
			l->found = at;
		else if (!strcmp(l->last, ".."))
			l->found = at->parent;
		else
			l->found = find_child(at, l->last);
		if (l->found && S_ISLNK(l->found->mode) && (*path || follow)) {
			char target[512];
			if (links == MAX_SYMLINKS)
				return -ELOOP;
			u64 n = inode_read_kernel(l->found, 0, target, sizeof(target) - 1);
			target[n] = 0;
			r = walk(l->parent, target, true, l, links + 1);
			if (r)
				return r;
		}
		at = l->found;
	}
	return 0;
}

result_t lookup_path(struct inode *base, const char *path, bool follow, struct lookup *result)
{
	return *path ? walk(base, path, follow, result, 0) : -ENOENT;
}

result_t lookup_existing(struct inode *base, const char *path, bool follow, struct inode **inode)
{
	struct lookup l;
	result_t r = lookup_path(base, path, follow, &l);

	if (r)
		return r;
	*inode = l.found;
	return l.found ? 0 : -ENOENT;
}

u64 inode_path(const struct inode *inode, char *to, u64 n)
{
	char reversed[PATH_MAX];
	u64 at = sizeof(reversed);

	for (; inode != root_inode; inode = inode->parent) {
		u64 length = strlen(inode->name);
		if (at < length + 1)
			break;
		at -= length;
		memcpy(reversed + at, inode->name, length);
		reversed[--at] = '/';
	}
	if (at == sizeof(reversed))
		reversed[--at] = '/';
	u64 length = min_u64(sizeof(reversed) - at, n - 1);
	memcpy(to, reversed + at, length);
	to[length] = 0;
	return length;
}

struct inode *create_path(const char *path, u32 mode)
{
	struct inode *at = root_inode;
	char name[NAME_MAX + 1];

	while (*path == '/')
		path++;
	while (*path) {
		if (next_component(&path, name))
			return NULL;
		struct inode *child = find_child(at, name);
		if (!child)
			child = inode_create(at, name, *path ? S_IFDIR | 0755 : mode);
		if (!child)
			return NULL;
		at = child;
	}
	return at;
}

void vfs_init(void)
{
	root_inode = inode_alloc(S_IFDIR | 0755);
	if (!root_inode)
		panic("no memory for the root directory");
	root_inode->parent = root_inode;
	root_inode->linked = true;
	current_directory = root_inode;
	inode_get(root_inode);
	create_path("/tmp", S_IFDIR | 0777);
}

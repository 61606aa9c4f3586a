/* The initrd: a cpio archive in the "newc" format. File contents are used in place. */
#include "panic.h"
#include "string.h"
#include "vfs.h"

#define HEADER_SIZE 110

/* Header fields are 8 hexadecimal digits each, after the magic "070701". */
enum { FIELD_MODE = 1, FIELD_FILE_SIZE = 6, FIELD_NAME_SIZE = 11 };

static u64 header_field(const u8 *header, u32 field)
{
	u64 value = 0;

	for (u32 i = 0; i < 8; i++) {
		u8 c = header[6 + field * 8 + i];
		u8 digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
		value = value << 4 | (digit & 15);
	}
	return value;
}

void initrd_unpack(const u8 *archive, u64 size)
{
	u64 at = 0;

	while (at + HEADER_SIZE <= size) {
		const u8 *header = archive + at;
		if (memcmp(header, "070701", 6))
			panic("the initrd is not a cpio archive in newc format");
		u64 mode = header_field(header, FIELD_MODE);
		u64 file_size = header_field(header, FIELD_FILE_SIZE);
		u64 name_size = header_field(header, FIELD_NAME_SIZE);
		const char *name = (const char *)header + HEADER_SIZE;
		u64 data = ALIGN_UP(at + HEADER_SIZE + name_size, 4);
		if (!name_size || data + file_size > size || name[name_size - 1])
			panic("the initrd is truncated");
		if (!strcmp(name, "TRAILER!!!"))
			return;
		struct inode *inode = create_path(name, (u32)mode);
		if (!inode)
			panic("no memory to unpack the initrd");
		if (!S_ISDIR(inode->mode)) {
			inode->data = archive + data;
			inode->size = file_size;
		}
		at = ALIGN_UP(data + file_size, 4);
	}
}

/* Access to user memory from the kernel. */
#pragma once
#include "abi.h"
#include "layout.h"
#include "types.h"

u64 raw_copy(void *to, const void *from, u64 n);
u64 raw_clear(void *to, u64 n);

static inline bool user_range(uaddr_t address, u64 n)
{
	return n <= TASK_SIZE && address <= TASK_SIZE - n;
}

/* These return the number of bytes that were not copied: 0 on success. */
static inline u64 copy_from_user(void *to, uaddr_t from, u64 n)
{
	return user_range(from, n) ? raw_copy(to, (const void *)from, n) : n;
}

static inline u64 copy_to_user(uaddr_t to, const void *from, u64 n)
{
	return user_range(to, n) ? raw_copy((void *)to, from, n) : n;
}

static inline u64 clear_user(uaddr_t to, u64 n)
{
	return user_range(to, n) ? raw_clear((void *)to, n) : n;
}

/* Copy a NUL-terminated string of less than n bytes. Its length, -EFAULT or -ENAMETOOLONG. */
result_t string_from_user(char *to, uaddr_t from, u64 n);

/* Copy a kernel object out: 0 or -EFAULT. */
#define PUT_USER(to, object) (copy_to_user(to, &(object), sizeof(object)) ? -EFAULT : 0)
#define GET_USER(object, from) (copy_from_user(&(object), from, sizeof(object)) ? -EFAULT : 0)

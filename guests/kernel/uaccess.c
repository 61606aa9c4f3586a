#include "uaccess.h"

result_t string_from_user(char *to, uaddr_t from, u64 n)
{
	u64 done = 0;

	/* Page by page: the string may end just before unmapped memory. */
	while (done < n) {
		u64 chunk = min_u64(n - done, PAGE_SIZE - ((from + done) & (PAGE_SIZE - 1)));
		chunk = min_u64(chunk, 256);
		if (copy_from_user(to + done, from + done, chunk))
			return -EFAULT;
		for (u64 end = done + chunk; done < end; done++)
			if (!to[done])
				return (result_t)done;
	}
	return -ENAMETOOLONG;
}

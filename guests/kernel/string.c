#include "string.h"
#include <stdarg.h>

void *memcpy(void *to, const void *from, size_t n)
{
	void *result = to;
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return result;
}

void *memmove(void *to, const void *from, size_t n)
{
	u8 *d = to;
	const u8 *s = from;

	if (d <= s || d >= s + n)
		return memcpy(to, from, n);
	while (n--)
		d[n] = s[n];
	return to;
}

void *memset(void *to, int value, size_t n)
{
	void *result = to;
	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
	return result;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return (u8)*a - (u8)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (; n; n--, a++, b++)
		if (*a != *b || !*a)
			return (u8)*a - (u8)*b;
	return 0;
}

struct output {
	char *at, *end;
};

static void put(struct output *o, char c)
{
	if (o->at < o->end)
		*o->at++ = c;
}

static void put_number(struct output *o, u64 value, u32 base)
{
	char digits[20];
	u32 n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (n)
		put(o, digits[--n]);
}

int format(char *buffer, size_t n, const char *text, ...)
{
	struct output o = { buffer, buffer + n - 1 };
	va_list args;

	va_start(args, text);
	for (; *text; text++) {
		if (*text != '%') {
			put(&o, *text);
			continue;
		}
		bool wide = *++text == 'l';
		if (wide)
			text++;
		if (*text == 's') {
			for (const char *s = va_arg(args, const char *); *s; s++)
				put(&o, *s);
		} else if (*text == 'c') {
			put(&o, (char)va_arg(args, int));
		} else if (*text == 'd') {
			s64 v = wide ? va_arg(args, s64) : va_arg(args, int);
			if (v < 0)
				put(&o, '-');
			put_number(&o, v < 0 ? -(u64)v : (u64)v, 10);
		} else if (*text == 'u' || *text == 'x') {
			u64 v = wide ? va_arg(args, u64) : va_arg(args, u32);
			put_number(&o, v, *text == 'x' ? 16 : 10);
		} else {
			put(&o, *text);
		}
	}
	va_end(args);
	*o.at = 0;
	return (int)(o.at - buffer);
}

/* The few string functions the kernel uses. */
#pragma once
#include "types.h"

void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);

/* printf subset: %s %c %d %u %x with an optional l. Returns the length, truncated to n - 1. */
int format(char *buffer, size_t n, const char *text, ...) __attribute__((format(printf, 3, 4)));

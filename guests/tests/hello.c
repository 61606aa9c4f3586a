/* What an ordinary C program asks of libc: formatted output, numbers, sorting, allocation, files, time. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void numbers(void)
{
	printf("%d %u %ld %lld %x %o %c %s|%-6s|%6s|\n", -42, 42u, -1L, 1LL << 40, 0xbeef, 0777, 'c', "str", "left", "right");
	printf("%f %e %g %a %.3f %10.2f\n", 3.14159265358979, 1e-10, 1e20, 1.5, 2.0 / 3, -1234.567);
	printf("%Lf %Le %Lg %.30Lf\n", 1.0L / 3, 1e4000L, 1e-4000L, 0.1L);
	printf("%.17g %.17g %.17g\n", sin(1), exp(1.5), pow(2.5, 3.5));
	printf("%.17g %.17g %.17g\n", log(10), atan2(1, 2), sqrt(2));
	printf("%.15Lg %.15Lg %.15Lg\n", sinl(1), expl(1.5L), logl(10));
	printf("%g %g %g %d %d\n", INFINITY, -INFINITY, NAN, isnan(NAN), signbit(-0.0) != 0);
	printf("%ld %ld %ld %ld\n", lround(2.5), lrint(3.5), (long)floor(-1.5), (long)ceil(-1.5));
	printf("%d %ld %.6f %s\n", atoi("77"), strtol("-0x1f", NULL, 16), strtod("1.25e3", NULL), strerror(ENOENT));
}

static void memory(void)
{
	double *values = malloc(20000 * sizeof(*values));
	unsigned seed = 1;
	double sum = 0;

	for (int i = 0; i < 20000; i++) {
		seed = seed * 1103515245 + 12345;
		values[i] = (seed >> 8) / 1000.0;
	}
	qsort(values, 20000, sizeof(*values), compare);
	for (int i = 0; i < 20000; i++)
		sum += values[i] * (i % 7);
	printf("%.3f %.3f %.3f\n", values[0], values[19999], sum);
	free(values);
	char *p = NULL;
	size_t total = 0;
	for (size_t n = 1; n < 4 << 20; n = n * 3 + 1) {
		p = realloc(p, n);
		memset(p + n / 2, 'x', n - n / 2);
		total += n;
	}
	printf("%zu %c\n", total, p[100]);
	free(p);
}

static void files(void)
{
	char line[100];
	int a = 0, b = 0;
	struct stat status;
	FILE *f = fopen("/tmp/hello-test", "w+");

	for (int i = 0; i < 1000; i++)
		fprintf(f, "%d %d\n", i, i * i);
	fseek(f, 0, SEEK_SET);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "%d %d", &a, &b);
	printf("%d %d %ld\n", a, b, ftell(f));
	fclose(f);
	if (!stat("/tmp/hello-test", &status))
		printf("%ld bytes\n", (long)status.st_size);
	rename("/tmp/hello-test", "/tmp/hello-moved");
	printf("%d %d\n", access("/tmp/hello-test", F_OK), access("/tmp/hello-moved", F_OK));
	unlink("/tmp/hello-moved");
	errno = 0;
	f = fopen("/no/such/file", "r");
	printf("%p %s\n", (void *)f, strerror(errno));
	mkdir("/tmp/hello-dir", 0755);
	fclose(fopen("/tmp/hello-dir/one", "w"));
	fclose(fopen("/tmp/hello-dir/two", "w"));
	int entries = 0;
	DIR *d = opendir("/tmp/hello-dir");
	while (readdir(d))
		entries++;
	closedir(d);
	printf("%d entries, rmdir of a full directory: %d\n", entries, rmdir("/tmp/hello-dir"));
	unlink("/tmp/hello-dir/one");
	unlink("/tmp/hello-dir/two");
	printf("rmdir of an empty one: %d\n", rmdir("/tmp/hello-dir"));
}

static jmp_buf back;

static void control(void)
{
	struct timespec before, after;
	struct tm calendar;
	time_t t = 86400 * 365;
	char text[64];
	volatile int rounds = 0;

	if (setjmp(back) < 3) {
		rounds++;
		longjmp(back, rounds);
	}
	printf("rounds %d\n", rounds);
	clock_gettime(CLOCK_MONOTONIC, &before);
	clock_gettime(CLOCK_MONOTONIC, &after);
	printf("time goes on: %d\n", after.tv_sec > before.tv_sec ||
	       (after.tv_sec == before.tv_sec && after.tv_nsec >= before.tv_nsec));
	gmtime_r(&t, &calendar);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &calendar);
	printf("%s %s %d\n", text, setlocale(LC_ALL, "C"), toupper('q'));
	printf("getenv: %s\n", getenv("HELLO") ? getenv("HELLO") : "(none)");
}

/* hello cat file...: copy files, or standard input for "-", to standard output. */
static int copy(char **names)
{
	char buffer[3000];
	size_t n;

	for (; *names; names++) {
		FILE *f = strcmp(*names, "-") ? fopen(*names, "r") : stdin;
		if (!f) {
			perror(*names);
			return 1;
		}
		while ((n = fread(buffer, 1, sizeof(buffer), f)))
			fwrite(buffer, 1, n, stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "cat"))
		return copy(argv + 2);
	printf("hello, world: %d arguments", argc - 1);
	for (int i = 1; i < argc; i++)
		printf(" [%s]", argv[i]);
	putchar('\n');
	numbers();
	memory();
	files();
	control();
	fprintf(stderr, "to standard error\n");
	return argc > 1 ? atoi(argv[1]) : 0;
}

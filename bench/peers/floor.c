/* The floor: what every recorder of these files must pay. Wakes up once a second, reads the five
 * files, kept open, to their end with pread into one static buffer, and throws the text away. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {
	"/proc/diskstats", "/proc/vmstat", "/proc/meminfo", "/proc/loadavg", "/proc/net/dev",
};
enum { FILES = sizeof names / sizeof *names };
static char buffer[64 << 10];

int main(void)
{
	int files[FILES];
	for (int i = 0; i < FILES; i++)
		if ((files[i] = open(names[i], O_RDONLY | O_CLOEXEC)) < 0) {
			perror(names[i]);
			return 1;
		}
	struct timespec next;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		for (int i = 0; i < FILES; i++) {
			off_t offset = 0;
			ssize_t count;
			while ((count = pread(files[i], buffer, sizeof buffer, offset)) > 0)
				offset += count;
			if (count < 0) {
				perror(names[i]);
				return 1;
			}
		}
		next.tv_sec++;
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL))
			;
	}
}

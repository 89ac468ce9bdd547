/* Moves the wall clock of a process by the seconds (int64) in the file named by CLOCK_OFFSET; other clocks stay.
 *
 *     cc -shared -fPIC -O2 -o clock.so clock.c -ldl
 *
 * libfaketime 0.9.10 cannot: without its monotonic clock, Python's time.sleep fails with EINVAL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t *offset;
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
static int (*real_sem)(sem_t *, const struct timespec *);

static void *next(const char *name, const char *version)
{
	void *found = dlvsym(RTLD_NEXT, name, version);
	return found ? found : dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void start(void)
{
	real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	real_wait = next("pthread_cond_timedwait", "GLIBC_2.3.2");
	real_sem = dlsym(RTLD_NEXT, "sem_timedwait");
	int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
	if (file < 0)
		abort();
	offset = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (offset == MAP_FAILED)
		abort();
}

static int64_t shift(void)
{
	if (!real_gettime)
		start();
	return *(volatile const int64_t *)offset;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int64_t by = shift();
	int failed = real_gettime(clock, now);
	if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += by;
	return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &precise);
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *kept)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (kept)
		*kept = now.tv_sec;
	return now.tv_sec;
}

/* The kernel waits by its own clock. A deadline of this century is one of the wall clock's; others count from boot. */
static struct timespec own(const struct timespec *deadline)
{
	struct timespec result = *deadline;
	if (result.tv_sec > 1000000000)
		result.tv_sec -= shift();
	return result;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
			   const struct timespec *restrict deadline)
{
	struct timespec until = own(deadline);
	return real_wait(condition, mutex, &until);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline)
{
	struct timespec until = own(deadline);
	return real_sem(semaphore, &until);
}

/* A file system without locks: preloaded, it lets flock fail with error number $NO_LOCKS_ERROR below $NO_LOCKS_BELOW. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int flock(int file, int operation) {
    const char *below = getenv("NO_LOCKS_BELOW"), *number = getenv("NO_LOCKS_ERROR");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    if (below && number && strncmp(path, below, strlen(below)) == 0) {
        errno = atoi(number);
        return -1;
    }
    return (int)syscall(SYS_flock, file, operation);
}

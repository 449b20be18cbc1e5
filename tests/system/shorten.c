/* tests/system/shorten.c -- preloaded into a program: a file whose path ends with $TRIVET_SHORTEN_FILE is cut to
 * $TRIVET_SHORTEN_BYTES when it is closed and mapped, before anybody reads it there. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ends_with(const char *path, const char *end)
{
    const size_t length = strlen(path), tail = strlen(end);
    return length >= tail && strcmp(path + length - tail, end) == 0;
}

static int is_mapped(const char *path)
{
    char line[8192];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && !found && fgets(line, sizeof(line), maps) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        found = ends_with(line, path);
    }
    if (maps != NULL)
        fclose(maps); /* not by the close below: the C library has its own */
    return found;
}

int close(int fd)
{
    char link[64], path[4096];
    const char *end = getenv("TRIVET_SHORTEN_FILE"), *bytes = getenv("TRIVET_SHORTEN_BYTES");
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof(path) - 1);
    path[length > 0 ? length : 0] = '\0';
    if (end != NULL && bytes != NULL && ends_with(path, end) && is_mapped(path) &&
        truncate(path, strtol(bytes, NULL, 10)) != 0)
        perror(path);
    return (int)syscall(SYS_close, fd);
}

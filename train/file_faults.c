/* train/file_faults.c -- SIGBUS in a mapped file as a sentence. */
#include "train/file_faults.h"
#include "base/log.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_MAPS = 512, MAX_PATH = 512 };

/* The process's, as addresses and signal handlers are. A slot without bytes is free; beyond the last slot a file has no
 * name in messages. */
static struct {
    atomic_uintptr_t start;
    atomic_size_t bytes;
    char path[MAX_PATH];
} maps[MAX_MAPS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of those who write slots, or catch */

static struct sigaction before; /* what else SIGBUS is good for */
static _Thread_local sigjmp_buf *guard;
static _Thread_local volatile sig_atomic_t fault_slot;

#define LOST "the file has become shorter while it was read, or its disk has failed"

void tv_file_faults_add(const char *path, const void *data, size_t bytes)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_MAPS; i++) {
        if (atomic_load(&maps[i].bytes) != 0)
            continue;
        snprintf(maps[i].path, sizeof(maps[i].path), "%s", path);
        atomic_store(&maps[i].start, (uintptr_t)data);
        atomic_store(&maps[i].bytes, bytes); /* last: a handler looks at this first */
        break;
    }
    pthread_mutex_unlock(&lock);
}

void tv_file_faults_remove(const void *data)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_MAPS; i++) {
        if (atomic_load(&maps[i].start) == (uintptr_t)data)
            atomic_store(&maps[i].bytes, 0);
    }
    pthread_mutex_unlock(&lock);
}

static int slot_of(uintptr_t address)
{
    for (int i = 0; i < MAX_MAPS; i++) {
        const size_t bytes = atomic_load(&maps[i].bytes);
        const uintptr_t start = atomic_load(&maps[i].start);
        if (bytes != 0 && address >= start && address - start < bytes + (size_t)getpagesize())
            return i;
    }
    return -1;
}

/* The fault is the thread's own: it has just read the address. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    const int slot = slot_of((uintptr_t)info->si_addr);
    if (slot >= 0 && guard != NULL) {
        fault_slot = slot;
        siglongjmp(*guard, 1);
    }
    if (slot >= 0) {
        tv_log(TV_LOG_ERROR, "error: %s: " LOST, maps[slot].path);
        _exit(tv_status_exit_code(TV_BAD_FILE));
    }
    if ((before.sa_flags & SA_SIGINFO) != 0)
        before.sa_sigaction(number, info, context);
    else
        signal(SIGBUS, SIG_DFL); /* the read happens again, and ends the process */
}

static int is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == on_fault;
}

/* 0: the signal is ours, from here on or already */
static int catch_now(void)
{
    struct sigaction now, action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, NULL, &now) != 0)
        return -1;
    if (is_ours(&now))
        return 0;
    before = now;
    return sigaction(SIGBUS, &action, NULL);
}

tv_status_t tv_file_faults_catch(void)
{
    pthread_mutex_lock(&lock);
    const int failed = catch_now() != 0, reason = errno;
    pthread_mutex_unlock(&lock);
    return failed ? TV_ERR(TV_INTERNAL, "SIGBUS cannot be caught: %s", strerror(reason)) : TV_OK;
}

tv_status_t tv_file_guard(tv_status_t (*body)(void *context), void *context)
{
    sigjmp_buf here, *const outer = guard;
    /* With the mask: who calls our handler may have blocked signals around it. */
    if (sigsetjmp(here, 1) != 0) {
        guard = outer;
        return TV_ERR(TV_BAD_FILE, "%s: " LOST, maps[fault_slot].path);
    }
    guard = &here;
    const tv_status_t status = body(context);
    guard = outer;
    return status;
}

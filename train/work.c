/* train/work.c -- a thread, a flag, and small sums of flags. */
#include "train/work.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

/* C++ has no atomic_int, and tests are C++. */
static void set(int *flag)
{
    __atomic_store_n(flag, 1, __ATOMIC_SEQ_CST);
}

static int is_set(const int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

int tv_work_must_stop(const struct tv_work *work)
{
    return is_set(&work->must_stop);
}

static void *work_main(void *argument)
{
    struct tv_work *work = argument;
    work->status = work->function(work->context, work);
    if (work->status != TV_OK)
        snprintf(work->message, sizeof(work->message), "%s", tv_error_message());
    set(&work->is_done);
    return NULL;
}

void tv_work_start(struct tv_work *work,
                   tv_status_t (*function)(void *context, const struct tv_work *work),
                   void *context)
{
    memset(work, 0, sizeof(*work));
    work->function = function;
    work->context = context;
    work->is_started = 1;
    if (function == NULL) {
        set(&work->is_done);
        return;
    }
    work->has_thread = pthread_create(&work->thread, NULL, work_main, work) == 0;
    if (!work->has_thread) {
        work->status = TV_NO_MEMORY;
        snprintf(work->message, sizeof(work->message), "a thread for files cannot be started");
        set(&work->is_done);
    }
}

static void join(struct tv_work *work)
{
    if (work->has_thread)
        pthread_join(work->thread, NULL);
    work->has_thread = work->is_started = 0;
}

tv_status_t tv_work_poll(struct tv_comm *comm, struct tv_work *work, int *is_done_out)
{
    int first_failed;
    const int is_done = is_set(&work->is_done);
    int flags[2] = {is_done,
                    !is_done || work->status == TV_OK}; /* done everywhere, well everywhere */
    *is_done_out = 0;
    TV_TRY(tv_comm_all_reduce_now(comm, flags, 2, TV_I32, TV_MIN));
    if (!flags[1])
        set(&work->must_stop);
    if (!flags[0])
        return TV_OK;
    *is_done_out = 1;
    join(work);
    tv_status_t status = work->status;
    if (status != TV_OK)
        status = TV_ERR(status, "%s", work->message);
    return tv_comm_agree(comm, status, &first_failed);
}

tv_status_t tv_work_wait(struct tv_comm *comm, struct tv_work *work)
{
    /* From 0.1 ms to 50 ms: short work ends soon, long work costs its waiters nothing. */
    struct timespec pause = {0, 100000};
    for (int is_done = 0; work->is_started;) {
        const tv_status_t status = tv_work_poll(comm, work, &is_done);
        if (status != TV_OK) {
            tv_work_abandon(work); /* still going on after TV_PEER alone */
            return status;
        }
        if (is_done)
            break;
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < 50000000)
            pause.tv_nsec += pause.tv_nsec / 2;
    }
    return TV_OK;
}

tv_status_t tv_work_do(struct tv_comm *comm,
                       tv_status_t (*function)(void *context, const struct tv_work *work),
                       void *context)
{
    struct tv_work work;
    tv_work_start(&work, function, context);
    return tv_work_wait(comm, &work);
}

void tv_work_abandon(struct tv_work *work)
{
    if (!work->is_started)
        return;
    set(&work->must_stop);
    join(work);
}

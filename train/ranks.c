/* train/ranks.c -- processes or threads, their verdicts, one exit code. */
#include "train/ranks.h"
#include "base/log.h"
#include "train/terminal.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* As the launcher says it before MPI does; 0 without a launcher. */
static int launcher_rank(void)
{
    static const char *const rank_variables[] = {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK",
                                                 "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof(rank_variables) / sizeof(rank_variables[0]); i++) {
        const char *value = getenv(rank_variables[i]);
        if (value != NULL)
            return (int)strtol(value, NULL, 10);
    }
    return 0;
}

int tv_is_first_process(void)
{
    return launcher_rank() == 0;
}

void tv_print_error(void)
{
    tv_log(TV_LOG_ERROR, "error: %s", tv_error_message());
    tv_log(TV_LOG_DEBUG, "decided at %s", tv_error_where());
}

static void tell_end(tv_status_t status)
{
    if (status == TV_STOPPED)
        tv_log(TV_LOG_INFO, "%s", tv_error_message());
    else
        tv_print_error();
}

int tv_refuse_flags(tv_status_t status)
{
    if (tv_is_first_process())
        tv_print_error();
    return tv_status_exit_code(status);
}

/* A missed deadline, or a file that has changed, is seen by many ranks within moments of each other.
 * Each waits a little longer than the one before it, so that the first to speak ends the job before
 * the others do. */
static void take_turns(const struct tv_comm *world, int rank)
{
    enum { MOST_TURNS = 15 };
    const struct timespec turn = {0, 200 * 1000 * 1000L};
    for (int r = 0; r < rank && r < MOST_TURNS; r++) {
        if (world == NULL || !tv_comm_is_aborted(world))
            nanosleep(&turn, NULL);
    }
}

/* A launcher that is told to end a job drops what it has not read of its output. Half a turn, so that
 * the others do not speak meanwhile. */
static void let_launcher_read(void)
{
    const struct timespec pause = {0, 100 * 1000 * 1000L};
    nanosleep(&pause, NULL);
}

/* This rank failed while others may wait for it: say so, unless another has, and end the job. */
static void end_job(struct tv_comm *world, tv_status_t status)
{
    take_turns(world, tv_comm_rank(world));
    if (!tv_comm_is_aborted(world)) {
        tv_print_error();
        let_launcher_read();
    }
    tv_comm_abort(world, tv_status_exit_code(status));
}

/* One rank from its communicator to its exit code. */
static int run_rank(struct tv_comm *world, const struct tv_ranks_args *args)
{
    int is_common = 0;
    tv_comm_set_name(world, "world");
    tv_comm_set_timeout(world, args->timeout_seconds);
    int first_failed = -1;
    tv_status_t status = args->body(world, args->context, &is_common);
    if (status == TV_OK) { /* before a way to leave MPI that ends the process */
        status = tv_comm_rank(world) == 0 ? tv_output_check() : TV_OK;
        status = tv_comm_agree(world, status, &first_failed);
        is_common = first_failed >= 0;
    }
    if (status == TV_OK)
        return 0;
    if (!is_common)
        end_job(world, status);
    else if (tv_comm_rank(world) == 0) /* every rank returned the same: none waits for another */
        tell_end(status);
    return tv_status_exit_code(status);
}

/* What launchers say of the number of processes they started. */
static const struct {
    const char *variable, *instead;
} launchers[] = {
    {"SLURM_STEP_NUM_TASKS", "start it with srun --mpi=pmi2"},
    {"OMPI_COMM_WORLD_SIZE", "start it with the mpiexec of the MPI that trivet was built with"},
    {"PMI_SIZE", "start it with the mpiexec of the MPI that trivet was built with"},
};
enum { NUM_LAUNCHERS = sizeof(launchers) / sizeof(launchers[0]) };

static long processes_of(int launcher)
{
    const char *value = getenv(launchers[launcher].variable);
    return value != NULL ? strtol(value, NULL, 10) : 1;
}

long tv_launched_processes(void)
{
    long most = 1;
    for (int i = 0; i < NUM_LAUNCHERS; i++)
        most = processes_of(i) > most ? processes_of(i) : most;
    return most;
}

/* A launcher whose process manager this MPI does not speak starts so many programs of one rank. */
static tv_status_t check_launcher(int world_size)
{
    for (int i = 0; i < NUM_LAUNCHERS; i++) {
        if (world_size == 1 && processes_of(i) > 1)
            return TV_ERR(
                TV_INVALID,
                "the launcher started %ld processes (%s), but MPI makes each of them a job "
                "of 1 rank: %s",
                processes_of(i), launchers[i].variable, launchers[i].instead);
    }
    return TV_OK;
}

/* ---- MPI_Init and MPI_Finalize, which wait for all ranks without an end of their own ---- */

struct watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t over;
    int is_over, has_thread;
    double timeout_seconds;
    const char *what;
};

/* No call of MPI is possible here: the launcher ends the other ranks of one that leaves like this. */
static void *watch_main(void *argument)
{
    struct watch *watch = argument;
    struct timespec deadline;
    int is_late = 0;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += (time_t)watch->timeout_seconds + 1;
    pthread_mutex_lock(&watch->lock);
    while (!watch->is_over && !is_late)
        is_late = pthread_cond_timedwait(&watch->over, &watch->lock, &deadline) != 0;
    is_late = is_late && !watch->is_over;
    pthread_mutex_unlock(&watch->lock);
    if (is_late) {
        take_turns(NULL, launcher_rank());
        tv_log(TV_LOG_ERROR, "error: rank %d: no answer from some rank in %g s (while: %s)",
               launcher_rank(), watch->timeout_seconds, watch->what);
        let_launcher_read();
        _exit(tv_status_exit_code(TV_PEER));
    }
    return NULL;
}

static void watch_start(struct watch *watch, double timeout_seconds, const char *what)
{
    *watch = (struct watch){.timeout_seconds = timeout_seconds, .what = what};
    pthread_mutex_init(&watch->lock, NULL);
    pthread_cond_init(&watch->over, NULL);
    watch->has_thread = pthread_create(&watch->thread, NULL, watch_main, watch) == 0;
    if (!watch->has_thread)
        tv_log(TV_LOG_WARN, "no thread to watch over: %s", what);
}

static void watch_stop(struct watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->is_over = 1;
    pthread_cond_signal(&watch->over);
    pthread_mutex_unlock(&watch->lock);
    if (watch->has_thread)
        pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->over);
    pthread_mutex_destroy(&watch->lock);
}

static int run_processes(const struct tv_ranks_args *args)
{
    struct tv_comm *world = NULL;
    struct watch watch;
    watch_start(&watch, args->timeout_seconds, "starting MPI");
    const tv_status_t started = tv_comm_mpi_world(&world);
    watch_stop(&watch);
    if (started != TV_OK) {
        tv_print_error();
        return tv_status_exit_code(TV_PEER);
    }
    tv_status_t status = check_launcher(tv_comm_size(world));
    if (status != TV_OK && tv_is_first_process())
        tv_print_error();
    const int exit_code = status == TV_OK ? run_rank(world, args) : tv_status_exit_code(status);
    status = tv_comm_mpi_leave(world, exit_code);
    if (status != TV_OK)
        end_job(world, status);
    watch_start(&watch, args->timeout_seconds, "leaving MPI");
    tv_comm_destroy(world);
    watch_stop(&watch);
    return exit_code;
}

struct rank_thread {
    pthread_t thread;
    struct tv_comm *world;
    const struct tv_ranks_args *args;
    int exit_code;
};

static void *rank_main(void *argument)
{
    struct rank_thread *rank = argument;
    rank->exit_code = run_rank(rank->world, rank->args);
    return NULL;
}

/* The exit code of the rank that failed first by itself: peers of an abort all say TV_PEER. */
static int worst_exit_code(const struct rank_thread *ranks, int num)
{
    const int peer = tv_status_exit_code(TV_PEER);
    int worst = 0;
    for (int r = 0; r < num; r++) {
        if (ranks[r].exit_code != 0 && (worst == 0 || worst == peer))
            worst = ranks[r].exit_code;
    }
    return worst;
}

static int run_threads(const struct tv_ranks_args *args)
{
    enum { STACK_BYTES = 16 << 20 };
    const int num = args->local_ranks;
    struct rank_thread *ranks = calloc((size_t)num, sizeof(*ranks));
    struct tv_comm **comms = calloc((size_t)num, sizeof(struct tv_comm *));
    tv_status_t status = TV_OK;
    if (ranks == NULL || comms == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%d local ranks", num);
    if (status == TV_OK)
        status = tv_comm_thread_create(num, comms);
    if (status != TV_OK) {
        tv_print_error();
        free(ranks);
        free(comms);
        return tv_status_exit_code(status);
    }
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int started = 0;
    for (; started < num; started++) {
        ranks[started].world = comms[started];
        ranks[started].args = args;
        if (pthread_create(&ranks[started].thread, &attributes, rank_main, &ranks[started]) != 0)
            break;
    }
    if (started < num) {
        tv_log(TV_LOG_ERROR, "error: only %d of %d ranks could be started as threads", started,
               num);
        tv_comm_abort(comms[started], 1);
    }
    for (int r = 0; r < started; r++)
        pthread_join(ranks[r].thread, NULL);
    pthread_attr_destroy(&attributes);
    const int exit_code = started < num ? 1 : worst_exit_code(ranks, num);
    for (int r = 0; r < num; r++)
        tv_comm_destroy(comms[r]);
    free(ranks);
    free(comms);
    return exit_code;
}

int tv_ranks_run(const struct tv_ranks_args *args)
{
    return args->local_ranks > 0 ? run_threads(args) : run_processes(args);
}

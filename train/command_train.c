/* train/command_train.c -- `trivet train`: starts the ranks (MPI processes, or threads with --local-ranks), runs each,
 * and turns their verdicts into one message and one exit code. */
#include "train/commands.h"
#include "train/loop.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Under a launcher every process finds the same mistake in the flags; only the first one says so. */
static int is_first_process(void)
{
    static const char *const rank_variables[] = {"PMI_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof(rank_variables) / sizeof(rank_variables[0]); i++) {
        const char *value = getenv(rank_variables[i]);
        if (value != NULL)
            return strcmp(value, "0") == 0;
    }
    return 1;
}

static void print_error(void)
{
    tv_log(TV_LOG_ERROR, "error: %s", tv_error_message());
    tv_log(TV_LOG_DEBUG, "decided at %s", tv_error_where());
}

/* A missed deadline is seen by many ranks within moments of each other. Each waits a little longer than the one before
 * it, so that the first to speak ends the job before the others do. */
static void take_turns(int rank)
{
    const struct timespec pause = {0, 20 * 1000 * 1000L};
    for (int r = 0; r < rank && r < 100; r++)
        nanosleep(&pause, NULL);
}

/* One rank from its communicator to its exit code. */
static int run_rank(struct tv_comm *world, const struct tv_train_options *options)
{
    struct tv_run run = {0};
    int first_failed = -1, is_common = 0;
    tv_comm_set_name(world, "world");
    tv_comm_set_timeout(world, options->timeout_seconds);
    const int is_alone = options->is_dry_run && tv_comm_size(world) == 1;
    tv_status_t status = tv_run_resolve(options, is_alone ? 0 : tv_comm_size(world), &run);
    status = tv_comm_agree(world, status, &first_failed);
    is_common = status != TV_OK && first_failed >= 0;
    if (status == TV_OK && options->is_dry_run)
        status = tv_comm_rank(world) == 0 ? tv_dry_run_print(&run, stdout) : TV_OK;
    else if (status == TV_OK)
        status = tv_train_loop(world, &run, &is_common);
    tv_run_free(&run);
    if (status == TV_OK)
        return 0;
    const int exit_code = tv_status_exit_code(status);
    if (is_common) { /* every rank returned the same: no rank waits for another */
        if (tv_comm_rank(world) == 0)
            print_error();
        return exit_code;
    }
    if (status == TV_PEER)
        take_turns(tv_comm_rank(world));
    if (!tv_comm_is_aborted(world))
        print_error();
    tv_comm_abort(world, exit_code);
    return exit_code;
}

static int train_mpi(const struct tv_train_options *options)
{
    struct tv_comm *world = NULL;
    if (tv_comm_mpi_world(&world) != TV_OK) {
        print_error();
        return tv_status_exit_code(TV_PEER);
    }
    const int exit_code = run_rank(world, options);
    tv_comm_destroy(world);
    return exit_code;
}

struct rank_thread {
    pthread_t thread;
    struct tv_comm *world;
    const struct tv_train_options *options;
    int exit_code;
};

static void *rank_main(void *argument)
{
    struct rank_thread *rank = argument;
    rank->exit_code = run_rank(rank->world, rank->options);
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

static int train_threads(const struct tv_train_options *options)
{
    enum { STACK_BYTES = 16 << 20 };
    const int num = options->local_ranks;
    struct rank_thread *ranks = calloc((size_t)num, sizeof(*ranks));
    struct tv_comm **comms = calloc((size_t)num, sizeof(struct tv_comm *));
    tv_status_t status = TV_OK;
    if (ranks == NULL || comms == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%d local ranks", num);
    if (status == TV_OK)
        status = tv_comm_thread_create(num, comms);
    if (status != TV_OK) {
        print_error();
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
        ranks[started].options = options;
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

int tv_command_train(int argc, char **argv)
{
    struct tv_train_options options;
    tv_log_level_t level = TV_LOG_INFO;
    tv_status_t status = tv_train_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status != TV_OK) {
        if (is_first_process())
            print_error();
        return tv_status_exit_code(status);
    }
    tv_log_set_level(level);
    int exit_code = 0;
    if (options.wants_help) {
        if (is_first_process())
            tv_train_options_help(stdout);
    } else {
        exit_code = options.local_ranks > 0 ? train_threads(&options) : train_mpi(&options);
    }
    tv_train_options_free(&options);
    return exit_code;
}

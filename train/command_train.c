/* train/command_train.c -- `trivet train`: what each rank does from its communicator to its
 * status. */
#include "train/checkpoint_internal.h"
#include "train/commands.h"
#include "train/file_faults.h"
#include "train/loop.h"
#include "train/ranks.h"
#include "train/run_device.h"
#include "train/stop.h"
#include <signal.h>

struct wish {
    const struct tv_train_options *given;
    int num_ranks, is_root;
    struct tv_run *run;
};

/* The run of these flags and of a checkpoint's, which may be NULL: mistakes that take no time to see. */
static tv_status_t resolve_with(void *context, struct tv_checkpoint *checkpoint)
{
    const struct wish *wish = context;
    struct tv_train_options options = *wish->given; /* what it borrows outlives the run */
    tv_run_free(wish->run);
    if (checkpoint != NULL)
        TV_TRY(tv_checkpoint_inherit(checkpoint, &options));
    TV_TRY(tv_run_resolve(&options, wish->num_ranks, wish->run));
    wish->run->checkpoint = checkpoint;
    if (checkpoint == NULL)
        return TV_OK;
    TV_TRY(tv_checkpoint_check(checkpoint, wish->run));
    return wish->is_root && !options.is_dry_run ? tv_trainer_try_data(wish->run) : TV_OK;
}

/* The checkpoint to go on from, if there is one, and the run. */
static tv_status_t resolve(struct tv_comm *world, const struct tv_train_options *given,
                           struct tv_checkpoint **checkpoint, struct tv_run *run)
{
    int first_failed;
    const int is_alone = given->is_dry_run && tv_comm_size(world) == 1;
    struct wish wish = {given, is_alone ? 0 : tv_comm_size(world), tv_comm_rank(world) == 0, run};
    const struct tv_checkpoint_trial trial = {resolve_with, &wish};
    TV_TRY(tv_checkpoint_find(world, given, trial, checkpoint));
    if (*checkpoint != NULL)
        return tv_run_check_devices(world, run);
    TV_TRY(tv_comm_agree(world, resolve_with(&wish, NULL), &first_failed));
    return tv_run_check_devices(world, run);
}

static tv_status_t train_rank(struct tv_comm *world, void *context, int *is_common_out)
{
    const struct tv_train_options *options = context;
    struct tv_run run = {0};
    struct tv_checkpoint *checkpoint = NULL;
    tv_status_t status = tv_file_faults_catch();
    if (status == TV_OK)
        status = resolve(world, options, &checkpoint, &run);
    *is_common_out = status != TV_OK && status != TV_PEER;
    if (status == TV_OK && options->is_dry_run)
        status = tv_comm_rank(world) == 0 ? tv_dry_run_print(&run, stdout) : TV_OK;
    else if (status == TV_OK)
        status = tv_train_loop(world, &run, is_common_out);
    tv_run_free(&run);
    tv_checkpoint_close(checkpoint);
    return status;
}

int tv_command_train(int argc, char **argv)
{
    struct tv_train_options options;
    tv_log_level_t level = TV_LOG_INFO;
    tv_status_t status = tv_train_options_parse(argc, argv, &options);
    if (status == TV_OK)
        status = tv_log_level_parse(options.log_level, &level);
    if (status != TV_OK)
        return tv_refuse_flags(status);
    tv_log_set_level(level);
    signal(SIGXFSZ, SIG_IGN); /* a file beyond the limit is a write that fails, as on a full disk */
    if (!options.is_dry_run && !options.wants_help)
        status = tv_stop_watch(options.exit_after_minutes);
    if (status != TV_OK)
        return tv_refuse_flags(status);
    int exit_code = 0;
    if (options.wants_help) {
        if (tv_is_first_process())
            tv_train_options_help(stdout);
    } else {
        const struct tv_ranks_args ranks = {.local_ranks = options.local_ranks,
                                            .timeout_seconds = options.timeout_seconds,
                                            .body = train_rank,
                                            .context = &options};
        exit_code = tv_ranks_run(&ranks);
    }
    tv_train_options_free(&options);
    return exit_code;
}

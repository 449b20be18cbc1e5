/* tests/mesh/lost_rank.c -- a job whose rank 1 goes missing in step 3, for test_lost_rank.py.
 *
 * usage: lost_rank kill|stop|sleep timeout_seconds */
#include "mesh/comm.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void go_missing(const char *how)
{
    if (strcmp(how, "kill") == 0)
        raise(SIGKILL);
    else if (strcmp(how, "stop") == 0)
        raise(SIGSTOP);
    else
        pause();
}

static tv_status_t run(struct tv_comm *world, const char *how)
{
    static float gradients[10000];
    for (int step = 1; step <= 5; step++) {
        tv_comm_set_context(world, "step %d", step);
        if (step == 3 && tv_comm_rank(world) == 1)
            go_missing(how);
        TV_TRY(tv_comm_all_reduce_now(world, gradients, 10000, TV_F32, TV_SUM));
    }
    return TV_OK;
}

int main(int argc, char **argv)
{
    struct tv_comm *world = NULL;
    if (argc != 3 || tv_comm_mpi_world(&world) != TV_OK)
        return 1;
    tv_comm_set_name(world, "data");
    tv_comm_set_timeout(world, atof(argv[2]));
    const tv_status_t status = run(world, argv[1]);
    if (status != TV_OK) {
        fprintf(stderr, "%s\n", tv_error_message());
        sleep(1); /* the abort of the first would cut off the sentence of the second */
        tv_comm_abort(world, tv_status_exit_code(status));
    }
    tv_comm_destroy(world);
    return 0;
}

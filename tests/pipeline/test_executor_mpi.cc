// The executor on MPI ranks: small messages, and ones that no transport buffers (row B20).
#include "pipeline/executor_case.h"
#include <unistd.h>

static tv_comm *world;

TEST(ExecutorMpi, EverySchedule)
{
    for (const char *name : {"gpipe", "1f1b"})
        for (int m : {1, 2, 3, 5, 9}) {
            tv_schedule schedule = {};
            ASSERT_EQ(tv_schedule_build(name, tv_comm_size(world), m, &schedule), TV_OK);
            run_case(world, schedule, 16, 5, 3);
            tv_schedule_destroy(&schedule);
        }
}

TEST(ExecutorMpi, MessagesOf8MiB)
{
    tv_schedule schedule = {};
    ASSERT_EQ(tv_schedule_build("1f1b", tv_comm_size(world), 5, &schedule), TV_OK);
    run_case(world, schedule, 2 << 20, 1, 2);
    tv_schedule_destroy(&schedule);
}

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    if (tv_comm_mpi_world(&world) != TV_OK)
        return 1;
    tv_comm_set_timeout(world, 60);
    const int failed = RUN_ALL_TESTS();
    if (failed)
        tv_comm_abort(world, 1); // the others must not wait
    tv_comm_destroy(world);
    return failed;
}

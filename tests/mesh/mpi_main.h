/* tests/mesh/mpi_main.h -- main of a test that runs under mpiexec: one world for all tests; rank 0 tells the story, the
 * others only what fails. */
#ifndef TESTS_MESH_MPI_MAIN_H
#define TESTS_MESH_MPI_MAIN_H
#include "mesh/ranks.h"
#include <cstdio>

inline struct tv_comm *mpi_world = nullptr;

class FailurePrinter : public testing::EmptyTestEventListener
{
    void OnTestPartResult(const testing::TestPartResult &result) override
    {
        if (result.failed())
            std::fprintf(stderr, "rank %d: %s:%d: %s\n", tv_comm_rank(mpi_world),
                         result.file_name(), result.line_number(), result.message());
    }
};

inline int mpi_main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    if (tv_comm_mpi_world(&mpi_world) != TV_OK) {
        std::fprintf(stderr, "%s\n", tv_error_message());
        return 1;
    }
    testing::TestEventListeners &listeners = testing::UnitTest::GetInstance()->listeners();
    if (tv_comm_rank(mpi_world) != 0) {
        delete listeners.Release(listeners.default_result_printer());
        listeners.Append(new FailurePrinter);
    }
    const int failed = RUN_ALL_TESTS();
    tv_comm_destroy(mpi_world);
    return failed;
}
#endif

/* tests/mesh/mpi_main.h -- main of a test that runs under mpiexec: one world for all tests; ranks fail together. */
#ifndef TESTS_MESH_MPI_MAIN_H
#define TESTS_MESH_MPI_MAIN_H
#include "mesh/ranks.h"
#include <cstdio>

inline struct tv_comm *mpi_world = nullptr;

inline int mpi_main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    if (tv_comm_mpi_world(&mpi_world) != TV_OK) {
        std::fprintf(stderr, "%s\n", tv_error_message());
        return 1;
    }
    if (tv_comm_rank(mpi_world) != 0)
        delete testing::UnitTest::GetInstance()->listeners().Release(
            testing::UnitTest::GetInstance()->listeners().default_result_printer());
    const int failed = RUN_ALL_TESTS();
    tv_comm_destroy(mpi_world);
    return failed;
}
#endif

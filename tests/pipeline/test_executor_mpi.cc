/* tests/pipeline/test_executor_mpi.cc -- the executor's contract over MPI processes. */
#include "mesh/mpi_main.h"
#include "pipeline/contract_executor.h"

class MpiExecutor : public testing::TestWithParam<RankCase>
{
};

TEST_P(MpiExecutor, Holds)
{
    run_rank(mpi_world, GetParam().run);
}

INSTANTIATE_TEST_SUITE_P(Mpi, MpiExecutor, testing::ValuesIn(executor_cases()),
                         [](const auto &test) { return std::string(test.param.name); });

int main(int argc, char **argv)
{
    return mpi_main(argc, argv);
}

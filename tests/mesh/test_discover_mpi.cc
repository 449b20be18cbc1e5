/* tests/mesh/test_discover_mpi.cc -- discovery over MPI processes. */
#include "mesh/contract_discover.h"
#include "mesh/mpi_main.h"
#include <string>

class MpiDiscover : public testing::TestWithParam<RankCase>
{
};

TEST_P(MpiDiscover, Holds)
{
    run_rank(mpi_world, GetParam().run);
}

INSTANTIATE_TEST_SUITE_P(Mpi, MpiDiscover, testing::ValuesIn(discover_cases()),
                         [](const auto &test) { return std::string(test.param.name); });

int main(int argc, char **argv)
{
    return mpi_main(argc, argv);
}

/* tests/mesh/test_discover.cc -- discovery over four threads, and what no other rank is needed for. */
#include "mesh/contract_discover.h"
#include <algorithm>
#include <string>

class ThreadDiscover : public testing::TestWithParam<RankCase>
{
};

TEST_P(ThreadDiscover, Holds)
{
    run_threads(4, GetParam().run);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadDiscover, testing::ValuesIn(discover_cases()),
                         [](const auto &test) { return std::string(test.param.name); });

/* The nodes of n7, n8, n66, n70 by rank, for ranks that arrive in this order. */
static std::vector<int> nodes_of(const std::vector<std::string> &names)
{
    std::vector<int> node_of(names.size(), -1);
    run_threads((int)names.size(), [&](struct tv_comm *world) {
        struct tv_nodes nodes = {};
        ASSERT_OK(tv_nodes_find(world, names[(size_t)tv_comm_rank(world)].c_str(), &nodes));
        EXPECT_EQ((int)names.size(), nodes.num_nodes);
        if (tv_comm_rank(world) == 0)
            node_of.assign(nodes.node_of, nodes.node_of + names.size());
        tv_nodes_free(&nodes);
    });
    return node_of;
}

TEST(Nodes, Row21AnyOrderOfArrival)
{
    const std::vector<std::string> natural = {"n7", "n8", "n66", "n70"};
    std::vector<std::string> names = natural;
    std::sort(names.begin(), names.end());
    do {
        const std::vector<int> node_of = nodes_of(names);
        for (size_t r = 0; r < names.size(); r++)
            EXPECT_EQ(natural[(size_t)node_of[r]], names[r]);
    } while (std::next_permutation(names.begin(), names.end()));
}

TEST(Machine, CpusOfMadeUpMachines)
{
    struct tv_machine machine = {};
    ASSERT_OK(tv_machine_read("package:2 [numa] core:2 pu:2", &machine));
    ASSERT_EQ(8, machine.num_cpus);
    EXPECT_EQ(0, machine.num_nics);
    for (int c = 0; c < 8; c++) {
        EXPECT_EQ(c, machine.cpus[c].os_index);
        EXPECT_EQ(c / 2, machine.cpus[c].core);
        EXPECT_EQ(c / 4, machine.cpus[c].numa);
        EXPECT_EQ(c / 4, machine.cpus[c].package);
    }
    tv_machine_free(&machine);
    EXPECT_EQ(TV_INVALID, tv_machine_read("no such thing", &machine));
}

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

/* The node of each mesh rank of pp 2 x tp 2, for four ranks that arrive on these nodes. */
static std::vector<std::string> layout_of(const std::vector<std::string> &names,
                                          int *identity_split)
{
    std::vector<std::string> node_of_place(4);
    run_threads(4, [&](struct tv_comm *world) {
        const std::string &name = names[(size_t)tv_comm_rank(world)];
        struct tv_nodes nodes = {};
        struct tv_machine machine = {};
        struct tv_topology topology = {};
        struct tv_device_place arrivals[4];
        ASSERT_OK(tv_nodes_find(world, name.c_str(), &nodes));
        ASSERT_OK(tv_machine_share(&nodes, "core:2 pu:1", &machine));
        const struct tv_discover_args args = {.nodes = &nodes,
                                              .machine = &machine,
                                              .place = 0,
                                              .network = nullptr,
                                              .address = nullptr,
                                              .uses_gpus = 0,
                                              .may_share_gpus = 0};
        ASSERT_OK(tv_topology_discover(world, &args, &topology, arrivals));
        struct tv_map_args map_args = {};
        map_args.topology = &topology;
        map_args.extent = {{2, 1, 2}};
        map_args.traffic.load[TV_TENSOR] = 1e9;
        map_args.traffic.load[TV_PIPE] = 1e8;
        for (double &exposed : map_args.traffic.exposed)
            exposed = 1;
        map_args.num_arrivals = 4;
        map_args.arrivals = arrivals;
        struct tv_map map = {};
        ASSERT_OK(tv_map_solve(&map_args, &map));
        EXPECT_EQ(0, map.split_tensor_groups);
        ASSERT_OK(tv_placement_check_alike(world, 4, map.mesh_rank)); /* all have the same answer */
        for (int r = 0; r < 4 && tv_comm_rank(world) == 0; r++)
            node_of_place[(size_t)map.mesh_rank[r]] = names[(size_t)r];
        if (tv_comm_rank(world) == 0)
            *identity_split = map.identity_split_tensor_groups;
        tv_map_free(&map);
        tv_topology_free(&topology);
        tv_machine_free(&machine);
        tv_nodes_free(&nodes);
    });
    return node_of_place;
}

TEST(Layout, RanksThatDisagreeFindOut)
{
    run_threads(3, [](struct tv_comm *world) {
        int place_of[3] = {2, 0, 1};
        EXPECT_EQ(TV_OK, tv_placement_check_alike(world, 3, place_of));
        if (tv_comm_rank(world) == 1)
            std::swap(place_of[1], place_of[2]);
        EXPECT_EQ(TV_INTERNAL, tv_placement_check_alike(world, 3, place_of));
    });
}

TEST(Layout, Row1TensorGroupsMeetOnANodeInAnyOrderOfArrival)
{
    std::vector<std::string> names = {"n7", "n7", "n66", "n66"};
    const std::vector<std::string> want = names;
    std::sort(names.begin(), names.end());
    do {
        int identity_split = -1;
        EXPECT_EQ(want, layout_of(names, &identity_split));
        EXPECT_EQ(names[0] == names[1] ? 0 : 2, identity_split);
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

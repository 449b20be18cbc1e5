/* tests/mesh/test_mapper.cc -- the mapper on machines with a known answer, refusals, warnings. Where a
 * fast link would hide the network's share, cost.axis is asserted. */
#include "mesh/machines.h"
#include <gtest/gtest.h>
#include <random>

TEST(Mapper, CyclicArrivalsDoNotSplitTensorGroups)
{
    Machines machines = nodes_of({4, 4}, 450, 50);
    tv_map_args args = map_args(machines.view(), 2, 1, 4, 1e9, 0, 1e10);
    const auto places = cyclic(2, 4);
    set_arrivals(args, places);
    Map map(args);
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(Ranks({0, 4, 1, 5, 2, 6, 3, 7}), Ranks(map->mesh_rank, map->mesh_rank + 8));
    EXPECT_EQ(0, map->split_tensor_groups);
    EXPECT_EQ(2, map->identity_split_tensor_groups);
    EXPECT_LT(map->chosen.total, map->identity.total);
}

/* h 4096, L 32, s 4096, b 1, 12 L h^2 parameters, bf16 gradients, on 400 GB/s per node: replicas share
 * a node when w_dp > 2 w_pp, which m micro-batches decide. */
TEST(Mapper, CostDecidesWhetherReplicasOrStagesShareANode)
{
    const double S = 2.0 * 4096 * 4096, parameters = 12.0 * 32 * 4096 * 4096;
    Machines machines = nodes_of({8, 8, 8, 8}, 450, 400);
    for (int m : {128, 256}) {
        const double tensor = 2 * 0.75 * S * 4 * 16 * m, pipe = m * S / 4,
                     data = 0.75 * 4 * parameters / 8;
        Map map(map_args(machines.view(), 2, 4, 4, pipe, data, tensor));
        ASSERT_EQ(TV_OK, map.status);
        for (int n = 0; n < 4; n++)
            EXPECT_EQ(m == 128 ? 1u : 2u, stages_on(map, n, 16).size()) << m;
        if (m == 128) {
            EXPECT_NEAR(0.0456, map->chosen.axis[TV_PIPE] + map->chosen.axis[TV_DATA], 0.00005);
        }
        EXPECT_NEAR(tensor / 450e9, map->chosen.axis[TV_TENSOR], 1e-9);
        EXPECT_EQ(0, map->split_tensor_groups);
    }
}

TEST(Mapper, PairsOfLinksHoldTensorGroups)
{
    for (const Ranks &mate : {Ranks{1, 0, 3, 2}, Ranks{2, 3, 0, 1}}) {
        Machines machines;
        const int shape = machines.shape(4, 80, 25, TV_LINKS_MATRIX);
        for (int i = 0; i < 4; i++)
            machines.link(shape, i, mate[static_cast<size_t>(i)], 40);
        machines.node(shape);
        Map two(map_args(machines.view(), 1, 2, 2, 0, 1e9, 1e10));
        ASSERT_EQ(TV_OK, two.status);
        EXPECT_EQ((std::set<std::set<int>>{{0, mate[0]}, {3, mate[3]}}), groups_on(two, 0, 2));
        EXPECT_FALSE(two.warns("no ring of links"));
        Map four(map_args(machines.view(), 1, 1, 4, 0, 0, 1e10));
        ASSERT_EQ(TV_OK, four.status);
        EXPECT_TRUE(four.warns("no ring of links, the first on node0"));
    }
}

TEST(Mapper, AllGpusOnASwitchAreOneGroupOrHalvesByPackage)
{
    for (bool is_interleaved : {false, true}) {
        Machines machines;
        const int shape = machines.shape(16, 150, 50);
        std::set<std::set<int>> halves;
        std::set<int> half[2];
        for (int i = 0; i < 16; i++) {
            const int package = is_interleaved ? i % 2 : i / 8;
            machines.gpu(shape, i).package = machines.gpu(shape, i).numa = package;
            half[package].insert(i);
        }
        machines.node(shape);
        Map sixteen(map_args(machines.view(), 1, 1, 16, 0, 0, 1e10));
        ASSERT_EQ(TV_OK, sixteen.status);
        EXPECT_EQ(1u, groups_on(sixteen, 0, 16).size());
        EXPECT_EQ(0, sixteen->num_warnings);
        Map eight(map_args(machines.view(), 1, 2, 8, 0, 1e9, 1e10));
        ASSERT_EQ(TV_OK, eight.status);
        EXPECT_EQ((std::set<std::set<int>>{half[0], half[1]}), groups_on(eight, 0, 8));
    }
}

/* Four GPUs of two packages: linked all to all, or nothing known of links; the same map. */
TEST(Mapper, PackagesDecideWhereLinksTieOrAreUnknown)
{
    for (const Ranks &packages : {Ranks{0, 0, 1, 1}, Ranks{0, 1, 0, 1}, Ranks{0, 1, 1, 0}}) {
        for (tv_links_kind_t kind : {TV_LINKS_UNKNOWN, TV_LINKS_MATRIX}) {
            Machines machines;
            const int shape = machines.shape(4, 450, 50, kind);
            set_packages(machines, shape, packages, {3, 1, 7, 5});
            for (int i = 0; i < 4 && kind == TV_LINKS_MATRIX; i++) {
                for (int j = 0; j < i; j++)
                    machines.link(shape, i, j, 150);
            }
            machines.node(shape);
            Map map(map_args(machines.view(), 1, 2, 2, 0, 1e9, 1e10));
            ASSERT_EQ(TV_OK, map.status);
            std::set<int> package[2];
            for (int i = 0; i < 4; i++)
                package[packages[static_cast<size_t>(i)]].insert(i);
            EXPECT_EQ((std::set<std::set<int>>{package[0], package[1]}), groups_on(map, 0, 2));
        }
    }
}

/* MI250X: 4, 2 or 1 links between dies. */
TEST(Mapper, RingsOfLinksDecideGroupsOnMi250x)
{
    Machines machines;
    const int shape = machines.shape(8, 350, 100, TV_LINKS_MATRIX);
    for (int i = 0; i < 8; i += 2)
        machines.link(shape, i, i + 1, 4);
    machines.link(shape, 0, 6, 2);
    machines.link(shape, 2, 4, 2);
    for (auto [i, j] : {std::pair{0, 2}, {1, 3}, {1, 5}, {3, 7}, {4, 6}, {5, 7}})
        machines.link(shape, i, j, 1);
    machines.node(shape);
    Map two(map_args(machines.view(), 1, 4, 2, 0, 1e9, 1e10));
    ASSERT_EQ(TV_OK, two.status);
    EXPECT_EQ((std::set<std::set<int>>{{0, 1}, {2, 3}, {4, 5}, {6, 7}}), groups_on(two, 0, 2));
    Map four(map_args(machines.view(), 1, 2, 4, 0, 1e9, 1e10));
    ASSERT_EQ(TV_OK, four.status);
    EXPECT_EQ((std::set<std::set<int>>{{0, 1, 2, 3}, {4, 5, 6, 7}}), groups_on(four, 0, 4));
    EXPECT_FALSE(four.warns("no ring"));

    Machines flat; /* rates say nothing: NUMA nodes give the same pairs */
    const int unknown = flat.shape(8, 350, 100, TV_LINKS_UNKNOWN);
    set_packages(flat, unknown, Ranks(8, 0), {3, 3, 1, 1, 0, 0, 2, 2});
    flat.node(unknown);
    Map pairs(map_args(flat.view(), 1, 4, 2, 0, 1e9, 1e10));
    ASSERT_EQ(TV_OK, pairs.status);
    EXPECT_EQ((std::set<std::set<int>>{{0, 1}, {2, 3}, {4, 5}, {6, 7}}), groups_on(pairs, 0, 2));
}

TEST(Mapper, SixGpusPerNode)
{
    Machines machines;
    const int shape = machines.shape(6, 100, 50, TV_LINKS_UNKNOWN);
    set_packages(machines, shape, {0, 0, 0, 1, 1, 1}, {0, 0, 0, 8, 8, 8});
    machines.node(shape);
    machines.node(shape);
    Map three(map_args(machines.view(), 1, 4, 3, 0, 1e9, 1e10));
    ASSERT_EQ(TV_OK, three.status);
    Map two(map_args(machines.view(), 1, 6, 2, 0, 1e9, 1e10));
    ASSERT_EQ(TV_OK, two.status);
    for (int n = 0; n < 2; n++) {
        EXPECT_EQ((std::set<std::set<int>>{{0, 1, 2}, {3, 4, 5}}), groups_on(three, n, 3));
        int num_across = 0;
        for (const auto &group : groups_on(two, n, 2)) {
            ASSERT_EQ(2u, group.size());
            num_across += *group.begin() < 3 && *group.rbegin() >= 3;
        }
        EXPECT_EQ(1, num_across);
    }
    Map four(map_args(machines.view(), 1, 3, 4, 0, 1e9, 1e11));
    ASSERT_EQ(TV_OK, four.status);
    EXPECT_EQ(1, four->split_tensor_groups);
    EXPECT_TRUE(four.warns("1 of 3 tensor groups leave their node"));
    EXPECT_TRUE(four.warns("tensor=2 would"));
}

TEST(Mapper, ANodeWithADeadGpu)
{
    Machines machines = nodes_of({8, 8, 7, 8}, 450, 50);
    const std::set<std::pair<int, int>> node2{{2, 0}, {2, 1}, {2, 2}, {2, 3},
                                              {2, 4}, {2, 5}, {2, 6}};
    Map whole(map_args(machines.view(), 1, 3, 8, 0, 1e9, 1e11));
    ASSERT_EQ(TV_OK, whole.status);
    EXPECT_EQ(node2, unused(whole));
    EXPECT_TRUE(whole.warns("7 devices are unused: node2 (7, from device 0)"));
    Map six(map_args(machines.view(), 1, 6, 4, 0, 1e9, 1e11));
    ASSERT_EQ(TV_OK, six.status);
    EXPECT_EQ(node2, unused(six));
    EXPECT_EQ(0, six->split_tensor_groups);
    Map seven(map_args(machines.view(), 1, 7, 4, 0, 1e9, 1e11));
    ASSERT_EQ(TV_OK, seven.status);
    EXPECT_EQ(0, seven->split_tensor_groups);
    EXPECT_EQ(3, seven->num_unused);
    for (auto [node, device] : unused(seven))
        EXPECT_EQ(2, node) << device;
    Map too_many(map_args(machines.view(), 1, 4, 8, 0, 1e9, 1e11));
    EXPECT_EQ(TV_INVALID, too_many.status);
    EXPECT_STREQ("a mesh of pipe=1 x data=4 x tensor=8 needs 32 devices, there are 31",
                 tv_error_message());
}

/* Boxes alone give 400 here. */
TEST(Mapper, AFactorOfThree)
{
    Machines machines = nodes_of({4, 4, 4}, 1e6, 1);
    Map map(map_args(machines.view(), 3, 4, 1, 50e9, 1e9, 0));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_NEAR(103, map->chosen.total, 1e-6);
    EXPECT_TRUE(map->is_exact);
    EXPECT_NEAR(map->chosen.total, map->lower_bound, 1e-6);
}

TEST(Mapper, AnNvlinkDomainTakesThePlaceOfItsNodes)
{
    Machines machines;
    const int shape = machines.shape(4, 900, 200);
    for (int n = 0; n < 32; n++)
        machines.node(shape, -1, n / 16);
    for (double data : {5e9, 3e9}) { /* w_pp is 1e9: one stage per domain above 4 w_pp */
        Map map(map_args(machines.view(), 2, 8, 8, 1e9, data, 1e12));
        ASSERT_EQ(TV_OK, map.status);
        EXPECT_EQ(0, map->split_tensor_groups);
        EXPECT_EQ(0, map->num_warnings);
        std::set<int> stages;
        for (int n = 0; n < 16; n++)
            stages.merge(stages_on(map, n, 64));
        EXPECT_EQ(data > 4e9 ? 1u : 2u, stages.size());
        EXPECT_NEAR(1e12 / 900e9, map->chosen.axis[TV_TENSOR], 1e-9);
        const double crossing = data > 4e9 ? 64 * 1e9 : 16 * data;
        EXPECT_NEAR(crossing / 3200e9, map->chosen.axis[data > 4e9 ? TV_PIPE : TV_DATA], 1e-9);
    }
}

/* Equal t of all nodes is on one rail, whatever NICs are called and however GPUs are numbered. */
TEST(Mapper, EqualTensorRanksShareARail)
{
    Machines machines;
    const int plain = machines.shape(8, 450, 400), gaps = machines.shape(8, 450, 400),
              reversed = machines.shape(8, 450, 400);
    const int nics[] = {0, 1, 2, 5, 6, 7, 8, 9};
    for (int i = 0; i < 8; i++) {
        machines.gpu(plain, i).nic = i;
        machines.gpu(gaps, i).nic = nics[i];
        machines.gpu(reversed, i).nic = 7 - i;
    }
    for (int shape : {plain, gaps, reversed, plain})
        machines.node(shape);
    Map map(map_args(machines.view(), 2, 2, 8, 1e9, 1e9, 1e11));
    ASSERT_EQ(TV_OK, map.status);
    for (int n = 0; n < 4; n++) {
        const Ranks ranks = map.on_node(n);
        for (int i = 0; i < 8; i++)
            EXPECT_EQ(n == 2 ? 7 - i : i, ranks[static_cast<size_t>(i)] % 8) << n;
    }
}

TEST(Mapper, NodesStandInNaturalOrder)
{
    const std::vector<std::string> names{"n7", "n66", "n8", "n70"};
    Machines machines;
    const int shape = machines.shape(2, 450, 50);
    for (const auto &name : names)
        machines.node(shape, -1, -1, name);
    std::mt19937 random(5);
    auto places = block(4, 2);
    for (int trial = 0; trial < 20; trial++) {
        tv_map_args args = map_args(machines.view(), 4, 1, 2, 1e9, 0, 1e10);
        set_arrivals(args, places);
        Map map(args);
        ASSERT_EQ(TV_OK, map.status);
        EXPECT_EQ(Ranks({0, 1}), map.on_node(0)); /* n7 */
        EXPECT_EQ(Ranks({2, 3}), map.on_node(2)); /* n8 */
        EXPECT_EQ(Ranks({4, 5}), map.on_node(1)); /* n66 */
        EXPECT_EQ(Ranks({6, 7}), map.on_node(3)); /* n70 */
        std::shuffle(places.begin(), places.end(), random);
    }
}

TEST(Mapper, TwoRanksOnOneDeviceAreRefused)
{
    Machines machines = nodes_of({4, 4}, 450, 50);
    tv_map_args args = map_args(machines.view(), 1, 4, 2, 0, 1e9, 1e10);
    auto places = block(2, 4);
    places[6] = places[1];
    set_arrivals(args, places);
    tv_map map;
    EXPECT_EQ(TV_INVALID, tv_map_solve(&args, &map));
    EXPECT_STREQ("ranks 1 and 6 are both on device 1 of node0", tv_error_message());
    places[6] = {2, 0};
    EXPECT_EQ(TV_INVALID, tv_map_solve(&args, &map));
    EXPECT_STREQ("rank 6 is on device 0 of node 2, which is not there", tv_error_message());
}

/* h 12288, L 96, s 2048, m 64, on 400 GB/s per node. */
TEST(Mapper, ATensorGroupLargerThanANodeIsSplitInTwoAndWarnedAbout)
{
    const double S = 2.0 * 2048 * 12288, parameters = 12.0 * 96 * 12288 * 12288;
    Machines machines = nodes_of(Ranks(8, 8), 450, 400);
    Map map(map_args(machines.view(), 2, 2, 16, 64 * S / 16, 0.5 * 4 * parameters / 32,
                     2 * 15 / 16.0 * S * 4 * 48 * 64));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(4, map->split_tensor_groups);
    EXPECT_NEAR(3.12, map->chosen.total, 0.005);
    for (int n = 0; n < 8; n++)
        EXPECT_EQ(1u, groups_on(map, n, 16).size());
    EXPECT_TRUE(map.warns("4 of 4 tensor groups leave their node"));
    EXPECT_TRUE(map.warns("tensor=8 would"));
}

TEST(Mapper, TensorGroupsStayInsideNodesForBlockAndCyclicArrivals)
{
    Machines machines = nodes_of({8, 8}, 450, 50);
    const int meshes[][3] = {{1, 2, 8}, {2, 2, 4}};
    for (const auto &mesh : meshes) {
        for (const auto &places : {block(2, 8), cyclic(2, 8)}) {
            tv_map_args args = map_args(machines.view(), mesh[0], mesh[1], mesh[2], 1e9, 1e9, 1e11);
            set_arrivals(args, places);
            Map map(args);
            ASSERT_EQ(TV_OK, map.status);
            EXPECT_EQ(0, map->split_tensor_groups);
            EXPECT_EQ(0, map->num_warnings);
        }
    }
}

TEST(Mapper, SuspiciousDevicesAreLeftOutFirst)
{
    Machines machines;
    const int sound = machines.shape(4, 450, 50, TV_LINKS_MATRIX),
              broken = machines.shape(4, 450, 50, TV_LINKS_MATRIX);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < i; j++) {
            machines.link(sound, i, j, 150);
            if (i != 1 && j != 1)
                machines.link(broken, i, j, 150);
        }
    }
    machines.node(broken);
    machines.node(sound);
    Map spared(map_args(machines.view(), 1, 7, 1, 0, 1e9, 0));
    ASSERT_EQ(TV_OK, spared.status);
    EXPECT_EQ((std::set<std::pair<int, int>>{{0, 1}}), unused(spared));
    Map all(map_args(machines.view(), 1, 8, 1, 0, 1e9, 0));
    ASSERT_EQ(TV_OK, all.status);
    EXPECT_TRUE(all.warns("node0 device 1 (0000:11:00.0) has a rank, but no link where its peers "
                          "have one"));
    for (int i = 0; i < 4; i++) {
        copy_text(machines.gpu(sound, i).model, TV_TOPO_NAME, "A");
        copy_text(machines.gpu(broken, i).model, TV_TOPO_NAME, i == 2 ? "B" : "A");
    }
    Map models(map_args(machines.view(), 1, 6, 1, 0, 1e9, 0));
    ASSERT_EQ(TV_OK, models.status);
    EXPECT_EQ((std::set<std::pair<int, int>>{{0, 1}, {0, 2}}), unused(models));
}

/* Leaf switches of two nodes, listed so that neighbours in the list are not neighbours. */
TEST(Mapper, SwitchesKeepTheirNodesTogether)
{
    Machines machines;
    const int shape = machines.shape(4, 450, 100);
    const int root = machines.add_switch(-1, 0),
              leaves[] = {machines.add_switch(root, 100), machines.add_switch(root, 100)};
    for (int n = 0; n < 4; n++)
        machines.node(shape, leaves[n % 2]);
    Map map(map_args(machines.view(), 2, 2, 4, 1e9, 5e9, 1e11));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(stages_on(map, 0, 8), stages_on(map, 2, 8));
    EXPECT_EQ(stages_on(map, 1, 8), stages_on(map, 3, 8));
    EXPECT_NEAR(8 * 1e9 / 100e9, map->chosen.axis[TV_PIPE], 1e-9);
}

/* Leaf switches that cut through a domain constrain nothing; the switch above both domains does. */
TEST(Mapper, ADomainSpansItsLeafSwitches)
{
    Machines machines;
    const int shape = machines.shape(4, 900, 200), top = machines.add_switch(-1, 0);
    for (int domain = 0; domain < 2; domain++) {
        for (int leaf = 0; leaf < 2; leaf++) {
            const int low = machines.add_switch(top, 1);
            machines.node(shape, low, domain);
            machines.node(shape, low, domain);
        }
    }
    Map map(map_args(machines.view(), 2, 1, 16, 1e9, 0, 1e12));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(0, map->split_tensor_groups);
    EXPECT_NEAR(1e12 / 900e9, map->chosen.axis[TV_TENSOR], 1e-9);
    EXPECT_NEAR(16 * 1e9 / 800e9, map->chosen.axis[TV_PIPE], 1e-9);
}

/* 3 stages x 3 replicas x 4 tensor ranks on nodes of 12: whole pipelines of tensor groups inside nodes. */
TEST(Mapper, PipelinesStayInsideNodesWhereStagesTalkMost)
{
    Machines machines;
    const int shape = machines.shape(12, 450, 50);
    for (int n = 0; n < 3; n++)
        machines.node(shape);
    Map map(map_args(machines.view(), 3, 3, 4, 50e9, 1e9, 1e12));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(0, map->split_tensor_groups);
    EXPECT_NEAR(12 * 1e9 / 50e9, map->chosen.axis[TV_DATA], 1e-9);
    EXPECT_NEAR(50e9 * 2 / 450e9, map->chosen.axis[TV_PIPE], 1e-9); /* each GPU's two neighbours */
}

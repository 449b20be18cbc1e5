/* tests/mesh/test_mapper_any.cc -- what holds for the mapper on any machines, and on very many. */
#include "mesh/machines.h"
#include <cmath>
#include <gtest/gtest.h>
#include <numeric>
#include <random>

TEST(Mapper, EvaluateAgreesAndRefusesWhatIsNoLayout)
{
    Machines machines = nodes_of({4, 3, 4}, 450, 50);
    const tv_map_args args = map_args(machines.view(), 2, 2, 2, 1e9, 2e9, 1e10);
    Map map(args);
    ASSERT_EQ(TV_OK, map.status);
    tv_map_cost cost;
    int split;
    ASSERT_EQ(TV_OK, tv_map_evaluate(&args, map->mesh_rank, &cost, &split));
    EXPECT_EQ(map->chosen.total, cost.total);
    EXPECT_EQ(map->split_tensor_groups, split);
    Ranks identity(11, -1);
    std::iota(identity.begin(), identity.begin() + 8, 0);
    ASSERT_EQ(TV_OK, tv_map_evaluate(&args, identity.data(), &cost, &split));
    EXPECT_EQ(map->identity.total, cost.total);
    EXPECT_EQ(map->identity_split_tensor_groups, split);
    EXPECT_GE(map->worst.total, map->identity.total);
    identity[0] = 1;
    EXPECT_EQ(TV_INVALID, tv_map_evaluate(&args, identity.data(), &cost, &split));
    EXPECT_STREQ("mesh rank 1 is given twice", tv_error_message());
    identity[0] = -1;
    EXPECT_EQ(TV_INVALID, tv_map_evaluate(&args, identity.data(), &cost, &split));
    EXPECT_STREQ("7 of 8 mesh ranks are given", tv_error_message());
}

/* Any order of arrival, any order and any names of nodes: each device keeps its cell as long as the
 * natural order of names is the same. */
TEST(Mapper, TheAnswerDoesNotDependOnOrderOrNames)
{
    std::mt19937 random(11);
    for (int trial = 0; trial < 30; trial++) {
        Ranks sizes(4);
        for (int &size : sizes)
            size = std::uniform_int_distribution<int>(1, 5)(random);
        const int num = std::accumulate(sizes.begin(), sizes.end(), 0);
        Ranks order{0, 1, 2, 3};
        std::vector<Ranks> expected;
        for (int turn = 0; turn < 4; turn++) {
            Machines machines; /* machine k is called host<10^k>; listed in `order` */
            for (int k : order)
                machines.node(machines.shape(sizes[static_cast<size_t>(k)], 450, 10 + k), -1, -1,
                              (turn % 2 == 0 ? "host1" : "n1") +
                                  std::string(static_cast<size_t>(k), '0'));
            std::vector<tv_device_place> places;
            for (int n = 0; n < 4; n++) {
                for (int i = 0; i < sizes[static_cast<size_t>(order[static_cast<size_t>(n)])]; i++)
                    places.push_back({n, i});
            }
            std::shuffle(places.begin(), places.end(), random);
            tv_map_args args = map_args(machines.view(), num / 2, 1, 2, 1e9, 1e9, 3e9);
            set_arrivals(args, places);
            Map map(args);
            ASSERT_EQ(TV_OK, map.status);
            std::vector<Ranks> found(4);
            for (int n = 0; n < 4; n++)
                found[static_cast<size_t>(order[static_cast<size_t>(n)])] = map.on_node(n);
            if (turn == 0)
                expected = found;
            EXPECT_EQ(expected, found) << trial;
            std::shuffle(order.begin(), order.end(), random);
        }
    }
}

TEST(Mapper, FasterCutsNeverCostMore)
{
    double before = INFINITY;
    for (double rate = 1; rate < 100; rate *= 1.5) {
        Machines machines;
        for (int size : {4, 3, 5, 4})
            machines.node(machines.shape(size, 450, size == 3 ? rate : 20));
        Map map(map_args(machines.view(), 4, 2, 2, 1e9, 2e9, 1e10));
        ASSERT_EQ(TV_OK, map.status);
        ASSERT_TRUE(map->is_exact);
        EXPECT_LE(map->chosen.total, before);
        before = map->chosen.total;
    }
}

TEST(Mapper, OneDevice)
{
    Machines machines = nodes_of({1}, 450, 50);
    Map map(map_args(machines.view(), 1, 1, 1, 1e9, 1e9, 1e9));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(0, map->mesh_rank[0]);
    EXPECT_EQ(0, map->chosen.total);
    EXPECT_TRUE(map->is_exact);
}

/* 131072 devices under three levels of switches. */
TEST(Mapper, AHundredThousandDevices)
{
    Machines machines;
    const int shape = machines.shape(8, 450, 400);
    for (int pod = 0; pod < 8; pod++) {
        const int top = machines.add_switch(-1, 50000);
        for (int spine = 0; spine < 8; spine++) {
            const int middle = machines.add_switch(top, 20000);
            for (int leaf = 0; leaf < 8; leaf++) {
                const int low = machines.add_switch(middle, 6400);
                for (int n = 0; n < 32; n++)
                    machines.node(shape, low);
            }
        }
    }
    Map map(map_args(machines.view(), 16, 1024, 8, 1e9, 3e9, 1e12));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(131072, map->num_ranks);
    EXPECT_EQ(0, map->split_tensor_groups);
    EXPECT_LE(map->chosen.total, map->identity.total);
}

TEST(Mapper, ThousandsOfNodesWithDeadGpus)
{
    Machines machines;
    const int whole = machines.shape(8, 450, 400), cut = machines.shape(7, 450, 400);
    std::mt19937 random(3);
    int num_cut = 0;
    for (int leaf = 0; leaf < 128; leaf++) {
        const int low = machines.add_switch(-1, 6400);
        for (int n = 0; n < 32; n++) {
            const bool is_cut = std::uniform_int_distribution<int>(0, 19)(random) == 0;
            num_cut += is_cut;
            machines.node(is_cut ? cut : whole, low);
        }
    }
    ASSERT_GT(num_cut, 100);
    ASSERT_LT(num_cut, 300);
    Map map(map_args(machines.view(), 8, 440, 8, 1e9, 3e9, 1e12));
    ASSERT_EQ(TV_OK, map.status);
    EXPECT_EQ(0, map->split_tensor_groups);
    EXPECT_LE(map->chosen.total, map->identity.total);
}

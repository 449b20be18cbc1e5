/* tests/mesh/contract_discover.cc -- nodes, machines, network and places found by ranks that say which node they are
 * on. */
#include "mesh/contract_discover.h"
#include "mesh/links.h"
#include <cstring>

namespace
{
struct Found {
    struct tv_nodes nodes = {};
    struct tv_machine machine = {};
    struct tv_topology topology = {};
    std::vector<struct tv_device_place> arrivals;
    ~Found()
    {
        tv_topology_free(&topology);
        tv_machine_free(&machine);
        tv_nodes_free(&nodes);
    }
};

void discover(struct tv_comm *world, const Rank &rank, Found *found)
{
    ASSERT_OK(tv_nodes_find(world, rank.node, &found->nodes));
    ASSERT_OK(tv_machine_share(&found->nodes, rank.machine, &found->machine));
    found->arrivals.resize((size_t)tv_comm_size(world));
    const struct tv_discover_args args = {.nodes = &found->nodes,
                                          .machine = &found->machine,
                                          .place = rank.place,
                                          .network = nullptr,
                                          .address = rank.address,
                                          .uses_gpus = 0,
                                          .may_share_gpus = 0};
    ASSERT_OK(tv_topology_discover(world, &args, &found->topology, found->arrivals.data()));
}

/* Four ranks: two on n66, one on n7, one on n8. */
const Rank cluster[4] = {{"n66", "package:2 [numa] core:2 pu:1", "root.b.n66", 0},
                         {"n7", "core:2 pu:1", "root.a.n7", 0},
                         {"n66", "package:2 [numa] core:2 pu:1", "root.b.n66", 0},
                         {"n8", "core:2 pu:1", "root.a.n8", 0}};

void row_21_nodes_stand_in_natural_order(struct tv_comm *world)
{
    Found found;
    ASSERT_NO_FATAL_FAILURE(discover(world, cluster[tv_comm_rank(world)], &found));
    ASSERT_EQ(3, found.topology.num_nodes);
    EXPECT_STREQ("n7", found.topology.nodes[0].name);
    EXPECT_STREQ("n8", found.topology.nodes[1].name);
    EXPECT_STREQ("n66", found.topology.nodes[2].name);
    const struct tv_device_place want[4] = {{2, 0}, {0, 0}, {2, 1}, {1, 0}};
    for (size_t r = 0; r < 4; r++) {
        EXPECT_EQ(want[r].node, found.arrivals[r].node) << r;
        EXPECT_EQ(want[r].device, found.arrivals[r].device) << r;
    }
    EXPECT_EQ(want[tv_comm_rank(world)].node, found.nodes.here);
    EXPECT_EQ(want[tv_comm_rank(world)].device, tv_comm_rank(found.nodes.local));
}

void equal_nodes_share_a_shape(struct tv_comm *world)
{
    Found found;
    ASSERT_NO_FATAL_FAILURE(discover(world, cluster[tv_comm_rank(world)], &found));
    ASSERT_EQ(2, found.topology.num_shapes);
    EXPECT_EQ(found.topology.nodes[0].shape, found.topology.nodes[1].shape);
    const struct tv_node_shape *two = tv_topology_shape(&found.topology, 2);
    EXPECT_EQ(2, two->num_gpus);
    EXPECT_TRUE(two->is_cpu);
    EXPECT_EQ(TV_LINKS_SWITCH, two->links_kind);
    EXPECT_EQ(0, two->gpus[0].numa); /* one place on each NUMA node */
    EXPECT_EQ(1, two->gpus[1].numa);
    ASSERT_EQ(2, two->num_numas);
    EXPECT_STREQ("0-1", two->numas[0].cpus);
    EXPECT_STREQ("2-3", two->numas[1].cpus);
    EXPECT_EQ(50, two->nic_gbps); /* a made-up machine has no NIC that says its speed */
}

void addresses_make_switches(struct tv_comm *world)
{
    Found found;
    ASSERT_NO_FATAL_FAILURE(discover(world, cluster[tv_comm_rank(world)], &found));
    ASSERT_EQ(3, found.topology.num_switches);
    EXPECT_STREQ("root", found.topology.switches[0].name);
    EXPECT_EQ(-1, found.topology.switches[0].parent);
    EXPECT_STREQ("a", found.topology.switches[1].name);
    EXPECT_EQ(0, found.topology.switches[1].parent);
    EXPECT_STREQ("b", found.topology.switches[2].name);
    EXPECT_EQ(1, found.topology.nodes[0].leaf);
    EXPECT_EQ(1, found.topology.nodes[1].leaf);
    EXPECT_EQ(2, found.topology.nodes[2].leaf);
}

void an_address_that_is_missing_means_no_network(struct tv_comm *world)
{
    Found found;
    Rank rank = cluster[tv_comm_rank(world)];
    if (tv_comm_rank(world) == 3)
        rank.address = nullptr;
    ASSERT_NO_FATAL_FAILURE(discover(world, rank, &found));
    EXPECT_EQ(0, found.topology.num_switches);
    EXPECT_EQ(-1, found.topology.nodes[0].leaf);
}

void ranks_take_places_where_they_are_bound(struct tv_comm *world)
{
    Found found;
    const int rank = tv_comm_rank(world);
    ASSERT_NO_FATAL_FAILURE(discover(world, {"n", "core:4 pu:1", nullptr, 3 - rank}, &found));
    for (size_t r = 0; r < 4; r++)
        EXPECT_EQ(3 - (int)r, found.arrivals[r].device);
}

void this_machine_is_one_node(struct tv_comm *world)
{
    Found found;
    ASSERT_NO_FATAL_FAILURE(discover(world, {nullptr, nullptr, nullptr, 0}, &found));
    ASSERT_EQ(1, found.topology.num_nodes);
    EXPECT_EQ(tv_comm_size(world), tv_topology_num_devices(&found.topology));
    EXPECT_GT(found.topology.shapes[0].nic_gbps, 0);
    for (int r = 0; r < tv_comm_size(world); r++)
        EXPECT_EQ(r, found.arrivals[(size_t)r].device);
}

void links_are_measured_in_both_tiers(struct tv_comm *world)
{
    Found found;
    struct tv_link_rates rates = {};
    ASSERT_NO_FATAL_FAILURE(discover(world, cluster[tv_comm_rank(world)], &found));
    ASSERT_OK(tv_links_measure(world, &found.nodes, 0.05, &rates));
    for (int tier = 0; tier < TV_NUM_TIERS; tier++) {
        EXPECT_GT(rates.seconds[tier], 0);
        EXPECT_LT(rates.seconds[tier], 0.1);
        EXPECT_GT(rates.gbps[tier], 0.01);
    }
    double most[2] = {rates.gbps[0], -rates.gbps[0]}; /* the same on every rank */
    ASSERT_OK(tv_comm_all_reduce_now(world, most, 2, TV_F64, TV_MAX));
    EXPECT_EQ(most[0], -most[1]);
    tv_links_apply(&rates, &found.topology);
    for (int s = 0; s < found.topology.num_shapes; s++) {
        EXPECT_EQ(rates.gbps[TV_TIER_NODE], found.topology.shapes[s].gpu_gbps);
        EXPECT_EQ(rates.gbps[TV_TIER_NETWORK], found.topology.shapes[s].nic_gbps);
    }
}

void a_tier_without_a_pair_stays_as_guessed(struct tv_comm *world)
{
    Found found;
    struct tv_link_rates rates = {};
    ASSERT_NO_FATAL_FAILURE(discover(world, {"n", "core:4 pu:1", nullptr, 0}, &found));
    ASSERT_OK(tv_links_measure(world, &found.nodes, 0.02, &rates));
    EXPECT_EQ(0, rates.gbps[TV_TIER_NETWORK]);
    tv_links_apply(&rates, &found.topology);
    EXPECT_EQ(50, found.topology.shapes[0].nic_gbps);
}
} // namespace

const std::vector<RankCase> &discover_cases()
{
#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
    static const std::vector<RankCase> cases = {
        CASE(row_21_nodes_stand_in_natural_order),
        CASE(equal_nodes_share_a_shape),
        CASE(addresses_make_switches),
        CASE(an_address_that_is_missing_means_no_network),
        CASE(ranks_take_places_where_they_are_bound),
        CASE(this_machine_is_one_node),
        CASE(links_are_measured_in_both_tiers),
        CASE(a_tier_without_a_pair_stays_as_guessed),
    };
#undef CASE
    return cases;
}

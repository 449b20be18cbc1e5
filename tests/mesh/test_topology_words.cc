// Nodes described by words, natural order of names, and nodes that share their shape.
#include "mesh/topologies_here.h"
#include "mesh/topology_internal.h"
#include <chrono>
#include <gtest/gtest.h>
#include <random>
#include <string>

namespace
{

void expect_refused(const std::string &spec, tv_status_t status, const std::string &part)
{
    expect_refused(spec, "", status, part);
}

TEST(TopologyWords, Defaults)
{
    const Topology topology("node:2 gpu:4");
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    EXPECT_EQ(topology.num_nodes, 2);
    EXPECT_EQ(topology.num_shapes, 1);
    EXPECT_EQ(topology.num_warnings, 0);
    EXPECT_EQ(tv_topology_num_devices(&topology), 8);
    EXPECT_STREQ(topology.nodes[1].name, "node1");
    EXPECT_EQ(topology.nodes[1].leaf, -1);
    EXPECT_EQ(topology.nodes[1].domain, -1);
    const struct tv_node_shape *shape = tv_topology_shape(&topology, 1);
    EXPECT_EQ(shape->num_gpus, 4);
    EXPECT_EQ(shape->num_nics, 1);
    EXPECT_EQ(shape->num_numas, 1);
    EXPECT_EQ(shape->gpu_gbps, 25);
    EXPECT_EQ(shape->nic_gbps, 50);
    EXPECT_EQ(shape->links_kind, TV_LINKS_MATRIX);
    for (int i = 0; i < 16; i++)
        EXPECT_EQ(shape->links[i], 0);
    EXPECT_FALSE(shape->is_cpu);
}

TEST(TopologyWords, DevicesAreSpreadOverNumaNodesInOrder)
{
    const Topology topology("node:1 numa:2 gpu:6 nic:4 nic-bw:25 gpu-bw:100 link:pairs");
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    const struct tv_node_shape *shape = tv_topology_shape(&topology, 0);
    const int numas[] = {0, 0, 0, 1, 1, 1}, nics[] = {0, 0, 1, 2, 2, 3};
    for (int g = 0; g < 6; g++) {
        EXPECT_EQ(shape->gpus[g].numa, numas[g]);
        EXPECT_EQ(shape->gpus[g].package, numas[g]);
        EXPECT_EQ(shape->gpus[g].nic, nics[g]);
    }
    EXPECT_EQ(shape->nics[1].numa, 0);
    EXPECT_EQ(shape->nics[2].numa, 1);
    EXPECT_EQ(shape->nics[2].gbps, 25);
    EXPECT_EQ(shape->nic_gbps, 100);
    EXPECT_EQ(shape->gpu_gbps, 100);
    for (int i = 0; i < 6; i++) {
        for (int j = 0; j < 6; j++)
            EXPECT_EQ(shape->links[i * 6 + j], i != j && i / 2 == j / 2 ? 100 : 0);
    }
}

TEST(TopologyWords, ANumaNodeWithoutNicHasNoneNear)
{
    const Topology topology("node:1 numa:2 gpu:4 nic:1");
    ASSERT_EQ(topology.status, TV_OK);
    const struct tv_node_shape *shape = tv_topology_shape(&topology, 0);
    EXPECT_EQ(shape->gpus[1].nic, 0);
    EXPECT_EQ(shape->gpus[2].nic, -1);
}

TEST(TopologyWords, MeshSharesTheRateAndASwitchGivesItAll)
{
    const Topology topology("node:1 gpu:4 link:mesh,node:1 gpu:4 link:nvswitch");
    ASSERT_EQ(topology.status, TV_OK);
    const struct tv_node_shape *mesh = tv_topology_shape(&topology, 0);
    EXPECT_EQ(mesh->links[1], 150);
    EXPECT_EQ(mesh->links[0], 0);
    EXPECT_EQ(mesh->gpu_gbps, 450);
    const struct tv_node_shape *nvswitch = tv_topology_shape(&topology, 1);
    EXPECT_EQ(nvswitch->links_kind, TV_LINKS_SWITCH);
    EXPECT_EQ(nvswitch->links, nullptr);
    EXPECT_EQ(nvswitch->gpu_gbps, 450);
}

TEST(TopologyWords, PlacesOnCpus)
{
    const Topology topology("node:3 numa:2 cpu:8");
    ASSERT_EQ(topology.status, TV_OK);
    EXPECT_EQ(tv_topology_num_devices(&topology), 24);
    EXPECT_TRUE(tv_topology_shape(&topology, 0)->is_cpu);
    EXPECT_EQ(tv_topology_shape(&topology, 0)->gpus[4].numa, 1);
}

TEST(TopologyWords, Refusals)
{
    expect_refused("", TV_INVALID, "empty");
    expect_refused("node:2 gpu:4,", TV_INVALID, "empty");
    expect_refused("node:0 gpu:4", TV_INVALID, "node:0");
    expect_refused("node:2", TV_INVALID, "gpu:G or cpu:G");
    expect_refused("node:2 gpu:4 cpu:4", TV_INVALID, "gpu:G or cpu:G");
    expect_refused("node:2 cpu:4 link:mesh", TV_INVALID, "link:mesh");
    expect_refused("node:2 gpu:4 gpu:5", TV_INVALID, "gpu:5: given twice");
    expect_refused("node:2 gpu:4x", TV_INVALID, "gpu:4x");
    expect_refused("node:2 gpu:+4", TV_INVALID, "gpu:+4");
    expect_refused("node:2 gpu:4 nic:0", TV_INVALID, "nic:0");
    expect_refused("node:2 gpu:1025", TV_INVALID, "1 to 1024");
    expect_refused("node:99999999999999999999 gpu:1", TV_INVALID, "node:99");
    expect_refused("node:262144 gpu:1,node:1 gpu:1", TV_INVALID, "more than 262144 nodes");
    expect_refused("node:2 gpu:4 link:ring", TV_INVALID, "link:ring");
    expect_refused("node:2 gpu:4 gpus:4", TV_INVALID, "\"gpus:4\"");
    expect_refused("node:2 gpu:4 gpu-bw:0", TV_INVALID, "gpu-bw:0");
    expect_refused("node:2 gpu:4 gpu-bw:nan", TV_INVALID, "gpu-bw:nan");
    expect_refused("node:2 gpu:4 nic-bw:inf", TV_INVALID, "nic-bw:inf");
    expect_refused("nowhere/file.xml", TV_BAD_FILE, "nowhere/file.xml");
    expect_refused("nowhere/file.xml*0", TV_INVALID, "count");
    expect_refused("nowhere/file.xml*2x", TV_INVALID, "count");
    expect_refused("/", TV_BAD_FILE, "directory");
}

TEST(TopologyWords, NaturalOrder)
{
    EXPECT_LT(tv_natural_order("n7", "n66"), 0);
    EXPECT_GT(tv_natural_order("n66", "n8"), 0);
    EXPECT_LT(tv_natural_order("n8", "n70"), 0);
    EXPECT_EQ(tv_natural_order("n8", "n8"), 0);
    EXPECT_NE(tv_natural_order("n08", "n8"), 0);
    EXPECT_EQ(tv_natural_order("n08", "n8"), -tv_natural_order("n8", "n08"));
    EXPECT_LT(tv_natural_order("rack2-node10", "rack10-node2"), 0);
    EXPECT_LT(tv_natural_order("n", "n1"), 0);
    EXPECT_LT(tv_natural_order("n1", "n1a"), 0);
    EXPECT_LT(tv_natural_order("n99999999999999999999998", "n99999999999999999999999"), 0);
}

TEST(TopologyWords, ADeadGpuHereAndThereKeepsShapesFew)
{
    std::mt19937 random(7);
    std::string spec;
    int num_dead = 0;
    for (int n = 0; n < 4096; n++) {
        const bool is_dead = random() % 20 == 0;
        num_dead += is_dead;
        spec += std::string(n > 0 ? "," : "") +
                "node:1 numa:2 link:nvswitch nic:8 gpu:" + (is_dead ? "7" : "8");
    }
    const Topology topology(spec);
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    EXPECT_EQ(topology.num_nodes, 4096);
    EXPECT_EQ(topology.num_shapes, 2);
    EXPECT_EQ(tv_topology_num_devices(&topology), 8 * 4096 - num_dead);
    ASSERT_EQ(topology.num_warnings, 1);
    EXPECT_NE(
        std::string(topology.warnings[0])
            .find("and " + std::to_string(num_dead - 1) + " more: 7 devices, most nodes have 8"),
        std::string::npos)
        << topology.warnings[0];
}

// As live discovery makes them: eight GPUs with addresses, of which one may be dead.
struct tv_node_shape shape_without(int dead)
{
    struct tv_node_shape shape = {};
    shape.gpus = static_cast<tv_gpu *>(calloc(8, sizeof(tv_gpu)));
    shape.links_kind = TV_LINKS_SWITCH;
    for (int g = 0; g < 8; g++) {
        if (g != dead)
            snprintf(shape.gpus[shape.num_gpus++].pci, TV_TOPO_PCI, "0000:%x0:00.0", g + 1);
    }
    return shape;
}

TEST(TopologyWords, NodesFoundOneByOneShareShapesToo)
{
    std::mt19937 random(11);
    Topology topology("node:1 gpu:1");
    tv_topology_free(&topology);
    for (int n = 0; n < 4096; n++) {
        struct tv_node_shape shape = shape_without(random() % 20 == 0 ? (int)(random() % 8) : -1);
        int index = -1;
        ASSERT_EQ(tv_topology_add_shape(&topology, &shape, &index), TV_OK);
        ASSERT_EQ(tv_topology_add_node(&topology, ("n" + std::to_string(n)).c_str(), index), TV_OK);
    }
    EXPECT_EQ(topology.num_shapes, 9);
    ASSERT_EQ(tv_topology_warn_unlike(&topology), TV_OK);
    EXPECT_EQ(topology.num_warnings, 8);
    EXPECT_NE(topology.all_warnings().find("7 devices, most nodes have 8; none at 0000:10:00.0"),
              std::string::npos)
        << topology.all_warnings();
}

} // namespace

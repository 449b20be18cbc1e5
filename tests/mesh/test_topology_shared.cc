// Files of real machines, read as the README beside them says. They are not part of the sources.
#include "mesh/topologies_here.h"

namespace
{

class SharedTopologies : public ::testing::Test
{
  protected:
    void SetUp() override
    {
        if (!std::filesystem::exists(shared_topologies()))
            GTEST_SKIP() << "no files in " << shared_topologies();
    }
    static std::string file(const std::string &name)
    {
        return (shared_topologies() / name).string();
    }
};

using Ints = std::vector<int>;

std::vector<std::string> pci_of(const tv_node_shape &shape)
{
    std::vector<std::string> buses;
    for (int g = 0; g < shape.num_gpus; g++)
        buses.push_back(std::string(shape.gpus[g].pci).substr(5, 2));
    return buses;
}

bool warns(const Topology &topology, const std::string &part)
{
    return topology.all_warnings().find(part) != std::string::npos;
}

TEST_F(SharedTopologies, Dgx2h)
{
    const Topology topology(file("hwloc-dgx2h-v100x16-nvswitch.xml"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    const tv_node_shape &shape = topology.shape();
    ASSERT_EQ(shape.num_gpus, 16);
    EXPECT_EQ(shape.links_kind, TV_LINKS_SWITCH);
    EXPECT_EQ(shape.gpu_gbps, 150);
    EXPECT_EQ(of_gpus(shape, &tv_gpu::package),
              (Ints{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1}));
    expect_refused(file("hwloc-dgx2h-xml-v3-format.xml"), "", TV_BAD_FILE, "--export-xml-flags v2");
}

TEST_F(SharedTopologies, Power)
{
    const Topology p8(file("hwloc-power8-p100x4-nvlink.xml"));
    ASSERT_EQ(p8.status, TV_OK) << tv_error_message();
    EXPECT_EQ(links_of(p8.shape(), 0), (std::vector<double>{0, 40, 0, 0}));
    EXPECT_EQ(links_of(p8.shape(), 3), (std::vector<double>{0, 0, 40, 0}));
    const Topology p9(file("hwloc-power9-6gpu-from-sysfs-dump.xml"));
    ASSERT_EQ(p9.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(p9.shape(), &tv_gpu::numa), (Ints{0, 0, 0, 8, 8, 8}));
    const Topology sierra(file("hwloc-sierra-p9-v100x4-hwloc1.xml"));
    ASSERT_EQ(sierra.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(sierra.shape(), &tv_gpu::numa), (Ints{0, 0, 8, 8}));
    EXPECT_EQ(of_gpus(sierra.shape(), &tv_gpu::package), (Ints{0, 0, 8, 8}));
    EXPECT_EQ(sierra.shape().num_numas, 2); // four more are memory of GPUs
    EXPECT_EQ(sierra.shape().links_kind, TV_LINKS_UNKNOWN);
    EXPECT_TRUE(warns(sierra, "links between the 4 GPUs unknown"));
}

TEST_F(SharedTopologies, H100x4)
{
    const Topology topology(file("hwloc-h100x4-xe8640-nvlink.xml"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    const tv_node_shape &shape = topology.shape();
    EXPECT_EQ(pci_of(shape), (std::vector<std::string>{"4e", "5f", "cb", "db"}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::numa), (Ints{3, 1, 7, 5}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::package), (Ints{0, 0, 1, 1}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::nic), (Ints{0, 1, -1, 2}));
    EXPECT_EQ(links_of(shape, 1), (std::vector<double>{150, 0, 150, 150}));
    EXPECT_EQ(shape.gpu_gbps, 450);
    EXPECT_EQ(shape.num_nics, 3);
    EXPECT_TRUE(warns(topology, "(0000:cb:00.0): no NIC near it"));
}

TEST_F(SharedTopologies, H200x4WithAndWithoutNvml)
{
    const Topology with(file("hwloc-h200x4-turin-nvml.xml"));
    const Topology without(file("hwloc-h200x4-turin-no-nvml.xml"));
    for (const Topology *topology : {&with, &without}) {
        ASSERT_EQ(topology->status, TV_OK) << tv_error_message();
        EXPECT_EQ(pci_of(topology->shape()), (std::vector<std::string>{"06", "16", "96", "e6"}));
        EXPECT_EQ(of_gpus(topology->shape(), &tv_gpu::numa), (Ints{1, 2, 6, 7}));
        EXPECT_EQ(of_gpus(topology->shape(), &tv_gpu::nic), (Ints{0, 1, 2, 3}));
        EXPECT_EQ(of_gpus(topology->shape(), &tv_gpu::pcie_switch), (Ints{0, 1, 2, 3}));
        EXPECT_EQ(topology->shape().nic_gbps, 200);
    }
    EXPECT_EQ(with.shape().links_kind, TV_LINKS_MATRIX);
    EXPECT_EQ(without.shape().links_kind, TV_LINKS_UNKNOWN);
    EXPECT_TRUE(warns(without, "links between the 4 GPUs unknown"));
    EXPECT_FALSE(warns(with, "unknown"));
}

TEST_F(SharedTopologies, JuwelsAndTioga)
{
    const Topology juwels(file("hwloc-juwels-booster-a100x4-hdrx4.xml"));
    ASSERT_EQ(juwels.status, TV_OK) << tv_error_message();
    EXPECT_EQ(pci_of(juwels.shape()), (std::vector<std::string>{"03", "44", "84", "c4"}));
    EXPECT_EQ(of_gpus(juwels.shape(), &tv_gpu::numa), (Ints{3, 1, 7, 5}));
    EXPECT_EQ(of_gpus(juwels.shape(), &tv_gpu::nic), (Ints{0, 1, 2, 3}));
    const Topology tioga(file("hwloc-mi250x-8gcd-tioga.xml"));
    ASSERT_EQ(tioga.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(tioga.shape(), &tv_gpu::numa), (Ints{3, 3, 1, 1, 0, 0, 2, 2}));
    EXPECT_EQ(of_gpus(tioga.shape(), &tv_gpu::nic), (Ints{0, 0, 1, 1, 2, 2, 3, 3}));
    EXPECT_EQ(of_gpus(tioga.shape(), &tv_gpu::pcie_switch), (Ints{-1, 0, -1, 1, -1, 2, -1, 3}));
    EXPECT_EQ(tioga.shape().links_kind, TV_LINKS_UNKNOWN);
    EXPECT_TRUE(warns(tioga, "one rate for all pairs"));
}

TEST_F(SharedTopologies, UnknownAndForbiddenPlaces)
{
    const Topology juropa(file("hwloc-juropa3-k20x2-gpus-at-root.xml"));
    ASSERT_EQ(juropa.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(juropa.shape(), &tv_gpu::numa), (Ints{-1, -1}));
    EXPECT_TRUE(warns(juropa, "0000:82:00.0: nothing says in which NUMA node"));
    const Topology uv(file("hwloc-uv2000-8socket-cgroup-restricted.xml"));
    ASSERT_EQ(uv.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(uv.shape(), &tv_gpu::numa), (Ints{4, 7}));
    ASSERT_EQ(uv.shape().num_numas, 8);
    EXPECT_STREQ(uv.shape().numas[1].cpus, "8-15");
    EXPECT_STREQ(uv.shape().numas[4].cpus, "");
    EXPECT_TRUE(warns(uv, "(0004:01:00.0): no CPU of its NUMA node 7 may be used"));
}

TEST_F(SharedTopologies, Nccl)
{
    const Topology azure(file("nccl-azure-ndv5-h100x8.xml"));
    ASSERT_EQ(azure.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(azure.shape(), &tv_gpu::nic), (Ints{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(of_gpus(azure.shape(), &tv_gpu::numa), (Ints{0, 0, 0, 0, 1, 1, 1, 1}));
    EXPECT_EQ(azure.shape().links_kind, TV_LINKS_UNKNOWN);
    const Topology mi250x(file("nccl-mi250x-8gcd-xgmi.xml"));
    ASSERT_EQ(mi250x.status, TV_OK) << tv_error_message();
    const int count[8][8] = {{0, 4, 1, 0, 0, 0, 2, 0}, {4, 0, 0, 1, 0, 1, 0, 0},
                             {1, 0, 0, 4, 2, 0, 0, 0}, {0, 1, 4, 0, 0, 0, 0, 1},
                             {0, 0, 2, 0, 0, 4, 1, 0}, {0, 1, 0, 0, 4, 0, 0, 1},
                             {2, 0, 0, 0, 1, 0, 0, 4}, {0, 0, 0, 1, 0, 1, 4, 0}};
    for (int i = 0; i < 64; i++)
        EXPECT_EQ(mi250x.shape().links[i], 50 * count[i / 8][i % 8]) << i;
    EXPECT_EQ(mi250x.shape().num_nics, 4);
    const Topology mi250(file("nccl-mi250-16gcd-xgmi.xml"));
    ASSERT_EQ(mi250.status, TV_OK) << tv_error_message();
    ASSERT_EQ(mi250.shape().num_gpus, 16);
    EXPECT_EQ(mi250.shape().num_nics, 8);
    double between = 0;
    for (int i = 0; i < 8; i++) {
        for (int j = 8; j < 16; j++)
            between += mi250.shape().links[i * 16 + j];
    }
    EXPECT_EQ(between, 6 * 50);
}

TEST_F(SharedTopologies, Matrices)
{
    const std::string path = file("nvidia-smi-topo-matrices.txt");
    const Topology a(path + "#A"), b(path + "#B"), c(path + "#C"), d(path + "#D"), e(path + "#E"),
        g(path + "#G");
    for (const Topology *topology : {&a, &b, &c, &d, &e, &g})
        ASSERT_EQ(topology->status, TV_OK) << tv_error_message();
    EXPECT_EQ(a.shape().links_kind, TV_LINKS_SWITCH);
    EXPECT_EQ(a.shape().gpu_gbps, 300);
    EXPECT_EQ(of_gpus(a.shape(), &tv_gpu::nic), (Ints{1, 1, 0, 0, 5, 5, 2, 2}));
    EXPECT_EQ(of_gpus(a.shape(), &tv_gpu::numa), (Ints{3, 3, 1, 1, 7, 7, 5, -1}));
    EXPECT_TRUE(warns(a, "row of GPU 7 is cut off"));
    EXPECT_EQ(links_of(b.shape(), 0), (std::vector<double>{0, 150, 150, 150}));
    EXPECT_EQ(of_gpus(b.shape(), &tv_gpu::numa), (Ints{3, 1, 7, 5}));
    EXPECT_EQ(c.shape().links_kind, TV_LINKS_SWITCH);
    EXPECT_EQ(c.shape().gpu_gbps, 450);
    EXPECT_EQ(of_gpus(c.shape(), &tv_gpu::nic), (Ints{0, 1, 2, 5, 6, 7, 8, 9}));
    EXPECT_EQ(links_of(d.shape(), 0), (std::vector<double>{0, 300, 0, 0}));
    EXPECT_TRUE(warns(d, "GPU 2: no link"));
    EXPECT_EQ(links_of(e.shape(), 2), (std::vector<double>{100, 100, 0, 100}));
    EXPECT_EQ(of_gpus(g.shape(), &tv_gpu::numa), (Ints{0, 1, 1, 1}));
    for (const char *prose : {"#F", "#H", "#I"}) // sentences, not matrices
        expect_refused(path + prose, "", TV_BAD_FILE, path);
    expect_refused(path, "", TV_BAD_FILE, "several matrices");
}

TEST_F(SharedTopologies, Networks)
{
    const Topology tree("node:400 gpu:8", file("slurm-tree-2x10x20.conf"));
    ASSERT_EQ(tree.status, TV_OK) << tv_error_message();
    EXPECT_EQ(tree.num_switches, 23);
    EXPECT_STREQ(tree.nodes[399].name, "peta10399");
    EXPECT_STREQ(tree.switches[tree.nodes[20].leaf].name, "leaf101");
    const Topology blocks("node:32 gpu:4", file("slurm-block-8x4.conf"));
    ASSERT_EQ(blocks.status, TV_OK) << tv_error_message();
    EXPECT_EQ(blocks.num_switches, 8);
    const Topology nvl72("node:72 gpu:4", file("topograph-nvl72.yaml"));
    ASSERT_EQ(nvl72.status, TV_OK) << tv_error_message();
    EXPECT_EQ(nvl72.num_domains, 4);
    EXPECT_EQ(nvl72.num_switches, 7);
    const Topology dual("node:255 gpu:4", file("topograph-dual-xclr-irregular.yaml"));
    ASSERT_EQ(dual.status, TV_OK) << tv_error_message();
    EXPECT_EQ(dual.num_domains, 2);
    EXPECT_EQ(dual.num_switches, 3 + 14 + 15); // rack-1-03 and rack-1-13 have no nodes
    EXPECT_STREQ(dual.nodes[254].name, "node0288");
    EXPECT_EQ(dual.nodes[254].domain, 1);
}

} // namespace

// Files that describe a node: hwloc XML, NCCL system XML, nvidia-smi matrices; and what is refused.
#include "mesh/topologies_here.h"
#include "mesh/topology_hwloc_internal.h"
#include <fstream>
#include <hwloc.h>

namespace
{

std::string text_of(const std::string &path)
{
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::string with(std::string text, const std::string &from, const std::string &to)
{
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// A node in memory.
struct Node : tv_node_read {
    explicit Node(std::string text, const char *section = nullptr) : tv_node_read{}
    {
        const struct tv_text view = {"file", text.data(), text.size()};
        status = tv_topology_parse_node(&view, section, this);
    }
    ~Node()
    {
        tv_node_read_free(this);
    }
    Node(const Node &) = delete;
    Node &operator=(const Node &) = delete;
    bool warns(const std::string &part) const
    {
        for (int w = 0; w < warnings.num; w++) {
            if (std::string(warnings.sentences[w]).find(part) != std::string::npos)
                return true;
        }
        return false;
    }
    tv_status_t status;
};

void expect_bad(const std::string &text, tv_status_t status, const std::string &part,
                const char *section = nullptr)
{
    const Node node(text, section);
    EXPECT_EQ(node.status, status) << part;
    EXPECT_NE(std::string(tv_error_message()).find(part), std::string::npos) << tv_error_message();
    EXPECT_EQ(node.shape.num_gpus, 0);
}

TEST(TopologyHwloc, PairsOfTwoPackages)
{
    const Topology topology(own_file("hwloc-pairs4.xml"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    EXPECT_STREQ(topology.nodes[0].name, "pairs0");
    const tv_node_shape &shape = topology.shape();
    ASSERT_EQ(shape.num_gpus, 4); // without the board's video
    EXPECT_STREQ(shape.gpus[0].pci, "0000:13:00.0");
    EXPECT_STREQ(shape.gpus[3].pci, "0000:73:00.0");
    EXPECT_STREQ(shape.gpus[0].model, "NVIDIA A100-SXM4-40GB");
    EXPECT_EQ(of_gpus(shape, &tv_gpu::numa), (std::vector<int>{0, 0, 1, 1}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::package), (std::vector<int>{0, 0, 1, 1}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::pcie_switch), (std::vector<int>{0, -1, 1, -1}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::nic), (std::vector<int>{0, 0, 1, 1}));
    ASSERT_EQ(shape.num_nics, 2); // ports of a card are one NIC, the board's Ethernet is none
    EXPECT_STREQ(shape.nics[1].name, "mlx5_1");
    EXPECT_STREQ(shape.nics[1].pci, "0000:52:00.0");
    EXPECT_EQ(shape.nics[1].pcie_switch, 1);
    EXPECT_NEAR(shape.nic_gbps, 63.0, 0.1); // two slots of PCIe 4
    EXPECT_EQ(shape.links_kind, TV_LINKS_MATRIX);
    EXPECT_EQ(links_of(shape, 2)[3], 100);
    EXPECT_EQ(links_of(shape, 2)[1], 0);
    EXPECT_EQ(shape.gpu_gbps, 100);
    ASSERT_EQ(shape.num_numas, 2); // not the one of GPU memory
    EXPECT_STREQ(shape.numas[0].cpus, "0-1");
    EXPECT_STREQ(shape.numas[1].cpus, "2"); // CPU 3 may not be used
    EXPECT_EQ(topology.all_warnings(), "");
}

TEST(TopologyHwloc, CopiesOfAFileAreNodesOfOneShape)
{
    const Topology topology(own_file("hwloc-pairs4.xml") + "*3," + own_file("hwloc-pairs4.xml"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    EXPECT_EQ(topology.num_nodes, 4);
    EXPECT_EQ(topology.num_shapes, 1);
    EXPECT_STREQ(topology.nodes[2].name, "node2");
    EXPECT_STREQ(topology.nodes[3].name, "pairs0");
    expect_refused(own_file("hwloc-pairs4.xml") + "," + own_file("hwloc-pairs4.xml"), "",
                   TV_INVALID, "two nodes named pairs0");
}

TEST(TopologyHwloc, RatesAreBoundByWhatTheGpuCanDo)
{
    // hwloc 2.9 says 50 GB/s for a link of NVLink 3: 12 of them would be 600 GB/s
    std::string text = text_of(own_file("hwloc-pairs4.xml"));
    for (size_t at; (at = text.find(" 100000")) != std::string::npos;)
        text.replace(at, 7, " 600000");
    for (size_t at; (at = text.find(">100000")) != std::string::npos;)
        text.replace(at, 7, ">600000");
    const Node node(text);
    ASSERT_EQ(node.status, TV_OK) << tv_error_message();
    EXPECT_EQ(node.shape.gpu_gbps, 300);
    EXPECT_EQ(links_of(node.shape, 0)[1], 300);
}

TEST(TopologyHwloc, DisallowedCpusOfAGpu)
{
    const Node node(with(text_of(own_file("hwloc-pairs4.xml")), "allowed_cpuset=\"0x00000007\"",
                         "allowed_cpuset=\"0x00000003\""));
    ASSERT_EQ(node.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(node.shape, &tv_gpu::numa), (std::vector<int>{0, 0, 1, 1}));
    EXPECT_STREQ(node.shape.numas[1].cpus, "");
    EXPECT_TRUE(node.warns("GPU 2 (0000:53:00.0): no CPU of its NUMA node 1 may be used"));
}

TEST(TopologyHwloc, OfSeveralVendorsNvidiaIsKept)
{
    std::string text = text_of(own_file("hwloc-pairs4.xml"));
    text = with(text, "0300 [1a03:2000]", "0300 [1002:7408]"); // a card of AMD
    const Node node(text);
    ASSERT_EQ(node.status, TV_OK) << tv_error_message();
    EXPECT_EQ(node.shape.num_gpus, 4);
    EXPECT_TRUE(node.warns("GPUs of several vendors"));
    const Node accelerator(with(text, "0300 [1002:7408]", "1200 [8086:09c4]")); // an FPGA
    ASSERT_EQ(accelerator.status, TV_OK);
    EXPECT_EQ(accelerator.shape.num_gpus, 4);
    EXPECT_EQ(accelerator.warnings.num, 0);
}

TEST(TopologyHwloc, Refusals)
{
    const std::string good = text_of(own_file("hwloc-pairs4.xml"));
    expect_bad(with(good, "version=\"2.0\"", "version=\"3.0\""), TV_BAD_FILE,
               "--export-xml-flags v2");
    expect_bad(good.substr(0, good.size() / 2), TV_BAD_FILE, "file:");
    expect_bad(with(good, "0000:13:00.0", "0000:33:00.0"), TV_INVALID, "0000:33:00.0");
    std::string none = good;
    for (size_t at; (at = none.find("0302 [10de")) != std::string::npos;)
        none.replace(at, 4, "0108");
    expect_bad(none, TV_INVALID, "cpu:8");
    expect_bad("<topology version=\"2.0\"/>", TV_BAD_FILE, "without objects");
    // libhwloc 2.9 crashes on these
    expect_bad(with(good, " complete_nodeset=\"0x00000007\"", ""), TV_BAD_FILE,
               "file:4: a Machine without complete_nodeset");
    expect_bad(with(good, "os_index=\"1\"", "os_index=\"99999999\""), TV_BAD_FILE, "os_index");
    expect_bad(with(good, "nbobjs=\"4\"", "nbobjs=\"60000\""), TV_BAD_FILE, "60000 objects");
    expect_bad(with(good, "type=\"Core\"", "type=\"Machine\""), TV_BAD_FILE,
               "a Machine where none can be");
    expect_bad(good, TV_BAD_FILE, "no section A", "A");
}

// Live discovery goes the same way, without insisting on GPUs.
TEST(TopologyHwloc, ThisMachine)
{
    hwloc_topology_t machine;
    ASSERT_EQ(hwloc_topology_init(&machine), 0);
    ASSERT_EQ(tv_hwloc_prepare(machine), TV_OK);
    ASSERT_EQ(hwloc_topology_load(machine), 0);
    struct tv_node_shape shape = {};
    struct tv_warnings warnings = {};
    ASSERT_EQ(tv_hwloc_to_shape(machine, "this machine", 0, nullptr, &shape, &warnings), TV_OK)
        << tv_error_message();
    EXPECT_GE(shape.num_numas, 1);
    EXPECT_STRNE(shape.numas[0].cpus, "");
    tv_node_shape_free(&shape);
    tv_warnings_free(&warnings);
    hwloc_topology_destroy(machine);
}

TEST(TopologyNccl, SwitchOfEight)
{
    const Topology topology(own_file("nccl-switch8.xml"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    const tv_node_shape &shape = topology.shape();
    ASSERT_EQ(shape.num_gpus, 8);
    EXPECT_EQ(shape.links_kind, TV_LINKS_SWITCH); // one of its ports hides, as in a VM
    EXPECT_EQ(shape.gpu_gbps, 18 * 25);
    EXPECT_EQ(shape.nic_gbps, 8 * 50);
    EXPECT_STREQ(shape.gpus[4].pci, "0000:51:00.0");
    EXPECT_EQ(of_gpus(shape, &tv_gpu::nic), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::numa), (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1}));
    EXPECT_STREQ(shape.numas[0].cpus, "0-15");
    EXPECT_STREQ(shape.numas[1].cpus, "48-63");
    EXPECT_EQ(topology.all_warnings(), "");
}

TEST(TopologyNccl, AGpuThatLostTheSwitch)
{
    std::string text = text_of(own_file("nccl-switch8.xml"));
    size_t at = text.find("rank=\"2\""); // the sixth
    for (int i = 0; i < 4; i++) {
        at = text.find("<nvlink", at);
        text.erase(at, text.find("/>", at) + 2 - at);
    }
    const Node node(text);
    ASSERT_EQ(node.status, TV_OK) << tv_error_message();
    EXPECT_EQ(node.shape.links_kind, TV_LINKS_MATRIX);
    EXPECT_EQ(node.shape.gpu_gbps, 450);
    EXPECT_EQ(links_of(node.shape, 0), (std::vector<double>{0, 450, 450, 450, 450, 0, 450, 450}));
    EXPECT_TRUE(node.warns("GPU 5 (0000:61:00.0): no link"));
}

TEST(TopologyNccl, LinksThatDisagree)
{
    const Node node(R"(<system version="1"><cpu numaid="0" affinity="3">
        <pci busid="0:2:0.0" class="0x030200"><gpu sm="80"><nvlink target="0000:01:00.0" count="4"/></gpu></pci>
        <pci busid="0:1:0.0" class="0x030200"><gpu sm="80"><nvlink target="0000:02:00.0" count="2"/></gpu></pci>
        <nic><net name="eth0" speed="100000"/></nic></cpu></system>)");
    ASSERT_EQ(node.status, TV_OK) << tv_error_message();
    EXPECT_EQ(links_of(node.shape, 0)[1], 50);
    EXPECT_STREQ(node.shape.gpus[0].pci, "0000:01:00.0");
    EXPECT_TRUE(node.warns("50 GB/s there and 100 back"));
    EXPECT_TRUE(node.warns("eth0"));
    EXPECT_TRUE(node.warns("no NIC found"));
    EXPECT_STREQ(node.shape.numas[0].cpus, "0-1");
}

TEST(TopologyNccl, Refusals)
{
    const std::string good = text_of(own_file("nccl-switch8.xml"));
    expect_bad(with(good, "0000:21:00.0", "0000:11:00.0"), TV_INVALID, "0000:11:00.0");
    expect_bad(with(good, "0000:21:00.0", "0000:2x:00.0"), TV_BAD_FILE, "\"0000:2x:00.0\"");
    expect_bad(with(good, "count=\"5\"", "count=\"-5\""), TV_BAD_FILE, "file:6: <nvlink");
    expect_bad(with(good, "busid", "bus"), TV_BAD_FILE, "file:3: <pci> without busid");
    expect_bad(with(good, "</system>", ""), TV_BAD_FILE, "no element found");
    expect_bad("<system/>", TV_INVALID, "no GPUs");
    expect_bad("\n<html/>", TV_BAD_FILE, "file:2: XML of a <html>");
    expect_bad("<!DOCTYPE s [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><system>&b;</system>",
               TV_BAD_FILE, "entity a");
    std::string deep = "<system>";
    for (int i = 0; i < 200; i++)
        deep += "<pci busid=\"0:0:0.0\" class=\"0x060400\">";
    expect_bad(deep, TV_BAD_FILE, "nest more than 64");
}

TEST(TopologyMatrix, OfTheTool)
{
    const Topology topology(own_file("nvidia-smi-mesh3of4.txt"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    const tv_node_shape &shape = topology.shape();
    ASSERT_EQ(shape.num_gpus, 4);
    EXPECT_EQ(links_of(shape, 1), (std::vector<double>{100, 0, 100, 0}));
    EXPECT_EQ(shape.gpu_gbps, 200);
    EXPECT_EQ(of_gpus(shape, &tv_gpu::numa), (std::vector<int>{0, 0, 1, 1}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::nic), (std::vector<int>{0, 0, 1, 1}));
    EXPECT_EQ(of_gpus(shape, &tv_gpu::pcie_switch), (std::vector<int>{0, 0, -1, -1}));
    EXPECT_STREQ(shape.nics[0].name, "mlx5_0");
    EXPECT_STREQ(shape.nics[1].name, "mlx5_bond_0");
    EXPECT_STREQ(shape.numas[1].cpus, "16-31,48-63");
    EXPECT_EQ(topology.all_warnings(), "node0: GPU 3: no link, others have up to 2\n");
}

const char *const two_sections = "[A] a switch\n"
                                 "GPU0 X NV12 NV12 | SYS PIX | 0-3 | 2\n"
                                 "GPU1 NV12 X NV12 | PIX SYS | 0-3 | 2\n"
                                 "GPU2 NV12 NV12 X | SYS (cut\n"
                                 "[B] none\n"
                                 "GPU0 X PHB | - | 0 | 0-1\n"
                                 "GPU1 PHB X | - | 0 | 0-1\n";

TEST(TopologyMatrix, Sections)
{
    const Node a(two_sections, "A");
    ASSERT_EQ(a.status, TV_OK) << tv_error_message();
    EXPECT_EQ(a.shape.links_kind, TV_LINKS_SWITCH); // 24 links are more than a GPU has
    EXPECT_EQ(a.shape.gpu_gbps, 300);
    EXPECT_EQ(of_gpus(a.shape, &tv_gpu::nic), (std::vector<int>{1, 0, -1}));
    EXPECT_EQ(of_gpus(a.shape, &tv_gpu::numa), (std::vector<int>{2, 2, -1}));
    EXPECT_TRUE(a.warns("row of GPU 2 is cut off (line 4)"));
    const Node b(two_sections, "B");
    ASSERT_EQ(b.status, TV_OK) << tv_error_message();
    EXPECT_EQ(b.shape.gpu_gbps, 25);
    EXPECT_EQ(b.shape.num_nics, 0);
    expect_bad(two_sections, TV_BAD_FILE, "choose one");
    expect_bad(two_sections, TV_BAD_FILE, "no section [C]", "C");
}

TEST(TopologyMatrix, Refusals)
{
    expect_bad("", TV_BAD_FILE, "empty");
    expect_bad("# nothing\n", TV_BAD_FILE, "neither");
    expect_bad(std::string("\nGPU0 X\0 |", 10), TV_BAD_FILE, "file:2: not text");
    expect_bad("GPU0 X NV1\n", TV_BAD_FILE, "file:1: column 1 of GPU0");
    expect_bad("GPU0 NV4 X\nGPU1 X NV4\n", TV_BAD_FILE, "file:1: column 0 of GPU0");
    expect_bad("GPU0 X NV4\nGPU2 NV4 X\n", TV_BAD_FILE, "file:2: the row of GPU2");
    expect_bad("GPU0 X NV4\nGPU1 NV4\n", TV_BAD_FILE, "file:2: ");
    expect_bad("GPU0 X NV4\nGPU1 NV4 X\nGPU2 SYS SYS\n", TV_BAD_FILE, "there are 3 GPUs");
}

} // namespace

// The GPUs of the node that a test runs on, made up: hwloc reads XML in place of the machine, and the
// libnvidia-ml.so.1 on the library path is tests/mesh/nvml/fake_nvml.c. What is found must be what the
// reader of `nvidia-smi topo -m` makes of the same machine.
#include "mesh/live.h"
#include "mesh/topologies_here.h"
#include "mesh/topology_driver_internal.h"
#include <fstream>
#include <sstream>

namespace
{

std::string in_temp(const std::string &name, const std::string &text)
{
    const std::string path = testing::TempDir() + "/trivet-live-" + name;
    std::ofstream(path) << text;
    return path;
}

std::string pci_of(int gpu)
{
    char text[32];
    snprintf(text, sizeof(text), "0000:%02x:00.0", 0x10 + 4 * gpu);
    return text;
}

// GPUs on two packages of two CPUs, each with its own bridge, every second one with a NIC behind it.
std::string hwloc_of(int num_gpus)
{
    std::ostringstream xml;
    int id = 100;
    const auto sets = [&](const char *cpus, const char *nodes) {
        xml << " cpuset=\"" << cpus << "\" complete_cpuset=\"" << cpus << "\" nodeset=\"" << nodes
            << "\" complete_nodeset=\"" << nodes << "\" gp_index=\"" << id++ << "\"";
    };
    xml << "<?xml version=\"1.0\"?>\n<topology version=\"2.0\">\n<object type=\"Machine\" "
           "os_index=\"0\" allowed_cpuset=\"0xf\" allowed_nodeset=\"0x3\"";
    sets("0xf", "0x3");
    xml << ">\n";
    for (int p = 0; p < 2; p++) {
        const char *cpus = p == 0 ? "0x3" : "0xc", *node = p == 0 ? "0x1" : "0x2";
        for (const char *type : {"Package", "NUMANode"}) {
            xml << "<object type=\"" << type << "\" os_index=\"" << p << "\"";
            sets(cpus, node);
            xml << (*type == 'N' ? "/>\n" : ">\n");
        }
        for (int c = 2 * p; c < 2 * p + 2; c++) {
            const std::string cpu = "0x" + std::to_string(1 << c);
            xml << "<object type=\"PU\" os_index=\"" << c << "\"";
            sets(cpu.c_str(), node);
            xml << "/>\n";
        }
        for (int g = p * num_gpus / 2; g < (p + 1) * num_gpus / 2; g++) {
            const int bus = 0x10 + 4 * g;
            char text[1024];
            snprintf(text, sizeof(text),
                     "<object type=\"Bridge\" gp_index=\"%d\" bridge_type=\"0-1\" depth=\"0\" "
                     "bridge_pci=\"0000:[%02x-%02x]\">\n"
                     "<object type=\"PCIDev\" gp_index=\"%d\" pci_busid=\"%s\" pci_type=\"0302 "
                     "[10de:20b0] [0000:0000] a1\" pci_link_speed=\"15\"/>\n",
                     id, bus, bus + 1, id + 1, pci_of(g).c_str());
            id += 2;
            xml << text;
            if (g % 2 == 0) {
                snprintf(text, sizeof(text),
                         "<object type=\"PCIDev\" gp_index=\"%d\" pci_busid=\"0000:%02x:00.0\" "
                         "pci_type=\"0207 [15b3:101b] [0000:0000] 00\" pci_link_speed=\"63\"/>\n",
                         id++, bus + 1);
                xml << text;
            }
            xml << "</object>\n";
        }
        xml << "</object>\n";
    }
    xml << "</object>\n</topology>\n";
    return xml.str();
}

// The same as `nvidia-smi topo -m` prints it; links[i][j]: "NV12", "SYS", ...
std::string matrix_of(const std::vector<std::vector<std::string>> &links,
                      const std::vector<int> &which)
{
    const int num = (int)links.size();
    std::ostringstream text;
    for (size_t row = 0; row < which.size(); row++) {
        const int g = which[row];
        text << "GPU" << row;
        for (const int h : which)
            text << " " << (g == h ? "X" : links[(size_t)g][(size_t)h]);
        for (int n = 0; n < num; n += 2)
            text << " " << (n == g ? "PHB" : 2 * n / num == 2 * g / num ? "NODE" : "SYS");
        text << (2 * g < num ? " 0-1 0\n" : " 2-3 1\n");
    }
    return text.str();
}

std::vector<int> all_of(int num)
{
    std::vector<int> which;
    for (int g = 0; g < num; g++)
        which.push_back(g);
    return which;
}

std::vector<std::vector<std::string>> joined(int num, const std::string &cell)
{
    return std::vector<std::vector<std::string>>((size_t)num,
                                                 std::vector<std::string>((size_t)num, cell));
}

// NVML's order is not that of PCI addresses: the last GPU comes first.
std::string gpus_of(int num, const std::string &model = "NVIDIA A100-SXM4-40GB")
{
    std::string text;
    for (int i = 0; i < num; i++) {
        const int g = (i + num - 1) % num;
        text += "gpu " + pci_of(g) + " GPU-" + std::to_string(g) + "aaa 0 0 " + model + "\n";
    }
    return text;
}

// The place in NVML's order of GPU g of `num`.
int nvml_index(int g, int num)
{
    return (g + 1) % num;
}

std::string link(int g, int num, int count, const std::string &end)
{
    return "link " + std::to_string(nvml_index(g, num)) + " " + std::to_string(count) + " " + end +
           "\n";
}

struct Live : Topology {
    static std::string with(int num_gpus, const std::string &nvml, const char *visible)
    {
        setenv("HWLOC_XMLFILE", in_temp("hwloc.xml", hwloc_of(num_gpus)).c_str(), 1);
        setenv("FAKE_NVML", in_temp("nvml.txt", nvml).c_str(), 1);
        if (visible != nullptr)
            setenv("CUDA_VISIBLE_DEVICES", visible, 1);
        return TV_TOPO_LIVE;
    }
    Live(int num_gpus, const std::string &nvml, const char *visible = nullptr)
        : Topology(with(num_gpus, nvml, visible))
    {
        for (const char *name :
             {"HWLOC_XMLFILE", "FAKE_NVML", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"})
            unsetenv(name);
    }
    bool warns(const std::string &part) const
    {
        return all_warnings().find(part) != std::string::npos;
    }
};

// GPUs behind one bridge with each other.
std::vector<int> switches_of(const tv_node_shape &shape)
{
    std::vector<int> first;
    for (int g = 0; g < shape.num_gpus; g++) {
        int h = 0;
        while (shape.gpus[h].pcie_switch != shape.gpus[g].pcie_switch ||
               shape.gpus[h].pcie_switch < 0)
            if (++h > g)
                break;
        first.push_back(h > g ? g : h);
    }
    return first;
}

void expect_same(const Live &live, const std::string &matrix)
{
    ASSERT_EQ(live.status, TV_OK) << tv_error_message();
    const Topology read(in_temp("matrix.txt", matrix));
    ASSERT_EQ(read.status, TV_OK) << tv_error_message();
    const tv_node_shape &a = live.shape(), &b = read.shape();
    ASSERT_EQ(a.num_gpus, b.num_gpus);
    EXPECT_EQ(of_gpus(a, &tv_gpu::numa), of_gpus(b, &tv_gpu::numa));
    EXPECT_EQ(of_gpus(a, &tv_gpu::nic), of_gpus(b, &tv_gpu::nic));
    EXPECT_EQ(switches_of(a), switches_of(b));
    EXPECT_EQ(a.num_nics, b.num_nics);
    EXPECT_EQ(a.nic_gbps, b.nic_gbps);
    EXPECT_EQ(a.gpu_gbps, b.gpu_gbps);
    EXPECT_EQ(a.links_kind, b.links_kind);
    for (int g = 0; g < a.num_gpus && a.links_kind == TV_LINKS_MATRIX; g++)
        EXPECT_EQ(links_of(a, g), links_of(b, g)) << g;
    for (int k = 0; k < b.num_numas; k++)
        EXPECT_STREQ(a.numas[k].cpus, b.numas[k].cpus);
}

std::string nvswitch(int num, const std::string &end)
{
    std::string text = gpus_of(num);
    for (int g = 0; g < num; g++)
        text += link(g, num, 12, end);
    return text;
}

TEST(TopologyLive, NvSwitchesJoinAllPairs)
{
    for (const char *end : {"switch", "hidden"}) { // in a virtual machine switches have no address
        const Live live(8, nvswitch(8, end));
        expect_same(live, matrix_of(joined(8, "NV12"), all_of(8)));
        EXPECT_EQ(live.shape().links_kind, TV_LINKS_SWITCH);
        EXPECT_EQ(live.shape().gpu_gbps, 300);
        EXPECT_STREQ(live.shape().gpus[0].pci, pci_of(0).c_str());
        EXPECT_STREQ(live.shape().gpus[0].model, "NVIDIA A100-SXM4-40GB");
        EXPECT_EQ(live.all_warnings(), "");
    }
}

// The hybrid cube mesh of a DGX-1 with V100s: two squares with diagonals, joined corner to corner.
TEST(TopologyLive, AHybridCubeMesh)
{
    static const int links[][3] = {{0, 1, 1}, {0, 2, 1}, {0, 3, 2}, {1, 2, 2}, {1, 3, 1}, {2, 3, 2},
                                   {4, 5, 1}, {4, 6, 1}, {4, 7, 2}, {5, 6, 2}, {5, 7, 1}, {6, 7, 2},
                                   {0, 4, 2}, {1, 5, 2}, {2, 6, 1}, {3, 7, 1}};
    std::string nvml = gpus_of(8, "Tesla V100-SXM2-16GB");
    auto cells = joined(8, "SYS");
    for (const auto &[a, b, num] : links) {
        nvml += link(a, 8, num, pci_of(b)) + link(b, 8, num, pci_of(a));
        cells[(size_t)a][(size_t)b] = cells[(size_t)b][(size_t)a] = "NV" + std::to_string(num);
    }
    const Live live(8, nvml);
    expect_same(live, matrix_of(cells, all_of(8)));
    EXPECT_EQ(live.shape().links_kind, TV_LINKS_MATRIX);
    EXPECT_EQ(live.shape().gpu_gbps, 150); // six links
    EXPECT_EQ(links_of(live.shape(), 0), (std::vector<double>{0, 25, 25, 50, 50, 0, 0, 0}));
}

TEST(TopologyLive, PciExpressAlone)
{
    const Live live(4, gpus_of(4, "NVIDIA L40S"));
    expect_same(live, matrix_of(joined(4, "SYS"), all_of(4)));
    EXPECT_EQ(live.shape().gpu_gbps, TV_GBPS_PCIE);
    EXPECT_EQ(live.all_warnings(), "");
}

TEST(TopologyLive, LinksThatAreDownOrOfAGpuThatIsNotOursDoNotCount)
{
    std::string nvml = gpus_of(4);
    for (int g = 0; g < 4; g++)
        nvml +=
            link(g, 4, 2, pci_of(g ^ 1)) + link(g, 4, 1, "down") + link(g, 4, 1, "0000:77:00.0");
    auto cells = joined(4, "SYS");
    for (int g = 0; g < 4; g++)
        cells[(size_t)g][(size_t)(g ^ 1)] = "NV2";
    expect_same(Live(4, nvml), matrix_of(cells, all_of(4)));
}

TEST(TopologyLive, AGpuThatLostItsLinksIsFound)
{
    std::string nvml = gpus_of(8);
    for (int g = 0; g < 8; g++)
        nvml += link(g, 8, 12, g == 5 ? "down" : "switch");
    auto cells = joined(8, "NV12");
    for (size_t g = 0; g < 8; g++)
        cells[5][g] = cells[g][5] = "SYS";
    const Live live(8, nvml);
    expect_same(live, matrix_of(cells, all_of(8)));
    EXPECT_TRUE(live.warns("GPU 5 (" + pci_of(5) + "): no link, others have up to 6"));
}

TEST(TopologyLive, VisibleDevicesByNumberAndUuid)
{
    for (const char *visible : {"6,2,3", "GPU-2,GPU-3aaa,GPU-6,-1,0"}) {
        const Live live(8, nvswitch(8, "switch"), visible);
        expect_same(live, matrix_of(joined(8, "NV12"), {2, 3, 6}));
        EXPECT_STREQ(live.shape().gpus[2].pci, pci_of(6).c_str());
        EXPECT_TRUE(live.warns("5 GPU(s) of the machine are not for this job"));
    }
}

TEST(TopologyLive, AControlGroupHidesGpus)
{
    std::string nvml =
        "gpu " + pci_of(1) + " GPU-1 0 0 A100\ngpu " + pci_of(4) + " GPU-4 1 0 A100\n";
    nvml += "link 0 12 switch\nlink 1 12 switch\n";
    const Live live(8, nvml);
    expect_same(live, matrix_of(joined(8, "NV12"), {1, 4}));
    EXPECT_TRUE(live.warns("6 GPU(s) of the machine are not for this job"));
}

TEST(TopologyLive, GpusThatHwlocDoesNotSee) // a container without the host's sysfs
{
    const Live live(0, "gpu 0000:10:00.0 GPU-0 1 0 A100\ngpu 0000:14:00.0 GPU-1 -1 0 A100\n");
    ASSERT_EQ(live.status, TV_OK) << tv_error_message();
    EXPECT_EQ(of_gpus(live.shape(), &tv_gpu::numa), (std::vector<int>{1, -1}));
    EXPECT_TRUE(live.warns("GPU 0000:14:00.0: nothing says in which NUMA node it is"));
}

TEST(TopologyLive, MigIsLeftOut)
{
    std::string nvml = nvswitch(4, "switch");
    const size_t at = nvml.find("GPU-2aaa 0 0") + 11;
    nvml[at] = '1';
    const Live live(4, nvml);
    expect_same(live, matrix_of(joined(4, "NV12"), {0, 1, 3}));
    EXPECT_TRUE(live.warns("GPU 2 (" + pci_of(2) + ") is cut into MIG instances"));
}

TEST(TopologyLive, CallsThatFail)
{
    const std::string nvml = nvswitch(4, "switch");
    const auto without = [&](const std::string &function, const std::string &gpu) {
        return nvml + "fail " + function + " 15 " + gpu + "\n";
    };
    const Live lost(4, without("nvmlDeviceGetHandleByIndex_v2", "3")); // GPU 2 in PCI order
    expect_same(lost, matrix_of(joined(4, "NV12"), {0, 1, 3}));
    EXPECT_TRUE(lost.warns("NVML cannot read its GPU 3 (error 15); it is left out"));
    auto cells = joined(4, "NV12");
    for (size_t g = 0; g < 4; g++)
        cells[2][g] = cells[g][2] = "SYS";
    const Live unlinked(4, without("nvmlDeviceGetNvLinkState", "3"));
    expect_same(unlinked, matrix_of(cells, all_of(4)));
    EXPECT_TRUE(
        unlinked.warns("GPU 2 (" + pci_of(2) + "): NVML cannot read its link 0 (error 15)"));
    // As when the functions are not there at all: a switch is what is no GPU.
    expect_same(Live(4, without("nvmlDeviceGetNvLinkRemoteDeviceType", "") +
                            "fail nvmlDeviceGetMigMode 3\nfail nvmlDeviceGetMemoryAffinity 3\n"),
                matrix_of(joined(4, "NV12"), all_of(4)));
    for (const char *function : {"nvmlInit_v2", "nvmlDeviceGetCount_v2"}) {
        const Live hwloc_alone(4, without(function, ""));
        ASSERT_EQ(hwloc_alone.status, TV_OK) << tv_error_message();
        EXPECT_EQ(hwloc_alone.shape().num_gpus, 4);
        EXPECT_EQ(hwloc_alone.shape().links_kind, TV_LINKS_UNKNOWN);
        EXPECT_TRUE(hwloc_alone.warns("error 15"));
        EXPECT_TRUE(hwloc_alone.warns("links between the 4 GPUs unknown"));
    }
}

TEST(TopologyLive, WhatIsRefused)
{
    const std::string nvml = nvswitch(4, "switch");
    const auto refuse = [&](const char *visible, const std::string &text, const std::string &part) {
        const Live live(4, text, visible);
        EXPECT_EQ(live.status, TV_INVALID) << visible;
        EXPECT_NE(std::string(tv_error_message()).find(part), std::string::npos)
            << tv_error_message();
    };
    refuse("0,4", nvml, "CUDA_VISIBLE_DEVICES: GPU 4 where there are 4");
    refuse("1,1", nvml, "names a GPU a second time");
    refuse("GPU-7", nvml, "the UUID of no GPU here");
    refuse("GPU-", nvml, "or of several");
    refuse("MIG-1", nvml, "a part of a GPU");
    refuse("all", nvml, "neither a number nor a UUID");
    refuse("", nvml, "none that this process may use whole");
    refuse("NoDevFiles", nvml, "none that this process may use whole");
    const std::string mixed = nvml + "gpu 0000:70:00.0 GPU-x 0 0 NVIDIA T400\n";
    refuse("0", mixed, "set CUDA_DEVICE_ORDER=PCI_BUS_ID");
    setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1);
    EXPECT_EQ(Live(4, mixed, "0").status, TV_OK);
    const Live none(0, "");
    EXPECT_EQ(none.status, TV_INVALID);
    EXPECT_NE(std::string(tv_error_message()).find("this node: no GPUs"), std::string::npos);
}

tv_sight sight_of(int rank, const std::vector<int> &gpus)
{
    tv_sight sight = {};
    sight.rank = rank;
    for (const int gpu : gpus)
        EXPECT_TRUE(tv_pci_parse(pci_of(gpu).c_str(), &sight.gpus[sight.num++]));
    return sight;
}

// Which GPUs ranks take that see these; or the refusal.
std::string assigned(const std::vector<std::vector<int>> &sights, bool may_share = false)
{
    std::vector<tv_sight> all;
    for (const auto &gpus : sights)
        all.push_back(sight_of(2 * (int)all.size(), gpus));
    std::vector<uint64_t> chosen(all.size());
    if (tv_live_assign("n7", (int)all.size(), all.data(), may_share, chosen.data()) != TV_OK)
        return tv_error_message();
    std::string text;
    for (const uint64_t address : chosen) {
        char pci[TV_TOPO_PCI];
        tv_pci_format(address, pci);
        for (int g = 0; g < 8; g++)
            text += pci_of(g) == pci ? std::to_string(g) : "";
    }
    return text;
}

TEST(LiveAssign, B48ARankTakesOneOfTheGpusThatItSees)
{
    EXPECT_EQ(assigned({{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}}), "012");
    EXPECT_EQ(assigned({{5, 2}, {5, 2}}), "52");       // a list in an order of its own
    EXPECT_EQ(assigned({{3}, {1}, {0}, {2}}), "3102"); // one per task: device 0 of each
    EXPECT_EQ(assigned({{0, 1}, {2, 3}, {0, 1}, {2, 3}}), "0213");
}

TEST(LiveAssign, B49TwoRanksOnOneGpuAreRefused)
{
    EXPECT_EQ(
        assigned({{2, 3}, {2, 3}, {2, 3}, {2, 3}}),
        "ranks 0 and 4 on n7 would share GPU 0000:18:00.0: 4 rank(s) see the same 2 GPU(s); "
        "start as many ranks per node as there are GPUs, or let them share with --device cuda "
        "--comm mpi");
    EXPECT_NE(assigned({{0}, {0}}).find("ranks 0 and 2 on n7 would share GPU 0000:10:00.0"),
              std::string::npos);
    EXPECT_EQ(assigned({{0, 1}, {1}}), "01");
    EXPECT_EQ(assigned({{1, 0}, {1}}).substr(0, 24), "ranks 0 and 2 on n7 woul");
    EXPECT_EQ(assigned({{1}, {}}), "rank 2 on n7 sees no GPU");
}

TEST(LiveAssign, RanksThatMayShareGoRound)
{
    EXPECT_EQ(assigned({{2}, {2}, {2}, {2}}, true), "2222");
    EXPECT_EQ(assigned({{0, 1}, {0, 1}, {0, 1}}, true), "010");
    EXPECT_EQ(assigned({{5, 2}, {5, 2}, {5, 2}}, true), "525"); // a list in an order of its own
    EXPECT_EQ(assigned({{0, 1}, {0, 1}}, true), "01"); // no more of them than there must be
    EXPECT_EQ(assigned({{1, 0}, {1}}, true), "11");
    EXPECT_EQ(assigned({{1}, {}}, true), "rank 2 on n7 sees no GPU");
}

} // namespace

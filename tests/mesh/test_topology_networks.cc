// Files that describe a network, lists of host names, and how nodes find their places.
#include "mesh/topologies_here.h"
#include "mesh/topology_internal.h"

namespace
{

struct Network : tv_network {
    explicit Network(std::string text) : tv_network{}
    {
        path = "net";
        const struct tv_text view = {"net", text.data(), text.size()};
        status = tv_network_parse(&view, this);
    }
    ~Network()
    {
        tv_network_free(this);
    }
    Network(const Network &) = delete;
    Network &operator=(const Network &) = delete;
    tv_status_t status;
};

std::vector<std::string> names_of(const Topology &topology)
{
    std::vector<std::string> names;
    for (int n = 0; n < topology.num_nodes; n++)
        names.emplace_back(topology.nodes[n].name);
    return names;
}

void expect_bad(const std::string &text, const std::string &part)
{
    const Network network(text);
    EXPECT_EQ(network.status, TV_BAD_FILE) << text;
    EXPECT_NE(std::string(tv_error_message()).find(part), std::string::npos) << tv_error_message();
}

tv_status_t collect(void *context, const char *name)
{
    static_cast<std::vector<std::string> *>(context)->emplace_back(name);
    return TV_OK;
}

std::vector<std::string> expand(const char *list)
{
    std::vector<std::string> names;
    if (tv_hostlist_each(list, "list", 7, collect, &names) != TV_OK)
        return {"refused"};
    return names;
}

TEST(TopologyHostlist, Expands)
{
    using Names = std::vector<std::string>;
    EXPECT_EQ(expand("n1"), Names{"n1"});
    EXPECT_EQ(expand("peta[10000-10002,10021]"),
              (Names{"peta10000", "peta10001", "peta10002", "peta10021"}));
    EXPECT_EQ(expand("n[08-10],gpu7"), (Names{"n08", "n09", "n10", "gpu7"}));
    EXPECT_EQ(expand("r[1-2]n[01,3]x"), (Names{"r1n01x", "r1n3x", "r2n01x", "r2n3x"}));
    for (const char *bad : {"", "n[", "n[]", "n]", "n[1-]", "n[2-1]", "n[a]", "n[1,]", "a,,b", "a,",
                            "n[1-2", "n[1-9999999999]", "n[0-999999999]", "n[[1]]"})
        EXPECT_EQ(expand(bad), std::vector<std::string>{"refused"}) << bad;
    EXPECT_EQ(expand(std::string(64, 'x').c_str()), std::vector<std::string>{"refused"});
}

TEST(TopologySlurm, TreeWithNamesInNaturalOrder)
{
    const Topology topology("node:6 gpu:4", own_file("slurm-tree.conf"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    EXPECT_EQ(names_of(topology),
              (std::vector<std::string>{"n7", "n8", "n9", "n10", "n66", "n70"}));
    ASSERT_EQ(topology.num_switches, 3);
    EXPECT_STREQ(topology.switches[0].name, "spine");
    EXPECT_EQ(topology.switches[0].parent, -1);
    EXPECT_EQ(topology.switches[0].uplink_gbps, 0);
    EXPECT_EQ(topology.switches[2].parent, 0);
    EXPECT_STREQ(topology.switches[topology.nodes[3].leaf].name, "leaf1");
    EXPECT_STREQ(topology.switches[topology.nodes[4].leaf].name, "leaf2");
    EXPECT_EQ(topology.num_domains, 0);
}

TEST(TopologySlurm, SwitchesWithoutNodesAreLeftOut)
{
    const Topology topology("node:4 gpu:4", own_file("slurm-tree.conf"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    ASSERT_EQ(topology.num_switches, 2);
    EXPECT_STREQ(topology.switches[1].name, "leaf1");
}

TEST(TopologySlurm, TooFewNodesAndNamesThatAreNotThere)
{
    expect_refused("node:7 gpu:4", own_file("slurm-tree.conf"), TV_INVALID, "6 nodes for 7");
    expect_refused(own_file("hwloc-pairs4.xml"), own_file("slurm-tree.conf"), TV_INVALID,
                   "node pairs0 is not among its 6 nodes");
    expect_refused("node:1 gpu:4", own_file("hwloc-pairs4.xml"), TV_BAD_FILE, "describes a node");
    expect_refused(own_file("slurm-tree.conf"), "", TV_BAD_FILE, "networks are given apart");
}

TEST(TopologySlurm, WarningsNameTheNodesOfTheNetwork)
{
    const Topology topology(own_file("nvidia-smi-mesh3of4.txt") + "*2",
                            own_file("slurm-tree.conf"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    EXPECT_EQ(topology.all_warnings(), "n7 to n8: GPU 3: no link, others have up to 2\n");
}

TEST(TopologySlurm, Blocks)
{
    const Network network(
        "BlockName=b1 Nodes=node[01-02]\nBlockName=b2 Nodes=node03\nBlockSizes=2,4");
    ASSERT_EQ(network.status, TV_OK) << tv_error_message();
    EXPECT_EQ(network.switch_names.num, 2);
    EXPECT_EQ(network.num_nodes, 3);
    EXPECT_EQ(network.nodes[2].leaf, 1);
}

TEST(TopologySlurm, Refusals)
{
    expect_bad("", "empty");
    expect_bad("# only this\n", "empty");
    expect_bad("SwitchName=a\n", "net:1: a has neither");
    expect_bad("SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2\n", "net:2: a second line of a");
    expect_bad("SwitchName=a Nodes=n1\nSwitchName=b Switches=a\nSwitchName=c Switches=a\n",
               "net:3: switch a is below b");
    expect_bad("SwitchName=a Switches=b\n", "switch b has no line");
    expect_bad("SwitchName=a Switches=a\n", "below a already");
    expect_bad("SwitchName=a Nodes=n[1-2\n", "net:1: \"n[1-2\"");
    expect_bad("\nSwitchName=a \\\n Nods=n1\n", "net:2: Nods=");
    expect_bad("SwitchName=a Nodes\n", "\"Nodes\" is not KEY=VALUE");
    expect_bad("SwitchName=a Nodes=n[0-262143],x\n", "at most 262144 nodes");
}

TEST(TopologySlurm, CirclesAndNodesTwice)
{
    Topology topology("node:1 gpu:1");
    for (const char *text :
         {"SwitchName=a Switches=b\nSwitchName=b Switches=a\nSwitchName=c Nodes=n",
          "SwitchName=a Nodes=n,n", "SwitchName=a Nodes=n\nSwitchName=b Nodes=n"}) {
        Network network(text);
        ASSERT_EQ(network.status, TV_OK) << tv_error_message();
        EXPECT_EQ(tv_topology_set_network(&topology, &network, 1), TV_BAD_FILE) << text;
        EXPECT_EQ(topology.num_switches, 0);
        EXPECT_STREQ(topology.nodes[0].name, "node0");
    } // the last of them
    EXPECT_NE(
        std::string(tv_error_message()).find(":2: node n comes twice (the first time in line 1)"),
        std::string::npos)
        << tv_error_message();
}

TEST(TopologySlurm, AddressesOfARunningJob)
{
    Topology topology("node:3 gpu:4");
    struct tv_network network = {};
    network.path = "SLURM_TOPOLOGY_ADDR";
    const char *const pattern = "switch.switch.node";
    ASSERT_EQ(tv_network_add_address(&network, "node0", "root.leaf2.node0", pattern), TV_OK);
    ASSERT_EQ(tv_network_add_address(&network, "node1", "root.leaf1.node1.cluster", pattern),
              TV_OK);
    ASSERT_EQ(tv_network_add_address(&network, "node2", "root.leaf2.node2", nullptr), TV_OK);
    EXPECT_EQ(tv_network_add_address(&network, "node3", "node3", pattern), TV_INVALID);
    ASSERT_EQ(tv_topology_set_network(&topology, &network, 0), TV_OK) << tv_error_message();
    tv_network_free(&network);
    ASSERT_EQ(topology.num_switches, 3);
    EXPECT_STREQ(topology.switches[0].name, "root");
    EXPECT_STREQ(topology.switches[topology.nodes[1].leaf].name, "leaf1");
    EXPECT_EQ(topology.nodes[0].leaf, topology.nodes[2].leaf);
    EXPECT_STREQ(topology.nodes[1].name, "node1");
}

TEST(TopologyTopograph, DomainsSpanSwitches)
{
    const Topology topology("node:7 gpu:4 link:mesh", own_file("topograph-domains.yaml"));
    ASSERT_EQ(topology.status, TV_OK) << tv_error_message();
    EXPECT_EQ(names_of(topology),
              (std::vector<std::string>{"t01", "t02", "t03", "t05", "t11", "t12", "t13"}));
    ASSERT_EQ(topology.num_domains, 1);
    EXPECT_STREQ(topology.domains[0], "nvl-a");
    EXPECT_EQ(topology.nodes[0].domain, 0);
    EXPECT_EQ(topology.nodes[5].domain, 0);
    EXPECT_EQ(topology.nodes[6].domain, -1);
    EXPECT_STREQ(topology.switches[topology.nodes[3].leaf].name, "west");
    EXPECT_STREQ(topology.switches[topology.nodes[6].leaf].name, "east");
    EXPECT_STREQ(topology.switches[0].name, "core");
}

TEST(TopologyTopograph, Refusals)
{
    expect_bad("a: [", "net:");
    expect_bad("a: 1\n", "no list of \"blocks\"");
    expect_bad("blocks: 3\n", "no list of \"blocks\"");
    expect_bad("blocks: [7]\n", "no map");
    expect_bad("blocks:\n- switch: a\n  nodes: {a: b}\n", "net:3: not a list of names");
    expect_bad("blocks:\n- nodes: [\"n[1\"]\n", "net:2: \"n[1\"");
    expect_bad("switches: [a]\nblocks: []\n", "net:1: not a map of switches");
    expect_bad("switches: {a: {switches: [b]}, c: {switches: [b]}}\nblocks: []\n", "b is below a");
    expect_refused("node:1 gpu:1", "/nowhere.yaml", TV_BAD_FILE, "/nowhere.yaml");
}

} // namespace

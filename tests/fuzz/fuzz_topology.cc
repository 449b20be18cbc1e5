// Readers of topologies. The first byte picks one: n (a node), s (section A of a matrix), w (words),
// t (a network). Any bytes are a topology that holds together, or a sentence.
#include "mesh/topology_internal.h"
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

// libhwloc 2.9 loses objects of XML that it refuses. Ours are watched by the unit tests.
extern "C" const char *__lsan_default_suppressions();
extern "C" const char *__lsan_default_suppressions()
{
    return "leak:libhwloc";
}

static void require(bool holds)
{
    if (!holds)
        std::abort();
}

static void check_shape(const tv_node_shape &shape)
{
    require(shape.num_gpus >= 1 && shape.num_gpus <= TV_TOPO_MAX_DEVICES && shape.num_nics >= 0);
    require(shape.gpu_gbps > 0 && shape.nic_gbps > 0);
    require((shape.links != nullptr) == (shape.links_kind == TV_LINKS_MATRIX));
    for (int g = 0; g < shape.num_gpus; g++) {
        const tv_gpu &gpu = shape.gpus[g];
        require(gpu.nic >= -1 && gpu.nic < shape.num_nics && gpu.numa >= -1);
        require(g == 0 || gpu.pci[0] == '\0' || std::strcmp(gpu.pci, shape.gpus[g - 1].pci) != 0);
        for (int h = 0; shape.links != nullptr && h < shape.num_gpus; h++)
            require(g == h || shape.links[g * shape.num_gpus + h] >= 0);
    }
    for (int n = 0; n < shape.num_nics; n++)
        require(shape.nics[n].gbps > 0);
    for (int k = 0; k < shape.num_numas; k++)
        require(shape.numas[k].cpus != nullptr);
}

static void check_network(const tv_topology &topology)
{
    for (int s = 0; s < topology.num_switches; s++)
        require(topology.switches[s].parent >= -1 && topology.switches[s].parent < s);
    for (int n = 0; n < topology.num_nodes; n++) {
        const tv_node &node = topology.nodes[n];
        require(node.leaf >= -1 && node.leaf < topology.num_switches);
        require(node.domain >= -1 && node.domain < topology.num_domains);
    }
}

static tv_status_t try_node(const tv_text &text, const char *section)
{
    tv_node_read node = {};
    const tv_status_t status = tv_topology_parse_node(&text, section, &node);
    if (status == TV_OK)
        check_shape(node.shape);
    tv_node_read_free(&node);
    return status;
}

static tv_status_t try_words(const char *words)
{
    int num_nodes = 0;
    tv_node_shape shape = {};
    const tv_status_t status = tv_topology_parse_words(words, &num_nodes, &shape);
    if (status == TV_OK) {
        require(num_nodes >= 1);
        check_shape(shape);
    }
    tv_node_shape_free(&shape);
    return status;
}

static tv_status_t try_network(const tv_text &text)
{
    tv_topology topology = {};
    require(tv_topology_read("node:3 gpu:1", nullptr, &topology) == TV_OK);
    tv_network network = {};
    network.path = "fuzz";
    tv_status_t status = tv_network_parse(&text, &network);
    if (status == TV_OK)
        status = tv_topology_set_network(&topology, &network, 1);
    tv_network_free(&network);
    check_network(topology);
    tv_topology_free(&topology);
    return status;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    std::string bytes(reinterpret_cast<const char *>(data) + 1, size - 1);
    const tv_text text = {"fuzz", bytes.data(), bytes.size()};
    tv_status_t status = TV_OK;
    if (data[0] == 'n' || data[0] == 's')
        status = try_node(text, data[0] == 's' ? "A" : nullptr);
    else if (data[0] == 'w')
        status = try_words(bytes.c_str());
    else
        status = try_network(text);
    require(status == TV_OK || std::strlen(tv_error_message()) > 0);
    return 0;
}

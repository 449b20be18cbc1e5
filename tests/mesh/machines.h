/* tests/mesh/machines.h -- machines made by hand for the mapper's tests, and what they need. */
#ifndef TV_TESTS_MESH_MACHINES_H
#define TV_TESTS_MESH_MACHINES_H
#include "mesh/mapper.h"
#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

inline void copy_text(char *to, size_t bytes, const std::string &text)
{
    std::memset(to, 0, bytes);
    std::memcpy(to, text.c_str(), std::min(text.size(), bytes - 1));
}

/* A topology whose arrays are vectors; view() lends it to the mapper. */
class Machines
{
  public:
    /* Returns the shape's index; its GPUs have no links known unless set. */
    int shape(int num_gpus, double gpu_gbps, double nic_gbps,
              tv_links_kind_t kind = TV_LINKS_SWITCH)
    {
        Shape s;
        s.gpus.resize(static_cast<size_t>(num_gpus));
        for (int i = 0; i < num_gpus; i++) {
            tv_gpu &gpu = s.gpus[static_cast<size_t>(i)];
            gpu = {};
            gpu.numa = gpu.package = gpu.pcie_switch = gpu.nic = -1;
            copy_text(gpu.pci, sizeof(gpu.pci), "0000:" + std::to_string(10 + i) + ":00.0");
        }
        s.plain = {};
        s.plain.num_gpus = num_gpus;
        s.plain.links_kind = kind;
        s.plain.gpu_gbps = gpu_gbps;
        s.plain.nic_gbps = nic_gbps;
        if (kind == TV_LINKS_MATRIX)
            s.links.resize(static_cast<size_t>(num_gpus * num_gpus));
        shapes_.push_back(s);
        return static_cast<int>(shapes_.size()) - 1;
    }
    /* Of messages inside all nodes, and out of them. */
    void set_latencies(double gpu_seconds, double nic_seconds)
    {
        for (Shape &s : shapes_) {
            s.plain.gpu_seconds = gpu_seconds;
            s.plain.nic_seconds = nic_seconds;
        }
    }
    tv_gpu &gpu(int shape, int i)
    {
        return shapes_[static_cast<size_t>(shape)].gpus[static_cast<size_t>(i)];
    }
    void link(int shape, int i, int j, double rate)
    {
        Shape &s = shapes_[static_cast<size_t>(shape)];
        s.links[static_cast<size_t>(i * s.plain.num_gpus + j)] = rate;
        s.links[static_cast<size_t>(j * s.plain.num_gpus + i)] = rate;
    }
    int node(int shape, int leaf = -1, int domain = -1, const std::string &name = "")
    {
        tv_node node = {};
        const int index = static_cast<int>(nodes_.size());
        copy_text(node.name, sizeof(node.name),
                  name.empty() ? "node" + std::to_string(index) : name);
        node.shape = shape;
        node.leaf = leaf;
        node.domain = domain;
        nodes_.push_back(node);
        num_domains_ = std::max(num_domains_, domain + 1);
        return index;
    }
    int add_switch(int parent, double uplink_gbps)
    {
        tv_switch s = {};
        const int index = static_cast<int>(switches_.size());
        copy_text(s.name, sizeof(s.name), "switch" + std::to_string(index));
        s.parent = parent;
        s.uplink_gbps = uplink_gbps;
        switches_.push_back(s);
        return index;
    }
    std::vector<tv_node> &nodes()
    {
        return nodes_;
    }
    std::vector<tv_switch> &switches()
    {
        return switches_;
    }
    const tv_topology *view()
    {
        plain_shapes_.clear();
        for (Shape &s : shapes_) {
            s.plain.gpus = s.gpus.data();
            s.plain.links = s.links.empty() ? nullptr : s.links.data();
            plain_shapes_.push_back(s.plain);
        }
        view_ = {};
        view_.num_nodes = static_cast<int>(nodes_.size());
        view_.num_shapes = static_cast<int>(plain_shapes_.size());
        view_.num_switches = static_cast<int>(switches_.size());
        view_.num_domains = num_domains_;
        view_.nodes = nodes_.data();
        view_.shapes = plain_shapes_.data();
        view_.switches = switches_.data();
        return &view_;
    }

  private:
    struct Shape {
        tv_node_shape plain;
        std::vector<tv_gpu> gpus;
        std::vector<double> links;
    };
    std::vector<Shape> shapes_;
    std::vector<tv_node_shape> plain_shapes_;
    std::vector<tv_node> nodes_;
    std::vector<tv_switch> switches_;
    int num_domains_ = 0;
    tv_topology view_ = {};
};

/* Loads in bytes: pipe, data, tensor. */
inline tv_map_args map_args(const tv_topology *topology, int P, int D, int T, double pipe,
                            double data, double tensor)
{
    tv_map_args args = {};
    args.topology = topology;
    args.extent = {{P, D, T}};
    args.traffic.load[TV_PIPE] = pipe;
    args.traffic.load[TV_DATA] = data;
    args.traffic.load[TV_TENSOR] = tensor;
    for (double &share : args.traffic.exposed)
        share = 1;
    return args;
}

/* A map that frees itself. */
class Map
{
  public:
    explicit Map(const tv_map_args &args) : status(tv_map_solve(&args, &map))
    {
    }
    ~Map()
    {
        if (status == TV_OK)
            tv_map_free(&map);
    }
    Map(const Map &) = delete;
    Map &operator=(const Map &) = delete;
    const tv_map *operator->() const
    {
        return &map;
    }
    /* Mesh ranks by device of one node, -1 for none. */
    std::vector<int> on_node(int node) const
    {
        std::vector<int> ranks;
        for (int r = 0; r < map.num_arrivals; r++) {
            if (map.places[r].node != node)
                continue;
            const size_t device = static_cast<size_t>(map.places[r].device);
            ranks.resize(std::max(ranks.size(), device + 1), -1);
            ranks[device] = map.mesh_rank[r];
        }
        return ranks;
    }
    bool warns(const std::string &text) const
    {
        for (int i = 0; i < map.num_warnings; i++) {
            if (std::string(map.warnings[i]).find(text) != std::string::npos)
                return true;
        }
        return false;
    }

    tv_map map = {};
    tv_status_t status;
};

using Ranks = std::vector<int>;

/* The ranks 0 .. num-1 on nodes of `size` devices one after the other. */
inline std::vector<tv_device_place> block(int nodes, int size)
{
    std::vector<tv_device_place> places;
    for (int n = 0; n < nodes; n++) {
        for (int i = 0; i < size; i++)
            places.push_back({n, i});
    }
    return places;
}

/* Rank r on node r mod nodes. */
inline std::vector<tv_device_place> cyclic(int nodes, int size)
{
    std::vector<tv_device_place> places;
    for (int i = 0; i < size; i++) {
        for (int n = 0; n < nodes; n++)
            places.push_back({n, i});
    }
    return places;
}

inline void set_arrivals(tv_map_args &args, const std::vector<tv_device_place> &places)
{
    args.num_arrivals = static_cast<int>(places.size());
    args.arrivals = places.data();
}

/* Devices of `node` by tensor group, groups in order. */
inline std::set<std::set<int>> groups_on(const Map &map, int node, int T)
{
    const Ranks ranks = map.on_node(node);
    std::vector<std::set<int>> by_group(static_cast<size_t>(map->num_ranks / T));
    for (size_t i = 0; i < ranks.size(); i++) {
        if (ranks[i] >= 0)
            by_group[static_cast<size_t>(ranks[i] / T)].insert(static_cast<int>(i));
    }
    std::set<std::set<int>> groups(by_group.begin(), by_group.end());
    groups.erase(std::set<int>());
    return groups;
}

/* Stages that have ranks on the node. */
inline std::set<int> stages_on(const Map &map, int node, int stage_cells)
{
    std::set<int> stages;
    for (int rank : map.on_node(node)) {
        if (rank >= 0)
            stages.insert(rank / stage_cells);
    }
    return stages;
}

inline std::set<std::pair<int, int>> unused(const Map &map)
{
    std::set<std::pair<int, int>> places;
    for (int i = 0; i < map->num_unused; i++)
        places.insert({map->unused[i].node, map->unused[i].device});
    return places;
}

inline Machines nodes_of(std::vector<int> sizes, double gpu_gbps, double nic_gbps)
{
    Machines machines;
    for (int size : sizes)
        machines.node(machines.shape(size, gpu_gbps, nic_gbps));
    return machines;
}

inline void set_packages(Machines &machines, int shape, const Ranks &packages, const Ranks &numas)
{
    for (size_t i = 0; i < packages.size(); i++) {
        machines.gpu(shape, static_cast<int>(i)).package = packages[i];
        machines.gpu(shape, static_cast<int>(i)).numa = numas[i];
    }
}
#endif

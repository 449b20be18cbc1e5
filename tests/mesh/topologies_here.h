// Topologies for tests: read, freed, and where the files are.
#pragma once
#include "mesh/topology.h"
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <vector>

struct Topology : tv_topology {
    explicit Topology(const std::string &spec, const std::string &network = "") : tv_topology{}
    {
        status = tv_topology_read(spec.c_str(), network.empty() ? nullptr : network.c_str(), this);
    }
    ~Topology()
    {
        tv_topology_free(this);
    }
    Topology(const Topology &) = delete;
    Topology &operator=(const Topology &) = delete;

    const tv_node_shape &shape(int node = 0) const
    {
        return *tv_topology_shape(this, node);
    }
    std::string all_warnings() const
    {
        std::string text;
        for (int w = 0; w < num_warnings; w++)
            text += std::string(warnings[w]) + "\n";
        return text;
    }
    tv_status_t status;
};

// The values of one member of all GPUs.
template <class Member> std::vector<int> of_gpus(const tv_node_shape &shape, Member member)
{
    std::vector<int> values;
    for (int g = 0; g < shape.num_gpus; g++)
        values.push_back(shape.gpus[g].*member);
    return values;
}

// Row g of the links.
inline std::vector<double> links_of(const tv_node_shape &shape, int gpu)
{
    const double *row = shape.links + (size_t)gpu * (size_t)shape.num_gpus;
    return {row, row + shape.num_gpus};
}

inline std::string own_file(const std::string &name)
{
    return TRIVET_TOPOLOGIES "/" + name;
}

// Files of real machines that others publish, where they are at hand.
inline std::filesystem::path shared_topologies()
{
    const char *shared = std::getenv("TRIVET_SHARED");
    return std::filesystem::path(shared != nullptr ? shared : TRIVET_BESIDE_SOURCE "/shared") /
           "topologies";
}

inline void expect_refused(const std::string &spec, const std::string &network, tv_status_t status,
                           const std::string &part)
{
    const Topology topology(spec, network);
    EXPECT_EQ(topology.status, status) << spec << " " << network;
    EXPECT_NE(std::string(tv_error_message()).find(part), std::string::npos)
        << spec << " " << network << ": " << tv_error_message();
    EXPECT_EQ(topology.num_nodes, 0) << spec;
}

/* tests/mesh/test_mapper_shared.cc -- the mapper on files of real machines that others publish; they
 * are not part of the sources. test_mapper.cc has the same shapes made by hand. */
#include "mesh/machines.h"
#include "mesh/topologies_here.h"

namespace
{

using Groups = std::set<std::set<int>>;

class MapperShared : public ::testing::Test
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
    /* Tensor groups on the first node of a mesh over the whole file. */
    static Groups groups(const Topology &topology, int D, int T)
    {
        Map map(map_args(&topology, 1, D, T, 0, 1e9, 1e10));
        EXPECT_EQ(TV_OK, map.status) << tv_error_message();
        return groups_on(map, 0, T);
    }
};

} // namespace

TEST_F(MapperShared, Power8)
{
    const Topology topology(file("hwloc-power8-p100x4-nvlink.xml"));
    ASSERT_EQ(TV_OK, topology.status) << tv_error_message();
    EXPECT_EQ((Groups{{0, 1}, {2, 3}}), groups(topology, 2, 2));
    Map four(map_args(&topology, 1, 1, 4, 0, 0, 1e10));
    EXPECT_TRUE(four.warns("no ring of links"));
}

TEST_F(MapperShared, Dgx2h)
{
    const Topology topology(file("hwloc-dgx2h-v100x16-nvswitch.xml"));
    ASSERT_EQ(TV_OK, topology.status) << tv_error_message();
    EXPECT_EQ(1u, groups(topology, 1, 16).size());
    EXPECT_EQ((Groups{{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}}),
              groups(topology, 2, 8));
}

TEST_F(MapperShared, H200WithAndWithoutKnownLinks)
{
    const Topology without(file("hwloc-h200x4-turin-no-nvml.xml")),
        with(file("hwloc-h200x4-turin-nvml.xml"));
    ASSERT_EQ(TV_OK, without.status) << tv_error_message();
    ASSERT_EQ(TV_OK, with.status) << tv_error_message();
    EXPECT_EQ((Groups{{0, 1}, {2, 3}}), groups(without, 2, 2));
    EXPECT_EQ((Groups{{0, 1}, {2, 3}}), groups(with, 2, 2));
    EXPECT_NE(std::string::npos, without.all_warnings().find("unknown"));
}

TEST_F(MapperShared, H100ByPackage)
{
    const Topology topology(file("hwloc-h100x4-xe8640-nvlink.xml"));
    ASSERT_EQ(TV_OK, topology.status) << tv_error_message();
    EXPECT_EQ((Groups{{0, 1}, {2, 3}}), groups(topology, 2, 2));
    EXPECT_NE(std::string::npos, topology.all_warnings().find("no NIC near"));
}

TEST_F(MapperShared, Mi250x)
{
    const Topology counts(file("nccl-mi250x-8gcd-xgmi.xml")),
        flat(file("hwloc-mi250x-8gcd-tioga.xml"));
    ASSERT_EQ(TV_OK, counts.status) << tv_error_message();
    ASSERT_EQ(TV_OK, flat.status) << tv_error_message();
    const Groups pairs{{0, 1}, {2, 3}, {4, 5}, {6, 7}};
    EXPECT_EQ(pairs, groups(counts, 4, 2));
    EXPECT_EQ((Groups{{0, 1, 2, 3}, {4, 5, 6, 7}}), groups(counts, 2, 4));
    EXPECT_EQ(pairs, groups(flat, 4, 2));
}

TEST_F(MapperShared, TwoNodesOfSixGpus)
{
    const Topology topology(file("hwloc-power9-6gpu-from-sysfs-dump.xml") + "*2");
    ASSERT_EQ(TV_OK, topology.status) << tv_error_message();
    EXPECT_EQ((Groups{{0, 1, 2}, {3, 4, 5}}), groups(topology, 4, 3));
    Map four(map_args(&topology, 1, 3, 4, 0, 0, 1e10));
    ASSERT_EQ(TV_OK, four.status) << tv_error_message();
    EXPECT_EQ(1, four->split_tensor_groups);
}

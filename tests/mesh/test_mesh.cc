/* tests/mesh/test_mesh.cc -- the arithmetic of the mesh, and placements from arrays and files; no ranks needed. */
#include "mesh/mesh.h"
#include "mesh/placement.h"
#include <cstdio>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <unistd.h>
#include <vector>

TEST(Mesh, RanksAndCoordinatesAreInverse)
{
    for (int P = 1; P <= 5; P++) {
        for (int D = 1; D <= 5; D++) {
            for (int T = 1; T <= 5; T++) {
                const struct tv_mesh_coord extent = {{P, D, T}};
                EXPECT_EQ(TV_OK, tv_mesh_check(extent, P * D * T));
                for (int rank = 0; rank < P * D * T; rank++) {
                    const struct tv_mesh_coord at = tv_mesh_coord_of(extent, rank);
                    for (int a = 0; a < TV_NUM_AXES; a++) {
                        EXPECT_GE(at.at[a], 0);
                        EXPECT_LT(at.at[a], extent.at[a]);
                    }
                    EXPECT_EQ(rank, tv_mesh_rank_of(extent, at));
                }
            }
        }
    }
}

TEST(Mesh, TensorIsTheFastestAxis)
{
    const struct tv_mesh_coord extent = {{2, 3, 4}};
    EXPECT_EQ(1, tv_mesh_rank_of(extent, {{0, 0, 1}}));
    EXPECT_EQ(4, tv_mesh_rank_of(extent, {{0, 1, 0}}));
    EXPECT_EQ(12, tv_mesh_rank_of(extent, {{1, 0, 0}}));
    EXPECT_EQ(23, tv_mesh_rank_of(extent, {{1, 2, 3}}));
}

TEST(Mesh, CheckSaysWhatIsWrong)
{
    EXPECT_EQ(TV_INVALID, tv_mesh_check({{2, 0, 2}}, 4));
    EXPECT_STREQ("the data axis has 0 ranks, and needs at least 1", tv_error_message());
    EXPECT_EQ(TV_INVALID, tv_mesh_check({{2, 2, 2}}, 4));
    EXPECT_STREQ("a mesh of pipe=2 x data=2 x tensor=2 needs 8 ranks, not 4", tv_error_message());
    EXPECT_EQ(TV_INVALID, tv_mesh_check({{-1, -1, 4}}, 4));
    EXPECT_EQ(TV_INVALID, tv_mesh_check({{3, 1, 1}}, 4));
    EXPECT_EQ(TV_INVALID, tv_mesh_check({{1 << 16, 1 << 16, 1}}, 0));
    EXPECT_EQ(TV_INVALID, tv_mesh_check({{1, 1, 1}}, 0));
}

TEST(Mesh, AxesHaveNames)
{
    EXPECT_STREQ("pipe", tv_mesh_axis_name(TV_PIPE));
    EXPECT_STREQ("data", tv_mesh_axis_name(TV_DATA));
    EXPECT_STREQ("tensor", tv_mesh_axis_name(TV_TENSOR));
}

TEST(Placement, IdentityAndCopies)
{
    struct tv_placement placement;
    ASSERT_EQ(TV_OK, tv_placement_identity(5, &placement));
    for (int r = 0; r < 5; r++)
        EXPECT_EQ(r, placement.place_of[r]);
    tv_placement_destroy(&placement);
    EXPECT_EQ(nullptr, placement.place_of);
    tv_placement_destroy(&placement);
    int place_of[3] = {2, 0, 1};
    ASSERT_EQ(TV_OK, tv_placement_create(3, place_of, &placement));
    place_of[0] = 0;
    EXPECT_EQ(2, placement.place_of[0]);
    EXPECT_EQ(3, placement.num_ranks);
    tv_placement_destroy(&placement);
}

TEST(Placement, OnlyPermutations)
{
    struct tv_placement placement = {77, nullptr};
    const std::vector<std::vector<int>> wrong = {{0, 0}, {0, 2}, {-1, 0}, {1, 2, 1}};
    for (const std::vector<int> &place_of : wrong)
        EXPECT_EQ(TV_INVALID,
                  tv_placement_create((int)place_of.size(), place_of.data(), &placement));
    EXPECT_EQ(TV_INVALID, tv_placement_create(0, nullptr, &placement));
    EXPECT_EQ(TV_INVALID, tv_placement_identity(0, &placement));
    EXPECT_EQ(77, placement.num_ranks);
}

class PlacementFile : public testing::Test
{
  protected:
    std::string path = testing::TempDir() + "trivet_placement." + std::to_string(getpid());

    ~PlacementFile() override
    {
        std::remove(path.c_str());
    }

    tv_status_t read(const std::string &text, int num_ranks, std::vector<int> *place_of = nullptr)
    {
        std::ofstream(path, std::ios::binary) << text;
        struct tv_placement placement = {77, nullptr};
        const tv_status_t status = tv_placement_read(path.c_str(), num_ranks, &placement);
        if (status != TV_OK) {
            EXPECT_EQ(77, placement.num_ranks);
            return status;
        }
        if (place_of != nullptr)
            place_of->assign(placement.place_of, placement.place_of + placement.num_ranks);
        tv_placement_destroy(&placement);
        return status;
    }

    /* The error names the file and this line. */
    void expect_line(int line)
    {
        const std::string message = tv_error_message();
        EXPECT_EQ(0u, message.find(path + ":" + std::to_string(line) + ": ")) << message;
    }
};

TEST_F(PlacementFile, ReadsNumbersAndComments)
{
    std::vector<int> place_of;
    ASSERT_EQ(TV_OK, read("# by world rank\n2\n\n  0 # first\r\n1", 3, &place_of));
    EXPECT_EQ((std::vector<int>{2, 0, 1}), place_of);
}

TEST_F(PlacementFile, RefusesWhatIsNotANumber)
{
    for (const char *line : {"one", "1 2", "1.5", "0x1", "-1", "99999999999999999999", "1,"}) {
        EXPECT_EQ(TV_BAD_FILE, read(std::string("0\n") + line + "\n", 2)) << line;
        expect_line(2);
    }
    EXPECT_EQ(TV_BAD_FILE, read("0\n" + std::string(1000, ' ') + "1\n", 2));
    expect_line(2);
}

TEST_F(PlacementFile, RefusesWhatIsNotAPermutation)
{
    EXPECT_EQ(TV_INVALID, read("0\n1\n2\n", 2));
    expect_line(3);
    EXPECT_EQ(TV_INVALID, read("0\n2\n", 2));
    expect_line(2);
    EXPECT_EQ(TV_INVALID, read("# all\n1\n0\n1\n", 3));
    expect_line(4);
    EXPECT_EQ(TV_INVALID, read("0\n1\n", 3));
    EXPECT_EQ(TV_INVALID, read("", 1));
    EXPECT_EQ(TV_INVALID, read("0\n", 0));
}

TEST_F(PlacementFile, RefusesWhatIsNotThere)
{
    struct tv_placement placement = {77, nullptr};
    EXPECT_EQ(TV_BAD_FILE, tv_placement_read((path + ".absent").c_str(), 1, &placement));
    EXPECT_EQ(TV_BAD_FILE, tv_placement_read(testing::TempDir().c_str(), 1, &placement));
    EXPECT_EQ(77, placement.num_ranks);
}

/* tests/mesh/contract_mesh.cc -- the mesh over real ranks: coordinates, axes, placements, refused extents. */
#include "mesh/mesh.h"
#include "mesh/ranks.h"
#include <string>

static std::vector<struct tv_mesh_coord> meshes_of(int size)
{
    std::vector<struct tv_mesh_coord> extents;
    for (int P = 1; P <= size; P++) {
        for (int D = 1; P * D <= size; D++) {
            if (size % (P * D) == 0)
                extents.push_back({{P, D, size / P / D}});
        }
    }
    return extents;
}

/* Gathered along an axis: the mesh ranks that differ from this one there alone, in order. */
static void check_axis(const struct tv_mesh *mesh, enum tv_mesh_axis axis)
{
    struct tv_comm *comm = tv_mesh_comm(mesh, axis);
    const struct tv_mesh_coord here = tv_mesh_here(mesh), extent = tv_mesh_extent(mesh);
    ASSERT_EQ(extent.at[axis], tv_comm_size(comm));
    EXPECT_EQ(here.at[axis], tv_comm_rank(comm));
    EXPECT_EQ(extent.at[axis] == 1, std::string("self") == tv_comm_backend(comm));
    const int32_t mine = tv_mesh_rank(mesh);
    std::vector<int32_t> peers((size_t)extent.at[axis], -1);
    struct tv_request *request = nullptr;
    ASSERT_OK(tv_comm_all_gather(comm, &mine, peers.data(), 1, TV_I32, nullptr, &request));
    ASSERT_OK(tv_request_wait(&request));
    for (int i = 0; i < extent.at[axis]; i++) {
        struct tv_mesh_coord peer = here;
        peer.at[axis] = i;
        EXPECT_EQ(tv_mesh_rank_of(extent, peer), peers[(size_t)i]);
    }
}

static void check_mesh(struct tv_comm *world, struct tv_mesh_coord extent,
                       const struct tv_placement *placement)
{
    const int rank = tv_comm_rank(world);
    const int place = placement != nullptr ? placement->place_of[rank] : rank;
    struct tv_mesh *mesh = nullptr;
    ASSERT_OK(tv_mesh_create(world, extent, placement, &mesh));
    EXPECT_EQ(place, tv_mesh_rank(mesh));
    EXPECT_EQ(place, tv_comm_rank(tv_mesh_world(mesh)));
    EXPECT_EQ(tv_comm_size(world), tv_comm_size(tv_mesh_world(mesh)));
    const struct tv_mesh_coord here = tv_mesh_here(mesh),
                               expected = tv_mesh_coord_of(extent, place);
    for (int a = 0; a < TV_NUM_AXES; a++) {
        EXPECT_EQ(extent.at[a], tv_mesh_extent(mesh).at[a]);
        EXPECT_EQ(expected.at[a], here.at[a]);
        check_axis(mesh, (enum tv_mesh_axis)a);
    }
    tv_mesh_destroy(mesh);
}

static void every_extent(struct tv_comm *world)
{
    for (const struct tv_mesh_coord extent : meshes_of(tv_comm_size(world)))
        check_mesh(world, extent, nullptr);
}

/* The world in reverse, and rotated by one. */
static void every_extent_with_placements(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    std::vector<int> reversed, rotated;
    for (int r = 0; r < size; r++) {
        reversed.push_back(size - 1 - r);
        rotated.push_back((r + 1) % size);
    }
    for (const std::vector<int> &place_of : {reversed, rotated}) {
        struct tv_placement placement;
        ASSERT_OK(tv_placement_create(size, place_of.data(), &placement));
        for (const struct tv_mesh_coord extent : meshes_of(size))
            check_mesh(world, extent, &placement);
        tv_placement_destroy(&placement);
    }
}

static void wrong_extents_are_refused(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    const struct tv_mesh_coord wrong[] = {
        {{0, 1, size}}, {{-1, -1, size}},        {{1, 1, size + 1}}, {{size, 2, 1}},
        {{1, size, 0}}, {{1 << 16, 1 << 16, 1}}, {{1, 1 << 30, 4}}};
    for (const struct tv_mesh_coord extent : wrong) {
        struct tv_mesh *mesh = nullptr;
        EXPECT_EQ(TV_INVALID, tv_mesh_create(world, extent, nullptr, &mesh));
        EXPECT_EQ(nullptr, mesh);
    }
    struct tv_placement larger;
    ASSERT_OK(tv_placement_identity(size + 1, &larger));
    struct tv_mesh *mesh = nullptr;
    EXPECT_EQ(TV_INVALID, tv_mesh_create(world, {{1, 1, size}}, &larger, &mesh));
    EXPECT_EQ(nullptr, mesh);
    tv_placement_destroy(&larger);
}

/* The sentence of a deadline names the axis. */
static void axes_have_names(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    if (size < 2)
        GTEST_SKIP() << "needs a peer";
    for (int a = 0; a < TV_NUM_AXES; a++) {
        struct tv_mesh_coord extent = {{1, 1, 1}};
        extent.at[a] = size;
        struct tv_mesh *mesh = nullptr;
        ASSERT_OK(tv_mesh_create(world, extent, nullptr, &mesh));
        struct tv_comm *comm = tv_mesh_comm(mesh, (enum tv_mesh_axis)a);
        tv_comm_set_timeout(comm, 0.1);
        if (tv_comm_rank(comm) == 0) {
            float nothing;
            struct tv_request *request = nullptr;
            ASSERT_OK(tv_comm_recv(comm, &nothing, 1, TV_F32, 1, nullptr, &request));
            EXPECT_EQ(TV_PEER, tv_request_wait(&request));
            const std::string name = tv_mesh_axis_name((enum tv_mesh_axis)a);
            EXPECT_EQ(0u, std::string(tv_error_message()).find(name + " axis, rank 0"));
        }
        ASSERT_OK(tv_comm_barrier(world));
        tv_mesh_destroy(mesh);
    }
}

const std::vector<RankCase> &mesh_cases()
{
    static const std::vector<RankCase> cases = {
        {"every_extent", every_extent},
        {"every_extent_with_placements", every_extent_with_placements},
        {"wrong_extents_are_refused", wrong_extents_are_refused},
        {"axes_have_names", axes_have_names},
    };
    return cases;
}

/* tests/mesh/contract_groups.cc -- splits, agreement on a status, cancelled operations. */
#include "mesh/ranks.h"
#include <numeric>
#include <string>

static std::vector<int32_t> gathered(struct tv_comm *comm, int32_t mine)
{
    std::vector<int32_t> all((size_t)tv_comm_size(comm), -1);
    struct tv_request *request = nullptr;
    EXPECT_EQ(TV_OK, tv_comm_all_gather(comm, &mine, all.data(), 1, TV_I32, nullptr, &request));
    EXPECT_EQ(TV_OK, tv_request_wait(&request)) << tv_error_message();
    return all;
}

/* Even and odd ranks apart, each in reverse order. */
static void split_orders_by_key(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    std::vector<int32_t> expected;
    for (int r = size - 1; r >= 0; r--) {
        if (r % 2 == rank % 2)
            expected.push_back(r);
    }
    struct tv_comm *half = nullptr;
    ASSERT_OK(tv_comm_split(world, rank % 2, -rank, &half));
    ASSERT_NE(nullptr, half);
    ASSERT_EQ((int)expected.size(), tv_comm_size(half));
    EXPECT_EQ(rank, expected[(size_t)tv_comm_rank(half)]);
    EXPECT_EQ(expected, gathered(half, rank));
    EXPECT_STREQ(expected.size() == 1 ? "self" : tv_comm_backend(world), tv_comm_backend(half));
    tv_comm_destroy(half);
}

static void equal_keys_keep_the_order(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    struct tv_comm *same = nullptr;
    ASSERT_OK(tv_comm_split(world, 5, 0, &same));
    std::vector<int32_t> expected((size_t)size);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(rank, tv_comm_rank(same));
    EXPECT_EQ(expected, gathered(same, rank));
    tv_comm_destroy(same);
}

static void negative_colors_stay_out(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    struct tv_comm *some = world;
    ASSERT_OK(tv_comm_split(world, rank == size - 1 ? -1 : 0, 0, &some));
    if (rank == size - 1) {
        EXPECT_EQ(nullptr, some);
    } else {
        EXPECT_EQ(size - 1, tv_comm_size(some));
        EXPECT_EQ(rank, tv_comm_rank(some));
        EXPECT_EQ(size - 1, (int)gathered(some, rank).size());
    }
    tv_comm_destroy(some);
    ASSERT_OK(tv_comm_split(world, -7, 0, &some));
    EXPECT_EQ(nullptr, some);
}

/* Halves of halves down to single ranks; all levels work while all live. */
static void splits_of_splits(struct tv_comm *world)
{
    std::vector<struct tv_comm *> levels = {world};
    while (tv_comm_size(levels.back()) > 1) {
        struct tv_comm *half = nullptr;
        const int rank = tv_comm_rank(levels.back()), size = tv_comm_size(levels.back());
        ASSERT_OK(tv_comm_split(levels.back(), rank * 2 / size, rank, &half));
        levels.push_back(half);
    }
    for (struct tv_comm *level : levels) {
        int32_t ones = 1;
        ASSERT_OK(tv_comm_all_reduce_now(level, &ones, 1, TV_I32, TV_SUM));
        EXPECT_EQ(tv_comm_size(level), ones);
    }
    for (size_t i = levels.size() - 1; i > 0; i--)
        tv_comm_destroy(levels[i]);
}

static void many_splits_come_and_go(struct tv_comm *world)
{
    for (int i = 0; i < 8; i++) {
        struct tv_comm *copy = nullptr;
        ASSERT_OK(tv_comm_split(world, i % 3, tv_comm_rank(world), &copy));
        int32_t ones = 1;
        ASSERT_OK(tv_comm_all_reduce_now(copy, &ones, 1, TV_I32, TV_SUM));
        EXPECT_EQ(tv_comm_size(world), ones);
        tv_comm_destroy(copy);
    }
}

static void agreement_on_success(struct tv_comm *world)
{
    int first = 77;
    EXPECT_EQ(TV_OK, tv_comm_agree(world, TV_OK, &first));
    EXPECT_EQ(-1, first);
}

/* The first of the ranks that failed speaks for all. */
static void agreement_on_the_first_failure(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const int who = size / 2;
    tv_status_t local = TV_OK;
    if (rank == who)
        local = TV_ERR(TV_BAD_FILE, "rank %d cannot read its file", rank);
    else if (rank > who)
        local = TV_ERR(TV_NO_MEMORY, "rank %d has no memory", rank);
    int first = 77;
    EXPECT_EQ(TV_BAD_FILE, tv_comm_agree(world, local, &first));
    EXPECT_EQ(who, first);
    EXPECT_EQ("rank " + std::to_string(who) + " cannot read its file",
              std::string(tv_error_message()));
}

/* A receive nobody answers is cancelled; its buffer goes; its group goes with another in flight. */
static void cancelled_operations(struct tv_comm *world)
{
    struct tv_comm *group = nullptr;
    ASSERT_OK(tv_comm_split(world, 0, tv_comm_rank(world), &group));
    const int peer = (tv_comm_rank(group) + 1) % tv_comm_size(group);
    std::vector<float> later(100000);
    {
        std::vector<float> buffer(100000);
        struct tv_request *request = nullptr;
        ASSERT_OK(tv_comm_recv(group, buffer.data(), 100000, TV_F32, peer, nullptr, &request));
        int done = 1;
        ASSERT_OK(tv_request_test(&request, &done));
        EXPECT_EQ(0, done);
        tv_request_cancel(&request);
        EXPECT_EQ(nullptr, request);
    }
    struct tv_request *in_flight = nullptr;
    ASSERT_OK(tv_comm_recv(group, later.data(), 100000, TV_F32, peer, nullptr, &in_flight));
    tv_comm_destroy(group);
    ASSERT_OK(tv_comm_barrier(world));
}

const std::vector<RankCase> &group_cases()
{
    static const std::vector<RankCase> cases = {
        {"split_orders_by_key", split_orders_by_key},
        {"equal_keys_keep_the_order", equal_keys_keep_the_order},
        {"negative_colors_stay_out", negative_colors_stay_out},
        {"splits_of_splits", splits_of_splits},
        {"many_splits_come_and_go", many_splits_come_and_go},
        {"agreement_on_success", agreement_on_success},
        {"agreement_on_the_first_failure", agreement_on_the_first_failure},
        {"cancelled_operations", cancelled_operations},
    };
    return cases;
}

std::vector<RankCase> all_cases()
{
    std::vector<RankCase> cases;
    for (const auto *part : {&collective_cases(), &message_cases(), &group_cases(), &mesh_cases()})
        cases.insert(cases.end(), part->begin(), part->end());
    return cases;
}

/* tests/mesh/contract_messages.cc -- messages between two ranks, refused arguments, and what the counters say. */
#include "mesh/ranks.h"
#include "mesh/values.h"
#include <string>

/* A page of its own for each letter, over and over, with its number on each page. */
static std::vector<uint32_t> letter(int from, int to, int number, int64_t bytes)
{
    const size_t page = 1024, num_words = (size_t)bytes / 4;
    std::vector<uint32_t> words(num_words), one(page);
    for (size_t i = 0; i < page && i < num_words; i++)
        one[i] = (uint32_t)mix(i + 1) + (uint32_t)(from * 10007 + to * 101 + number);
    for (size_t at = 0; at < num_words; at += page) {
        std::copy_n(one.begin(), std::min(page, num_words - at), words.begin() + (int64_t)at);
        words[at] += (uint32_t)at;
    }
    return words;
}

/* Every rank sends `num` letters to every rank, itself too, and all receives are posted afterwards. */
static void exchange(struct tv_comm *world, int num, int64_t bytes)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    std::vector<std::vector<uint32_t>> sent, got;
    std::vector<struct tv_request *> requests;
    sent.reserve((size_t)(num * size));
    got.reserve((size_t)(num * size));
    for (int number = 0; number < num; number++) {
        for (int peer = 0; peer < size; peer++) {
            sent.push_back(letter(rank, peer, number, bytes));
            requests.push_back(nullptr);
            ASSERT_OK(tv_comm_send(world, sent.back().data(), bytes, TV_U8, peer, nullptr,
                                   &requests.back()));
        }
    }
    for (int peer = size - 1; peer >= 0; peer--) {
        for (int number = 0; number < num; number++) {
            got.emplace_back((size_t)bytes / 4);
            requests.push_back(nullptr);
            ASSERT_OK(tv_comm_recv(world, got.back().data(), bytes, TV_U8, peer, nullptr,
                                   &requests.back()));
        }
    }
    for (auto &request : requests)
        ASSERT_OK(tv_request_wait(&request));
    size_t at = 0;
    for (int peer = size - 1; peer >= 0; peer--) {
        for (int number = 0; number < num; number++)
            EXPECT_EQ(letter(peer, rank, number, bytes), got[at++])
                << "letter " << number << " from rank " << peer;
    }
}

static void messages_keep_their_order(struct tv_comm *world)
{
    exchange(world, 20, 64);
    exchange(world, 3, 0);
}

static void long_messages_both_ways(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const int64_t bytes = 8 << 20;
    const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    std::vector<struct tv_request *> requests(8, nullptr);
    std::vector<std::vector<uint32_t>> buffers;
    for (int number = 0; number < 2; number++) {
        buffers.push_back(letter(rank, next, number, bytes));
        buffers.push_back(letter(rank, previous, 2 + number, bytes));
        buffers.emplace_back((size_t)bytes / 4);
        buffers.emplace_back((size_t)bytes / 4);
    }
    for (size_t n = 0; n < 8; n += 4) {
        ASSERT_OK(
            tv_comm_send(world, buffers[n].data(), bytes, TV_U8, next, nullptr, &requests[n]));
        ASSERT_OK(tv_comm_send(world, buffers[n + 1].data(), bytes, TV_U8, previous, nullptr,
                               &requests[n + 1]));
        ASSERT_OK(tv_comm_recv(world, buffers[n + 2].data(), bytes, TV_U8, previous, nullptr,
                               &requests[n + 2]));
        ASSERT_OK(tv_comm_recv(world, buffers[n + 3].data(), bytes, TV_U8, next, nullptr,
                               &requests[n + 3]));
    }
    for (auto &request : requests)
        ASSERT_OK(tv_request_wait(&request));
    for (int number = 0; number < 2 && size > 2; number++) {
        EXPECT_EQ(letter(previous, rank, number, bytes), buffers[(size_t)number * 4 + 2]);
        EXPECT_EQ(letter(next, rank, 2 + number, bytes), buffers[(size_t)number * 4 + 3]);
    }
    /* Of two ranks, or one, the next is the previous: letters 0, 2, 1, 3 arrive in this order. */
    for (int number = 0; number < 2 && size <= 2; number++) {
        EXPECT_EQ(letter(next, rank, number, bytes), buffers[(size_t)number * 4 + 2]);
        EXPECT_EQ(letter(next, rank, 2 + number, bytes), buffers[(size_t)number * 4 + 3]);
    }
}

/* Messages and collectives of one group do not meet. */
static void messages_pass_collectives(struct tv_comm *world)
{
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    const int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    int32_t token = rank, got = -1;
    struct tv_request *send = nullptr, *recv = nullptr;
    ASSERT_OK(tv_comm_recv(world, &got, 1, TV_I32, previous, nullptr, &recv));
    for (int i = 0; i < 5; i++) {
        int32_t ones = 1;
        ASSERT_OK(tv_comm_all_reduce_now(world, &ones, 1, TV_I32, TV_SUM));
        EXPECT_EQ(size, ones);
    }
    ASSERT_OK(tv_comm_send(world, &token, 1, TV_I32, next, nullptr, &send));
    ASSERT_OK(tv_request_wait(&send));
    ASSERT_OK(tv_request_wait(&recv));
    EXPECT_EQ(previous, got);
}

static void wrong_arguments_are_refused(struct tv_comm *world)
{
    const int size = tv_comm_size(world);
    std::vector<double> a(8 * (size_t)size), b(8 * (size_t)size);
    struct tv_request *request = nullptr;
    const int64_t before = tv_comm_get_stats(world).num_operations;
    for (int peer : {-1, size}) {
        EXPECT_EQ(TV_INVALID, tv_comm_send(world, a.data(), 1, TV_F32, peer, nullptr, &request));
        EXPECT_EQ(TV_INVALID, tv_comm_recv(world, a.data(), 1, TV_F32, peer, nullptr, &request));
        EXPECT_EQ(TV_INVALID, tv_comm_broadcast_now(world, a.data(), 1, TV_F32, peer));
    }
    for (tv_dtype_t dtype : {TV_U8, (tv_dtype_t)7}) {
        EXPECT_EQ(TV_INVALID, tv_comm_all_reduce_now(world, a.data(), 1, dtype, TV_SUM));
        EXPECT_EQ(TV_INVALID, tv_comm_reduce_scatter(world, a.data(), b.data(), 1, dtype, TV_SUM,
                                                     nullptr, &request));
    }
    EXPECT_EQ(TV_INVALID, tv_comm_broadcast_now(world, a.data(), 1, (tv_dtype_t)7, 0));
    EXPECT_EQ(TV_INVALID, tv_comm_all_reduce_now(world, a.data(), 1, TV_F32, (tv_reduce_op_t)3));
    for (int64_t count : {(int64_t)-1, INT64_MIN, INT64_MAX}) {
        EXPECT_EQ(TV_INVALID, tv_comm_all_reduce_now(world, a.data(), count, TV_F32, TV_SUM));
        EXPECT_EQ(TV_INVALID,
                  tv_comm_all_gather(world, a.data(), b.data(), count, TV_F32, nullptr, &request));
    }
    EXPECT_EQ(nullptr, request);
    EXPECT_EQ(before, tv_comm_get_stats(world).num_operations);
    ASSERT_OK(tv_comm_barrier(world)); /* nobody has lost the count of collectives */
}

static void nothing_is_done_already(struct tv_comm *world)
{
    struct tv_request *none = nullptr;
    int done = 0;
    EXPECT_EQ(TV_OK, tv_request_test(&none, &done));
    EXPECT_EQ(1, done);
    EXPECT_EQ(TV_OK, tv_request_wait(&none));
    tv_request_cancel(&none);
    tv_comm_destroy(nullptr);
    EXPECT_STRNE("", tv_comm_backend(world));
}

static void counters_count(struct tv_comm *parent)
{
    struct tv_comm *world = nullptr;
    ASSERT_OK(tv_comm_split(parent, 0, tv_comm_rank(parent), &world));
    const int rank = tv_comm_rank(world), size = tv_comm_size(world);
    std::vector<float> a(12000, 1.0f), b(12000 * (size_t)size);
    struct tv_comm_stats stats = tv_comm_get_stats(world);
    EXPECT_EQ(0, stats.sent_bytes);
    EXPECT_EQ(0, stats.num_operations);
    EXPECT_EQ(0.0, stats.wait_seconds);

    ASSERT_OK(tv_comm_all_reduce_now(world, a.data(), 10, TV_F32, TV_SUM));
    int64_t sent = 40 * (size - 1);
    EXPECT_EQ(sent, tv_comm_get_stats(world).sent_bytes);

    /* 12000 divides by 1, 2, 3, 4 and 8: every piece goes out, and n-1 copies of the sum of one. */
    ASSERT_OK(tv_comm_all_reduce_now(world, a.data(), 12000, TV_F32, TV_SUM));
    sent += 2 * (size - 1) * (48000 / size);
    EXPECT_EQ(sent, tv_comm_get_stats(world).sent_bytes);

    ASSERT_OK(tv_comm_broadcast_now(world, a.data(), 100, TV_F32, size - 1));
    sent += rank == size - 1 ? 400 * (size - 1) : 0;
    EXPECT_EQ(sent, tv_comm_get_stats(world).sent_bytes);

    struct tv_request *request = nullptr;
    ASSERT_OK(tv_comm_all_gather(world, a.data(), b.data(), 12000, TV_F32, nullptr, &request));
    ASSERT_OK(tv_request_wait(&request));
    sent += 48000 * (size - 1);
    ASSERT_OK(tv_comm_reduce_scatter(world, b.data(), a.data(), 12000, TV_F32, TV_SUM, nullptr,
                                     &request));
    ASSERT_OK(tv_request_wait(&request));
    sent += 48000 * (size - 1);
    stats = tv_comm_get_stats(world);
    EXPECT_EQ(sent, stats.sent_bytes);
    EXPECT_EQ(5, stats.num_operations);
    EXPECT_TRUE(size > 1 || stats.wait_seconds == 0.0);
    tv_comm_destroy(world);
}

/* Rank 1 receives another number of floats than rank 0 sends, in a group of its own. */
static void exchange_different_counts(struct tv_comm *world, int64_t sent, int64_t expected)
{
    struct tv_comm *pair = nullptr;
    const int rank = tv_comm_rank(world);
    ASSERT_OK(tv_comm_split(world, rank < 2 ? 0 : -1, rank, &pair));
    if (pair == nullptr)
        return;
    std::vector<float> buffer(8);
    struct tv_request *request = nullptr;
    if (rank == 0) {
        ASSERT_OK(tv_comm_send(pair, buffer.data(), sent, TV_F32, 1, nullptr, &request));
        const tv_status_t status = tv_request_wait(&request); /* MPI's sender is done already */
        EXPECT_TRUE(status == TV_OK || status == TV_PEER);
    } else {
        ASSERT_OK(tv_comm_recv(pair, buffer.data(), expected, TV_F32, 0, nullptr, &request));
        EXPECT_EQ(TV_PEER, tv_request_wait(&request));
        const std::string message = tv_error_message();
        /* MPI does not say how much it has cut off. */
        const bool is_cut = sent > expected && std::string(tv_comm_backend(pair)) == "mpi";
        EXPECT_EQ("world axis: receive of " + std::to_string(expected) +
                      " elements: rank 1 expects " + std::to_string(expected * 4) +
                      " bytes and rank 0 sends " + (is_cut ? "more" : std::to_string(sent * 4)),
                  message);
    }
    tv_comm_destroy(pair);
}

static void different_counts_are_noticed(struct tv_comm *world)
{
    if (tv_comm_size(world) < 2)
        GTEST_SKIP() << "needs two ranks";
    exchange_different_counts(world, 3, 5);
    exchange_different_counts(world, 7, 5);
    exchange_different_counts(world, 0, 5);
    ASSERT_OK(tv_comm_barrier(world));
}

static void silence_passes_the_deadline(struct tv_comm *world)
{
    if (tv_comm_size(world) < 2)
        GTEST_SKIP() << "needs a peer";
    struct tv_comm *group = nullptr;
    const int last = tv_comm_size(world) - 1;
    ASSERT_OK(tv_comm_split(world, 0, tv_comm_rank(world), &group));
    tv_comm_set_name(group, "tensor");
    tv_comm_set_context(group, "stage %d, forward of micro-batch %d", 1, 3);
    tv_comm_set_timeout(group, 0.3);
    if (tv_comm_rank(group) != last) {
        float got[7];
        struct tv_request *request = nullptr;
        const double before = tv_comm_get_stats(group).wait_seconds;
        ASSERT_OK(tv_comm_recv(group, got, 7, TV_F32, last, nullptr, &request));
        EXPECT_EQ(TV_PEER, tv_request_wait(&request));
        EXPECT_EQ(nullptr, request);
        EXPECT_EQ("tensor axis, rank " + std::to_string(tv_comm_rank(group)) +
                      ": receive of 7 elements: no answer from rank " + std::to_string(last) +
                      " in 0.3 s (while: stage 1, forward of micro-batch 3)",
                  std::string(tv_error_message()));
        EXPECT_GE(tv_comm_get_stats(group).wait_seconds - before, 0.3);
    }
    ASSERT_OK(tv_comm_barrier(world));
    tv_comm_destroy(group);
}

const std::vector<RankCase> &message_cases()
{
    static const std::vector<RankCase> cases = {
        {"wrong_arguments_are_refused", wrong_arguments_are_refused},
        {"messages_keep_their_order", messages_keep_their_order},
        {"long_messages_both_ways", long_messages_both_ways},
        {"messages_pass_collectives", messages_pass_collectives},
        {"nothing_is_done_already", nothing_is_done_already},
        {"counters_count", counters_count},
        {"different_counts_are_noticed", different_counts_are_noticed},
        {"silence_passes_the_deadline", silence_passes_the_deadline},
    };
    return cases;
}

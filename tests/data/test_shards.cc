// Shards: every element once, sizes alike, whole ranges whole; and gradients and weights that travel
// in them.
#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>
#include <thread>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "data/shards.h"
#pragma GCC diagnostic pop

namespace
{
using Ranges = std::vector<tv_bucket_range>;

tv_shards cut(int D, int d, const Ranges &buckets, const Ranges &whole = {})
{
    const tv_shards_args args = {
        D, d, (int)buckets.size(), (int)whole.size(), buckets.data(), whole.data()};
    tv_shards shards = {};
    EXPECT_EQ(tv_shards_create(&args, &shards), TV_OK);
    return shards;
}

std::vector<int64_t> counts_of(int D, int64_t count)
{
    tv_shards shards = cut(D, 0, {{0, count}});
    const int64_t *counts = tv_shards_counts(&shards, 0);
    const std::vector<int64_t> result(counts, counts + D);
    tv_shards_destroy(&shards);
    return result;
}

float grad_of(int rank, int64_t i)
{
    return (i + rank) % 4 == 0 ? 1e7f * (float)(1 + rank) : 0.3f * (float)(i % 17 - 8);
}

// Sums of own shards are those of an all-reduce; the gathered whole is everybody's shards.
void travel(struct tv_comm *comm, const Ranges &buckets)
{
    const int D = tv_comm_size(comm), d = tv_comm_rank(comm);
    const int64_t length = buckets.back().first + buckets.back().count;
    tv_shards shards = cut(D, d, buckets);
    std::vector<float> grads((size_t)length), weights((size_t)length, -1);
    for (int64_t i = 0; i < length; i++)
        grads[(size_t)i] = grad_of(d, i);
    struct tv_buckets *sums = nullptr;
    ASSERT_EQ(tv_buckets_create_sharded(comm, nullptr, nullptr, grads.data(), &shards, &sums),
              TV_OK);
    ASSERT_EQ(tv_buckets_start(sums, 0), TV_OK);
    ASSERT_EQ(tv_buckets_finish(sums), TV_OK);
    tv_buckets_destroy(sums);
    for (int b = 0; b < shards.num_buckets; b++) {
        const tv_bucket_range own = tv_shards_of(&shards, b, d);
        for (int64_t i = own.first; i < own.first + own.count; i++) {
            float want = grad_of(0, i);
            for (int r = 1; r < D; r++)
                want += grad_of(r, i);
            ASSERT_EQ(grads[(size_t)i], want) << i;
            weights[(size_t)i] = (float)i;
        }
    }
    ASSERT_EQ(tv_buckets_gather(comm, nullptr, &shards, weights.data(), TV_F32), TV_OK);
    for (const tv_bucket_range &bucket : buckets)
        for (int64_t i = bucket.first; i < bucket.first + bucket.count; i++)
            ASSERT_EQ(weights[(size_t)i], (float)i);
    tv_shards_destroy(&shards);
}
} // namespace

TEST(Shards, AreAlikeToABlock)
{
    EXPECT_EQ(counts_of(1, 100), (std::vector<int64_t>{100}));
    EXPECT_EQ(counts_of(2, 64), (std::vector<int64_t>{32, 32}));
    EXPECT_EQ(counts_of(3, 64), (std::vector<int64_t>{16, 16, 32}));
    EXPECT_EQ(counts_of(3, 16), (std::vector<int64_t>{0, 0, 16})); // fewer blocks than ranks
    EXPECT_EQ(counts_of(4, 1), (std::vector<int64_t>{0, 0, 0, 1}));
    EXPECT_EQ(counts_of(4, 0), (std::vector<int64_t>{0, 0, 0, 0}));
    EXPECT_EQ(counts_of(5, 165), (std::vector<int64_t>{32, 32, 32, 32, 37}));
    for (int D = 1; D <= 9; D++) {
        for (int64_t count = 0; count < 700; count += 16) {
            const std::vector<int64_t> counts = counts_of(D, count);
            EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), (int64_t)0), count);
            const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
            EXPECT_LE(*most - *least, 16) << D << " ranks, " << count;
        }
    }
}

TEST(Shards, LieSideBySideInTheCompactArray)
{
    for (int D : {1, 2, 3, 7}) {
        const Ranges buckets = {{0, 160}, {160, 16}, {192, 0}, {192, 4096}};
        int64_t total = 0;
        for (int d = 0; d < D; d++) {
            tv_shards shards = cut(D, d, buckets);
            int64_t place = 0;
            for (int b = 0; b < 4; b++) {
                EXPECT_EQ(tv_shards_place(&shards, b), place);
                const tv_bucket_range own = tv_shards_of(&shards, b, d);
                place += own.count;
                if (d > 0) {
                    const tv_bucket_range before = tv_shards_of(&shards, b, d - 1);
                    EXPECT_EQ(own.first, before.first + before.count);
                }
            }
            EXPECT_EQ(shards.own_count, place);
            total += place;
            tv_shards_destroy(&shards);
        }
        EXPECT_EQ(total, 160 + 16 + 4096);
    }
}

TEST(Shards, KeepWholeRangesWhole)
{
    const Ranges buckets = {{0, 1024}, {1024, 640}};
    const Ranges whole = {{16, 400}, {416, 512}, {1024, 640}};
    for (int D : {2, 3, 4, 5}) {
        tv_shards shards = cut(D, 0, buckets, whole);
        int64_t total = 0;
        for (int b = 0; b < 2; b++) {
            for (int d = 0; d < D; d++) {
                const tv_bucket_range shard = tv_shards_of(&shards, b, d);
                ASSERT_GE(shard.count, 0);
                total += shard.count;
                for (const tv_bucket_range &range : whole)
                    EXPECT_FALSE(shard.first > range.first &&
                                 shard.first < range.first + range.count);
            }
        }
        EXPECT_EQ(total, 1664);
        tv_shards_destroy(&shards);
    }
    tv_shards shards = cut(2, 0, buckets, whole); // the middle, 512, is nearer to 416 than to 928
    EXPECT_EQ(tv_shards_counts(&shards, 0)[0], 416);
    tv_shards_destroy(&shards);
}

TEST(Shards, TravelAsOneArray)
{
    for (int D : {1, 2, 3, 4}) {
        std::vector<struct tv_comm *> comms((size_t)D);
        ASSERT_EQ(tv_comm_thread_create(D, comms.data()), TV_OK);
        std::vector<std::thread> threads;
        for (struct tv_comm *comm : comms)
            threads.emplace_back([comm] {
                travel(comm, {{0, 5}, {16, 48}, {64, 10000}});
                tv_comm_destroy(comm);
            });
        for (auto &thread : threads)
            thread.join();
    }
}

// Gradient buckets over thread ranks: sums in rank order, whatever was started early and however
// often polled.
#include <functional>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "data/buckets.h"
#pragma GCC diagnostic pop

namespace
{
constexpr int64_t num_grads = 1000;
// Deliberately not in order of place, with gaps, one of them empty.
const std::vector<tv_bucket_range> ranges = {{700, 200}, {0, 333}, {333, 0}, {400, 256}, {999, 1}};

float grad_of(int rank, int step, int64_t i)
{
    // Values of very different sizes, so that another order of addition gives another sum.
    const float sign = ((i + rank + step) % 3 == 0) ? -1.0f : 1.0f;
    return sign * (1.0f + 0.1f * (float)(i % 17) + (float)rank) *
           ((i + rank) % 4 == 0 ? 1e7f : 0.3f);
}

float rounded(float x, bool is_bf16)
{
    return is_bf16 ? tv_bf16_to_f32(tv_bf16_from_f32(x)) : x;
}

float want_of(int size, int step, int64_t i, bool is_bf16)
{
    float sum = rounded(grad_of(0, step, i), is_bf16);
    for (int r = 1; r < size; r++)
        sum += rounded(grad_of(r, step, i), is_bf16);
    return rounded(sum, is_bf16);
}

bool in_a_range(int64_t i)
{
    for (const auto &range : ranges)
        if (i >= range.first && i < range.first + range.count)
            return true;
    return false;
}

using Body = std::function<void(tv_comm *, tv_stream *)>;

void on_rank(tv_comm *comm, const Body &body)
{
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    ASSERT_EQ(tv_stream_create(device, &stream), TV_OK);
    body(comm, stream);
    tv_stream_destroy(stream);
    tv_device_close(device);
    tv_comm_destroy(comm);
}

void on_threads(int size, const Body &body)
{
    std::vector<tv_comm *> comms((size_t)size);
    ASSERT_EQ(tv_comm_thread_create(size, comms.data()), TV_OK);
    std::vector<std::thread> threads;
    for (tv_comm *comm : comms)
        threads.emplace_back([comm, &body] { on_rank(comm, body); });
    for (auto &thread : threads)
        thread.join();
}

// Several steps; `early` says which buckets are started before finish, `polls` how often each start
// is followed by one.
void run_steps(tv_comm *comm, tv_stream *stream, const std::vector<int> &early, int polls,
               bool is_bf16 = false)
{
    const int rank = tv_comm_rank(comm), size = tv_comm_size(comm);
    std::vector<float> grads((size_t)num_grads);
    tv_buckets *buckets = nullptr;
    ASSERT_EQ(
        tv_buckets_create(comm, stream, grads.data(), (int)ranges.size(), ranges.data(), &buckets),
        TV_OK);
    if (is_bf16)
        tv_buckets_reduce_in_bf16(buckets, tv_kernels_cpu(TV_F32));
    for (int step = 0; step < 3; step++) {
        for (int64_t i = 0; i < num_grads; i++)
            grads[(size_t)i] = grad_of(rank, step, i);
        for (int bucket : early) {
            ASSERT_EQ(tv_buckets_start(buckets, bucket), TV_OK);
            for (int p = 0; p < polls; p++)
                ASSERT_EQ(tv_buckets_poll(buckets), TV_OK);
        }
        ASSERT_EQ(tv_buckets_finish(buckets), TV_OK);
        for (int64_t i = 0; i < num_grads; i++)
            ASSERT_EQ(grads[(size_t)i],
                      in_a_range(i) ? want_of(size, step, i, is_bf16) : grad_of(rank, step, i))
                << "step " << step << " element " << i << " rank " << rank;
    }
    tv_buckets_destroy(buckets);
}
} // namespace

TEST(Buckets, SumsInRankOrderWhateverStartsEarly)
{
    const std::vector<std::vector<int>> mixtures = {{}, {0}, {0, 1, 2, 3, 4}, {4, 2, 0}, {3, 1}};
    for (int size : {1, 2, 4})
        for (const auto &early : mixtures)
            for (int polls : {0, 1, 5})
                on_threads(size, [&](tv_comm *c, tv_stream *s) { run_steps(c, s, early, polls); });
}

TEST(Buckets, Bf16IsRoundedBeforeAndAfterTheSum)
{
    for (int size : {1, 2, 4})
        for (int polls : {0, 5})
            on_threads(size, [&](tv_comm *c, tv_stream *s) {
                run_steps(c, s, {4, 2, 0}, polls, true);
            });
}

TEST(Buckets, OneRankAlone)
{
    tv_comm *comm = nullptr;
    ASSERT_EQ(tv_comm_self_create(&comm), TV_OK);
    on_rank(comm, [](tv_comm *c, tv_stream *s) { run_steps(c, s, {1, 0}, 1); });
}

TEST(Buckets, MisuseIsRefused)
{
    tv_comm *comm = nullptr;
    ASSERT_EQ(tv_comm_self_create(&comm), TV_OK);
    on_rank(comm, [](tv_comm *c, tv_stream *s) {
        float grads[10] = {};
        tv_buckets *buckets = nullptr;
        const tv_bucket_range overlapping[] = {{5, 5}, {0, 6}};
        EXPECT_EQ(tv_buckets_create(c, s, grads, 2, overlapping, &buckets), TV_INTERNAL);
        EXPECT_EQ(buckets, nullptr);
        const tv_bucket_range apart[] = {{5, 5}, {0, 5}};
        ASSERT_EQ(tv_buckets_create(c, s, grads, 2, apart, &buckets), TV_OK);
        EXPECT_EQ(tv_buckets_start(buckets, 2), TV_INTERNAL);
        EXPECT_EQ(tv_buckets_start(buckets, -1), TV_INTERNAL);
        ASSERT_EQ(tv_buckets_start(buckets, 1), TV_OK);
        EXPECT_EQ(tv_buckets_start(buckets, 1), TV_INTERNAL);
        EXPECT_EQ(tv_buckets_finish(buckets), TV_OK);
        EXPECT_EQ(tv_buckets_start(buckets, 1), TV_OK); // the next step
        EXPECT_EQ(tv_buckets_finish(buckets), TV_OK);
        tv_buckets_destroy(buckets);
        tv_buckets_destroy(nullptr);
    });
}

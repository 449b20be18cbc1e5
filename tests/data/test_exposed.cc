/* Time that replicas wait for their gradients, started during backward and after it: messages take
 * their time (mesh/delaying_comm.h), and so does backward, which sleeps: no core is needed. */
#include "base/clock.h"
#include "data/buckets.h"
#include "mesh/delaying_comm.h"
#include "mesh/ranks.h"
#include <algorithm>
#include <chrono>

namespace
{

constexpr int num_replicas = 2, num_buckets = 8;
constexpr int64_t bucket_count = 4000;
constexpr double bucket_seconds = 0.02; /* a bucket's sum; its backward takes a third more */

/* Backward of a unit, whose matrix products move on what is in flight. */
void sleep_and_progress(struct tv_comm *comm, double seconds)
{
    const double until = tv_clock_seconds() + seconds;
    while (tv_clock_seconds() < until) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        tv_comm_progress(comm);
    }
}

void backward(struct tv_comm *data, bool is_overlapped, double *waited_out)
{
    std::vector<float> grads(num_buckets * bucket_count, (float)(tv_comm_rank(data) + 1));
    std::vector<struct tv_bucket_range> ranges;
    for (int b = 0; b < num_buckets; b++)
        ranges.push_back({b * bucket_count, bucket_count});
    struct tv_buckets *buckets = nullptr;
    ASSERT_OK(tv_buckets_create(data, nullptr, grads.data(), num_buckets, ranges.data(), &buckets));
    for (int b = 0; b < num_buckets; b++) {
        sleep_and_progress(data, bucket_seconds * 4 / 3);
        if (is_overlapped) {
            ASSERT_OK(tv_buckets_start(buckets, b));
        }
    }
    ASSERT_OK(tv_buckets_finish(buckets));
    EXPECT_EQ(std::vector<float>(num_buckets * bucket_count, 3), grads);
    tv_buckets_destroy(buckets);
    *waited_out = tv_comm_get_stats(data).wait_seconds;
}

/* Seconds that the slower replica waited. */
double exposed(bool is_overlapped)
{
    struct delaying_links *links = nullptr;
    EXPECT_EQ(TV_OK,
              delaying_links_create(num_replicas, 1e-4, bucket_count * 4 / bucket_seconds, &links));
    double waited[num_replicas] = {};
    run_threads(num_replicas, [&](struct tv_comm *inner) {
        struct tv_comm *comm = nullptr;
        ASSERT_OK(delaying_comm_create(inner, links, &comm));
        backward(comm, is_overlapped, &waited[tv_comm_rank(comm)]);
        tv_comm_destroy(comm);
    });
    delaying_links_destroy(links);
    return *std::max_element(waited, waited + num_replicas);
}

TEST(Exposed, GradientsDuringBackward)
{
    double off = 0, on = 0;
    for (int attempt = 0; attempt < 3; attempt++) { /* another process may take the cores away */
        off = exposed(false);
        on = exposed(true);
        if (on <= off / 2)
            break;
    }
    RecordProperty("exposed_ms", std::to_string(1e3 * off) + " " + std::to_string(1e3 * on));
    EXPECT_LE(on, off / 2);
    EXPECT_GE(off, 0.7 * num_buckets * bucket_seconds) << "without overlap all of it is exposed";
}

} // namespace

// How gradients are cut into buckets: what each holds, and what completes it.
#include "resolved_run.h"

namespace
{
// Branches of 1 MiB and more: 256 x 1024 weights of attention, twice as many behind them.
Flags large_layers(const Flags &more)
{
    return Flags{"--num-layers", "2",  "--hidden-size", "256", "--num-attention-heads", "4",
                 "--vocab-size", "97", "--seq-length",  "8",   "--global-batch-size",   "2",
                 "--dry-run"} +
           more;
}

struct Bucket {
    int high, high_branch, low;
    bool operator==(const Bucket &other) const
    {
        return high == other.high && high_branch == other.high_branch && low == other.low;
    }
};
std::ostream &operator<<(std::ostream &out, const Bucket &b)
{
    return out << b.high << "." << b.high_branch << " to " << b.low;
}

std::vector<Bucket> buckets_of(const Flags &flags)
{
    const Resolved resolved(flags, 2);
    struct tv_sharding sharding = {};
    EXPECT_EQ(tv_sharding_create(&resolved.run, 0, 0, &sharding), TV_OK) << tv_error_message();
    std::vector<Bucket> buckets;
    int64_t end = 0;
    for (int b = 0; b < sharding.shards.num_buckets; b++) {
        const struct tv_bucket_units &units = sharding.bucket_units[b];
        EXPECT_EQ(end, sharding.shards.buckets[b].first) << "bucket " << b;
        end += sharding.shards.buckets[b].count;
        buckets.push_back({units.high, units.high_branch, units.low});
    }
    EXPECT_EQ(end, sharding.locals.count);
    tv_sharding_destroy(&sharding);
    return buckets;
}

TEST(Buckets, BranchesOfALargeLayerHaveOneEach)
{
    const std::vector<Bucket> want = {{3, 0, 2}, {2, 1, 2}, {1, 0, 1}, {1, 1, 1}, {0, 0, 0}};
    for (const char *model : {"gpt2", "llama"})
        EXPECT_EQ(buckets_of(large_layers({"--model", model, "--ffn-hidden-size", "1024"})), want)
            << model;
}

TEST(Buckets, SmallUnitsShareOne)
{
    const std::vector<Bucket> want = {{3, 0, 0}};
    EXPECT_EQ(buckets_of(large_layers({"--hidden-size", "32"})), want);
}

TEST(Buckets, AreWholeUnitsWhereGradientsAreSharded)
{
    const std::vector<Bucket> want = {{3, 0, 3}, {2, 0, 2}, {1, 0, 1}, {0, 0, 0}, {0, 0, 0}};
    EXPECT_EQ(buckets_of(large_layers({"--zero-stage", "2"})), want);
}
} // namespace

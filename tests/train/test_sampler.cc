// Draws against the definition written out again, and against the probabilities themselves.
#include "base/rng.h"
#include "train/sampler.h"
#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <set>
#include <string>
#include <vector>

namespace
{
using Scores = std::vector<float>;

tv_sampler_args args_of(double temperature, int64_t top_k = 0, double top_p = 1, uint64_t seed = 7)
{
    return {temperature, top_k, top_p, seed, 0};
}

int32_t draw(const tv_sampler_args &args, int64_t index, const Scores &scores)
{
    std::vector<tv_candidate> room(scores.size());
    int32_t id = -1;
    EXPECT_EQ(tv_sample(&args, index, scores.data(), (int64_t)scores.size(), room.data(), &id),
              TV_OK)
        << tv_error_message();
    return id;
}

// Pick the best again and again: the order, the share that stays, then the draw.
int32_t by_definition(const tv_sampler_args &args, int64_t index, const Scores &scores)
{
    std::set<size_t> left;
    for (size_t i = 0; i < scores.size(); i++)
        left.insert(i);
    std::vector<size_t> order;
    while (!left.empty() && (args.top_k == 0 || order.size() < (size_t)args.top_k)) {
        size_t best = *left.begin();
        for (size_t i : left)
            if (scores[i] > scores[best])
                best = i;
        order.push_back(best);
        left.erase(best);
    }
    if (args.temperature == 0)
        return (int32_t)order[0];
    std::vector<double> weights;
    double total = 0;
    for (size_t i : order) {
        weights.push_back(
            std::exp(((double)scores[i] - (double)scores[order[0]]) / args.temperature));
        total += weights.back();
    }
    size_t kept = 0;
    double share = 0;
    while (kept < order.size() && (kept == 0 || args.top_p == 1 || share < args.top_p * total))
        share += weights[kept++];
    const uint64_t key = tv_rng_key(args.seed, ("sample." + std::to_string(args.stream)).c_str());
    const double u = (double)(tv_rng_bits(key, (uint64_t)index) >> 11) / 9007199254740992.0;
    double running = 0;
    for (size_t i = 0; i < kept; i++) {
        running += weights[i];
        if (running > u * share)
            return (int32_t)order[i];
    }
    return (int32_t)order[kept - 1];
}

Scores random_scores(size_t num, uint64_t key, bool has_ties)
{
    Scores scores;
    for (size_t i = 0; i < num; i++) {
        const double x = 3 * tv_rng_normal(key, i);
        scores.push_back((float)(has_ties ? std::round(x) : x));
    }
    return scores;
}
} // namespace

TEST(Sampler, DrawsByTheDefinition)
{
    for (size_t num : {1, 2, 31, 257})
        for (bool has_ties : {false, true})
            for (double temperature : {0.0, 0.3, 1.0, 5.0})
                for (int64_t top_k : {0, 1, 3, 1000})
                    for (double top_p : {1e-9, 0.5, 0.95, 1.0})
                        for (int64_t index = 0; index < 4; index++) {
                            const Scores scores = random_scores(num, num + 1000, has_ties);
                            tv_sampler_args args = args_of(temperature, top_k, top_p);
                            args.stream = index % 2;
                            ASSERT_EQ(draw(args, index, scores), by_definition(args, index, scores))
                                << num << " ids, temperature " << temperature << ", top-k " << top_k
                                << ", top-p " << top_p << ", draw " << index;
                        }
}

TEST(Sampler, TiesGoToTheLowerId)
{
    const Scores scores = {1, 5, 2, 5, 5};
    EXPECT_EQ(draw(args_of(0), 0, scores), 1);
    std::set<int32_t> seen;
    for (int64_t i = 0; i < 100; i++)
        seen.insert(draw(args_of(1, 2), i, scores));
    EXPECT_EQ(seen, (std::set<int32_t>{1, 3})); // not 4, which scores the same
    seen.clear();
    for (int64_t i = 0; i < 100; i++) // 2/3 of three equal ones and two small ones
        seen.insert(draw(args_of(1, 0, 0.6), i, scores));
    EXPECT_EQ(seen, (std::set<int32_t>{1, 3}));
}

// 20000 draws: each count is within five standard deviations of what its probability says.
TEST(Sampler, FrequenciesAreTheProbabilities)
{
    const Scores scores = {0, 1, -2, 0.5, 3, -8};
    const double temperature = 1.5;
    double total = 0;
    for (float x : scores)
        total += std::exp((double)x / temperature);
    std::vector<int> counts(scores.size());
    const int num = 20000;
    for (int i = 0; i < num; i++)
        counts[(size_t)draw(args_of(temperature), i, scores)]++;
    for (size_t i = 0; i < scores.size(); i++) {
        const double p = std::exp((double)scores[i] / temperature) / total;
        EXPECT_NEAR(counts[i], num * p, 5 * std::sqrt(num * p * (1 - p)) + 1) << i;
    }
}

TEST(Sampler, SeedStreamAndIndexSayWhatIsDrawn)
{
    const Scores scores(1000, 0.0f);
    const auto sequence = [&](uint64_t seed, int64_t stream) {
        std::vector<int32_t> ids;
        tv_sampler_args args = args_of(1, 0, 1, seed);
        args.stream = stream;
        for (int64_t i = 0; i < 20; i++)
            ids.push_back(draw(args, i, scores));
        return ids;
    };
    EXPECT_EQ(sequence(1, 0), sequence(1, 0));
    EXPECT_NE(sequence(1, 0), sequence(2, 0));
    EXPECT_NE(sequence(1, 0), sequence(1, 1));
}

TEST(Sampler, ScoresThatAreNotFinite)
{
    const float inf = std::numeric_limits<float>::infinity();
    const tv_sampler_args args = args_of(1);
    tv_candidate room[3];
    int32_t id = -1;
    const float masked[] = {-inf, 0, -inf}, nan[] = {0, NAN, 0}, high[] = {0, inf, 0},
                low[] = {-inf, -inf, -inf};
    EXPECT_EQ(tv_sample(&args, 0, masked, 3, room, &id), TV_OK);
    EXPECT_EQ(id, 1);
    id = -1;
    for (const float *bad : {nan, high, low})
        EXPECT_EQ(tv_sample(&args, 0, bad, 3, room, &id), TV_NUMERIC);
    EXPECT_EQ(id, -1);
}

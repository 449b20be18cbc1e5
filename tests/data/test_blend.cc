// Which source each position of a run reads: Megatron-LM's greedy rule, exact shares, any position
// from nothing but its number.
#include "data/blend.h"
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace
{
class Blend
{
  public:
    explicit Blend(const std::vector<int64_t> &weights)
    {
        EXPECT_EQ(tv_blend_create((int)weights.size(), weights.data(), &blend), TV_OK)
            << tv_error_message();
    }
    ~Blend()
    {
        tv_blend_destroy(blend);
    }
    Blend(const Blend &) = delete;
    Blend &operator=(const Blend &) = delete;
    std::pair<int, int64_t> at(int64_t position) const
    {
        int source = -1;
        int64_t draw = -1;
        tv_blend_at(blend, position, &source, &draw);
        return {source, draw};
    }
    tv_blend *blend = nullptr;
};

// build_blending_indices of Megatron-LM's helpers.cpp, in doubles as there.
std::vector<int> megatron(const std::vector<double> &weights, int size)
{
    std::vector<int> sources;
    std::vector<int64_t> counts(weights.size());
    for (int sample = 0; sample < size; sample++) {
        const double place = std::max((double)sample, 1.0);
        size_t best = 0;
        double largest = weights[0] * place - (double)counts[0];
        for (size_t i = 1; i < weights.size(); i++)
            if (weights[i] * place - (double)counts[i] > largest) {
                largest = weights[i] * place - (double)counts[i];
                best = i;
            }
        counts[best]++;
        sources.push_back((int)best);
    }
    return sources;
}

std::vector<int64_t> weights_of(const std::vector<const char *> &texts)
{
    std::vector<int64_t> weights(texts.size(), -1);
    EXPECT_EQ(tv_blend_weights((int)texts.size(), texts.data(), weights.data()), TV_OK)
        << tv_error_message();
    return weights;
}
} // namespace

// Sums that are powers of two, so that the doubles there are exact.
TEST(Blend, IsMegatronsRule)
{
    for (const std::vector<int64_t> &weights : std::vector<std::vector<int64_t>>{
             {1}, {1, 1}, {5, 3}, {3, 5}, {100, 1, 27}, {1, 2, 300, 209}}) {
        const Blend blend(weights);
        const int64_t period = tv_blend_period(blend.blend);
        std::vector<double> shares;
        for (int64_t weight : weights)
            shares.push_back((double)weight / (double)period);
        const std::vector<int> want = megatron(shares, (int)period);
        for (int64_t i = 0; i < period; i++)
            ASSERT_EQ(blend.at(i).first, want[(size_t)i]) << "position " << i << " of " << period;
    }
}

// Each source's samples come in order with none left out, and never ahead of its share by one.
TEST(Blend, IsExactToTheSample)
{
    const std::vector<int64_t> weights = {700, 211, 1, 88};
    const Blend blend(weights);
    ASSERT_EQ(tv_blend_period(blend.blend), 1000);
    std::vector<int64_t> counts(weights.size());
    for (int64_t i = 0; i < 3000; i++) {
        const auto [source, draw] = blend.at(i);
        ASSERT_EQ(draw, counts[(size_t)source]++) << i;
        ASSERT_LT(1000 * counts[(size_t)source], weights[(size_t)source] * (i + 1) + 1000) << i;
        for (size_t s = 0; (i + 1) % 1000 == 0 && s < weights.size(); s++)
            ASSERT_EQ(counts[s], weights[s] * (i + 1) / 1000);
    }
}

TEST(Blend, PositionsBeyondThirtyTwoBits)
{
    const Blend blend({999, 1});
    for (int64_t i = 0; i < 1000; i++) {
        const auto near = blend.at(i), far = blend.at(INT64_C(5000000000) * 1000 + i);
        EXPECT_EQ(far.first, near.first);
        EXPECT_EQ(far.second, near.second + INT64_C(5000000000) * (near.first == 0 ? 999 : 1));
    }
}

TEST(Blend, TheLargestPeriodIsExactToo)
{
    const int64_t most = TV_BLEND_MAX_PERIOD;
    const Blend blend({most - 5, 2, 3});
    int64_t counts[3] = {0, 0, 0};
    for (int64_t i = most - 200000; i < most; i++)
        counts[blend.at(i).first]++;
    EXPECT_EQ(blend.at(most - 1).second + blend.at(most).second, most - 5 - 1 + most - 5);
    EXPECT_EQ(counts[0] + counts[1] + counts[2], 200000);
    const int64_t beyond[] = {most, 1};
    tv_blend *none = nullptr;
    EXPECT_EQ(tv_blend_create(2, beyond, &none), TV_INVALID);
    EXPECT_NE(std::string(tv_error_message()).find("16777216"), std::string::npos);
    const int64_t zero[] = {1, 0};
    EXPECT_EQ(tv_blend_create(2, zero, &none), TV_INVALID);
    EXPECT_EQ(none, nullptr);
}

TEST(Blend, WeightsAreDecimals)
{
    EXPECT_EQ(weights_of({"0.3", "0.70"}), (std::vector<int64_t>{30, 70}));
    EXPECT_EQ(weights_of({"12", ".5", "3."}), (std::vector<int64_t>{120, 5, 30}));
    EXPECT_EQ(weights_of({"999999999", "0.000000001"}),
              (std::vector<int64_t>{999999999000000000, 1}));
    EXPECT_EQ(tv_blend_period(Blend(weights_of({"0.25", "0.75"})).blend), 4);
    for (const char *text :
         {"", "0", "0.0", ".", "-1", "1e3", "1.2.3", " 1", "1234567890", "0x1", "nan"}) {
        int64_t weight = -7;
        EXPECT_EQ(tv_blend_weights(1, &text, &weight), TV_INVALID) << text;
    }
}

/* Sums behind row matrices in pieces: how they are cut, that overlap and cut rows change no bit, and
 * what they send. Real values and the fast kernels, at sizes whose pieces are uneven. */
#include "tensor/axis_ranks.h"
#include <cstring>

namespace
{

constexpr int64_t in = 24, out = 260;

float value_at(int64_t place)
{
    return (float)((uint32_t)place * 2654435761u >> 8) / (float)(1 << 23) - 1;
}

std::vector<float> values(int64_t first, int64_t num)
{
    std::vector<float> x;
    for (int64_t i = 0; i < num; i++)
        x.push_back(value_at(first + i));
    return x;
}

struct Result {
    std::vector<float> y; /* all rows */
    int64_t sent_bytes = 0;
};

/* y of one row matrix over T ranks; each has its own x and weight. */
Result forward(int T, int64_t rows, int is_sequence_parallel, int is_overlapped)
{
    Result result;
    result.y.resize((size_t)(rows * out));
    run_axis(T, tv_kernels_cpu(TV_F32), [&](struct tv_tensor_axis axis) {
        axis.is_sequence_parallel = is_sequence_parallel;
        axis.is_overlapped = is_overlapped;
        const int t = tv_comm_rank(axis.comm);
        const struct tv_row_shard own = tv_tensor_own_rows(&axis, rows);
        const std::vector<float> x = values(1000 * t, rows * in), weight = values(77 * t, in * out),
                                 bias = values(5, out);
        std::vector<float> room((size_t)(rows * out)), y((size_t)(own.num * out));
        const struct tv_linear linear = {in,          out,     TV_WEIGHT_IN_OUT, weight.data(),
                                         bias.data(), nullptr, nullptr,          0};
        ASSERT_OK(tv_row_linear_forward(&axis, &linear, rows, x.data(), in, room.data(), y.data()));
        if (t == 0)
            result.sent_bytes = tv_comm_get_stats(axis.comm).sent_bytes;
        if (is_sequence_parallel || t == 0)
            std::copy(y.begin(), y.end(), result.y.begin() + own.first * out);
    });
    return result;
}

bool is_same(const std::vector<float> &a, const std::vector<float> &b)
{
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(RowPieces, AreAtMostFourOfRowsAndBytesEnough)
{
    EXPECT_EQ(1, tv_num_row_pieces(0, 1000, TV_F32));
    EXPECT_EQ(1, tv_num_row_pieces(127, 1000, TV_F32));
    EXPECT_EQ(2, tv_num_row_pieces(128, 1000, TV_F32));
    EXPECT_EQ(3, tv_num_row_pieces(255, 64, TV_F32));
    EXPECT_EQ(4, tv_num_row_pieces(256, 64, TV_F32));
    EXPECT_EQ(3, tv_num_row_pieces(256, 63, TV_F32)); /* 63 KiB */
    EXPECT_EQ(4, tv_num_row_pieces(100000, 1000, TV_F32));
    EXPECT_EQ(2, tv_num_row_pieces(256, 64, TV_BF16)); /* half the bytes */
    EXPECT_EQ(4, tv_num_row_pieces(256, 128, TV_BF16));
}

class Pieces : public testing::TestWithParam<std::tuple<int, int64_t>>
{
};

TEST_P(Pieces, OverlapAndCutRowsChangeNoBitAndNoByte)
{
    const auto [T, rows] = GetParam();
    const Result want = forward(T, rows, 0, 0), overlapped = forward(T, rows, 0, 1);
    EXPECT_TRUE(is_same(want.y, overlapped.y));
    EXPECT_EQ(want.sent_bytes, overlapped.sent_bytes);
    EXPECT_EQ(2 * (T - 1) * rows * out * 4 / T, want.sent_bytes);
    for (const int is_overlapped : {0, 1}) {
        const Result cut = forward(T, rows, 1, is_overlapped);
        EXPECT_TRUE(is_same(want.y, cut.y)) << "overlap " << is_overlapped;
        EXPECT_EQ((T - 1) * rows * out * 4 / T, cut.sent_bytes);
    }
}

TEST_P(Pieces, SumIsThatOfTheRanks)
{
    const auto [T, rows] = GetParam();
    const Result got = forward(T, rows, 1, 1);
    for (const int64_t r : {(int64_t)0, rows / 3, rows - 1})
        for (const int64_t c : {0, 131, 259}) {
            double y = (double)value_at(5 + c);
            for (int t = 0; t < T; t++)
                for (int64_t i = 0; i < in; i++)
                    y += (double)value_at(1000 * t + r * in + i) *
                         (double)value_at(77 * t + i * out + c);
            EXPECT_NEAR(y, (double)got.y[(size_t)(r * out + c)], 1e-4);
        }
}

/* Shares of 66 and 132 in one and two pieces; 396 in four of 99; 644 in four of 161. */
INSTANTIATE_TEST_SUITE_P(Axis, Pieces,
                         testing::Combine(testing::Values(2, 4),
                                          testing::Values((int64_t)264, (int64_t)1584,
                                                          (int64_t)2576)),
                         [](const testing::TestParamInfo<std::tuple<int, int64_t>> &which) {
                             return "T" + std::to_string(std::get<0>(which.param)) + "Rows" +
                                    std::to_string(std::get<1>(which.param));
                         });

/* T does not divide the rows. */
TEST(OddRows, GiveTheSameBitsWithOverlap)
{
    EXPECT_TRUE(is_same(forward(2, 301, 0, 0).y, forward(2, 301, 0, 1).y));
}

} // namespace

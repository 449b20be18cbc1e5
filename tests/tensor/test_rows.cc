/* Rows cut over the axis (sequence parallelism): shares, sums that leave own rows, gathers, and the
 * row matrix and the embedding between them. Small integers: every sum is exact. */
#include "tensor/axis_ranks.h"

namespace
{

constexpr int64_t rows = 8, cols = 3;

class CutRows : public testing::TestWithParam<int>
{
  protected:
    void run(const std::function<void(const struct tv_tensor_axis &, struct tv_row_shard)> &body)
    {
        run_axis(GetParam(), tv_kernels_ref(TV_F32), [&](struct tv_tensor_axis axis) {
            axis.is_sequence_parallel = 1;
            body(axis, tv_tensor_own_rows(&axis, rows));
        });
    }
};

float value_at(int64_t r, int64_t c)
{
    return (float)(r * 10 + c);
}

std::vector<float> values(int64_t first, int64_t num, float scale = 1)
{
    std::vector<float> x;
    for (int64_t r = first; r < first + num; r++)
        for (int64_t c = 0; c < cols; c++)
            x.push_back(scale * value_at(r, c));
    return x;
}

TEST(RowShard, IsOneOfEqualParts)
{
    for (const int T : {1, 2, 4, 8})
        for (int t = 0; t < T; t++) {
            const struct tv_row_shard own = tv_row_shard_of(24, 1, T, t);
            EXPECT_EQ(24 / T, own.num);
            EXPECT_EQ(t * 24 / T, own.first);
            const struct tv_row_shard all = tv_row_shard_of(25, 0, T, t);
            EXPECT_EQ(25, all.num);
            EXPECT_EQ(0, all.first);
        }
}

TEST_P(CutRows, SumLeavesOwnRows)
{
    run([](const struct tv_tensor_axis &axis, struct tv_row_shard own) {
        const int T = tv_comm_size(axis.comm), t = tv_comm_rank(axis.comm);
        std::vector<float> partial = values(0, rows, (float)(t + 1)),
                           y((size_t)(own.num * cols), -1);
        ASSERT_OK(tv_tensor_sum_rows(&axis, rows, cols, partial.data(), y.data()));
        EXPECT_EQ(values(own.first, own.num, (float)(T * (T + 1) / 2)), y);
    });
}

TEST_P(CutRows, GatherGivesOwnRowsFirstThenTheOthers)
{
    for (const int is_overlapped : {0, 1})
        run([=](struct tv_tensor_axis axis, struct tv_row_shard own) {
            const int T = tv_comm_size(axis.comm), t = tv_comm_rank(axis.comm);
            axis.is_overlapped = is_overlapped;
            std::vector<float> room((size_t)(rows * cols), -1);
            const std::vector<float> mine = values(own.first, own.num);
            struct tv_row_gather gather;
            ASSERT_OK(tv_row_gather_start(&axis, rows, cols, mine.data(), room.data(), &gather));
            EXPECT_EQ(room.data(), gather.whole);
            ASSERT_EQ(T, gather.num_parts);
            for (int i = 0; i < T; i++) {
                struct tv_row_shard part;
                ASSERT_OK(tv_row_gather_next(&gather, &part));
                EXPECT_EQ((t - i + T) % T * own.num, part.first);
                ASSERT_EQ(own.num, part.num);
                for (int64_t k = 0; k < part.num * cols; k++)
                    EXPECT_EQ(value_at(part.first + k / cols, k % cols),
                              room[(size_t)(part.first * cols + k)]);
            }
            EXPECT_EQ(values(0, rows), room);
        });
}

TEST_P(CutRows, GatherInPlaceIsFinishedAtOnce)
{
    run([](const struct tv_tensor_axis &axis, struct tv_row_shard own) {
        std::vector<float> x((size_t)(rows * cols), -1);
        const std::vector<float> mine = values(own.first, own.num);
        std::copy(mine.begin(), mine.end(), x.begin() + own.first * cols);
        struct tv_row_gather gather;
        ASSERT_OK(
            tv_row_gather_start(&axis, rows, cols, x.data() + own.first * cols, x.data(), &gather));
        ASSERT_OK(tv_row_gather_finish(&gather));
        EXPECT_EQ(values(0, rows), x);
    });
}

/* W [1, cols] of each rank is t + 1, x [rows, 1] is the row; a bias of 100. */
TEST_P(CutRows, RowMatrixGivesOwnRowsAndAPartOfTheBiasGradient)
{
    run([](const struct tv_tensor_axis &axis, struct tv_row_shard own) {
        const int T = tv_comm_size(axis.comm), t = tv_comm_rank(axis.comm);
        const std::vector<float> weight(cols, (float)(t + 1)), bias(cols, 100);
        std::vector<float> dweight(cols), dbias(cols), x, room((size_t)(rows * cols), -1),
            y((size_t)(own.num * cols), -1);
        for (int64_t r = 0; r < rows; r++)
            x.push_back((float)r);
        const struct tv_linear linear = {
            1, cols, TV_WEIGHT_IN_OUT, weight.data(), bias.data(), dweight.data(), dbias.data(), 1};
        ASSERT_OK(tv_row_linear_forward(&axis, &linear, rows, x.data(), 1, room.data(), y.data()));
        for (int64_t i = 0; i < own.num * cols; i++)
            EXPECT_EQ((float)((own.first + i / cols) * T * (T + 1) / 2 + 100), y[(size_t)i]);

        const std::vector<float> dy = values(0, rows);
        ASSERT_OK(tv_row_linear_backward_weight(&axis, &linear, rows, x.data(), 1, dy.data()));
        for (int64_t c = 0; c < cols; c++) {
            float dw = 0, db = 0;
            for (int64_t r = 0; r < rows; r++) {
                dw += (float)r * value_at(r, c);
                db += r >= own.first && r < own.first + own.num ? value_at(r, c) : 0;
            }
            EXPECT_EQ(dw, dweight[(size_t)c]);
            EXPECT_EQ(db, dbias[(size_t)c]);
        }
    });
}

TEST_P(CutRows, EmbeddingGivesOwnRows)
{
    run([](const struct tv_tensor_axis &axis, struct tv_row_shard own) {
        const int T = tv_comm_size(axis.comm), t = tv_comm_rank(axis.comm);
        const struct tv_vocab_shard shard = tv_vocab_shard_of(rows, T, t);
        const std::vector<float> table = values(shard.first, shard.padded);
        std::vector<int32_t> ids;
        for (int64_t r = 0; r < rows; r++)
            ids.push_back((int32_t)((r + 3) % rows));
        std::vector<float> room((size_t)(rows * cols), -1), y((size_t)(own.num * cols), -1);
        const struct tv_vocab_lookup lookup = {shard, rows, cols, ids.data()};
        ASSERT_OK(tv_vocab_embedding_forward(&axis, &lookup, table.data(), room.data(), y.data()));
        for (int64_t i = 0; i < own.num * cols; i++)
            EXPECT_EQ(value_at(ids[(size_t)(own.first + i / cols)], i % cols), y[(size_t)i]);
    });
}

INSTANTIATE_TEST_SUITE_P(Axis, CutRows, testing::Values(1, 2, 4, 8),
                         [](const testing::TestParamInfo<int> &which) {
                             return "T" + std::to_string(which.param);
                         });

} // namespace

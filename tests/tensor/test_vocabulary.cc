/* Embedding and cross-entropy with the vocabulary cut over the axis, against the whole vocabulary
 * in double. Padding holds NaN wherever it must not be read. */
#include "tensor/axis_ranks.h"
#include <cmath>
#include <limits>
#include <string>

namespace
{

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

struct Case {
    int T;
    int64_t vocab;
    double smoothing;
};

TEST(VocabShard, CoversTheVocabularyOnce)
{
    for (const int64_t vocab : {1, 3, 97, 256, 50257})
        for (const int T : {1, 2, 3, 4, 8}) {
            int64_t next = 0;
            for (int t = 0; t < T; t++) {
                const struct tv_vocab_shard s = tv_vocab_shard_of(vocab, T, t);
                ASSERT_EQ(vocab, s.vocab_size);
                const int64_t share = (vocab + T - 1) / T;
                ASSERT_EQ(share < 4096 ? share : (share + 63) / 64 * 64, s.padded);
                ASSERT_EQ(next, s.first);
                ASSERT_GE(s.num, 0);
                ASSERT_LE(s.num, s.padded);
                next += s.num;
            }
            ASSERT_EQ(vocab, next);
        }
}

TEST(VocabShard, UnevenOnes)
{
    const struct tv_vocab_shard last = tv_vocab_shard_of(97, 4, 3);
    EXPECT_EQ(75, last.first);
    EXPECT_EQ(22, last.num);
    EXPECT_EQ(25, last.padded);
    const struct tv_vocab_shard empty = tv_vocab_shard_of(5, 4, 3);
    EXPECT_EQ(5, empty.first);
    EXPECT_EQ(0, empty.num);
    EXPECT_EQ(2, empty.padded);
}

class Vocabulary : public testing::TestWithParam<Case>
{
  protected:
    void run(const std::function<void(const struct tv_tensor_axis &, struct tv_vocab_shard)> &body)
    {
        run_axis(GetParam().T, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
            body(axis, tv_vocab_shard_of(GetParam().vocab, GetParam().T, tv_comm_rank(axis.comm)));
        });
    }
};

constexpr int64_t rows = 6, cols = 3;

float table_at(int64_t id, int64_t c)
{
    return (float)(id * 4 + c + 1);
}

/* First, last, and a repeated id. */
std::vector<int32_t> some_ids(int64_t vocab)
{
    const auto last = (int32_t)(vocab - 1);
    return {0, last, (int32_t)(vocab / 2), last, (int32_t)(vocab / 3), last};
}

TEST_P(Vocabulary, EmbeddingPicksRowsAndNeverPadding)
{
    const std::vector<int32_t> ids = some_ids(GetParam().vocab);
    run([&](const struct tv_tensor_axis &axis, struct tv_vocab_shard shard) {
        std::vector<float> table((size_t)(shard.padded * cols), nan_value), y(rows * cols, -1);
        for (int64_t r = 0; r < shard.num; r++)
            for (int64_t c = 0; c < cols; c++)
                table[(size_t)(r * cols + c)] = table_at(shard.first + r, c);
        const struct tv_vocab_lookup lookup = {shard, rows, cols, ids.data()};
        ASSERT_OK(tv_vocab_embedding_forward(&axis, &lookup, table.data(), nullptr, y.data()));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++)
                ASSERT_EQ(table_at(ids[(size_t)r], c), y[(size_t)(r * cols + c)]);
    });
}

TEST_P(Vocabulary, EmbeddingBackwardAddsToOwnRows)
{
    const std::vector<int32_t> ids = some_ids(GetParam().vocab);
    run([&](const struct tv_tensor_axis &axis, struct tv_vocab_shard shard) {
        std::vector<float> dy((size_t)(rows * cols)), dtable((size_t)(shard.padded * cols), 10);
        for (size_t i = 0; i < dy.size(); i++)
            dy[i] = (float)(i + 1);
        const struct tv_vocab_lookup lookup = {shard, rows, cols, ids.data()};
        ASSERT_OK(tv_vocab_embedding_backward(&axis, &lookup, dy.data(), dtable.data()));
        for (int64_t v = 0; v < shard.padded; v++)
            for (int64_t c = 0; c < cols; c++) {
                float want = 10;
                for (int64_t r = 0; r < rows; r++)
                    if (v < shard.num && ids[(size_t)r] == shard.first + v)
                        want += dy[(size_t)(r * cols + c)];
                ASSERT_EQ(want, dtable[(size_t)(v * cols + c)]) << "row " << v;
            }
    });
}

/* This rank's columns of the logits; padding columns hold NaN. */
std::vector<float> logits_of(struct tv_vocab_shard shard, float (*logit)(int64_t r, int64_t v))
{
    std::vector<float> logits((size_t)(rows * shard.padded), nan_value);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t v = 0; v < shard.num; v++)
            logits[(size_t)(r * shard.padded + v)] = logit(r, shard.first + v);
    return logits;
}

float zero_logit(int64_t, int64_t)
{
    return 0;
}
float some_logit(int64_t r, int64_t v)
{
    return (float)std::sin((double)(r * 37 + v * 11));
}
float huge_logit(int64_t r, int64_t v)
{
    return 1000 * some_logit(r, v);
}

/* log sum exp of a whole row, in double */
double lse_of(float (*logit)(int64_t r, int64_t v), int64_t r, int64_t vocab)
{
    double max = logit(r, 0), sum = 0;
    for (int64_t v = 1; v < vocab; v++)
        max = std::fmax(max, logit(r, v));
    for (int64_t v = 0; v < vocab; v++)
        sum += std::exp((double)logit(r, v) - max);
    return max + std::log(sum);
}

/* All rows, and the room that they need. */
struct Loss {
    Loss(struct tv_vocab_shard shard, float (*logit)(int64_t r, int64_t v),
         const std::vector<int32_t> &all_targets, double smoothing)
        : logits(logits_of(shard, logit)), lse(rows),
          work((size_t)tv_vocab_work_count(rows, smoothing)), row_loss(rows),
          targets(all_targets), loss{shard,          rows,       logits.data(),
                                     targets.data(), lse.data(), row_loss.data(),
                                     smoothing,      work.data()}
    {
    }
    tv_status_t forward(const struct tv_tensor_axis &axis, double *sum_out)
    {
        std::vector<double> host(rows);
        TV_TRY(tv_vocab_cross_entropy_forward(&axis, &loss));
        return tv_vocab_loss_sum(&axis, rows, row_loss.data(), host.data(), sum_out);
    }
    Loss(const Loss &) = delete;
    Loss &operator=(const Loss &) = delete;
    std::vector<float> logits, lse, work;
    std::vector<double> row_loss;
    std::vector<int32_t> targets;
    struct tv_vocab_loss loss;
};

TEST_P(Vocabulary, ZeroHeadGivesLogarithmOfTheVocabulary)
{
    const std::vector<int32_t> targets = some_ids(GetParam().vocab);
    run([&](const struct tv_tensor_axis &axis, struct tv_vocab_shard shard) {
        for (const double smoothing : {0.0, 0.1, 0.9}) {
            Loss l(shard, zero_logit, targets, smoothing);
            double sum = 0;
            ASSERT_OK(l.forward(axis, &sum));
            EXPECT_NEAR(std::log((double)GetParam().vocab), sum / rows, 1e-12);
        }
    });
}

/* The targets' distribution, as Megatron-LM's comment has it. */
double label_of(int64_t id, int64_t target, int64_t vocab, double smoothing)
{
    return id == target ? 1 - smoothing : smoothing / (double)(vocab - 1);
}

void check_loss(float (*logit)(int64_t r, int64_t v), const Case &which,
                const struct tv_tensor_axis &axis, struct tv_vocab_shard shard, double *loss_out)
{
    std::vector<int32_t> targets = some_ids(which.vocab);
    targets[1] = -1;
    targets[4] = -100;
    Loss l(shard, logit, targets, which.smoothing);
    const std::vector<float> &logits = l.logits, &lse = l.lse;
    *loss_out = 0;
    ASSERT_OK(l.forward(axis, loss_out));
    double want = 0;
    for (int64_t r = 0; r < rows; r++) {
        const double row_lse = lse_of(logit, r, which.vocab);
        ASSERT_NEAR(row_lse, lse[(size_t)r], 2e-7 * (1 + std::fabs(row_lse)));
        for (int64_t v = 0; v < which.vocab && targets[(size_t)r] >= 0; v++)
            want += label_of(v, targets[(size_t)r], which.vocab, which.smoothing) *
                    (row_lse - (double)logit(r, v));
    }
    ASSERT_NEAR(want, *loss_out, 1e-6 * (1 + std::fabs(want)));

    ASSERT_OK(tv_vocab_cross_entropy_backward(&axis, &l.loss));
    for (int64_t r = 0; r < rows; r++) {
        const double row_lse = lse_of(logit, r, which.vocab);
        for (int64_t v = 0; v < shard.padded; v++) {
            const float got = logits[(size_t)(r * shard.padded + v)];
            if (v >= shard.num || targets[(size_t)r] < 0) {
                ASSERT_EQ(0, got) << "row " << r << ", column " << v; /* padding, or not counted */
                continue;
            }
            const int64_t id = shard.first + v;
            const double p = std::exp((double)logit(r, id) - row_lse);
            /* the kept row_lse is a float: its rounding is relative to its own size */
            const double tolerance = 1e-6 + 6e-8 * std::fabs((double)lse[(size_t)r]);
            ASSERT_NEAR(p - label_of(id, targets[(size_t)r], which.vocab, which.smoothing), got,
                        tolerance)
                << "row " << r << ", id " << id;
        }
    }
}

TEST_P(Vocabulary, LossAndGradientCountOnlyCountedRows)
{
    std::vector<double> losses((size_t)GetParam().T, -1);
    run([&](const struct tv_tensor_axis &axis, struct tv_vocab_shard shard) {
        check_loss(some_logit, GetParam(), axis, shard, &losses[(size_t)tv_comm_rank(axis.comm)]);
    });
    for (const double loss : losses)
        EXPECT_EQ(losses[0], loss) << "ranks disagree";
}

TEST(VocabChunks, AreFixedBySizes)
{
    const struct {
        int64_t rows, padded;
        tv_dtype_t dtype;
        int num;
        int64_t chunk_rows;
        tv_device_kind_t device = TV_DEVICE_CPU;
    } cases[] = {{1024, 50304, TV_F32, 4, 256},  /* 333 fit: 320, so 4, of 256 each */
                 {1024, 50304, TV_BF16, 2, 512}, /* 667 fit: 640, so 2, of 512 each */
                 {1024, 25152, TV_F32, 2, 512},
                 {1000, 50304, TV_F32, 4, 256},
                 {330, 50304, TV_F32, 2, 192},
                 {65, 1 << 20, TV_F32, 2, 64},
                 {64, 1 << 20, TV_F32, 1, 64},
                 {7, 50304, TV_F32, 1, 7},
                 {4096, 256, TV_F32, 1, 4096},
                 {1, 1, TV_F32, 1, 1},
                 /* 5336 fit: 4096 is the multiple of 2048; of 1046 that of 1024 is 1024 */
                 {32768, 50304, TV_BF16, 8, 4096, TV_DEVICE_CUDA},
                 {5000, 256512, TV_BF16, 5, 1024, TV_DEVICE_CUDA},
                 {511, 1 << 20, TV_BF16, 2, 256, TV_DEVICE_CUDA},
                 {4096, 50304, TV_BF16, 1, 4096, TV_DEVICE_CUDA},
                 {4096, 50304, TV_F32, 2, 2048, TV_DEVICE_CUDA},
                 {1000, 1 << 20, TV_F32, 4, 256, TV_DEVICE_CUDA}};
    for (const auto &c : cases) {
        const struct tv_vocab_chunks chunks =
            tv_vocab_chunks_of(c.rows, c.padded, c.dtype, c.device);
        EXPECT_EQ(c.num, chunks.num) << c.rows << " of " << c.padded;
        EXPECT_EQ(c.chunk_rows, chunks.rows) << c.rows << " of " << c.padded;
    }
}

/* Loss, and gradient of every row, from rows [0, 2), [2, 4), [4, 6); and both at once. */
TEST_P(Vocabulary, ChunksOfRowsGiveTheBitsOfAll)
{
    const std::vector<int32_t> targets = some_ids(GetParam().vocab);
    run([&](const struct tv_tensor_axis &axis, struct tv_vocab_shard shard) {
        Loss whole(shard, some_logit, targets, GetParam().smoothing),
            parts(shard, some_logit, targets, GetParam().smoothing),
            both(shard, some_logit, targets, GetParam().smoothing);
        double want = 0;
        ASSERT_OK(whole.forward(axis, &want));
        ASSERT_OK(tv_vocab_cross_entropy_backward(&axis, &whole.loss));
        for (int64_t first = 0; first < rows; first += 2) {
            struct tv_vocab_loss part = parts.loss;
            part.rows = 2;
            part.logits = parts.logits.data() + first * shard.padded;
            part.targets += first;
            part.row_lse += first;
            part.row_loss += first;
            ASSERT_OK(tv_vocab_cross_entropy_forward(&axis, &part));
            ASSERT_OK(tv_vocab_cross_entropy_backward(&axis, &part));
        }
        EXPECT_EQ(whole.row_loss, parts.row_loss);
        EXPECT_EQ(whole.lse, parts.lse);
        EXPECT_EQ(whole.logits, parts.logits);
        ASSERT_OK(tv_vocab_cross_entropy(&axis, &both.loss));
        EXPECT_EQ(whole.row_loss, both.row_loss);
        EXPECT_EQ(whole.lse, both.lse);
        EXPECT_EQ(whole.logits, both.logits);
    });
}

TEST_P(Vocabulary, HugeLogitsStayFinite)
{
    std::vector<double> losses((size_t)GetParam().T, -1);
    run([&](const struct tv_tensor_axis &axis, struct tv_vocab_shard shard) {
        check_loss(huge_logit, GetParam(), axis, shard, &losses[(size_t)tv_comm_rank(axis.comm)]);
    });
    for (const double loss : losses)
        EXPECT_TRUE(std::isfinite(loss) && loss == losses[0]);
}

/* 256: ln 256 = 5.545177. 97: uneven, ln 97 = 4.574711. 5 over 4: a rank with no rows.
 * 4101, 8209: padded to whole lines. */
INSTANTIATE_TEST_SUITE_P(Axis, Vocabulary,
                         testing::Values(Case{1, 256, 0}, Case{2, 256, 0}, Case{4, 256, 0},
                                         Case{1, 97, 0}, Case{2, 97, 0}, Case{4, 97, 0},
                                         Case{4, 5, 0}, Case{1, 8, 0.1}, Case{2, 8, 0.1},
                                         Case{4, 97, 0.3}, Case{4, 5, 0.1}, Case{1, 4101, 0},
                                         Case{2, 8209, 0.1}),
                         [](const testing::TestParamInfo<Case> &which) {
                             return "T" + std::to_string(which.param.T) + "Vocab" +
                                    std::to_string(which.param.vocab) +
                                    (which.param.smoothing > 0 ? "Smooth" : "");
                         });

} // namespace

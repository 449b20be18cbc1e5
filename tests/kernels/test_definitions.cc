// What the definitions say at their edges, for both tables: values worked out by hand or in double.
#include "kernels/harness.h"
#include <cmath>
#include <limits>

namespace
{
class Definitions : public ::testing::TestWithParam<const tv_kernels *>
{
  protected:
    const tv_kernels *kernels = GetParam();
    Device device{2};
};

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
} // namespace

INSTANTIATE_TEST_SUITE_P(Tables, Definitions,
                         ::testing::Values(tv_kernels_ref(TV_F32), tv_kernels_cpu(TV_F32)),
                         [](const ::testing::TestParamInfo<const tv_kernels *> &each) {
                             return std::string(each.param->name);
                         });

TEST_P(Definitions, MatmulByHand)
{
    // [1 2; 3 4] [5 6; 7 8] + (10, 20) + 1
    const float a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8}, bias[] = {10, 20};
    float c[] = {1, 1, 1, 1};
    const tv_matmul_args args = {2, 2, 2, a, 2, 0, b, 2, 0, bias, 1, c, 2};
    ASSERT_EQ(kernels->matmul(device.stream, &args), TV_OK);
    const float want[] = {30, 43, 54, 71};
    for (int i = 0; i < 4; i++)
        EXPECT_EQ(c[i], want[i]) << i;
}

// With k = 0 the product is zero: bias and what was there remain.
TEST_P(Definitions, MatmulOfNothing)
{
    const float none[1] = {nan_value}, bias[] = {2, 3};
    for (int form = 0; form < 4; form++) {
        float c[] = {7, 7, 7, 7};
        const tv_matmul_args args = {
            2, 2, 0, none, 1, 0, none, 2, 0, form & 1 ? bias : nullptr, form >> 1, c, 2};
        ASSERT_EQ(kernels->matmul(device.stream, &args), TV_OK);
        for (int i = 0; i < 4; i++)
            EXPECT_EQ(c[i], (form & 1 ? bias[i % 2] : 0) + (form >> 1 ? 7 : 0)) << form;
    }
}

TEST_P(Definitions, EmbeddingOutsideItsRange)
{
    const int32_t ids[] = {4, 5, 7, 8, -1};
    const float table[] = {1, 2, 3, 4, 5, 6}; // ids 5, 6, 7
    float y[10], plus[10];
    for (float &value : plus)
        value = 100;
    tv_embedding_args args = {5, 2, 5, 3, ids, table, 0, y};
    ASSERT_EQ(kernels->embedding_forward(device.stream, &args), TV_OK);
    args.accumulate = 1;
    args.y = plus;
    ASSERT_EQ(kernels->embedding_forward(device.stream, &args), TV_OK);
    const float want[] = {0, 0, 1, 2, 5, 6, 0, 0, 0, 0};
    for (int i = 0; i < 10; i++) {
        EXPECT_EQ(y[i], want[i]) << i;
        EXPECT_EQ(plus[i], 100 + want[i]) << i;
    }
    // 1e8 + 1 - 1e8 in this order is 0 in float: rows are added one by one, ascending
    const int32_t repeated[] = {6, 6, 9, 6};
    const float dy[] = {1e8f, 1, 1, 2, nan_value, nan_value, -1e8f, 3};
    float dtable[6] = {};
    const tv_embedding_backward_args backward = {4, 2, 5, 3, repeated, dy, dtable};
    ASSERT_EQ(kernels->embedding_backward(device.stream, &backward), TV_OK);
    const float want_table[] = {0, 0, 0, 6, 0, 0};
    for (int i = 0; i < 6; i++)
        EXPECT_EQ(dtable[i], want_table[i]) << i;
}

TEST_P(Definitions, RotaryTurnsByItsPositionAndBack)
{
    // head_dim 4, theta 100: position p turns (x0, x2) by p and (x1, x3) by p / 10
    float x[] = {1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1};
    tv_rotary_args args = {3, 4, 2, 1, 4, 0, 100.0, x, nullptr}; // third row: position 0 again
    ASSERT_EQ(kernels->rotary(device.stream, &args), TV_OK);
    const double turned[] = {std::cos(1), -std::sin(0.1), std::sin(1), std::cos(0.1)};
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(x[i], i % 3 == 0 ? 1 : 0) << i;
        EXPECT_NEAR((double)x[4 + i], turned[i], 1e-7) << i;
        EXPECT_EQ(x[8 + i], i % 3 == 0 ? 1 : 0) << i;
    }
    args.inverse = 1;
    ASSERT_EQ(kernels->rotary(device.stream, &args), TV_OK);
    for (int i = 0; i < 12; i++)
        EXPECT_NEAR((double)x[i], i % 4 % 3 == 0 ? 1 : 0, 2e-7) << i;
}

// Places that say themselves what they would be anyway give the same bits; others turn as they say.
TEST_P(Definitions, RotaryTurnsByGivenPositions)
{
    const int64_t rows = 7, cols = 8;
    const int32_t usual[] = {0, 1, 2, 0, 1, 2, 0}, reset[] = {0, 1, 0, 0, 1, 2, 1};
    std::vector<float> x((size_t)(rows * cols)), y, z;
    for (size_t i = 0; i < x.size(); i++)
        x[i] = std::cos((float)i);
    y = z = x;
    tv_rotary_args args = {rows, cols, 3, 2, 4, 0, 100.0, x.data(), nullptr};
    ASSERT_EQ(kernels->rotary(device.stream, &args), TV_OK);
    args.x = y.data();
    args.positions = usual;
    ASSERT_EQ(kernels->rotary(device.stream, &args), TV_OK);
    EXPECT_EQ(x, y);
    args.x = z.data();
    args.positions = reset;
    ASSERT_EQ(kernels->rotary(device.stream, &args), TV_OK);
    for (size_t r = 0; r < (size_t)rows; r++)
        EXPECT_EQ(z[r * 8 + 1] == x[r * 8 + 1], usual[r] == reset[r]) << r;
    EXPECT_EQ(z[2 * 8], std::cos(16.0f)) << "position 0 turns nothing";
}

// Changing a later token changes nothing before it, to the bit.
TEST_P(Definitions, AttentionIsCausal)
{
    const int length = 70, h = 8, cut = 66;
    Call run = {kernels, device.stream, {}, {}, {}, false};
    Tensor &q = run.in(length, h, h), &k = run.in(length, h, h), &v = run.in(length, h, h);
    Tensor &o = run.out(length, h, h), &lse = run.out(1, length, length);
    const tv_attention_args args = {1, length, 1, 1,        h, q.data(),   k.data(), v.data(),
                                    h, h,      h, o.data(), h, lse.data(), {},       nullptr};
    ASSERT_EQ(kernels->attention_forward(device.stream, &args), TV_OK);
    const std::vector<float> o_before = o.memory, lse_before = lse.memory;
    EXPECT_NEAR((double)o.at(0, 3), (double)v.at(0, 3), 1e-7) << "the first token sees itself";
    k.fill(77, -1, 1);
    v.fill(78, -1, 1);
    Call again = {kernels, device.stream, {}, {}, {}, false};
    again.in(length, h, h);
    Tensor &k0 = again.in(length, h, h), &v0 = again.in(length, h, h);
    for (int r = 0; r < cut; r++) {
        for (int c = 0; c < h; c++) {
            k.at(r, c) = k0.at(r, c);
            v.at(r, c) = v0.at(r, c);
        }
    }
    ASSERT_EQ(kernels->attention_forward(device.stream, &args), TV_OK);
    Tensor old(Role::output, length, h, h), old_lse(Role::output, 1, length, length);
    old.memory = o_before;
    old_lse.memory = lse_before;
    for (int r = 0; r < length; r++) {
        EXPECT_EQ(o.at(r, 0) == old.at(r, 0), r < cut) << r;
        EXPECT_EQ(lse.at(0, r) == old_lse.at(0, r), r < cut) << r;
    }
}

// Two documents in a sequence are as if each were a sequence; what the first holds does not matter to
// the second, to the bit.
TEST_P(Definitions, AttentionEndsWhereTheDocumentStarts)
{
    const int length = 150, cut = 83, rest = length - cut, h = 8;
    Call run = {kernels, device.stream, {}, {}, {}, false};
    Tensor &q = run.in(length, h, h), &k = run.in(length, h, h), &v = run.in(length, h, h);
    Tensor &o = run.out(length, h, h), &lse = run.out(1, length, length);
    Tensor &alone = run.out(length, h, h), &alone_lse = run.out(1, length, length);
    std::vector<int32_t> first_keys((size_t)length, 0);
    std::fill(first_keys.begin() + cut, first_keys.end(), cut);
    tv_attention_args args = {1, length, 1, 1,        h, q.data(),   k.data(), v.data(),
                              h, h,      h, o.data(), h, lse.data(), {},       first_keys.data()};
    ASSERT_EQ(kernels->attention_forward(device.stream, &args), TV_OK);
    const tv_attention_args head = {1,        cut,
                                    1,        1,
                                    h,        q.data(),
                                    k.data(), v.data(),
                                    h,        h,
                                    h,        alone.data(),
                                    h,        alone_lse.data(),
                                    {},       nullptr};
    ASSERT_EQ(kernels->attention_forward(device.stream, &head), TV_OK);
    const int at = cut * h;
    const tv_attention_args tail = {1,
                                    rest,
                                    1,
                                    1,
                                    h,
                                    q.data() + at,
                                    k.data() + at,
                                    v.data() + at,
                                    h,
                                    h,
                                    h,
                                    alone.data() + at,
                                    h,
                                    alone_lse.data() + cut,
                                    {},
                                    nullptr};
    ASSERT_EQ(kernels->attention_forward(device.stream, &tail), TV_OK);
    for (int r = 0; r < length; r++) {
        EXPECT_NEAR((double)lse.at(0, r), (double)alone_lse.at(0, r), 2e-6) << r;
        for (int c = 0; c < h; c++)
            ASSERT_NEAR((double)o.at(r, c), (double)alone.at(r, c), 1e-6) << r << " " << c;
    }
    const std::vector<float> before = o.memory;
    for (int i = 0; i < at; i++)
        k.data()[i] = v.data()[i] = 5;
    ASSERT_EQ(kernels->attention_forward(device.stream, &args), TV_OK);
    Tensor old(Role::output, length, h, h);
    old.memory = before;
    for (int r = 1; r < length; r++)
        EXPECT_EQ(o.at(r, 0) == old.at(r, 0), r >= cut) << r;
}

TEST_P(Definitions, AttentionOfLargeScoresStaysFinite)
{
    // scores of 400: exp of them is beyond a float; both keys weigh the same
    const int h = 4;
    float q[] = {20, 20, 20, 20, 20, 20, 20, 20}, k[] = {10, 10, 10, 10, 10, 10, 10, 10};
    float v[] = {0, 1, 2, 3, 4, 5, 6, 7}, o[8], lse[2];
    const tv_attention_args args = {1, 2, 1, 1, h, q, k, v, h, h, h, o, h, lse, {}, nullptr};
    ASSERT_EQ(kernels->attention_forward(device.stream, &args), TV_OK);
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(o[i], v[i]);
        EXPECT_EQ(o[4 + i], (v[i] + v[4 + i]) / 2);
    }
    EXPECT_EQ(lse[0], 400);
    EXPECT_NEAR((double)lse[1], 400 + std::log(2), 4e-5);
}

// Scores of -400 and, from the second tile of keys on, of 400: what was added up before counts for nothing.
TEST_P(Definitions, AttentionOfScoresThatRiseFar)
{
    const int h = 4, rows = 70, cut = 64;
    std::vector<float> q(rows * h, 20), k(rows * h, 10), v(rows * h, 3), o(rows * h), lse(rows);
    for (int i = 0; i < cut * h; i++) {
        k[(size_t)i] = -10;
        v[(size_t)i] = 5;
    }
    const tv_attention_args args = {1, rows, 1, 1,        h, q.data(),   k.data(), v.data(),
                                    h, h,    h, o.data(), h, lse.data(), {},       nullptr};
    ASSERT_EQ(kernels->attention_forward(device.stream, &args), TV_OK);
    for (int i = 0; i < rows; i++) {
        const int seen = i < cut ? i + 1 : i - cut + 1;
        EXPECT_NEAR((double)o[(size_t)(i * h)], i < cut ? 5 : 3, 1e-5) << i;
        EXPECT_NEAR((double)lse[(size_t)i], (i < cut ? -400 : 400) + std::log(seen), 1e-4) << i;
    }
}

// Room for the rows of a loss, and the arguments of its entries.
struct Rows {
    Rows(int64_t rows, int64_t cols, int64_t ld, float *logits, const int32_t *targets)
        : top((size_t)rows, nan_value), base(top), sum(top), target(top), lse(top),
          loss((size_t)rows, (double)nan_value)
    {
        args.rows = rows;
        args.cols = cols;
        args.ld = args.padded = ld;
        args.logits = logits;
        args.targets = targets;
        args.row_max = top.data();
        args.row_base = base.data();
        args.row_sum = sum.data();
        args.row_target = target.data();
        args.row_lse = lse.data();
        args.row_loss = loss.data();
    }
    Rows(const Rows &) = delete;
    Rows &operator=(const Rows &) = delete;
    std::vector<float> top, base, sum, target, lse;
    std::vector<double> loss;
    tv_cross_entropy_args args = {};
};

// The loss must show that something went wrong, wherever in the row it did.
TEST_P(Definitions, NanReachesTheLoss)
{
    const int32_t targets[] = {7, 7};
    for (int64_t place = 0; place < 21; place++) {
        std::vector<float> logits(2 * 21, 1.0f);
        logits[(size_t)place] = nan_value;
        logits[21 + 4] = 3;
        Rows rows(2, 21, 21, logits.data(), targets);
        ASSERT_EQ(kernels->cross_entropy_forward(device.stream, &rows.args), TV_OK);
        EXPECT_TRUE(std::isnan(rows.top[0])) << place;
        EXPECT_TRUE(std::isnan(rows.sum[0])) << place;
        EXPECT_EQ(rows.top[1], 3);
        rows.top[0] = 1; // as from a reduction over ranks that loses it
        ASSERT_EQ(kernels->cross_entropy_rebase(device.stream, &rows.args), TV_OK);
        ASSERT_EQ(kernels->cross_entropy_loss(device.stream, &rows.args), TV_OK);
        EXPECT_TRUE(std::isnan(rows.loss[0])) << place;
        EXPECT_FALSE(std::isnan(rows.loss[1])) << place;
    }
}

TEST_P(Definitions, NanReachesTheGradient)
{
    const int32_t targets[] = {1, -1};
    float logits[] = {nan_value, 0, 0, nan_value, 0, 0};
    Rows rows(2, 3, 3, logits, targets);
    rows.lse = {1, nan_value};
    ASSERT_EQ(kernels->cross_entropy_backward(device.stream, &rows.args), TV_OK);
    EXPECT_TRUE(std::isnan(logits[0]));
    for (int i = 3; i < 6; i++)
        EXPECT_EQ(logits[i], 0) << "a row that is not counted has no gradient, whatever is in it";
}

TEST_P(Definitions, CrossEntropyByHand)
{
    // columns 10, 11, 12 with logits log 1, log 2, log 5, of a vocabulary whose exps sum to 16;
    // another rank has the largest logit, log 8
    const int32_t targets[] = {11, 9, 13, -1};
    std::vector<float> logits;
    for (int r = 0; r < 4; r++)
        for (double e : {1.0, 2.0, 5.0})
            logits.push_back((float)std::log(e));
    Rows rows(4, 3, 3, logits.data(), targets);
    rows.args.first = 10;
    ASSERT_EQ(kernels->cross_entropy_forward(device.stream, &rows.args), TV_OK);
    for (size_t r = 0; r < 4; r++) {
        EXPECT_EQ(rows.top[r], logits[2]);
        EXPECT_EQ(rows.base[r], logits[2]);
        EXPECT_NEAR((double)rows.sum[r], 8.0 / 5, 2e-7);
        EXPECT_EQ(rows.target[r], r == 0 ? logits[1] : 0);
        rows.top[r] = (float)std::log(8.0);
    }
    ASSERT_EQ(kernels->cross_entropy_rebase(device.stream, &rows.args), TV_OK);
    for (size_t r = 0; r < 4; r++) {
        EXPECT_NEAR((double)rows.sum[r], 1, 2e-7);
        rows.sum[r] = 2; // the other rank's 8 of 8
    }
    ASSERT_EQ(kernels->cross_entropy_loss(device.stream, &rows.args), TV_OK);
    for (size_t r = 0; r < 4; r++) {
        EXPECT_NEAR((double)rows.lse[r], std::log(16.0), 3e-7);
        EXPECT_NEAR(rows.loss[r], r == 3 ? 0 : std::log(16.0) - (r == 0 ? std::log(2.0) : 0), 3e-7);
    }
    ASSERT_EQ(kernels->cross_entropy_backward(device.stream, &rows.args), TV_OK);
    const double p[] = {1.0 / 16, 2.0 / 16, 5.0 / 16};
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 3; c++)
            EXPECT_NEAR((double)logits[(size_t)(r * 3 + c)],
                        r == 3 ? 0 : p[c] - (r == 0 && c == 1 ? 1 : 0), 4e-7)
                << r << " " << c;
}

// With row_lse 0 and the target elsewhere, backward is the exponential alone: within 2^-23 of the
// result, two units in the last place at the upper end of a binade.
TEST_P(Definitions, ExponentialIsGoodToTwoUnits)
{
    const int64_t count = 100001;
    std::vector<float> x((size_t)count);
    for (int64_t i = 0; i < count; i++)
        x[(size_t)i] = -86 + 172 * (float)i / (float)count;
    const std::vector<float> before = x;
    const int32_t target = (int32_t)count;
    float lse = 0;
    tv_cross_entropy_args args = {};
    args.rows = 1;
    args.cols = args.ld = count;
    args.logits = x.data();
    args.targets = &target;
    args.row_lse = &lse;
    ASSERT_EQ(kernels->cross_entropy_backward(device.stream, &args), TV_OK);
    double worst = 0;
    for (size_t i = 0; i < x.size(); i++)
        worst = std::max(worst, std::fabs((double)x[i] / std::exp((double)before[i]) - 1));
    EXPECT_LE(worst, 0x1p-23);
}

TEST_P(Definitions, RankWithoutColumnsAddsNothing)
{
    const int32_t targets[] = {0, 5};
    float unused[2] = {nan_value, nan_value}, rest[2] = {1, 1};
    Rows rows(2, 0, 1, unused, targets);
    rows.args.first = 5;
    rows.args.row_rest = rest;
    rows.lse = {0, 0};
    ASSERT_EQ(kernels->cross_entropy_forward(device.stream, &rows.args), TV_OK);
    for (size_t r = 0; r < 2; r++) {
        EXPECT_EQ(rows.top[r], -INFINITY);
        rows.top[r] = 2; // as reduced over the ranks
    }
    ASSERT_EQ(kernels->cross_entropy_rebase(device.stream, &rows.args), TV_OK);
    for (size_t r = 0; r < 2; r++) {
        EXPECT_EQ(rows.sum[r], 0);
        EXPECT_EQ(rows.target[r], 0);
        EXPECT_EQ(rest[r], 0);
    }
    ASSERT_EQ(kernels->cross_entropy_backward(device.stream, &rows.args), TV_OK);
    EXPECT_EQ(unused[0], 0) << "padding has no gradient";
    EXPECT_EQ(unused[1], 0);
}

TEST_P(Definitions, ActivationsFarFromZero)
{
    const float x[] = {-1e4f, -100, -30, 0, 30, 100, 1e4f}, one[] = {1, 1, 1, 1, 1, 1, 1};
    float y[7], dx[7], gated[7], d_gate[7], d_up[7];
    const tv_gelu_args gelu = {7, x, y};
    const tv_gelu_backward_args gelu_backward = {7, x, one, dx, nullptr, 0, 0};
    const tv_swiglu_args swiglu = {1, 7, 7, 7, 7, x, one, gated};
    const tv_swiglu_backward_args swiglu_backward = {1, 7, 7,   7,   7,      7,
                                                     7, x, one, one, d_gate, d_up};
    ASSERT_EQ(kernels->gelu_forward(device.stream, &gelu), TV_OK);
    ASSERT_EQ(kernels->gelu_backward(device.stream, &gelu_backward), TV_OK);
    ASSERT_EQ(kernels->swiglu_forward(device.stream, &swiglu), TV_OK);
    ASSERT_EQ(kernels->swiglu_backward(device.stream, &swiglu_backward), TV_OK);
    for (int i = 0; i < 7; i++) {
        const double side = x[i] > 0 ? 1 : 0, slope = x[i] == 0 ? 0.5 : side;
        // 30 e^-30 = 3e-12 is what is left of x sigmoid(x) at -30
        EXPECT_NEAR((double)y[i], side * (double)x[i], 1e-11) << x[i];
        EXPECT_NEAR((double)dx[i], slope, 1e-11) << x[i];
        EXPECT_NEAR((double)gated[i], side * (double)x[i], 1e-11) << x[i];
        EXPECT_NEAR((double)d_gate[i], slope, 1e-11) << x[i];
        EXPECT_NEAR((double)d_up[i], side * (double)x[i], 1e-11) << x[i];
    }
}

TEST_P(Definitions, AdamwFollowsItsFormulaInDouble)
{
    const int64_t count = 37;
    Call run = {kernels, device.stream, {}, {}, {}, false};
    Tensor &param = run.in(1, count, count), &grad = run.in(1, count, count);
    std::vector<float> m((size_t)count), v((size_t)count);
    std::vector<double> p((size_t)count), first((size_t)count), second((size_t)count);
    for (int64_t i = 0; i < count; i++)
        p[(size_t)i] = (double)param.at(0, i);
    for (int64_t step = 1; step <= 6; step++) {
        grad.fill((uint32_t)(100 + step), -1, 1);
        const tv_adamw_weight weight = {count,       param.data(), m.data(), v.data(),
                                        grad.data(), 0.01,         0.1,      nullptr};
        const tv_adamw_args args = {1, &weight, 0.9, 0.999, 1e-8, 0.25, step};
        ASSERT_EQ(kernels->adamw(device.stream, &args), TV_OK);
        for (int64_t i = 0; i < count; i++) {
            const size_t k = (size_t)i;
            const double g = (double)grad.at(0, i) * 0.25;
            first[k] = 0.9 * first[k] + 0.1 * g;
            second[k] = 0.999 * second[k] + 0.001 * g * g;
            const double c1 = 1 - std::pow(0.9, (double)step),
                         c2 = 1 - std::pow(0.999, (double)step);
            p[k] -= 0.01 * (first[k] / c1 / (std::sqrt(second[k] / c2) + 1e-8) + 0.1 * p[k]);
            // state and parameters are rounded to float each step: 6e-8 of themselves
            EXPECT_NEAR((double)param.at(0, i), p[k], 5e-7) << step << " " << i;
            EXPECT_NEAR((double)m[k], first[k], 2e-7) << step << " " << i;
            EXPECT_NEAR((double)v[k], second[k], 2e-7 * (second[k] + 1e-3)) << step << " " << i;
        }
    }
}

// Decay is decoupled from the gradient: lr 0.1 and decay 0.1 leave 0.99 of a parameter.
TEST_P(Definitions, AdamwWithZeroGradients)
{
    for (double decay : {0.1, 0.0}) {
        std::vector<float> param, zero(257), m(257), v(257);
        for (int i = 0; i < 257; i++)
            param.push_back((float)(i - 128) * 0.37f + 0.01f);
        const std::vector<float> before = param;
        const tv_adamw_weight weight = {257,         param.data(), m.data(), v.data(),
                                        zero.data(), 0.1,          decay,    nullptr};
        const tv_adamw_args args = {1, &weight, 0.9, 0.95, 1e-8, 1.0, 1};
        ASSERT_EQ(kernels->adamw(device.stream, &args), TV_OK);
        for (size_t i = 0; i < param.size(); i++) {
            const float want = decay > 0 ? (float)(0.99 * (double)before[i]) : before[i];
            const float ulp = std::fabs(std::nextafter(want, INFINITY) - want);
            EXPECT_LE(std::fabs(param[i] - want), decay > 0 ? ulp : 0) << i;
            EXPECT_EQ(m[i], 0);
            EXPECT_EQ(v[i], 0);
        }
    }
}

// Double sums: float squares of 1 + 2^-12 would lose the last bits.
TEST_P(Definitions, SquareSumIsDouble)
{
    for (int64_t count : {0, 1, 15, 4097, 100003}) {
        const std::vector<float> x((size_t)count, 1 + 0x1p-12f);
        double sum = -1;
        const tv_square_sum_array array = {count, x.data()};
        const tv_square_sum_args args = {1, &array, &sum};
        ASSERT_EQ(kernels->square_sum(device.stream, &args), TV_OK);
        EXPECT_EQ(sum, (double)count * (1 + 0x1p-11 + 0x1p-24)) << count;
    }
}

// These promise one result for any number of threads.
TEST(Threads, DoNotChangeSums)
{
    Device one(1), three(3);
    std::vector<Case> cases;
    add_elementwise_cases(cases);
    add_norm_cases(cases);
    add_loss_cases(cases);
    for (const Case &c : cases) {
        SCOPED_TRACE(c.op + " " + c.shape);
        expect_same_bits(run_case(c, tv_kernels_cpu(TV_F32), three.stream),
                         run_case(c, tv_kernels_cpu(TV_F32), one.stream));
    }
}

// Cross-entropy forward over rows as long as vocabularies are, which the CPU tables go through by blocks: against sums
// in double, with the largest logit early, late, and again and again; infinities and NaN; the same bits in every
// copy and for any number of threads.
#include "kernels/harness.h"
#include "kernels/kernels_internal.h"
#include <cmath>
#include <limits>

namespace
{
constexpr int64_t columns[] = {50257, 128256};

// Logit c of `cols`, by what is hard about the row.
struct Kind {
    const char *name;
    float (*logit)(int64_t c, int64_t cols);
};

float noise(int64_t c)
{
    return (float)((uint32_t)c * 2654435761u >> 8) / (float)(1 << 24); // in [0, 1)
}

const Kind kinds[] = {
    {"noise", [](int64_t c, int64_t) { return 12 * noise(c) - 6; }},
    {"equal", [](int64_t, int64_t) { return -3.25f; }},
    {"rising to the end", [](int64_t c, int64_t cols) { return 40 * (float)c / (float)cols; }},
    {"falling", [](int64_t c, int64_t cols) { return 40 - 40 * (float)c / (float)cols; }},
    {"one far above the rest, near the end",
     [](int64_t c, int64_t cols) { return c == cols - 5 ? 11 + noise(c) : noise(c); }},
    {"large", [](int64_t c, int64_t) { return 2e4f * noise(c) - 1e4f; }},
    {"large and close",
     [](int64_t c, int64_t cols) { return 3e4f + (float)(c % 40) / 8 + (c == cols / 2 ? 9 : 0); }},
    {"masked but for the last third",
     [](int64_t c, int64_t cols) { return c < cols / 3 * 2 ? -INFINITY : 8 * noise(c); }},
    {"masked in the middle",
     [](int64_t c, int64_t cols) {
         return c > cols / 3 && c < cols / 2 ? -INFINITY : 8 * noise(c);
     }},
    {"four, which are added in float",
     [](int64_t c, int64_t) { return c / 64 == 625 && c % 16 == 8 ? 3 * noise(c) : -INFINITY; }},
    {"one logit alone", [](int64_t c, int64_t) { return c == 30011 ? -70.f : -INFINITY; }},
};

constexpr int64_t num_kinds = (int64_t)(sizeof(kinds) / sizeof(kinds[0]));

// Outputs of forward in the order they are made, behind the logits.
enum { logits, top, base, sum, target };

tv_status_t forward(Call &run, int64_t rows, int64_t cols,
                    float (*logit)(int64_t, int64_t, int64_t))
{
    tv_cross_entropy_args args = {};
    args.rows = rows;
    args.cols = cols;
    args.ld = args.padded = cols + 3; // what lies between rows is NaN
    args.targets = run.indices(rows, 0, (int32_t)cols);
    Tensor &x = run.in(rows, cols, args.ld);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            x.at(r, c) = logit(r, c, cols);
    args.logits = x.data();
    for (float **out : {&args.row_max, &args.row_base, &args.row_sum, &args.row_target})
        *out = run.out(1, rows, rows).data();
    return run.kernels->cross_entropy_forward(run.stream, &args);
}

Case kinds_case(int64_t cols)
{
    return {"cross_entropy_forward", shape_name({num_kinds, cols}), 0, [=](Call &run) {
                return forward(run, num_kinds, cols, [](int64_t r, int64_t c, int64_t num) {
                    return kinds[r].logit(c, num);
                });
            }};
}

// Row r has, among noise, what is at `places` of it.
constexpr int64_t places[] = {0, 4095, 4096, 50000, 50256};
constexpr int64_t num_places = (int64_t)(sizeof(places) / sizeof(places[0]));
template <int kind> float noise_with(int64_t r, int64_t c, int64_t)
{
    const float values[] = {std::numeric_limits<float>::quiet_NaN(), INFINITY};
    return c == places[r] ? values[kind] : noise(c);
}
float masked(int64_t, int64_t, int64_t)
{
    return -INFINITY;
}

Call run_forward(const tv_kernels *kernels, tv_stream *stream, int64_t rows,
                 float (*logit)(int64_t, int64_t, int64_t))
{
    const Case one = {"cross_entropy_forward", "", 0,
                      [=](Call &run) { return forward(run, rows, columns[0], logit); }};
    return run_case(one, kernels, stream);
}
} // namespace

// 2.5e-7: two units of the exponential, half a unit of the result; the largest is exact.
TEST(LongRows, AgreeWithSumsInDouble)
{
    Device one(1);
    for (int64_t cols : columns) {
        for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
            Call want = run_case(kinds_case(cols), tv_kernels_ref(dtype), one.stream);
            Call got = run_case(kinds_case(cols), tv_kernels_cpu(dtype), one.stream);
            for (int64_t r = 0; r < num_kinds; r++) {
                SCOPED_TRACE(std::string(kinds[r].name) + ", " + std::to_string(cols));
                for (size_t which : {top, base, target})
                    EXPECT_EQ(got.tensors[which].at(0, r), want.tensors[which].at(0, r));
                const double wanted = (double)want.tensors[sum].at(0, r);
                EXPECT_GE(wanted, 1);
                EXPECT_LE(std::fabs((double)got.tensors[sum].at(0, r) / wanted - 1), 2.5e-7);
            }
        }
    }
}

TEST(LongRows, HaveTheSameBitsInEveryCopyAndForAnyThreads)
{
    Device one(1), three(3);
    const Case c = kinds_case(columns[0]);
    for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
        const Call want = run_case(c, tv_table_portable(dtype), one.stream);
        for (int i = 0; tv_table_copy(i, dtype) != nullptr; i++)
            expect_same_bits(run_case(c, tv_table_copy(i, dtype), three.stream), want);
    }
}

TEST(LongRows, KeepNaNAndInfinities)
{
    Device one(1);
    for (const tv_kernels *kernels : {tv_kernels_ref(TV_F32), tv_kernels_cpu(TV_F32)}) {
        SCOPED_TRACE(kernels->name);
        Call nan = run_forward(kernels, one.stream, num_places, noise_with<0>);
        Call infinite = run_forward(kernels, one.stream, num_places, noise_with<1>);
        for (int64_t r = 0; r < num_places; r++) {
            EXPECT_TRUE(std::isnan(nan.tensors[top].at(0, r))) << places[r];
            EXPECT_TRUE(std::isnan(nan.tensors[sum].at(0, r))) << places[r];
            EXPECT_EQ(infinite.tensors[top].at(0, r), INFINITY) << places[r];
            EXPECT_TRUE(std::isnan(infinite.tensors[sum].at(0, r))) << places[r];
        }
        Call none = run_forward(kernels, one.stream, 1, masked);
        EXPECT_EQ(none.tensors[top].at(0, 0), -INFINITY);
        EXPECT_TRUE(std::isnan(none.tensors[sum].at(0, 0)));
    }
}

// Products of tiles and the exponentials between them, each implementation that this CPU can run, against the same in
// double; attention, which is made of them, gives the same bits for any number of threads.
#include "kernels/harness.h"
#include "kernels/kernels_internal.h"
#include "kernels/matmul/matmul_internal.h"
#include "kernels/matmul/product_internal.h"
#include "kernels/matmul/tile_internal.h"
#include <cmath>

namespace
{
struct Sizes {
    int64_t m, n, k;
    int trans_a, accumulate;
};

tv_tile_args args_of(Call &run, const Sizes &s)
{
    tv_tile_args args = {};
    Tensor &a = s.trans_a ? run.in(s.k, s.m, s.m + 3) : run.in(s.m, s.k, s.k + 3);
    Tensor &b = run.in(s.k, s.n, s.n + 5);
    for (float &value :
         b.memory) // a sum with the guards' NaN would be that NaN: c's guards would seem whole
        value = std::isnan(value) ? 1 : value;
    Tensor &c = s.accumulate ? run.updated(s.m, s.n, s.n + 7) : run.out(s.m, s.n, s.n + 7);
    args.m = s.m;
    args.n = s.n;
    args.k = s.k;
    args.trans_a = s.trans_a;
    args.accumulate = s.accumulate;
    args.a = a.floats();
    args.ld_a = a.ld;
    args.b = b.floats();
    args.ld_b = b.ld;
    args.c = c.floats();
    args.ld_c = c.ld;
    return args;
}

// a, b, c before -> c
void by_definition(Call &run, const Sizes &s)
{
    Tensor &a = run.tensors[0], &b = run.tensors[1], &c = run.tensors[2];
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            double sum = s.accumulate ? (double)c.at(i, j) : 0;
            for (int64_t k = 0; k < s.k; k++)
                sum += (double)(s.trans_a ? a.at(k, i) : a.at(i, k)) * (double)b.at(k, j);
            c.at(i, j) = (float)sum;
        }
    }
}

void expect_product(const tv_tiles &tiles, const Sizes &s)
{
    SCOPED_TRACE(shape_name({s.m, s.n, s.k, s.trans_a, s.accumulate}));
    Call got = {tv_kernels_ref(TV_F32), nullptr, {}, {}, {}, false};
    const tv_tile_args args = args_of(got, s);
    Call want = {tv_kernels_ref(TV_F32), nullptr, {}, {}, {}, false};
    args_of(want, s);
    by_definition(want, s);
    tiles.product(&args);
    EXPECT_TRUE(got.tensors[2].is_in_bounds());
    expect_close(got, want, sums);
}
} // namespace

TEST(Tiles, EveryImplementationMultiplies)
{
    tv_blas_open();
    ASSERT_EQ(tv_blas_check(), TV_OK);
    int num = 0;
    for (; tv_tiles_of(num) != nullptr; num++) {
        SCOPED_TRACE("implementation " + std::to_string(num));
        for (int64_t m : {0, 1, 2, 3, 4, 5, 6, 7, 16, 64})
            for (int64_t n : {16, 32, 48, 64, 80, 144})
                for (int64_t k : {1, 3, 64})
                    for (int form = 0; form < 4; form++)
                        expect_product(*tv_tiles_of(num), {m, n, k, form & 1, form >> 1});
    }
    EXPECT_EQ(tv_tiles_of(num - 1), &tv_tiles_blas);
}

// Rows of a that end, or start, where a triangle does: 16 steps of zeros behind are read at most, never what follows.
TEST(Tiles, TrianglesAreMultipliedAsSuch)
{
    const int64_t n = 48, k = 75;
    std::vector<float> b((size_t)(k * n));
    for (size_t i = 0; i < b.size(); i++)
        b[i] = (float)(i % 17) - 8;
    for (int num = 0; tv_tiles_of(num) != nullptr; num++) {
        for (tv_tile_shape shape : {TV_TILE_LOWER, TV_TILE_UPPER}) {
            for (int64_t m : {1, 5, 16, 37}) {
                for (int64_t lead : {0, 7, 64}) {
                    SCOPED_TRACE(shape_name({num, shape, m, lead}));
                    std::vector<float> a((size_t)(m * k)), c((size_t)(m * n));
                    std::vector<double> want(c.size());
                    for (int64_t r = 0; r < m; r++) {
                        for (int64_t i = 0; i < k; i++) {
                            const int64_t behind =
                                shape == TV_TILE_LOWER ? i - (lead + r) : r - lead - i;
                            float &x = a[(size_t)(r * k + i)];
                            x = behind <= 0 ? (float)(i * r % 7) + 1 : behind <= 16 ? 0 : NAN;
                            for (int64_t j = 0; j < n && behind <= 0; j++)
                                want[(size_t)(r * n + j)] += (double)(x * b[(size_t)(i * n + j)]);
                        }
                    }
                    tv_tile_args args = {};
                    args.m = m;
                    args.n = args.ld_b = args.ld_c = n;
                    args.k = args.ld_a = k;
                    args.a = a.data();
                    args.b = b.data();
                    args.c = c.data();
                    args.shape = shape;
                    args.lead = lead;
                    tv_tiles_of(num)->product(&args);
                    for (size_t i = 0; i < c.size(); i++)
                        ASSERT_EQ((double)c[i], want[i]) << i; // whole numbers
                }
            }
        }
    }
}

namespace
{
// Each within a few units in the last place of `want`.
void expect_all_near(const std::vector<float> &got, const std::vector<double> &want)
{
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); i++)
        EXPECT_NEAR((double)got[i], want[i], 4e-7 * (1 + std::fabs(want[i]))) << i;
}

// Scores from 0 down, one of them of a key that is not seen.
std::vector<float> some_scores(size_t num)
{
    std::vector<float> x(num);
    for (size_t i = 0; i < num; i++)
        x[i] = i == 7 ? -INFINITY : -(float)(i * 37 % 101) / 5;
    return x;
}
} // namespace

TEST(Tiles, ExponentialsOfAStrip)
{
    const int64_t rows = 5, ld = TV_TILE_STEP + 3;
    const std::vector<float> before = some_scores((size_t)(rows * ld));
    for (int num = 0; tv_tiles_of(num) != nullptr; num++) {
        SCOPED_TRACE("implementation " + std::to_string(num));
        std::vector<float> x = before, shift(TV_TILE_STEP), sum(TV_TILE_STEP);
        std::vector<double> want(before.begin(), before.end()), totals(TV_TILE_STEP);
        for (size_t i = 0; i < TV_TILE_STEP; i++) {
            shift[i] = -(float)i / 8;
            sum[i] = (float)(totals[i] = (double)i);
            for (size_t j = 0; j < (size_t)rows; j++) {
                double &e = want[j * (size_t)ld + i];
                totals[i] += e = std::exp2(e - (double)shift[i]);
            }
        }
        const tv_tile_strip strip = {x.data(), ld, rows, shift.data(), sum.data()};
        tv_tiles_of(num)->exponentials(&strip);
        expect_all_near(x, want); // what lies behind a row of the strip, too
        expect_all_near(sum, totals);
        EXPECT_EQ(x[7], 0);
    }
}

TEST(Tiles, WeightsOfARow)
{
    const size_t n = 3 * TV_TILE_STEP;
    const float lse2 = 1.5f, delta = 0.25f, scale = 0.125f;
    for (int num = 0; tv_tiles_of(num) != nullptr; num++) {
        for (bool has_factor : {false, true}) {
            SCOPED_TRACE(shape_name({num, has_factor}));
            std::vector<float> p = some_scores(n), ds(n), factor(n);
            std::vector<double> want_p(n), want_ds(n);
            for (size_t j = 0; j < n; j++) {
                ds[j] = (float)(j % 11) - 4;
                factor[j] = has_factor ? (j % 3 == 0 ? 0 : 1.25f) : 1;
                const double weight = std::exp2((double)p[j] - (double)lse2);
                want_p[j] = weight * (double)factor[j];
                want_ds[j] = weight * (double)(ds[j] * factor[j] - delta) * (double)scale;
            }
            const tv_tile_row row = {p.data(),
                                     ds.data(),
                                     (int64_t)n,
                                     lse2,
                                     delta,
                                     scale,
                                     has_factor ? factor.data() : nullptr};
            tv_tiles_of(num)->weights(&row);
            expect_all_near(p, want_p);
            expect_all_near(ds, want_ds);
            EXPECT_EQ(p[7], 0);
        }
    }
}

// Exactly the elements times a power of 2, zeros in the padding, nothing behind it.
TEST(Tiles, TurnsATile)
{
    for (int num = 0; tv_tiles_of(num) != nullptr; num++) {
        for (int64_t rows : {1, 8, 15, 16, 21, 64}) {
            for (int64_t cols : {16, 48}) {
                SCOPED_TRACE(shape_name({num, rows, cols}));
                const int64_t padded = (rows + TV_TILE_STEP - 1) / TV_TILE_STEP * TV_TILE_STEP;
                const int64_t ld_from = cols + 3, ld_to = padded + 5;
                std::vector<float> from((size_t)(rows * ld_from)), to((size_t)(cols * ld_to), -1);
                for (size_t i = 0; i < from.size(); i++)
                    from[i] = (float)i + 1;
                const tv_tile_turn turn = {rows, cols,      from.data(), ld_from,
                                           0.5f, to.data(), ld_to};
                tv_tiles_of(num)->turn(&turn);
                for (int64_t d = 0; d < cols; d++) {
                    for (int64_t i = 0; i < ld_to; i++) {
                        const float want = i < rows     ? from[(size_t)(i * ld_from + d)] / 2
                                           : i < padded ? 0
                                                        : -1;
                        ASSERT_EQ(to[(size_t)(d * ld_to + i)], want) << d << " " << i;
                    }
                }
            }
        }
    }
}

// Meanwhile a product takes rows that it is told to fetch; its result stays the same.
TEST(Tiles, FetchesWhatComesNext)
{
    const std::vector<float> next(3 * 200);
    for (int num = 0; tv_tiles_of(num) != nullptr; num++) {
        SCOPED_TRACE("implementation " + std::to_string(num));
        Call plain = {tv_kernels_ref(TV_F32), nullptr, {}, {}, {}, false}, fetching = plain;
        const Sizes s = {13, 80, 19, 0, 0};
        const tv_tile_args without = args_of(plain, s);
        tv_tile_args with = args_of(fetching, s);
        tv_ahead ahead = {};
        ahead.num = 2;
        for (tv_area &area : ahead.areas)
            area = {(const char *)next.data(), 800, 3, 2 * TV_FETCH_BYTES, 0};
        with.ahead = &ahead;
        tv_tiles_of(num)->product(&without);
        tv_tiles_of(num)->product(&with);
        expect_same_bits(fetching, plain);
        if (tv_tiles_of(num) != &tv_tiles_blas) {
            EXPECT_LE(ahead.num, 1); // 4 blocks, of 2 rows of 256 bytes each, for an area
        }
    }
}

TEST(Grid, HasTheLeastEdges)
{
    EXPECT_EQ(tv_grid_rows(1024, 512, 2), 2);
    EXPECT_EQ(tv_grid_rows(512, 1024, 2), 1);
    EXPECT_EQ(tv_grid_rows(512, 512, 2), 2);
    EXPECT_EQ(tv_grid_rows(1024, 1152, 16), 4);
    EXPECT_EQ(tv_grid_rows(1024, 50257, 16), 1);
    EXPECT_EQ(tv_grid_rows(50257, 384, 8), 8);
    EXPECT_EQ(tv_grid_rows(1000, 1000, 7), 7); // a prime
}

// Each thread one block of a grid, also where there are more of them than rows and columns to share.
TEST(Matmul, OnGridsOfThreads)
{
    std::vector<Case> cases;
    add_matmul_cases(cases);
    Device one(1);
    for (int threads : {4, 6}) {
        Device many(threads);
        for (const Case &c : cases) {
            SCOPED_TRACE(c.op + " " + c.shape + " on " + std::to_string(threads));
            for (tv_dtype_t dtype : {TV_F32, TV_BF16}) {
                Call want = run_case(c, tv_kernels_ref(dtype), one.stream);
                Call got = run_case(c, tv_kernels_cpu(dtype), many.stream);
                expect_close(got, want, c.tolerance);
            }
        }
    }
}

TEST(Attention, SameBitsForAnyNumberOfThreads)
{
    std::vector<Case> cases;
    add_attention_cases(cases);
    expect_same_bits_with({2, 3}, cases);
}

TEST(Tiles, FetchWhatTheSecondCacheHolds)
{
    const int64_t kib = 1 << 10;
    for (const int64_t cache : {512 * kib, 2048 * kib}) {
        const int64_t all = cache / 16 * 5, half = cache / 2;
        EXPECT_EQ(TV_AHEAD_ALL, tv_room_ahead(cache, 0));
        EXPECT_EQ(TV_AHEAD_ALL, tv_room_ahead(cache, all));
        EXPECT_EQ(TV_AHEAD_HALF, tv_room_ahead(cache, all + 1));
        EXPECT_EQ(TV_AHEAD_HALF, tv_room_ahead(cache, half));
        EXPECT_EQ(TV_AHEAD_NOTHING, tv_room_ahead(cache, half + 1));
    }
    EXPECT_GE(tv_second_cache_bytes(), 64 * kib);
    EXPECT_EQ(tv_second_cache_bytes(), tv_second_cache_bytes());
}

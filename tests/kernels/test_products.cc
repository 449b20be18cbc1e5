// Products of matrices, each implementation that this CPU can run, against sums in double: edges of every block,
// strides, canaries; and that no bit depends on how a product is cut.
#include "kernels/harness.h"
#include "kernels/kernels_internal.h"
#include "kernels/matmul/matmul_internal.h"
#include "kernels/matmul/product_internal.h"
#include <cmath>
#include <pthread.h>

namespace
{
enum Init { none, itself, row, apart };

struct Sizes {
    int64_t m, n, k;
    int trans_a, trans_b;
    Init init;
};

void no_nans(Tensor &x) // a sum with the guards' NaN would be that NaN: c's guards would seem whole
{
    for (float &value : x.memory)
        value = std::isnan(value) ? 1 : value;
}

// a, b, c and, where they are apart, what is added
tv_product_args args_of(Call &run, const Sizes &s)
{
    no_nans(s.trans_a ? run.in(s.k, s.m, s.m + 3) : run.in(s.m, s.k, s.k + 3));
    no_nans(s.trans_b ? run.in(s.n, s.k, s.k + 1) : run.in(s.k, s.n, s.n + 5));
    Tensor &c = s.init == itself ? run.updated(s.m, s.n, s.n + 7) : run.out(s.m, s.n, s.n + 7);
    tv_product_args args = {};
    args.m = s.m;
    args.n = s.n;
    args.k = s.k;
    args.trans_a = s.trans_a;
    args.trans_b = s.trans_b;
    args.c = c.floats();
    args.ld_c = c.ld;
    args.init = s.init == itself ? c.floats() : nullptr;
    args.ld_init = c.ld;
    if (s.init == row || s.init == apart) {
        Tensor &init = run.in(s.init == row ? 1 : s.m, s.n, s.n + 2);
        args.init = init.floats();
        args.ld_init = s.init == row ? 0 : init.ld;
    }
    args.a = run.tensors[0].floats();
    args.ld_a = run.tensors[0].ld;
    args.b = run.tensors[1].floats();
    args.ld_b = run.tensors[1].ld;
    args.c = run.tensors[2].floats();
    if (s.init == itself)
        args.init = args.c;
    return args;
}

void by_definition(Call &run, const Sizes &s)
{
    Tensor &c = run.tensors[2];
    const float *a = run.tensors[0].floats(), *b = run.tensors[1].floats();
    const int64_t ld_a = run.tensors[0].ld, ld_b = run.tensors[1].ld;
    const int64_t row_a = s.trans_a ? 1 : ld_a, step_a = s.trans_a ? ld_a : 1;
    const int64_t col_b = s.trans_b ? ld_b : 1, step_b = s.trans_b ? 1 : ld_b;
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            double sum = s.init == none     ? 0
                         : s.init == itself ? (double)c.at(i, j)
                                            : (double)run.tensors[3].at(s.init == row ? 0 : i, j);
            for (int64_t k = 0; k < s.k; k++)
                sum += (double)a[i * row_a + k * step_a] * (double)b[j * col_b + k * step_b];
            c.at(i, j) = (float)sum;
        }
    }
}

Call new_call()
{
    return {tv_kernels_ref(TV_F32), nullptr, {}, {}, {}, false};
}

int num_products()
{
    tv_blas_open();
    EXPECT_EQ(tv_blas_check(), TV_OK);
    int num = 0;
    while (tv_product(num) != nullptr)
        num++;
    EXPECT_EQ(tv_product(num - 1), tv_product_blas);
    return num;
}

// By every implementation.
void expect_products(int num, const Sizes &s)
{
    SCOPED_TRACE(shape_name({s.m, s.n, s.k, s.trans_a, s.trans_b, s.init}));
    Call want = new_call();
    args_of(want, s);
    by_definition(want, s);
    for (int i = 0; i < num; i++) {
        SCOPED_TRACE("implementation " + std::to_string(i));
        Call got = new_call();
        const tv_product_args args = args_of(got, s);
        tv_product(i)(&args);
        EXPECT_TRUE(got.tensors[2].is_in_bounds());
        expect_close(got, want, sums);
    }
}

std::vector<float> numbers(int64_t count, uint32_t seed)
{
    std::vector<float> x((size_t)count);
    for (float &value : x) {
        seed = seed * 1664525 + 1013904223;
        value = (float)(int32_t)seed * 0x1p-31f;
    }
    return x;
}

struct Whole {
    int64_t m = 61, n = 451, k = 1100;
    std::vector<float> a = numbers(m * k, 1), b = numbers(k * n, 2);
};

// Rows [i, i + rows) and columns [j, j + cols) of the product, of a and b that lie as the two bits of `form` say.
void multiply(tv_product_fn product, const Whole &w, int form, std::vector<float> &c, int64_t i,
              int64_t j, int64_t rows, int64_t cols)
{
    tv_product_args args = {};
    args.m = rows;
    args.n = cols;
    args.k = w.k;
    args.trans_a = form & 1;
    args.trans_b = form >> 1;
    args.ld_a = args.trans_a ? w.m : w.k;
    args.ld_b = args.trans_b ? w.k : w.n;
    args.a = w.a.data() + (args.trans_a ? i : i * args.ld_a);
    args.b = w.b.data() + (args.trans_b ? j * args.ld_b : j);
    args.c = c.data() + i * w.n + j;
    args.ld_c = w.n;
    product(&args);
}
} // namespace

TEST(Products, EveryImplementationMultiplies)
{
    const int num = num_products();
    int count = 0;
    for (int64_t m : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33})
        for (int64_t n : {0, 1, 7, 8, 15, 16, 17, 24, 48, 49, 65, 100})
            for (int64_t k : {0, 1, 3, 15, 16, 17, 40})
                expect_products(num,
                                {m, n, k, count & 1, count >> 1 & 1, (Init)(count++ >> 2 & 3)});
}

TEST(Products, OfSeveralBlocks)
{
    const int num = num_products();
    for (int form = 0; form < 4; form++) {
        for (Init init : {none, itself, row, apart})
            expect_products(num, {19, 401, 530, form & 1, form >> 1, init});
        expect_products(num, {35, 770, 1025, form & 1, form >> 1, (Init)form});
    }
}

// Ours alone: OpenBLAS promises none of this.
TEST(Products, NoBitDependsOnTheCut)
{
    const Whole w;
    const int num = num_products() - 1;
    for (int form = 0; form < 4; form++) {
        std::vector<float> want((size_t)(w.m * w.n)), got(want.size());
        for (int i = 0; i < num; i++) {
            SCOPED_TRACE("implementation " + std::to_string(i) + ", form " + std::to_string(form));
            multiply(tv_product(i), w, form, got, 0, 0, w.m, w.n);
            if (i == 0)
                want = got;
            EXPECT_EQ(got, want); // AVX2 as AVX-512
            std::fill(got.begin(), got.end(), 0.0f);
            for (int64_t row : {0, 13, 40})
                for (int64_t col : {0, 5, 400})
                    multiply(tv_product(i), w, form, got, row, col,
                             (row == 0    ? 13
                              : row == 13 ? 40
                                          : w.m) -
                                 row,
                             (col == 0   ? 5
                              : col == 5 ? 400
                                         : w.n) -
                                 col);
            EXPECT_EQ(got, want);
        }
    }
}

// A thread has 2 MiB by default where the limit is off (`ulimit -s unlimited`), as on many clusters. ThreadSanitizer
// keeps its own account of a thread there, too.
#ifdef __SANITIZE_THREAD__
constexpr size_t stack_bytes = 4 << 20;
#else
constexpr size_t stack_bytes = 2 << 20;
#endif
TEST(Matmul, FitsTheStackOfAThread)
{
    std::vector<Case> cases;
    add_matmul_cases(cases);
    pthread_attr_t attributes;
    ASSERT_EQ(pthread_attr_init(&attributes), 0);
    ASSERT_EQ(pthread_attr_setstacksize(&attributes, stack_bytes), 0);
    const auto run = [](void *given) -> void * {
        Device one(1);
        for (const Case &c : *static_cast<std::vector<Case> *>(given))
            for (tv_dtype_t dtype : {TV_F32, TV_BF16})
                run_case(c, tv_kernels_cpu(dtype), one.stream);
        return nullptr;
    };
    pthread_t thread;
    ASSERT_EQ(pthread_create(&thread, &attributes, run, &cases), 0);
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
}

TEST(Matmul, SameBitsForAnyNumberOfThreads)
{
    if (tv_product(0) == tv_product_blas)
        GTEST_SKIP() << "products by OpenBLAS, whose rows may depend on the cut";
    std::vector<Case> cases;
    add_matmul_cases(cases);
    expect_same_bits_with({2, 6}, cases);
}

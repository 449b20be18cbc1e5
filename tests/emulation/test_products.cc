// Products over the emulated runtime: one search per plan, algorithms tried with its first large product, tf32 by
// choice alone.
#include "emulation/gpu.h"
#include "emulation/sanitizer.h"
#include "kernels/kernels.h"
#include <cublasLt.h>
#include <string>

namespace
{
struct Product { // c[2, 2] = a[2, 3] b[3, 2]
    Gpu &gpu;
    tv_buffer a, b, c;
    explicit Product(Gpu &gpu_)
        : gpu(gpu_), a(gpu.buffer(256)), b(gpu.buffer(256)), c(gpu.buffer(256))
    {
        gpu.put(a, std::vector<float>{1.0f + 0x1p-12f, 2, 3, 4, 5, 6, 7});
        gpu.put(b, std::vector<float>{1, 0, 0, 1, 0, 0, 1});
    }
    ~Product()
    {
        tv_buffer_destroy(&a);
        tv_buffer_destroy(&b);
        tv_buffer_destroy(&c);
    }
    std::vector<float> run(int64_t first = 0) // element of a
    {
        const tv_kernels *kernels = nullptr;
        tv_matmul_args args = {};
        args.m = args.n = args.ld_b = args.ld_c = 2;
        args.k = args.ld_a = 3;
        args.a = static_cast<float *>(a.data) + first;
        args.b = b.data;
        args.c = c.data;
        EXPECT_EQ(tv_kernels_open(gpu.device, TV_F32, &kernels), TV_OK) << tv_error_message();
        EXPECT_EQ(kernels->matmul(gpu.stream, &args), TV_OK) << tv_error_message();
        return gpu.get<float>(c, 4);
    }
};
} // namespace

TEST(CudaProducts, AreLookedForOncePerPlan)
{
    Gpu gpu;
    Product product(gpu);
    const int64_t before = emulation::num_searches();
    const std::vector<float> want = {1.0f + 0x1p-12f, 2, 4, 5};
    EXPECT_EQ(product.run(), want);
    const size_t taken = emulation::device_bytes();
    for (int i = 0; i < 3; i++)
        EXPECT_EQ(product.run(), want);
    EXPECT_EQ(emulation::num_searches() - before, 1);
    EXPECT_EQ(emulation::device_bytes(), taken); // the workspace too
    EXPECT_EQ(product.run(1), (std::vector<float>{2, 3, 5, 6}));
    EXPECT_EQ(emulation::num_searches() - before, 2); // less aligned
}

namespace
{
// c[m, cols] = a[m, k] b[k, cols] (+ c) of whole numbers, of as many FLOPs as are measured in the emulation. Its double
// offers four algorithms that can be used, two of which give other numbers, one only where it adds.
struct LargeProduct {
    static constexpr int64_t m = 24, n = 180, k = 1200;
    static constexpr int sums = 4 * 2, timed = 2 * 4; // launches with which they are tried
    Gpu &gpu;
    std::vector<float> a, b, c;
    tv_buffer on[3];
    tv_matmul_args args = {};
    explicit LargeProduct(Gpu &gpu_)
        : gpu(gpu_), a((size_t)(m * k)), b((size_t)(k * n)), c((size_t)(m * n))
    {
        std::vector<float> *const all[3] = {&a, &b, &c};
        for (int i = 0; i < 3; i++) {
            for (size_t j = 0; j < all[i]->size(); j++)
                (*all[i])[j] = (float)((int)j % (7 + 2 * i) - 3);
            on[i] = gpu.buffer(all[i]->size() * sizeof(float));
            gpu.put(on[i], *all[i]);
        }
        args.m = m;
        args.k = args.ld_a = k;
        args.n = args.ld_b = args.ld_c = n;
        args.a = on[0].data;
        args.b = on[1].data;
        args.c = on[2].data;
        EXPECT_EQ(tv_stream_reserve(gpu.stream, TV_GPU_WORKSPACE_BYTES), TV_OK);
    }
    ~LargeProduct()
    {
        for (tv_buffer &buffer : on)
            tv_buffer_destroy(&buffer);
    }
    tv_status_t multiply()
    {
        const tv_kernels *kernels = nullptr;
        EXPECT_EQ(tv_kernels_open(gpu.device, TV_F32, &kernels), TV_OK) << tv_error_message();
        return kernels->matmul(gpu.stream, &args);
    }
    // Its result, and how often it was launched.
    int64_t expect_result(int accumulate, int64_t cols)
    {
        args.accumulate = accumulate;
        args.n = cols;
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < cols; j++) {
                float sum = accumulate ? c[(size_t)(i * n + j)] : 0;
                for (int64_t d = 0; d < k; d++)
                    sum += a[(size_t)(i * k + d)] * b[(size_t)(d * n + j)];
                c[(size_t)(i * n + j)] = sum;
            }
        const int64_t before = emulation::num_products();
        EXPECT_EQ(multiply(), TV_OK) << tv_error_message();
        EXPECT_EQ(gpu.get<float>(on[2], m * n), c) << accumulate << " " << cols;
        return emulation::num_products() - before;
    }
};
} // namespace

// What c held is added once, however often they are tried, and what lies between its rows stays.
TEST(CudaProducts, OfLargeSizesTakeTheFastestAlgorithmWithTheSameBits)
{
    Gpu gpu;
    LargeProduct product(gpu);
    constexpr int64_t n = LargeProduct::n, tried = LargeProduct::sums + LargeProduct::timed + 1;
    EXPECT_EQ(product.expect_result(1, n), tried);
    EXPECT_EQ(product.expect_result(0, n), 1);
    EXPECT_EQ(product.expect_result(1, n - 1), 1); // rows apart: not while it adds
    EXPECT_EQ(product.expect_result(0, n - 1), tried);
    EXPECT_EQ(product.expect_result(1, n - 1), 1);
}

TEST(CudaProducts, AreTriedWithoutMoreMemoryOfTheDevice)
{
    const Settings kept;
    for (int accumulate : {0, 1}) {
        Gpu gpu;
        LargeProduct product(gpu);
        const size_t taken = emulation::device_bytes(), peak = tv_device_peak_bytes(gpu.device);
        emulation::settings().memory = taken;
        EXPECT_GT(product.expect_result(accumulate, LargeProduct::n), 1);
        EXPECT_EQ(emulation::device_bytes(), taken);
        EXPECT_EQ(tv_device_peak_bytes(gpu.device), peak);
    }
}

#if !defined(TV_EMULATION_ASAN) // its allocator refuses no request, it ends the process
TEST(CudaProducts, AreRefusedWithoutHostMemoryForWhatTheyAddTo)
{
    Gpu gpu;
    LargeProduct product(gpu);
    product.args.m = product.args.n = product.args.ld_b = product.args.ld_c = (int64_t)1 << 25;
    product.args.k = product.args.ld_a = 1;
    product.args.accumulate = 1;
    EXPECT_EQ(product.multiply(), TV_NO_MEMORY);
    const std::string sentence = tv_error_message();
    EXPECT_NE(sentence.find("4503599627370496 bytes of host memory to keep what a product of "
                            "33554432 x 33554432 x 1 adds to"),
              std::string::npos)
        << sentence;
}
#endif

TEST(CudaProducts, AreTriedUnderTheDeadline)
{
    Gpu gpu;
    LargeProduct product(gpu);
    Watcher counts, gives_up;
    tv_device_watch(gpu.device, Watcher::look, &counts);
    EXPECT_GT(product.expect_result(1, LargeProduct::n), 1);
    // for c, for each sum and for each time; the test for the result
    EXPECT_EQ(counts.looks, 1 + LargeProduct::sums + 2 + 2);
    // something before the next does not end, until whoever looks has had enough (or much later)
    gives_up.last = 3;
    int rounds = 0;
    emulation::enqueue(static_cast<cudaStream_t>(tv_stream_handle(gpu.stream)), "stuck",
                       [&] { return gives_up.is_over || ++rounds == 1000; });
    tv_device_watch(gpu.device, Watcher::look, &gives_up);
    product.args.accumulate = 0;
    product.args.n--;
    EXPECT_EQ(product.multiply(), TV_PEER);
    EXPECT_STREQ(tv_error_message(), "look 3");
    tv_device_watch(gpu.device, nullptr, nullptr);
    EXPECT_EQ(product.expect_result(0, LargeProduct::n - 1), // tried anew
              LargeProduct::sums + LargeProduct::timed + 1);
}

TEST(CudaProducts, RoundFactorsToTf32ByChoiceAlone)
{
    tv_gpu_choice choice = {};
    choice.uses_tf32 = 1;
    Gpu gpu, rounding(choice);
    Product exact(gpu), rounded(rounding);
    EXPECT_EQ(exact.run()[0], 1.0f + 0x1p-12f);
    EXPECT_EQ(rounded.run()[0], 1.0f);
}

// Hopper's instructions on the emulation: products of warpgroups by their descriptors, copies by TMA, barriers; and the
// faults that it finds.
#include "base/dtype.h"
#include "emulation/emulation.h"
#include "emulation/probe_hopper.h"
#include <cmath>
#include <gtest/gtest.h>

namespace
{
class Hopper : public ::testing::Test
{
  protected:
    void SetUp() override
    {
        saved = emulation::settings();
        ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    }
    void TearDown() override
    {
        emulation::clear_failure();
        for (void *data : allocated)
            cudaFree(data);
        cudaStreamDestroy(stream);
        emulation::settings() = saved;
    }
    template <typename T> T *on_device(const std::vector<T> &from)
    {
        void *data = nullptr;
        EXPECT_EQ(cudaMalloc(&data, from.size() * sizeof(T)), cudaSuccess);
        EXPECT_EQ(cudaMemcpy(data, from.data(), from.size() * sizeof(T), cudaMemcpyDefault),
                  cudaSuccess);
        allocated.push_back(data);
        return static_cast<T *>(data);
    }
    // Zeros after a failure, which the next verdict tells.
    template <typename T> std::vector<T> read(const T *from, size_t count)
    {
        std::vector<T> to(count);
        cudaMemcpyAsync(to.data(), from, count * sizeof(T), cudaMemcpyDefault, stream);
        return to;
    }
    std::string verdict()
    {
        const cudaError_t error = cudaStreamSynchronize(stream);
        return error == cudaSuccess ? "" : cudaGetErrorString(error);
    }
    static std::vector<uint16_t> numbers(int count)
    {
        std::vector<uint16_t> all;
        for (int i = 0; i < count; i++)
            all.push_back(tv_bf16_from_f32((float)(i * 7 % 23 - 11)));
        return all;
    }
    // Of operands (row, k) in a matrix of `cols` columns; rows behind `rows_there` are zeros.
    static float element(const std::vector<uint16_t> &from, int cols, int row, int k, bool is_mn,
                         int rows_there)
    {
        const int r = is_mn ? k : row, c = is_mn ? row : k;
        return r < rows_there ? tv_bf16_to_f32(from[(size_t)(r * cols + c)]) : 0;
    }
    std::vector<float> multiply(const ProbeProduct &p)
    {
        a = numbers(64 * 64);
        b = numbers(64 * p.columns);
        d = on_device(std::vector<float>((size_t)(64 * p.columns), -1));
        EXPECT_EQ(probe_warpgroup(stream, on_device(a), on_device(b), d, p), cudaSuccess);
        return read(d, (size_t)(64 * p.columns));
    }
    void expect_failure(ProbeFault fault, const std::string &part)
    {
        multiply({64, false, false, false, 64, fault});
        const std::string sentence = verdict();
        EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
    }
    std::vector<void *> allocated;
    std::vector<uint16_t> a, b;
    float *d = nullptr;
    emulation::Settings saved;
    cudaStream_t stream = nullptr;
};
} // namespace

TEST_F(Hopper, ProductsOfEveryKind)
{
    for (int kind = 0; kind < 16; kind++) {
        const ProbeProduct p = {kind % 2 == 0 ? 64 : 128,
                                kind / 2 % 2 == 1,
                                kind / 4 % 2 == 1 && kind / 2 % 2 == 0,
                                kind / 8 % 2 == 1,
                                kind / 2 % 2 == 1 ? 64 : 50,
                                probe_right};
        emulation::settings().order = (unsigned)kind % 3;
        const std::vector<float> got = multiply(p);
        EXPECT_EQ(verdict(), "");
        for (int i = 0; i < 64 * p.columns; i++) {
            float sum = 0;
            for (int k = 0; k < 64; k++)
                sum += element(a, 64, i / p.columns, k, p.is_a_mn, p.rows_there) *
                       element(b, p.is_b_mn ? p.columns : 64, i % p.columns, k, p.is_b_mn,
                               p.is_b_mn ? p.rows_there : p.columns);
            ASSERT_EQ(got[(size_t)i], sum) << "element " << i << ", kind " << kind;
        }
    }
}

TEST_F(Hopper, FaultsOfProducts)
{
    expect_failure(probe_no_fence, "without a fence");
    emulation::clear_failure();
    expect_failure(probe_no_wait, "a product that nothing waited for");
    emulation::clear_failure();
    expect_failure(probe_changed, "changed the result of a product under way");
    emulation::clear_failure();
    expect_failure(probe_other_operand, "issue different products: thread 64");
}

TEST_F(Hopper, ResultsComeWithTheWait)
{
    multiply({64, false, false, false, 64, probe_no_wait});
    EXPECT_NE(verdict(), "");
    emulation::clear_failure();
    EXPECT_TRUE(std::isnan(read(d, 64)[5]));
}

TEST_F(Hopper, ATileMayNotBeOverwrittenBeforeTheWait)
{
    const std::vector<float> got = multiply({128, false, false, true, 64, probe_early_overwrite});
    EXPECT_EQ(verdict(), "");
    EXPECT_TRUE(std::isnan(got[0]));
}

TEST_F(Hopper, FaultsOfBarriers)
{
    expect_failure(probe_no_barrier, "a bulk copy that nothing waited for");
    emulation::clear_failure();
    expect_failure(probe_too_few_bytes, "mbarrier.try_wait");
}

TEST_F(Hopper, StoresAndAdds)
{
    const std::vector<uint16_t> x = numbers(80 * 64);
    uint16_t *y = on_device(std::vector<uint16_t>(80 * 64, 9));
    float *z = on_device(std::vector<float>(65, 5));
    EXPECT_EQ(probe_bulk(stream, on_device(x), y, z, true), cudaSuccess);
    const std::vector<uint16_t> rows = read(y, 80 * 64);
    const std::vector<float> sums = read(z, 65);
    EXPECT_EQ(verdict(), "");
    for (int i = 0; i < 80 * 64; i++)
        ASSERT_EQ(rows[(size_t)i], i < 70 * 64 ? x[(size_t)(i % 4096 + 3 * 64)] : 9) << i;
    for (size_t i = 0; i < 65; i++)
        EXPECT_EQ(sums[i], i < 64 ? 7 : 5) << i;
    EXPECT_EQ(probe_bulk(stream, on_device(x), y, z, false), cudaSuccess);
    EXPECT_NE(verdict().find("a bulk copy that nothing waited for"), std::string::npos);
}

TEST_F(Hopper, NamedBarriers)
{
    float *order = on_device(std::vector<float>(4, -1));
    for (unsigned seed : {0u, 1u, 2u, 3u}) {
        emulation::settings().order = seed;
        EXPECT_EQ(probe_turns(stream, order, true), cudaSuccess);
        EXPECT_EQ(read(order, 4), (std::vector<float>{3, 2, 1, 0}));
    }
    EXPECT_EQ(probe_turns(stream, order, false), cudaSuccess);
    EXPECT_NE(verdict().find("bar.sync"), std::string::npos);
}

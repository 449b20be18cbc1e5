// Muon against its definition in double: odd shapes, blocks of a fused matrix, every cut over the
// tensor axis.
#include <algorithm>
#include <cmath>
#include <functional>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

// A struct and a function of one name (tv_comm_stats) are usual in C; C++ calls it shadowing.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "data/muon.h"
#include "data/optimizer.h"
#pragma GCC diagnostic pop

namespace
{
struct Matrix {
    size_t rows, cols;
    std::vector<double> x = std::vector<double>(rows * cols);
    double &at(size_t r, size_t c)
    {
        return x[r * cols + c];
    }
    double at(size_t r, size_t c) const
    {
        return x[r * cols + c];
    }
};

Matrix product(const Matrix &a, const Matrix &b)
{
    Matrix c = {a.rows, b.cols};
    for (size_t i = 0; i < a.rows; i++)
        for (size_t j = 0; j < b.cols; j++)
            for (size_t k = 0; k < a.cols; k++)
                c.at(i, j) += a.at(i, k) * b.at(k, j);
    return c;
}

Matrix transposed(const Matrix &a)
{
    Matrix t = {a.cols, a.rows};
    for (size_t i = 0; i < a.rows; i++)
        for (size_t j = 0; j < a.cols; j++)
            t.at(j, i) = a.at(i, j);
    return t;
}

// Always X X^T, whatever the shape: (b A + c A A) X is the same either way round.
Matrix orthogonalized(Matrix x)
{
    double squares = 0;
    for (double value : x.x)
        squares += value * value;
    for (double &value : x.x)
        value /= std::sqrt(squares) + 1e-7;
    for (int i = 0; i < 5; i++) {
        const Matrix gram = product(x, transposed(x)), square = product(gram, gram);
        Matrix poly = gram;
        for (size_t k = 0; k < poly.x.size(); k++)
            poly.x[k] = -4.7750 * gram.x[k] + 2.0315 * square.x[k];
        const Matrix turned = product(poly, x);
        for (size_t k = 0; k < x.x.size(); k++)
            x.x[k] = 3.4445 * x.x[k] + turned.x[k];
    }
    return x;
}

double noise(size_t i, int seed)
{
    const double s = std::sin((double)(i * 12 + 1) * 1.37 + seed * 4.1) * 43758.5453;
    return s - std::floor(s) - 0.5;
}

void on_device(const std::function<void(tv_stream *)> &body)
{
    tv_device *device = nullptr;
    tv_stream *stream = nullptr;
    ASSERT_EQ(tv_device_open(TV_DEVICE_CPU, 1, &device), TV_OK);
    ASSERT_EQ(tv_stream_create(device, &stream), TV_OK);
    body(stream);
    tv_stream_destroy(stream);
    tv_device_close(device);
}

tv_param matrix_of(int64_t rows, int64_t cols, int split_dim, int num_blocks, int num_parts)
{
    tv_param param = {};
    param.unit = 1;
    param.tied_unit = -1;
    param.num_dims = 2;
    param.shape[0] = rows;
    param.shape[1] = cols;
    param.split_dim = split_dim;
    param.num_blocks = num_blocks;
    param.num_parts = num_parts;
    param.has_decay = 1;
    return param;
}

constexpr double momentum = 0.95, decay = 0.1, lr = 0.02, scale = 0.5;
constexpr int num_steps = 4;

float grad_at(size_t i, int step)
{
    return (float)noise(i, step);
}

// The whole weight after num_steps, in double: blocks are matrices of their own.
std::vector<double> reference(const tv_param &param)
{
    const size_t rows = (size_t)param.shape[0], cols = (size_t)param.shape[1];
    const size_t blocks = (size_t)param.num_blocks;
    const bool by_rows = param.split_dim == 0;
    const size_t r = by_rows ? rows / blocks : rows, c = by_rows ? cols : cols / blocks;
    std::vector<double> p(rows * cols), m(rows * cols);
    for (size_t i = 0; i < p.size(); i++)
        p[i] = (float)noise(i, 99);
    for (int step = 1; step <= num_steps; step++)
        for (size_t b = 0; b < blocks; b++) {
            const size_t row = by_rows ? b * r : 0, col = by_rows ? 0 : b * c;
            Matrix u = {r, c};
            for (size_t i = 0; i < r; i++)
                for (size_t j = 0; j < c; j++) {
                    const size_t k = (row + i) * cols + col + j;
                    const double g = scale * (double)grad_at(k, step);
                    m[k] = momentum * m[k] + g;
                    u.at(i, j) = g + momentum * m[k];
                }
            u = orthogonalized(u);
            const double factor = 0.2 * std::sqrt((double)std::max(r, c));
            for (size_t i = 0; i < r; i++)
                for (size_t j = 0; j < c; j++) {
                    double &w = p[(row + i) * cols + col + j];
                    w -= lr * (factor * u.at(i, j) + decay * w);
                }
        }
    return p;
}

// One tensor rank: its piece of the weight between two ranges that are none of Muon's business.
void train_piece(tv_comm *tensor, tv_stream *stream, const tv_param &param,
                 const std::vector<double> &want)
{
    const int T = tv_comm_size(tensor), t = tv_comm_rank(tensor);
    const size_t whole = want.size();
    const int64_t piece = tv_param_local_count(&param, T), count = piece + 32;
    std::vector<float> global(whole), params((size_t)count, 0.5f), grads((size_t)count, 0.0f);
    for (size_t i = 0; i < whole; i++)
        global[i] = (float)noise(i, 99);
    tv_param_scatter(&param, T, t, global.data(), params.data() + 16);
    const std::vector<tv_optimizer_range> ranges = {
        {0, 0, 0, 16, 0, TV_LR_VOCABULARY, nullptr, piece},
        {16, 16, 16, piece, 1, TV_LR_BODY, &param, 0},
        {16 + piece, 16 + piece, 16 + piece, 3, 0, TV_LR_BODY, nullptr, piece + 16}};
    const tv_optimizer_args args = {
        stream,       tv_kernels_cpu(TV_F32),
        tensor,       {TV_OPTIMIZER_MUON, 0.9, 0.95, 1e-8, momentum, decay},
        count,        (int)ranges.size(),
        ranges.data()};
    std::vector<uint16_t> rounded((size_t)count);
    tv_optimizer *optimizer = nullptr;
    ASSERT_EQ(tv_optimizer_create(&args, &optimizer), TV_OK) << tv_error_message();
    const tv_param *const matrix = &param;
    EXPECT_EQ((int64_t)tv_device_bytes(tv_stream_device(stream), TV_MEM_OPTIMIZER),
              tv_optimizer_state_bytes(TV_OPTIMIZER_MUON, count, T, 1, &matrix) +
                  tv_optimizer_work_bytes(TV_OPTIMIZER_MUON, T, 1, &matrix));
    EXPECT_EQ(tv_optimizer_state_bytes(TV_OPTIMIZER_MUON, count, T, 1, &matrix),
              (count + 32) * (int64_t)sizeof(float));
    EXPECT_EQ(tv_optimizer_moment(optimizer, 1, 1), nullptr);
    EXPECT_EQ(tv_optimizer_moment(optimizer, 2, 1), tv_optimizer_moment(optimizer, 0, 1) + 16);
    grads[(size_t)piece + 16] = 3;
    for (int step = 1; step <= num_steps; step++) {
        for (size_t i = 0; i < whole; i++)
            global[i] = grad_at(i, step);
        tv_param_scatter(&param, T, t, global.data(), grads.data() + 16);
        const double rates[TV_NUM_LR_GROUPS] = {lr, 0};
        ASSERT_EQ(tv_optimizer_step(optimizer, params.data(), rounded.data(), grads.data(), rates,
                                    scale, step),
                  TV_OK);
    }
    for (const tv_optimizer_range &r : ranges)
        for (int64_t i = 0; i < r.count; i++)
            ASSERT_EQ(rounded[(size_t)(r.rounded + i)],
                      tv_bf16_from_f32(params[(size_t)(r.param + i)]))
                << param.name << " T " << T << " range of " << r.count << " element " << i;
    std::vector<float> wanted((size_t)piece), whole_want(want.begin(), want.end());
    tv_param_scatter(&param, T, t, whole_want.data(), wanted.data());
    for (size_t i = 0; i < (size_t)piece; i++)
        ASSERT_NEAR(params[16 + i], wanted[i], 2e-5)
            << param.name << " T " << T << " element " << i;
    EXPECT_EQ(params[0], 0.5f);
    // AdamW on a constant gradient: one rate per step
    EXPECT_NEAR(params[16 + (size_t)piece], 0.5 - num_steps * lr, 1e-5);
    EXPECT_EQ(params[16 + (size_t)piece + 1], 0.5f);
    tv_optimizer_destroy(optimizer);
}

void check(const tv_param &param, int T)
{
    const std::vector<double> want = reference(param);
    std::vector<tv_comm *> comms((size_t)T);
    ASSERT_EQ(tv_comm_thread_create(T, comms.data()), TV_OK);
    std::vector<std::thread> ranks;
    for (tv_comm *comm : comms)
        ranks.emplace_back([&, comm] {
            on_device([&](tv_stream *stream) { train_piece(comm, stream, param, want); });
            tv_comm_destroy(comm);
        });
    for (std::thread &rank : ranks)
        rank.join();
}
} // namespace

TEST(Muon, NewtonSchulzFollowsTheDefinition)
{
    for (auto [rows, cols] :
         {std::pair<int, int>{1, 1}, {1, 7}, {7, 1}, {5, 5}, {13, 37}, {37, 13}})
        on_device([&, r = (size_t)rows, c = (size_t)cols](tv_stream *stream) {
            for (const tv_kernels *kernels : {tv_kernels_ref(TV_F32), tv_kernels_cpu(TV_F32)}) {
                Matrix want = {r, c};
                for (size_t i = 0; i < r * c; i++)
                    want.x[i] = (float)(100 * noise(i, 5));
                std::vector<float> x(want.x.begin(), want.x.end());
                want = orthogonalized(want);
                const size_t n = std::min(r, c);
                std::vector<float> work(r * c + 2 * n * n);
                const float *got = nullptr;
                ASSERT_EQ(tv_muon_orthogonalize(stream, kernels, (int64_t)r, (int64_t)c, x.data(),
                                                work.data(), &got),
                          TV_OK);
                for (size_t i = 0; i < r * c; i++)
                    EXPECT_NEAR(got[i], want.x[i], 1e-4) << r << "x" << c << " " << i;
                // Rows (or columns) are nearly orthonormal, which the definition itself must show.
                const Matrix gram =
                    r <= c ? product(want, transposed(want)) : product(transposed(want), want);
                for (size_t i = 0; i < n; i++)
                    EXPECT_NEAR(gram.at(i, i), 1, 0.55); // singular values from 0.67
            }
        });
}

TEST(Muon, ZerosStayZeros)
{
    on_device([](tv_stream *stream) {
        std::vector<float> x(15), work(15 + 18);
        const float *got = nullptr;
        ASSERT_EQ(tv_muon_orthogonalize(stream, tv_kernels_cpu(TV_F32), 3, 5, x.data(), work.data(),
                                        &got),
                  TV_OK);
        for (size_t i = 0; i < 15; i++)
            EXPECT_EQ(got[i], 0.0f);
    });
}

TEST(Muon, AnyCutGivesTheUpdateOfTheWholeMatrix)
{
    for (int T : {1, 2, 4}) {
        check(matrix_of(12, 20, 1, 1, 0), T); // columns
        check(matrix_of(20, 12, 0, 1, 0), T); // rows
        check(matrix_of(11, 36, 1, 3, 0), T); // fused query/key/value
        check(matrix_of(24, 9, 0, 3, 0), T);  // the same by rows
        check(matrix_of(8, 13, 0, 1, 2), T);  // two key/value heads, replicated for T = 4
        check(matrix_of(7, 13, -1, 1, 0), T); // not cut
    }
}

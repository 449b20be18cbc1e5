// Every backward of the reference against differences of its forward. The loss is the sum of fixed
// random weights times the outputs; the difference is the central one of fourth order,
// f' = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h. With h = 1/32 its own error is h^4/30 = 3e-8 of
// the fifth derivative, and the rounding of outputs to float adds a few times 6e-8 / h = 2e-6.
#include "kernels/harness.h"
#include <array>
#include <cmath>

namespace
{
constexpr double tolerance = 1e-4; // of the largest gradient in the tensor

class Gradients : public ::testing::Test
{
  protected:
    // Numbers in [low, high), others for each call.
    std::vector<float> numbers(int64_t count, float low = -1, float high = 1)
    {
        Tensor tensor(Role::input, 1, count, count);
        tensor.fill(++seed, low, high);
        return std::vector<float>(tensor.floats(), tensor.floats() + count);
    }

    // `gradient` is that of loss() with respect to x, which loss() reads.
    static void expect_gradient(const char *name, std::vector<float> &x,
                                const std::vector<float> &gradient,
                                const std::function<double()> &loss)
    {
        double largest = 0;
        for (float g : gradient)
            largest = std::max(largest, std::fabs((double)g));
        EXPECT_GT(largest, 0) << name;
        for (size_t i = 0; i < x.size(); i++) {
            const float kept = x[i];
            auto at = [&](float steps) {
                x[i] = kept + steps / 32;
                return loss();
            };
            // |x| <= 4 holds h = 1/32 to 2^-21: an error below 2e-5 of the difference
            const double wide = at(2) - at(-2), near = at(1) - at(-1);
            const double difference = (8 * near - wide) / 12 * 32;
            x[i] = kept;
            EXPECT_NEAR((double)gradient[i], difference, tolerance * largest)
                << name << " at " << i;
        }
    }

    static double weighted(const std::vector<float> &weights, const std::vector<float> &y)
    {
        double sum = 0;
        for (size_t i = 0; i < y.size(); i++)
            sum += (double)weights[i] * (double)y[i];
        return sum;
    }

    void check_norm(int has_mean);
    void check_attention(int num_kv_heads, const tv_dropout &dropout,
                         const int32_t *first_keys = nullptr);
    void check_cross_entropy(double smoothing);

    const tv_kernels *kernels = tv_kernels_ref(TV_F32);
    Device device{1};
    uint32_t seed = 0;
};

// What is added to holds 1 before, which must still be there after.
std::vector<float> less_one(std::vector<float> v)
{
    for (float &x : v)
        x -= 1;
    return v;
}
} // namespace

TEST_F(Gradients, Bias)
{
    const int64_t m = 5, n = 3;
    std::vector<float> bias = numbers(n), none(1), dy = numbers(m * n), y((size_t)(m * n));
    std::vector<float> dbias((size_t)n, 1);
    const tv_bias_backward_args backward = {m, n, n, dy.data(), 1, dbias.data()};
    ASSERT_EQ(kernels->bias_backward(device.stream, &backward), TV_OK);
    expect_gradient("bias", bias, less_one(dbias), [&] {
        tv_matmul_args args = {};
        args.m = m;
        args.n = n;
        args.a = args.b = none.data();
        args.bias = bias.data();
        args.c = y.data();
        args.ld_c = n;
        EXPECT_EQ(kernels->matmul(device.stream, &args), TV_OK);
        return weighted(dy, y);
    });
}

// c = a b: da = dc b^T, db = a^T dc, which is how the model uses the three orientations.
TEST_F(Gradients, Matmul)
{
    const int64_t m = 4, n = 3, k = 5;
    std::vector<float> a = numbers(m * k), b = numbers(k * n), dc = numbers(m * n);
    std::vector<float> c((size_t)(m * n)), da((size_t)(m * k)), db((size_t)(k * n));
    const tv_matmul_args args = {m, n, k, a.data(), k, 0, b.data(), n, 0, nullptr, 0, c.data(), n};
    const tv_matmul_args for_a = {m, k, n,       dc.data(), n,         0, b.data(),
                                  n, 1, nullptr, 0,         da.data(), k};
    const tv_matmul_args for_b = {k, n, m,       a.data(), k,         1, dc.data(),
                                  n, 0, nullptr, 0,        db.data(), n};
    ASSERT_EQ(kernels->matmul(device.stream, &for_a), TV_OK);
    ASSERT_EQ(kernels->matmul(device.stream, &for_b), TV_OK);
    auto loss = [&] {
        EXPECT_EQ(kernels->matmul(device.stream, &args), TV_OK);
        return weighted(dc, c);
    };
    expect_gradient("a", a, da, loss);
    expect_gradient("b", b, db, loss);
}

void Gradients::check_norm(int has_mean)
{
    const int64_t rows = 3, cols = 7, size = rows * cols;
    // in [0.5, 4): wide enough that 1 / rms changes little over a difference
    std::vector<float> x = numbers(size, 0.5f, 4), weight = numbers(cols), bias = numbers(cols);
    std::vector<float> dy = numbers(size), y((size_t)size);
    std::vector<float> mean((size_t)rows), rstd((size_t)rows);
    const auto forward = has_mean ? kernels->layernorm_forward : kernels->rmsnorm_forward;
    const auto backward = has_mean ? kernels->layernorm_backward : kernels->rmsnorm_backward;
    const tv_norm_args args = {rows,          cols,
                               1e-5,          x.data(),
                               weight.data(), has_mean ? bias.data() : nullptr,
                               y.data(),      has_mean ? mean.data() : nullptr,
                               rstd.data(),   nullptr,
                               nullptr};
    auto loss = [&] {
        EXPECT_EQ(forward(device.stream, &args), TV_OK);
        return weighted(dy, y);
    };
    loss();
    std::vector<float> dx((size_t)size, 1), dweight((size_t)cols, 1), dbias((size_t)cols, 1);
    tv_norm_backward_args grad = {
        rows,        cols, dy.data(), x.data(), weight.data(),  args.mean,
        rstd.data(), 0,    dx.data(), 1,        dweight.data(), has_mean ? dbias.data() : nullptr};
    ASSERT_EQ(backward(device.stream, &grad), TV_OK);
    expect_gradient("x", x, dx, loss);
    expect_gradient("weight", weight, less_one(dweight), loss);
    if (has_mean)
        expect_gradient("bias", bias, less_one(dbias), loss);

    const std::vector<float> once = dx;
    grad.add_dx = 1;
    loss(); // mean and rstd of x as it is
    ASSERT_EQ(backward(device.stream, &grad), TV_OK);
    for (size_t i = 0; i < dx.size(); i++)
        EXPECT_NEAR((double)dx[i], 2 * (double)once[i], 1e-6) << i;
}

TEST_F(Gradients, LayerNorm)
{
    check_norm(1);
}

TEST_F(Gradients, RmsNorm)
{
    check_norm(0);
}

TEST_F(Gradients, Rotary)
{
    const int64_t rows = 6, cols = 2 * 4;
    std::vector<float> x = numbers(rows * cols), dy = numbers(rows * cols), turned, dx = dy;
    tv_rotary_args args = {rows, cols, 3, 2, 4, 1, 100.0, dx.data(), nullptr};
    ASSERT_EQ(kernels->rotary(device.stream, &args), TV_OK);
    expect_gradient("x", x, dx, [&] {
        turned = x;
        args.x = turned.data();
        args.inverse = 0;
        EXPECT_EQ(kernels->rotary(device.stream, &args), TV_OK);
        return weighted(dy, turned);
    });
}

TEST_F(Gradients, Gelu)
{
    const int64_t n = 41;
    std::vector<float> x = numbers(n, -4, 4), dy = numbers(n), y((size_t)n), dx((size_t)n);
    const tv_gelu_backward_args backward = {n, x.data(), dy.data(), dx.data(), nullptr, 0, 0};
    ASSERT_EQ(kernels->gelu_backward(device.stream, &backward), TV_OK);
    expect_gradient("x", x, dx, [&] {
        const tv_gelu_args args = {n, x.data(), y.data()};
        EXPECT_EQ(kernels->gelu_forward(device.stream, &args), TV_OK);
        return weighted(dy, y);
    });
}

TEST_F(Gradients, Swiglu)
{
    const int64_t rows = 4, cols = 9, n = rows * cols;
    std::vector<float> gate = numbers(n, -4, 4), up = numbers(n), dy = numbers(n), y((size_t)n);
    std::vector<float> d_gate((size_t)n), d_up((size_t)n);
    const tv_swiglu_backward_args backward = {rows,      cols,      cols,          cols,
                                              cols,      cols,      cols,          gate.data(),
                                              up.data(), dy.data(), d_gate.data(), d_up.data()};
    ASSERT_EQ(kernels->swiglu_backward(device.stream, &backward), TV_OK);
    auto loss = [&] {
        const tv_swiglu_args args = {rows, cols,        cols,      cols,
                                     cols, gate.data(), up.data(), y.data()};
        EXPECT_EQ(kernels->swiglu_forward(device.stream, &args), TV_OK);
        return weighted(dy, y);
    };
    expect_gradient("gate", gate, d_gate, loss);
    expect_gradient("up", up, d_up, loss);
}

TEST_F(Gradients, Embedding)
{
    const int64_t rows = 7, cols = 3, first = 2, num = 3;
    const int32_t ids[rows] = {2, 4, 2, 0, 5, 3, 2}; // repeated, below and above what is held
    std::vector<float> table = numbers(num * cols), dy = numbers(rows * cols);
    std::vector<float> y((size_t)(rows * cols)), dtable((size_t)(num * cols), 1);
    const tv_embedding_backward_args backward = {rows, cols,      first,        num,
                                                 ids,  dy.data(), dtable.data()};
    ASSERT_EQ(kernels->embedding_backward(device.stream, &backward), TV_OK);
    expect_gradient("table", table, less_one(dtable), [&] {
        const tv_embedding_args args = {rows, cols, first, num, ids, table.data(), 0, y.data()};
        EXPECT_EQ(kernels->embedding_forward(device.stream, &args), TV_OK);
        return weighted(dy, y);
    });
}

void Gradients::check_attention(int num_kv_heads, const tv_dropout &dropout,
                                const int32_t *first_keys)
{
    const int batch = 2, length = 5, heads = 4, h = 6;
    const int64_t rows = batch * length, q_cols = heads * h, kv_cols = num_kv_heads * h;
    std::vector<float> q = numbers(rows * q_cols), k = numbers(rows * kv_cols),
                       v = numbers(rows * kv_cols), d_o = numbers(rows * q_cols);
    std::vector<float> o(q.size()), lse((size_t)(rows * heads)), dq(q.size()), dk(k.size()),
        dv(v.size());
    const tv_attention_args args = {batch,    length,     heads,   num_kv_heads, h,       q.data(),
                                    k.data(), v.data(),   q_cols,  kv_cols,      kv_cols, o.data(),
                                    q_cols,   lse.data(), dropout, first_keys};
    auto loss = [&] {
        EXPECT_EQ(kernels->attention_forward(device.stream, &args), TV_OK);
        return weighted(d_o, o);
    };
    loss();
    const tv_attention_backward_args backward = {
        batch,    length,     heads,      num_kv_heads, h,         q.data(),   k.data(),
        v.data(), q_cols,     kv_cols,    kv_cols,      o.data(),  d_o.data(), q_cols,
        q_cols,   lse.data(), dq.data(),  dk.data(),    dv.data(), q_cols,     kv_cols,
        kv_cols,  dropout,    first_keys, nullptr};
    ASSERT_EQ(kernels->attention_backward(device.stream, &backward), TV_OK);
    expect_gradient("q", q, dq, loss);
    expect_gradient("k", k, dk, loss);
    expect_gradient("v", v, dv, loss);
}

TEST_F(Gradients, Attention)
{
    for (int num_kv_heads : {1, 2, 4}) {
        SCOPED_TRACE(num_kv_heads);
        check_attention(num_kv_heads, {});
    }
}

TEST_F(Gradients, AttentionWithDropout)
{
    for (int num_kv_heads : {1, 4}) {
        SCOPED_TRACE(num_kv_heads);
        check_attention(num_kv_heads, {17, 1u << 30, 4.0f / 3, 30, 8}); // p = 1/4
    }
}

// A document inside each sequence, and one that starts and ends in it.
TEST_F(Gradients, AttentionOfDocuments)
{
    const int32_t first_keys[] = {0, 0, 0, 3, 3, 0, 1, 1, 1, 4};
    for (int num_kv_heads : {1, 4}) {
        SCOPED_TRACE(num_kv_heads);
        check_attention(num_kv_heads, {}, first_keys);
    }
    check_attention(2, {17, 1u << 30, 4.0f / 3, 30, 8}, first_keys);
}

TEST_F(Gradients, Dropout)
{
    const int64_t rows = 4, cols = 70;
    const tv_dropout half = {11, 1u << 31, 2, 5, 0};
    std::vector<float> x = numbers(rows * cols), dy = numbers(rows * cols), y(x.size()), dx = dy;
    const tv_dropout_args backward = {rows, cols, half, dx.data(), dx.data()};
    ASSERT_EQ(kernels->dropout(device.stream, &backward), TV_OK);
    expect_gradient("x", x, dx, [&] {
        const tv_dropout_args args = {rows, cols, half, x.data(), y.data()};
        EXPECT_EQ(kernels->dropout(device.stream, &args), TV_OK);
        return weighted(dy, y);
    });
}

// The whole loss of three ranks that hold 4, 3 and 2 columns: the sum over rows that count of
// log(sum exp) - (1 - s) target logit - s mean logit.
void Gradients::check_cross_entropy(double s)
{
    constexpr int64_t rows = 5, cols = 9, firsts[] = {0, 4, 7, 9};
    const int32_t targets[rows] = {0, 5, -1, 8, 3};
    std::vector<float> logits = numbers(rows * cols, -3, 3), gradient, row_lse((size_t)rows);
    using Numbers = std::array<float, rows>;
    Numbers top, base[3], sum[3], target[3], rest[3];
    std::array<double, rows> row_loss;
    tv_cross_entropy_args args = {};
    args.rows = rows;
    args.ld = cols;
    args.targets = targets;
    args.row_lse = row_lse.data();
    args.row_loss = row_loss.data();
    args.smoothing = s;
    args.smoothing_per_column = s / cols;
    auto rank = [&](int i, float *data) {
        args.first = firsts[i];
        args.cols = firsts[i + 1] - firsts[i];
        args.logits = data + firsts[i];
        args.row_base = base[i].data();
        args.row_sum = sum[i].data();
        args.row_target = target[i].data();
        args.row_rest = s > 0 ? rest[i].data() : nullptr;
    };
    auto loss = [&] {
        top.fill(-INFINITY);
        for (int i = 0; i < 3; i++) {
            Numbers own;
            rank(i, logits.data());
            args.row_max = own.data();
            EXPECT_EQ(kernels->cross_entropy_forward(device.stream, &args), TV_OK);
            for (size_t r = 0; r < rows; r++)
                top[r] = std::max(top[r], own[r]);
        }
        args.row_max = top.data();
        for (int i = 2; i >= 0; i--) { // into those of rank 0
            rank(i, logits.data());
            EXPECT_EQ(kernels->cross_entropy_rebase(device.stream, &args), TV_OK);
        }
        for (size_t r = 0; r < rows; r++) {
            for (int i = 1; i < 3; i++) {
                sum[0][r] += sum[i][r];
                target[0][r] += target[i][r];
                rest[0][r] += rest[i][r];
            }
        }
        EXPECT_EQ(kernels->cross_entropy_loss(device.stream, &args), TV_OK);
        double total = 0;
        for (double one : row_loss)
            total += one;
        return total;
    };
    loss();
    gradient = logits;
    for (int i = 0; i < 3; i++) {
        rank(i, gradient.data());
        ASSERT_EQ(kernels->cross_entropy_backward(device.stream, &args), TV_OK);
    }
    for (int64_t c = 0; c < cols; c++)
        EXPECT_EQ(gradient[(size_t)(2 * cols + c)], 0) << "masked row, column " << c;
    expect_gradient("logits", logits, gradient, loss);
}

TEST_F(Gradients, CrossEntropyOverACutVocabulary)
{
    check_cross_entropy(0);
}

TEST_F(Gradients, CrossEntropyWithLabelSmoothing)
{
    check_cross_entropy(0.2);
}

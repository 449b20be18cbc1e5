// harness.cc -- guarded tensors and their comparison.
#include "kernels/harness.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace
{
constexpr uint32_t canary_bits = 0x7fc0beefu; // a quiet NaN that no operation makes by itself

float canary()
{
    float value;
    std::memcpy(&value, &canary_bits, sizeof(value));
    return value;
}

bool is_canary(float value)
{
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits == canary_bits;
}

constexpr uint16_t packed_canary = 0x7fd3; // another NaN

template <typename T> bool is_same(const std::vector<T> &a, const std::vector<T> &b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}
} // namespace

Tensor::Tensor(Role role_, int64_t rows_, int64_t cols_, int64_t ld_)
    : role(role_), rows(rows_), cols(cols_), ld(ld_),
      memory((size_t)(rows_ * ld_ + 2 * guard), canary())
{
}

Place::operator float *() const
{
    return tensor != nullptr ? tensor->floats() : nullptr;
}

Place::operator void *() const
{
    return tensor != nullptr ? tensor->stored() : nullptr;
}

void Tensor::round()
{
    for (float &value : memory) {
        if (!is_canary(value))
            value = tv_bf16_to_f32(tv_bf16_from_f32(value));
    }
}

void *Tensor::stored()
{
    if (!is_stored && rounds_stored)
        round();
    is_stored = true;
    if (dtype == TV_F32)
        return floats();
    if (packed.empty()) {
        for (float value : memory)
            packed.push_back(is_canary(value) ? packed_canary : tv_bf16_from_f32(value));
    }
    return packed.data() + guard;
}

void Tensor::unpack()
{
    for (size_t i = 0; i < packed.size(); i++)
        memory[i] = packed[i] == packed_canary ? canary() : tv_bf16_to_f32(packed[i]);
}

void Tensor::fill(uint32_t seed, float low, float high)
{
    std::mt19937 random(seed); // its numbers are fixed by the language standard
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            at(r, c) = low + (high - low) * (float)(random() >> 8) * 0x1p-24f;
}

bool Tensor::is_in_bounds() const
{
    const int64_t size = (int64_t)memory.size();
    for (int64_t i = 0; i < size; i++) {
        const int64_t place = i - guard;
        const bool is_inside = place >= 0 && place < rows * ld && place % ld < cols;
        if (!is_inside && !is_canary(memory[(size_t)i]))
            return false;
    }
    return true;
}

Tensor &Call::in(int64_t rows, int64_t cols, int64_t ld, float low, float high)
{
    out(rows, cols, ld).role = Role::input;
    tensors.back().fill((uint32_t)tensors.size(), low, high);
    return tensors.back();
}

Tensor &Call::updated(int64_t rows, int64_t cols, int64_t ld, float low, float high)
{
    Tensor &tensor = in(rows, cols, ld, low, high);
    tensor.role = Role::updated;
    return tensor;
}

Tensor &Call::out(int64_t rows, int64_t cols, int64_t ld)
{
    tensors.emplace_back(Role::output, rows, cols, ld);
    tensors.back().dtype = kernels->dtype;
    tensors.back().rounds_stored = rounds_stored;
    return tensors.back();
}

double *Call::out_doubles(int64_t count)
{
    doubles.emplace_back((size_t)count + 1, std::nan("")); // one behind them, which stays
    return doubles.back().data();
}

float *Call::room(int64_t count)
{
    rooms.emplace_back((size_t)count + 1, canary());
    return rooms.back().data();
}

const int32_t *Call::indices(int64_t count, int32_t low, int32_t high)
{
    std::mt19937 random(99);
    std::vector<int32_t> list((size_t)count);
    for (size_t i = 0; i < list.size(); i++)
        list[i] = low + (int32_t)(i < (size_t)(high - low) ? i : random() % (uint32_t)(high - low));
    for (size_t i = list.size(); i > 1; i--)
        std::swap(list[i - 1], list[random() % i]);
    ids.push_back(list);
    return ids.back().data();
}

void PrintTo(const Case &c, std::ostream *stream)
{
    *stream << c.op << " " << c.shape;
}

std::string shape_name(const std::vector<int64_t> &sizes)
{
    std::string name;
    for (int64_t size : sizes)
        name.append(name.empty() ? "" : "x").append(std::to_string(size));
    return name;
}

Device::Device(int threads)
{
    EXPECT_EQ(tv_device_open(TV_DEVICE_CPU, threads, &device), TV_OK);
    EXPECT_EQ(tv_stream_create(device, &stream), TV_OK);
}

Device::~Device()
{
    tv_stream_destroy(stream);
    tv_device_close(device);
}

Call run_case(const Case &c, const tv_kernels *kernels, tv_stream *stream, bool rounds_stored)
{
    Call run = {kernels, stream, {}, {}, {}, rounds_stored};
    EXPECT_EQ(c.call(run), TV_OK);
    for (size_t i = 0; i < run.tensors.size(); i++) {
        Tensor &tensor = run.tensors[i];
        tensor.unpack();
        EXPECT_TRUE(tensor.is_in_bounds()) << kernels->name << ": tensor " << i << " overrun";
    }
    return run;
}

static void expect_close_doubles(const Call &got, const Call &want, double tolerance)
{
    ASSERT_EQ(got.doubles.size(), want.doubles.size());
    for (size_t i = 0; i < got.doubles.size(); i++) {
        const std::vector<double> &g = got.doubles[i], &w = want.doubles[i];
        ASSERT_EQ(g.size(), w.size());
        for (size_t k = 0; k + 1 < g.size(); k++)
            EXPECT_NEAR(g[k], w[k], tolerance * (1 + std::fabs(w[k]))) << "double " << k;
        EXPECT_TRUE(std::isnan(g.back())) << "doubles overrun";
    }
}

void expect_close(Call &got, Call &want, double tolerance, double stored)
{
    expect_close_doubles(got, want, tolerance);
    ASSERT_EQ(got.tensors.size(), want.tensors.size());
    for (size_t i = 0; i < got.tensors.size(); i++) {
        Tensor &g = got.tensors[i], &w = want.tensors[i];
        if (g.role == Role::input) {
            EXPECT_TRUE(is_same(g.memory, w.memory)) << "input " << i << " was written";
            continue;
        }
        double squares = 0;
        for (int64_t k = 0; k < w.rows * w.cols; k++)
            squares += std::pow((double)w.at(k / w.cols, k % w.cols), 2);
        // where all of it must vanish (one key: no gradient of scores), of 1, the size of inputs
        const double rms = squares > 0 ? std::sqrt(squares / (double)(w.rows * w.cols)) : 1;
        const bool is_stored = tolerance > 0 && !g.packed.empty();
        double worst = 0, differences = 0;
        int64_t at = 0;
        for (int64_t k = 0; k < w.rows * w.cols; k++) {
            const double a = (double)g.at(k / w.cols, k % w.cols),
                         b = (double)w.at(k / w.cols, k % w.cols);
            differences += a == b ? 0 : (a - b) * (a - b);
            const double error = a == b ? 0 : std::fabs(a - b) / (std::fabs(b) + rms);
            if (!(error <= worst)) { // a NaN on either side is the worst, and stays it
                worst = error;
                at = k;
            }
        }
        EXPECT_LE(worst, is_stored ? stored : tolerance)
            << "tensor " << i << " at row " << at / w.cols << " column " << at % w.cols << ": "
            << g.at(at / w.cols, at % w.cols) << ", reference " << w.at(at / w.cols, at % w.cols);
        if (is_stored && stored > 0x1p-7) {
            EXPECT_LE(differences, 0x1p-16 * squares) << "tensor " << i;
        }
    }
}

void expect_same_bits(const Call &got, const Call &want)
{
    ASSERT_EQ(got.tensors.size(), want.tensors.size());
    for (size_t i = 0; i < got.tensors.size(); i++)
        EXPECT_TRUE(is_same(got.tensors[i].memory, want.tensors[i].memory)) << "tensor " << i;
    ASSERT_EQ(got.doubles.size(), want.doubles.size());
    for (size_t i = 0; i < got.doubles.size(); i++)
        EXPECT_TRUE(is_same(got.doubles[i], want.doubles[i])) << "doubles " << i;
}

void expect_same_bits_with(const std::vector<int> &threads, const std::vector<Case> &cases)
{
    Device one(1);
    for (int num : threads) {
        Device many(num);
        for (const Case &c : cases) {
            SCOPED_TRACE(c.op + " " + c.shape + " on " + std::to_string(num));
            for (tv_dtype_t dtype : {TV_F32, TV_BF16})
                expect_same_bits(run_case(c, tv_kernels_cpu(dtype), many.stream),
                                 run_case(c, tv_kernels_cpu(dtype), one.stream));
        }
    }
}

std::vector<Case> all_cases()
{
    std::vector<Case> cases;
    add_matmul_cases(cases);
    add_elementwise_cases(cases);
    add_norm_cases(cases);
    add_attention_cases(cases);
    add_loss_cases(cases);
    return cases;
}

// tests/kernels/harness.h -- one call of one operation on guarded tensors, so that a table can be
// held against the reference.
//
// A tensor lies between guards, and its rows may lie apart (ld > cols). Guards, gaps and outputs
// start as one particular NaN: what is read out of bounds or before it is written shows in the
// result, what is written out of bounds shows in the guards. The first element is at an odd
// offset, since shards of a buffer may start anywhere.
#ifndef TV_TESTS_KERNELS_HARNESS_H
#define TV_TESTS_KERNELS_HARNESS_H
#include "kernels/kernels.h"
#include <cstdint>
#include <deque>
#include <functional>
#include <gtest/gtest.h>
#include <ostream>
#include <string>
#include <vector>

// Largest |got - want| / (|want| + root mean square of want). Both sides start from the same
// floats; the reference works in double and rounds once (6e-8).
constexpr double exact = 0;       // copies and single float sums: the same bits
constexpr double rounding = 2e-6; // a dozen float roundings, an exponential good to 2 ulp
constexpr double sums = 1e-5;     // float sums of up to a few hundred terms, in any order

enum class Role { input, output, updated };

class Tensor;

// The tensor's first element, as the argument at hand takes it: floats, or stored elements; NULL of
// no tensor.
struct Place {
    Tensor *tensor;
    operator float *() const;
    operator void *() const;
};

class Tensor
{
  public:
    Tensor(Role role, int64_t rows, int64_t cols, int64_t ld);
    Place data()
    {
        return {this};
    }
    float *floats()
    {
        return memory.data() + guard;
    }
    // In a table of bf16 the numbers become bf16, between guards of their own, when they are first
    // taken as stored elements; unpack brings them back.
    void *stored();
    void unpack();
    void round(); // to bf16, what is no canary
    float &at(int64_t row, int64_t col)
    {
        return memory[(size_t)(guard + row * ld + col)];
    }
    bool is_in_bounds() const; // guards and gaps still hold their NaN
    void fill(uint32_t seed, float low, float high);

    Role role;
    int64_t rows, cols, ld;
    tv_dtype_t dtype = TV_F32;    // of stored elements
    bool rounds_stored = false;   // fp32 elements take the values of bf16 ones
    bool is_stored = false;       // the call took it as stored elements
    std::vector<float> memory;    // guard, rows x ld, guard
    std::vector<uint16_t> packed; // the same as bf16, or empty
    static constexpr int64_t guard = 67;
};

// What one call reads and writes. A table and a stream go in; the tensors, in the order they were
// made, come out.
struct Call {
    const tv_kernels *kernels;
    tv_stream *stream;
    std::deque<Tensor> tensors;
    std::deque<std::vector<int32_t>> ids;
    std::deque<std::vector<float>> rooms;
    bool rounds_stored = false;
    std::deque<std::vector<double>> doubles = {}; // outputs

    // Filled with the same numbers in every run, in [low, high).
    Tensor &in(int64_t rows, int64_t cols, int64_t ld, float low = -1, float high = 1);
    Tensor &updated(int64_t rows, int64_t cols, int64_t ld, float low = -1, float high = 1);
    Tensor &out(int64_t rows, int64_t cols, int64_t ld);
    double *out_doubles(int64_t count);
    float *room(int64_t count); // to work in: NaN at the start, not compared
    // [count] numbers in [low, high), each at least once where count allows
    const int32_t *indices(int64_t count, int32_t low, int32_t high);
};

struct Case {
    std::string op, shape;
    double tolerance;
    std::function<tv_status_t(Call &)> call;
    double inside =
        0x1p-7; // for stored bf16, of a table that rounds to bf16 inside, too (CUDA's: for tensor cores)
};

void PrintTo(const Case &c, std::ostream *stream); // for GoogleTest's messages

// The lists, one per file cases_*.cc.
void add_matmul_cases(std::vector<Case> &cases);
void add_elementwise_cases(std::vector<Case> &cases);
void add_norm_cases(std::vector<Case> &cases);
void add_attention_cases(std::vector<Case> &cases);
void add_loss_cases(std::vector<Case> &cases);
std::vector<Case> all_cases();
// The norm of a sum of any numbers, which `add` makes first, or the norm on the way: the same bits in every table.
Case norm_of_sum(int has_mean, bool is_added_before, int64_t cols);
// Loss and gradient of rows of which some have NaN or infinities, in one go or by the four steps: the same bits in
// every table. sizes: rows, columns, columns of padding, and of a gap behind it.
Case whole_cross_entropy(bool is_in_steps, bool is_smooth, const std::vector<int64_t> &sizes);

// Sizes as a part of the name of a case: shape_name({65, 33}) is "65x33".
std::string shape_name(const std::vector<int64_t> &sizes);

// A CPU device and its stream.
class Device
{
  public:
    explicit Device(int threads);
    ~Device();
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;
    tv_stream *stream = nullptr;

  private:
    tv_device *device = nullptr;
};

// Call the case with a table; guards and inputs must be intact afterwards. rounds_stored: what a
// table of bf16 would store, as floats.
Call run_case(const Case &c, const tv_kernels *kernels, tv_stream *stream,
              bool rounds_stored = false);
// Each output of `got` within the tolerance of `want`; stored bf16 may also be one unit in the last
// place apart, which two floats near the middle between two bf16 numbers may round to. stored: the limit for it; where
// it is wider than that, the norm of the difference must be below 2^-8 of the norm.
void expect_close(Call &got, Call &want, double tolerance, double stored = 0x1p-7);
void expect_same_bits(const Call &got, const Call &want);
// Of the CPU tables, with so many threads as with one.
void expect_same_bits_with(const std::vector<int> &threads, const std::vector<Case> &cases);
#endif

// cases_elementwise.cc -- sums of tensors, activations, AdamW, sum of squares. 65537 elements are
// enough for two threads; the small counts leave a tail after any vector. Rows of whole vectors, too; 260 are more than
// a block of a GPU adds up.
#include "kernels/harness.h"
#include <algorithm>
#include <cstring>

namespace
{
const int64_t counts[] = {1, 31, 33, 65, 257, 65537};
// [rows, cols, gap]
const int64_t matrices[][3] = {{1, 1, 0},   {1, 31, 0},   {33, 65, 0},  {31, 1, 4},
                               {65, 33, 5}, {67, 257, 3}, {12, 136, 8}, {260, 24, 0}};

enum class Alias { none, first, second };

tv_status_t add(Call &run, int64_t count, Alias alias)
{
    Tensor &a = alias == Alias::first ? run.updated(1, count, count) : run.in(1, count, count);
    Tensor &b = alias == Alias::second ? run.updated(1, count, count) : run.in(1, count, count);
    Tensor &y = alias == Alias::first ? a : alias == Alias::second ? b : run.out(1, count, count);
    const tv_add_args args = {count, a.data(), b.data(), y.data()};
    return run.kernels->add(run.stream, &args);
}

tv_status_t bias_backward(Call &run, int64_t rows, int64_t cols, int64_t gap, int accumulate)
{
    Tensor &dbias = accumulate ? run.updated(1, cols, cols) : run.out(1, cols, cols);
    const tv_bias_backward_args args = {
        rows, cols, cols + gap, run.in(rows, cols, cols + gap).data(), accumulate, dbias.data()};
    return run.kernels->bias_backward(run.stream, &args);
}

tv_status_t gelu_forward(Call &run, int64_t count)
{
    const tv_gelu_args args = {count, run.in(1, count, count, -8, 8).data(),
                               run.out(1, count, count).data()};
    return run.kernels->gelu_forward(run.stream, &args);
}

tv_status_t gelu_backward(Call &run, int64_t count, Alias alias)
{
    Tensor &x = alias == Alias::second ? run.updated(1, count, count, -8, 8)
                                       : run.in(1, count, count, -8, 8);
    Tensor &dy = alias == Alias::first ? run.updated(1, count, count) : run.in(1, count, count);
    Tensor &dx = alias == Alias::first ? dy : alias == Alias::second ? x : run.out(1, count, count);
    const tv_gelu_backward_args args = {count, x.data(), dy.data(), dx.data(), nullptr, 0, 0};
    return run.kernels->gelu_backward(run.stream, &args);
}

// The sums are those of bias_backward over the dx that is stored, to the bit: the difference is 0.
tv_status_t gelu_backward_with_bias(Call &run, int64_t rows, int64_t cols, Alias alias,
                                    int accumulate)
{
    Tensor &x = alias == Alias::second ? run.updated(rows, cols, cols, -8, 8)
                                       : run.in(rows, cols, cols, -8, 8);
    Tensor &dy = run.in(rows, cols, cols);
    Tensor &dx = alias == Alias::second ? x : run.out(rows, cols, cols);
    float *const dbias = run.room(cols), *const alone = run.room(cols);
    for (int64_t c = 0; c < cols && accumulate; c++)
        dbias[c] = alone[c] = 0.5f;
    const tv_gelu_backward_args args = {rows * cols, x.data(), dy.data(), dx.data(),
                                        dbias,       cols,     accumulate};
    TV_TRY(run.kernels->gelu_backward(run.stream, &args));
    const tv_bias_backward_args bias = {rows, cols, cols, dx.data(), accumulate, alone};
    TV_TRY(run.kernels->bias_backward(run.stream, &bias));
    Tensor &difference = run.out(1, cols, cols);
    for (int64_t c = 0; c < cols; c++)
        difference.at(0, c) = dbias[c] - alone[c];
    return TV_OK;
}

// The strides differ, so that a mixed up pair shows.
tv_status_t swiglu_forward(Call &run, int64_t rows, int64_t cols, int64_t gap)
{
    tv_swiglu_args args = {rows,           cols,    cols + gap, cols + 2 * gap,
                           cols + 3 * gap, nullptr, nullptr,    nullptr};
    args.gate = run.in(rows, cols, args.ld_gate, -8, 8).data();
    args.up = run.in(rows, cols, args.ld_up).data();
    args.y = run.out(rows, cols, args.ld_y).data();
    return run.kernels->swiglu_forward(run.stream, &args);
}

tv_status_t swiglu_backward(Call &run, int64_t rows, int64_t cols, int64_t gap)
{
    tv_swiglu_backward_args args = {};
    args.rows = rows;
    args.cols = cols;
    args.ld_gate = cols + gap;
    args.ld_up = cols + 2 * gap;
    args.ld_dy = cols + 3 * gap;
    args.ld_dgate = cols + 4 * gap;
    args.ld_dup = cols + 5 * gap;
    args.gate = run.in(rows, cols, args.ld_gate, -8, 8).data();
    args.up = run.in(rows, cols, args.ld_up).data();
    args.dy = run.in(rows, cols, args.ld_dy).data();
    args.d_gate = run.out(rows, cols, args.ld_dgate).data();
    args.d_up = run.out(rows, cols, args.ld_dup).data();
    return run.kernels->swiglu_backward(run.stream, &args);
}

tv_status_t swiglu_backward_in_place(Call &run, int64_t rows, int64_t cols, int64_t gap)
{
    Tensor &gate = run.updated(rows, cols, cols + gap, -8, 8);
    Tensor &up = run.updated(rows, cols, cols + 2 * gap);
    Tensor &dy = run.in(rows, cols, cols);
    const tv_swiglu_backward_args args = {rows,      cols,      gate.ld,     up.ld,
                                          dy.ld,     gate.ld,   up.ld,       gate.data(),
                                          up.data(), dy.data(), gate.data(), up.data()};
    return run.kernels->swiglu_backward(run.stream, &args);
}

tv_adamw_weight adamw_weight(Call &run, int64_t count, double lr)
{
    tv_adamw_weight weight = {};
    weight.count = count;
    weight.param = run.updated(1, count, count).data();
    weight.m = run.updated(1, count, count, -0.1f, 0.1f).data();
    weight.v = run.updated(1, count, count, 0, 0.01f).data();
    weight.grad = run.in(1, count, count).data();
    weight.lr = lr;
    weight.weight_decay = 10 * lr;
    return weight;
}

tv_status_t adamw(Call &run, const std::vector<tv_adamw_weight> &weights, int64_t step)
{
    const tv_adamw_args args = {(int)weights.size(), weights.data(), 0.9, 0.95, 1e-8, 0.3, step};
    return run.kernels->adamw(run.stream, &args);
}

// bf16 numbers in `room`, as floats.
void unpack_bf16(const float *room, Tensor &y)
{
    for (int64_t i = 0; i < y.cols; i++) {
        uint16_t bits;
        std::memcpy(&bits, tv_const_at(room, i, TV_BF16), sizeof(bits));
        y.at(0, i) = tv_bf16_to_f32(bits);
    }
}

// The bf16 of the parameter are those of the fp32 number that is stored, to the bit: else NaN.
tv_status_t adamw_rounded(Call &run, int64_t count)
{
    tv_adamw_weight weight = adamw_weight(run, count, 1e-2);
    Tensor &param = run.tensors[0], &differs = run.out(1, count, count);
    float *room = run.room(count);
    weight.rounded = room;
    const tv_status_t status = adamw(run, {weight}, 7);
    unpack_bf16(room, differs);
    for (int64_t i = 0; i < count; i++)
        differs.at(0, i) -= tv_bf16_to_f32(tv_bf16_from_f32(param.at(0, i)));
    return status;
}

// Arrays without elements too, and more of them than one launch takes.
constexpr int many = 150;
int64_t count_of(int i)
{
    return i % 7 == 3 ? 0 : (int64_t)i * i % 97 + (i == 5 ? 9000 : 0);
}

tv_status_t adamw_of_many(Call &run)
{
    std::vector<tv_adamw_weight> weights;
    for (int i = 0; i < many; i++)
        weights.push_back(adamw_weight(run, count_of(i), 1e-3 * (i % 5)));
    return adamw(run, weights, 3);
}

tv_status_t lion(Call &run, int64_t count)
{
    tv_lion_args args = {};
    args.count = count;
    args.param = run.updated(1, count, count).data();
    args.m = run.updated(1, count, count, -0.1f, 0.1f).data();
    args.grad = run.in(1, count, count).data();
    args.lr = 1e-2;
    args.beta1 = 0.9;
    args.beta2 = 0.99;
    args.weight_decay = 0.1;
    args.grad_scale = 0.3;
    return run.kernels->lion(run.stream, &args);
}

tv_status_t axpby(Call &run, int64_t rows, int64_t cols, int64_t gap, double beta)
{
    Tensor &x = run.in(rows, cols, cols + gap);
    Tensor &y =
        beta == 0 ? run.out(rows, cols, cols + 2 * gap) : run.updated(rows, cols, cols + 2 * gap);
    const tv_axpby_args args = {rows, cols, x.ld, y.ld, -0.7, beta, x.data(), y.data()};
    return run.kernels->axpby(run.stream, &args);
}

tv_status_t axpby_in_place(Call &run, int64_t rows, int64_t cols)
{
    Tensor &x = run.updated(rows, cols, cols);
    const tv_axpby_args args = {rows, cols, cols, cols, 1.3, 0, x.data(), x.data()};
    return run.kernels->axpby(run.stream, &args);
}

tv_status_t square_sum(Call &run, int64_t count)
{
    double sum = -1;
    const tv_square_sum_array array = {count, run.in(1, count, count).data()};
    const tv_square_sum_args args = {1, &array, &sum};
    const tv_status_t status = run.kernels->square_sum(run.stream, &args);
    run.out(1, 1, 1).at(0, 0) = (float)sum;
    return status;
}

// Some of them once more alone, for the same bits.
tv_status_t square_sum_of_many(Call &run)
{
    std::vector<tv_square_sum_array> arrays;
    std::vector<double> sums(many, -1);
    for (int i = 0; i < many; i++)
        arrays.push_back({count_of(i), run.in(1, count_of(i), count_of(i)).data()});
    const tv_square_sum_args args = {many, arrays.data(), sums.data()};
    TV_TRY(run.kernels->square_sum(run.stream, &args));
    Tensor &out = run.out(1, many, many);
    for (int i = 0; i < many; i++)
        out.at(0, i) = (float)sums[(size_t)i];
    for (int i : {0, 3, 5, 77, many - 1}) {
        double alone = -1;
        const tv_square_sum_args one = {1, &arrays[(size_t)i], &alone};
        TV_TRY(run.kernels->square_sum(run.stream, &one));
        EXPECT_EQ(alone, sums[(size_t)i]) << i;
    }
    return TV_OK;
}

// bf16 numbers in every table: they lie in a room, or in place, and come back as floats.
tv_status_t to_bf16(Call &run, int64_t count, bool is_in_place)
{
    Tensor &x = run.in(1, count, count, -3e3f, 3e3f);
    Tensor &y = run.out(1, count, count);
    float *room = run.room(count);
    std::copy(x.floats(), x.floats() + count, room);
    const tv_to_bf16_args args = {count, is_in_place ? room : x.floats(), room};
    const tv_status_t status = run.kernels->to_bf16(run.stream, &args);
    unpack_bf16(room, y);
    return status;
}

tv_status_t from_bf16(Call &run, int64_t count, bool is_in_place)
{
    Tensor &x = run.in(1, count, count, -3e3f, 3e3f);
    Tensor &y = run.out(1, count, count);
    void *room = is_in_place ? y.floats() : run.room(count);
    for (int64_t i = 0; i < count; i++) {
        const uint16_t bits = tv_bf16_from_f32(x.at(0, i));
        std::memcpy(tv_at(room, i, TV_BF16), &bits, sizeof(bits));
    }
    const tv_from_bf16_args args = {count, room, y.floats()};
    return run.kernels->from_bf16(run.stream, &args);
}

// Words of a token below and above 2^32; p = 0.1.
tv_status_t dropout(Call &run, int64_t rows, int64_t cols, Alias alias)
{
    Tensor &x = alias == Alias::first ? run.updated(rows, cols, cols) : run.in(rows, cols, cols);
    Tensor &y = alias == Alias::first ? x : run.out(rows, cols, cols);
    const tv_dropout_args args = {rows,
                                  cols,
                                  {0x123456789abcdefu, 429496729u, 1 / 0.9f, (1LL << 32) - 3, 0},
                                  x.data(),
                                  y.data()};
    return run.kernels->dropout(run.stream, &args);
}

void add_counts(std::vector<Case> &cases, int64_t n)
{
    const std::string shape = shape_name({n});
    for (Alias alias : {Alias::none, Alias::first, Alias::second}) {
        const char *names[] = {"", "_onto_a", "_onto_b"};
        cases.push_back({"add", shape + names[(int)alias], exact,
                         [=](Call &run) { return add(run, n, alias); }});
    }
    cases.push_back(
        {"gelu_forward", shape, rounding, [=](Call &run) { return gelu_forward(run, n); }});
    cases.push_back({"gelu_backward", shape, rounding,
                     [=](Call &run) { return gelu_backward(run, n, Alias::none); }});
    cases.push_back({"gelu_backward", shape + "_onto_dy", rounding,
                     [=](Call &run) { return gelu_backward(run, n, Alias::first); }});
    cases.push_back({"gelu_backward", shape + "_onto_x", rounding,
                     [=](Call &run) { return gelu_backward(run, n, Alias::second); }});
    for (int64_t step : {1, 1000})
        cases.push_back({"adamw", shape + "_step" + std::to_string(step), rounding, [=](Call &run) {
                             return adamw(run, {adamw_weight(run, n, 1e-2)}, step);
                         }});
    cases.push_back(
        {"adamw", shape + "_rounded", rounding, [=](Call &run) { return adamw_rounded(run, n); }});
    for (bool is_in_place : {false, true}) {
        const std::string name = shape + (is_in_place ? "_in_place" : "");
        cases.push_back(
            {"to_bf16", name, exact, [=](Call &run) { return to_bf16(run, n, is_in_place); }});
        cases.push_back(
            {"from_bf16", name, exact, [=](Call &run) { return from_bf16(run, n, is_in_place); }});
    }
    cases.push_back({"lion", shape, exact, [=](Call &run) { return lion(run, n); }});
    cases.push_back({"square_sum", shape, rounding, [=](Call &run) { return square_sum(run, n); }});
}

void add_matrices(std::vector<Case> &cases, int64_t rows, int64_t cols, int64_t gap)
{
    const std::string shape = shape_name({rows, cols}) + (gap ? "_apart" : "");
    for (double beta : {0.0, 0.9})
        cases.push_back({"axpby", shape + (beta == 0 ? "" : "_added"), exact,
                         [=](Call &run) { return axpby(run, rows, cols, gap, beta); }});
    cases.push_back({"axpby", shape + "_in_place", exact,
                     [=](Call &run) { return axpby_in_place(run, rows, cols); }});
    for (int accumulate : {0, 1}) {
        const std::string onto = accumulate ? "_add" : "";
        cases.push_back({"bias_backward", shape + onto, rounding, [=](Call &run) {
                             return bias_backward(run, rows, cols, gap, accumulate);
                         }});
        for (Alias alias : {Alias::none, Alias::second})
            cases.push_back({"gelu_backward",
                             shape + "_bias" + (alias == Alias::none ? "" : "_onto_x") + onto,
                             rounding, [=](Call &run) {
                                 return gelu_backward_with_bias(run, rows, cols, alias, accumulate);
                             }});
    }
    cases.push_back({"dropout", shape, exact,
                     [=](Call &run) { return dropout(run, rows, cols, Alias::none); }});
    cases.push_back({"dropout", shape + "_in_place", exact,
                     [=](Call &run) { return dropout(run, rows, cols, Alias::first); }});
    cases.push_back({"swiglu_forward", shape, rounding,
                     [=](Call &run) { return swiglu_forward(run, rows, cols, gap); }});
    cases.push_back({"swiglu_backward", shape, rounding,
                     [=](Call &run) { return swiglu_backward(run, rows, cols, gap); }});
    cases.push_back({"swiglu_backward", shape + "_in_place", rounding,
                     [=](Call &run) { return swiglu_backward_in_place(run, rows, cols, gap); }});
}
} // namespace

void add_elementwise_cases(std::vector<Case> &cases)
{
    for (int64_t n : counts)
        add_counts(cases, n);
    cases.push_back({"adamw", "many", rounding, adamw_of_many});
    cases.push_back({"square_sum", "many", rounding, square_sum_of_many});
    for (const auto &m : matrices)
        add_matrices(cases, m[0], m[1], m[2]);
}

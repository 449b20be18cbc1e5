// cases_norm.cc -- LayerNorm, RMSNorm and the rotary embedding. 67 x 257 is enough for two threads; 4104 are more than
// a block of a GPU takes at once, 260 rows more than it adds up.
#include "kernels/harness.h"
#include <cmath>
#include <utility>

namespace
{
const int64_t matrices[][2] = {{1, 1},   {1, 31},   {33, 65},  {31, 7}, {67, 257},
                               {9, 136}, {11, 768}, {3, 4104}, {260, 8}};

enum class Added { none, elsewhere, onto_x, onto_added };

// Multiples of 1/32, few enough that their sums are bf16 numbers, too.
Tensor &coarse(Tensor &tensor)
{
    for (int64_t r = 0; r < tensor.rows; r++)
        for (int64_t c = 0; c < tensor.cols; c++)
            tensor.at(r, c) = std::round(32 * tensor.at(r, c)) / 32;
    return tensor;
}

// What is normalized has the same bits in every table, of a sum too.
void add_before(Call &run, tv_norm_args &args, Added added)
{
    const int64_t rows = args.rows, cols = args.cols;
    Tensor &x = added == Added::onto_x ? run.updated(rows, cols, cols, -1, 3)
                                       : run.in(rows, cols, cols, -1, 3);
    if (added == Added::none) {
        args.x = x.data();
        return;
    }
    args.x = coarse(x).data();
    Tensor &other =
        added == Added::onto_added ? run.updated(rows, cols, cols) : run.in(rows, cols, cols);
    args.added = coarse(other).data();
    args.sum = (added == Added::onto_x       ? x
                : added == Added::onto_added ? other
                                             : run.out(rows, cols, cols))
                   .data();
}

tv_status_t norm_forward(Call &run, int64_t rows, int64_t cols, int has_mean, Added added)
{
    tv_norm_args args = {};
    args.rows = rows;
    args.cols = cols;
    args.eps = 1e-5;
    add_before(run, args, added); // a mean well away from zero
    args.weight = run.in(1, cols, cols).data();
    args.bias = has_mean ? run.in(1, cols, cols).data() : Place{};
    args.y = run.out(rows, cols, cols).data();
    args.mean = has_mean ? run.out(1, rows, rows).data() : Place{};
    args.rstd = run.out(1, rows, rows).data();
    const auto op = has_mean ? run.kernels->layernorm_forward : run.kernels->rmsnorm_forward;
    return op(run.stream, &args);
}

// Any mean and rstd will do: backward takes them as given.
tv_status_t norm_backward(Call &run, int64_t rows, int64_t cols, int has_mean, int add_dx,
                          int accumulate)
{
    const auto sums = [&]() -> Tensor & {
        return accumulate ? run.updated(1, cols, cols) : run.out(1, cols, cols);
    };
    tv_norm_backward_args args = {};
    args.rows = rows;
    args.cols = cols;
    args.dy = run.in(rows, cols, cols).data();
    args.x = run.in(rows, cols, cols, -1, 3).data();
    args.weight = run.in(1, cols, cols).data();
    args.mean = has_mean ? run.in(1, rows, rows, 0.5f, 1.5f).data() : Place{};
    args.rstd = run.in(1, rows, rows, 0.5f, 1.5f).data();
    args.add_dx = add_dx;
    args.dx = (add_dx ? run.updated(rows, cols, cols) : run.out(rows, cols, cols)).data();
    args.accumulate = accumulate;
    args.dweight = sums().data();
    args.dbias = has_mean ? sums().data() : Place{};
    const auto op = has_mean ? run.kernels->layernorm_backward : run.kernels->rmsnorm_backward;
    return op(run.stream, &args);
}

struct Rotary {
    int64_t rows, gap;
    int seq_length, num_heads, head_dim;
    bool has_positions;
};

tv_status_t rotary(Call &run, const Rotary &r, int inverse)
{
    const int64_t cols = (int64_t)r.num_heads * r.head_dim;
    Tensor &x = run.updated(r.rows, cols, cols + r.gap);
    const tv_rotary_args args = {
        r.rows,      x.ld,       r.seq_length,
        r.num_heads, r.head_dim, inverse,
        10000.0,     x.data(),   r.has_positions ? run.indices(r.rows, 0, r.seq_length) : nullptr};
    return run.kernels->rotary(run.stream, &args);
}

void add_norms(std::vector<Case> &cases, int64_t rows, int64_t cols)
{
    const std::string shape = shape_name({rows, cols});
    for (int has_mean : {0, 1}) {
        const std::string op = has_mean ? "layernorm" : "rmsnorm";
        for (Added added : {Added::none, Added::elsewhere, Added::onto_x, Added::onto_added}) {
            const char *names[] = {"", "_added", "_added_onto_x", "_added_onto_added"};
            cases.push_back({op + "_forward", shape + names[(int)added], rounding, [=](Call &run) {
                                 return norm_forward(run, rows, cols, has_mean, added);
                             }});
        }
        for (int add_dx : {0, 1})
            for (int accumulate : {0, 1})
                cases.push_back(
                    {op + "_backward", shape + (add_dx ? "_add" : "") + (accumulate ? "_onto" : ""),
                     rounding, [=](Call &run) {
                         return norm_backward(run, rows, cols, has_mean, add_dx, accumulate);
                     }});
    }
}
} // namespace

void add_norm_cases(std::vector<Case> &cases)
{
    for (const auto &m : matrices)
        add_norms(cases, m[0], m[1]);
    // more rows than a GPU takes at once, whose sums each thread keeps
    for (const auto &[rows, cols] : {std::pair<int64_t, int64_t>{2120, 24}, {1060, 100}})
        cases.push_back(
            {"layernorm_backward", shape_name({rows, cols}), rounding,
             [r = rows, c = cols](Call &run) { return norm_backward(run, r, c, 1, 1, 1); }});
    // two sequences and a part of one, five and a part; one position; heads wider than the tables of a version
    const Rotary shapes[] = {
        {64, 8, 26, 2, 64, false}, {1, 0, 1, 1, 2, false},    {31, 3, 31, 1, 10, false},
        {66, 5, 33, 3, 8, false},  {65, 0, 26, 2, 64, false}, {130, 7, 65, 2, 80, false},
        {6, 1, 3, 1, 520, false},  {66, 5, 33, 3, 8, true},   {130, 7, 65, 2, 80, true},
        {6, 1, 3, 1, 520, true},   {52, 8, 10, 2, 16, false}};
    for (const Rotary &r : shapes)
        for (int inverse : {0, 1})
            cases.push_back({"rotary",
                             shape_name({r.rows, r.num_heads, r.head_dim}) +
                                 (r.has_positions ? "_positions" : "") +
                                 (inverse ? "_inverse" : ""),
                             rounding, [=](Call &run) { return rotary(run, r, inverse); }});
}

Case norm_of_sum(int has_mean, bool is_added_before, int64_t cols)
{
    const auto call = [=](Call &run) {
        const int64_t rows = 5;
        tv_norm_args args = {};
        args.rows = rows;
        args.cols = cols;
        args.eps = 1e-5;
        args.x = run.in(rows, cols, cols, -1, 3).data();
        args.added = run.in(rows, cols, cols).data();
        args.sum = run.out(rows, cols, cols).data();
        args.weight = run.in(1, cols, cols).data();
        args.bias = has_mean ? run.in(1, cols, cols).data() : Place{};
        args.y = run.out(rows, cols, cols).data();
        args.mean = has_mean ? run.out(1, rows, rows).data() : Place{};
        args.rstd = run.out(1, rows, rows).data();
        const tv_add_args add = {rows * cols, args.x, args.added, args.sum};
        if (is_added_before) {
            TV_TRY(run.kernels->add(run.stream, &add));
            args.x = args.sum;
            args.added = nullptr;
        }
        const auto op = has_mean ? run.kernels->layernorm_forward : run.kernels->rmsnorm_forward;
        return op(run.stream, &args);
    };
    return {has_mean ? "layernorm_forward" : "rmsnorm_forward", shape_name({5, cols}), exact, call};
}

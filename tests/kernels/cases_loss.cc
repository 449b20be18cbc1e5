// cases_loss.cc -- the two ends of the model over a part of the vocabulary: embedding and
// cross-entropy. Ids run from below the part that is held to above it. 1100 rows of 700 ids: more than one digit tells
// apart, and more tiles than a block of a GPU has threads. 6000 columns: more than a block takes at once.
#include "kernels/harness.h"
#include <cmath>
#include <limits>

namespace
{
struct Part {
    int64_t rows, cols, first, num; // the rank holds ids [first, first + num)
};

tv_status_t embedding_forward(Call &run, const Part &p, int accumulate)
{
    tv_embedding_args args = {};
    args.rows = p.rows;
    args.cols = p.cols;
    args.first = p.first;
    args.num = p.num;
    args.ids = run.indices(p.rows, 0, (int32_t)(p.first + p.num + 3));
    args.table = run.in(p.num, p.cols, p.cols).data();
    args.accumulate = accumulate;
    args.y =
        (accumulate ? run.updated(p.rows, p.cols, p.cols) : run.out(p.rows, p.cols, p.cols)).data();
    return run.kernels->embedding_forward(run.stream, &args);
}

tv_status_t embedding_backward(Call &run, const Part &p)
{
    tv_embedding_backward_args args = {};
    args.rows = p.rows;
    args.cols = p.cols;
    args.first = p.first;
    args.num = p.num;
    args.ids = run.indices(p.rows, 0, (int32_t)(p.first + p.num + 3));
    args.dy = run.in(p.rows, p.cols, p.cols).data();
    args.dtable = run.updated(p.num, p.cols, p.cols).data();
    return run.kernels->embedding_backward(run.stream, &args);
}

enum class Step { forward, rebase, loss, backward, all };

struct Logits {
    int64_t rows, cols, gap, first, padding = 0; // backward makes zeros of `padding` columns
};

// The numbers of each row that the step takes, as a reduction over several ranks would leave them.
void take_rows(Call &run, int64_t rows, Step step, bool is_smooth, tv_cross_entropy_args &args)
{
    const auto in = [&](float low, float high) -> float * {
        return run.in(1, rows, rows, low, high).data();
    };
    const auto out = [&]() -> float * { return run.out(1, rows, rows).data(); };
    switch (step) {
    case Step::forward:
        args.row_max = out();
        args.row_base = out();
        args.row_sum = out();
        args.row_target = out();
        args.row_rest = is_smooth ? out() : nullptr;
        break;
    case Step::rebase:
        args.row_base = in(3, 6);
        args.row_max = in(6, 7);
        args.row_sum = run.updated(1, rows, rows, 1, 9).data();
        if (is_smooth)
            args.row_rest = run.updated(1, rows, rows, -40, -10).data();
        break;
    case Step::loss:
        args.row_max = in(6, 7);
        args.row_sum = in(1, 9);
        args.row_target = in(-6, 6);
        args.row_rest = is_smooth ? in(-40, -10) : nullptr;
        args.row_lse = out();
        args.row_loss = run.out_doubles(rows);
        break;
    case Step::backward:
        args.row_lse = in(6, 12);
        break;
    case Step::all:
        args.row_max = run.room(rows);
        args.row_base = run.room(rows);
        args.row_sum = run.room(rows);
        args.row_target = run.room(rows);
        args.row_rest = is_smooth ? run.room(rows) : nullptr;
        args.row_lse = out();
        args.row_loss = run.out_doubles(rows);
        break;
    }
}

// Targets from -2 (not counted) to beyond the columns held here.
tv_status_t cross_entropy(Call &run, const Logits &s, Step step, bool is_smooth)
{
    tv_cross_entropy_args args = {};
    args.rows = s.rows;
    args.cols = s.cols;
    args.first = s.first;
    args.ld = s.cols + s.padding + s.gap;
    args.padded = s.cols + s.padding;
    args.targets = run.indices(s.rows, -2, (int32_t)(s.first + s.cols + 3));
    if (step == Step::forward)
        args.logits = run.in(s.rows, args.padded, args.ld, -6, 6).data();
    if (step == Step::backward || step == Step::all)
        args.logits = run.updated(s.rows, args.padded, args.ld, -6, 6).data();
    take_rows(run, s.rows, step, is_smooth, args);
    args.smoothing = is_smooth ? 0.11 : 0;
    args.smoothing_per_column = args.smoothing / (double)(s.cols + s.first + 7);
    const tv_kernels *k = run.kernels;
    return (step == Step::forward  ? k->cross_entropy_forward
            : step == Step::rebase ? k->cross_entropy_rebase
            : step == Step::loss   ? k->cross_entropy_loss
            : step == Step::all    ? k->cross_entropy
                                   : k->cross_entropy_backward)(run.stream, &args);
}

void add_embedding(std::vector<Case> &cases, const Part &p)
{
    const std::string shape =
        shape_name({p.rows, p.cols, p.num}) + "_from" + std::to_string(p.first);
    for (int accumulate : {0, 1})
        cases.push_back({"embedding_forward", shape + (accumulate ? "_accumulate" : ""), exact,
                         [=](Call &run) { return embedding_forward(run, p, accumulate); }});
    cases.push_back({"embedding_backward", shape, exact,
                     [=](Call &run) { return embedding_backward(run, p); }});
}

void add_cross_entropy(std::vector<Case> &cases, const Logits &s)
{
    const std::string shape = shape_name({s.rows, s.cols}) + "_from" + std::to_string(s.first);
    const std::pair<const char *, Step> steps[] = {{"cross_entropy_forward", Step::forward},
                                                   {"cross_entropy_rebase", Step::rebase},
                                                   {"cross_entropy_loss", Step::loss},
                                                   {"cross_entropy_backward", Step::backward},
                                                   {"cross_entropy", Step::all}};
    for (const auto &[name, step] : steps)
        for (bool is_smooth : {false, true})
            if (step != Step::all || s.cols > 0)
                cases.push_back(
                    {name, shape + (is_smooth ? "_smooth" : ""), rounding,
                     [=](Call &run) { return cross_entropy(run, s, step, is_smooth); }});
}

// What makes a row hard, among others that are not.
void make_hard(Tensor &logits, int64_t cols)
{
    const float nan = std::numeric_limits<float>::quiet_NaN(), hard[] = {nan, INFINITY, -INFINITY};
    for (int64_t k = 0; k < 3 && 2 * k + 1 < logits.rows; k++)
        logits.at(2 * k + 1, cols / 2) = hard[k];
    for (int64_t c = 0; c < cols && logits.rows > 6; c++)
        logits.at(6, c) = -INFINITY;
}
} // namespace

Case whole_cross_entropy(bool is_in_steps, bool is_smooth, const std::vector<int64_t> &sizes)
{
    const auto call = [=](Call &run) -> tv_status_t {
        const int64_t rows = sizes[0], cols = sizes[1], padded = cols + sizes[2];
        tv_cross_entropy_args args = {};
        args.rows = rows;
        args.cols = cols;
        args.padded = padded;
        args.ld = padded + sizes[3];
        args.targets = run.indices(rows, -2, (int32_t)cols);
        Tensor &logits = run.updated(rows, padded, args.ld, -6, 6);
        make_hard(logits, cols);
        args.logits = logits.data();
        take_rows(run, rows, Step::all, is_smooth, args);
        args.smoothing = is_smooth ? 0.11 : 0;
        args.smoothing_per_column = args.smoothing / (double)cols;
        if (!is_in_steps)
            return run.kernels->cross_entropy(run.stream, &args);
        TV_TRY(run.kernels->cross_entropy_forward(run.stream, &args));
        TV_TRY(run.kernels->cross_entropy_rebase(run.stream, &args));
        TV_TRY(run.kernels->cross_entropy_loss(run.stream, &args));
        return run.kernels->cross_entropy_backward(run.stream, &args);
    };
    return {"cross_entropy", shape_name(sizes), exact, call};
}

void add_loss_cases(std::vector<Case> &cases)
{
    const Part parts[] = {
        {1, 1, 0, 1}, {33, 7, 0, 31}, {65, 31, 5, 9}, {67, 257, 33, 20}, {1100, 12, 200, 700}};
    for (const Part &p : parts)
        add_embedding(cases, p);
    const Logits shapes[] = {{1, 1, 0, 0},       {31, 7, 0, 0},    {33, 65, 3, 0},
                             {65, 33, 1, 5},     {67, 257, 7, 33}, {5, 0, 4, 2},
                             {3, 6000, 8, 1000}, {7, 65, 0, 3, 7}, {4, 0, 3, 0, 5}};
    for (const Logits &s : shapes)
        add_cross_entropy(cases, s);
}

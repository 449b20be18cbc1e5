// cases_matmul.cc -- products of all four orientations, with and without bias and accumulation,
// rows apart, empty sides.
#include "kernels/harness.h"
#include <algorithm>

namespace
{
struct Product {
    int64_t m, n, k;
    int trans_a, trans_b, has_bias, accumulate;
    int64_t gap; // between the rows of each tensor
};

tv_status_t matmul(Call &run, const Product &p, bool is_to_f32)
{
    const int64_t a_rows = p.trans_a ? p.k : p.m, a_cols = p.trans_a ? p.m : p.k;
    const int64_t b_rows = p.trans_b ? p.n : p.k, b_cols = p.trans_b ? p.k : p.n;
    // BLAS wants strides of at least 1 for an empty side too
    auto ld = [&](int64_t cols) { return std::max<int64_t>(cols, 1) + p.gap; };
    tv_matmul_args args = {};
    args.m = p.m;
    args.n = p.n;
    args.k = p.k;
    args.a = run.in(a_rows, a_cols, ld(a_cols)).data();
    args.ld_a = ld(a_cols);
    args.trans_a = p.trans_a;
    args.b = run.in(b_rows, b_cols, ld(b_cols)).data();
    args.ld_b = ld(b_cols);
    args.trans_b = p.trans_b;
    args.bias = p.has_bias ? run.in(1, p.n, std::max<int64_t>(p.n, 1)).data() : Place{};
    args.accumulate = p.accumulate;
    Tensor &c = p.accumulate ? run.updated(p.m, p.n, ld(p.n)) : run.out(p.m, p.n, ld(p.n));
    args.ld_c = c.ld;
    if (is_to_f32) {
        args.c = c.floats();
        return run.kernels->matmul_to_f32(run.stream, &args);
    }
    args.c = c.data();
    return run.kernels->matmul(run.stream, &args);
}

void add(std::vector<Case> &cases, const Product &p)
{
    const std::string shape = shape_name({p.m, p.n, p.k}) + (p.trans_a ? "_t" : "_n") +
                              (p.trans_b ? "t" : "n") + (p.has_bias ? "_bias" : "") +
                              (p.accumulate ? "_accumulate" : "") + (p.gap ? "_apart" : "");
    cases.push_back({"matmul", shape, sums, [p](Call &run) { return matmul(run, p, false); }});
    cases.push_back(
        {"matmul_to_f32", shape, sums, [p](Call &run) { return matmul(run, p, true); }});
}
} // namespace

void add_matmul_cases(std::vector<Case> &cases)
{
    // one element; a row; a column; odd; cut over threads by columns, by rows, and by a long k
    const int64_t sizes[][3] = {{1, 1, 1},     {1, 257, 65},  {257, 1, 31},  {31, 33, 65},
                                {33, 257, 65}, {257, 33, 65}, {10, 10, 4097}};
    for (const auto &s : sizes)
        for (int trans = 0; trans < 4; trans++)
            for (int form = 0; form < 4; form++)
                add(cases,
                    {s[0], s[1], s[2], trans & 1, trans >> 1, form & 1, form >> 1, form * 3});
    for (int form = 0; form < 4; form++) {
        add(cases, {5, 7, 0, 0, 0, form & 1, form >> 1, 2});
        add(cases, {0, 7, 5, 0, 1, form & 1, form >> 1, 2});
        add(cases, {5, 0, 7, 1, 0, form & 1, form >> 1, 2});
    }
}

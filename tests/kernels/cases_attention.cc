// cases_attention.cc -- sequences around the length of a tile, heads of odd and large width, and
// every sharing of key heads; heads of 64 and 128 columns in sequences around the tiles of the tensor cores. Rows are
// apart by different gaps, as parts of a fused matrix are.
#include "kernels/harness.h"

namespace
{
struct Shape {
    int batch, seq_length, num_heads, num_kv_heads, head_dim;
    bool has_dropout;
    int document_length; // 0: no first_keys
    int gaps = 1;   // unit of the gaps between rows: at 8 all rows may lie at multiples of 16 bytes
    float most = 2; // of queries: scores have a standard deviation of about 0.65 times as much
    int64_t rows() const
    {
        return (int64_t)batch * seq_length;
    }
    int64_t q_cols() const
    {
        return (int64_t)num_heads * head_dim;
    }
    int64_t kv_cols() const
    {
        return (int64_t)num_kv_heads * head_dim;
    }
    int64_t num_lse() const
    {
        return (int64_t)batch * num_heads * seq_length;
    }
};

const char *steepness_of(const Shape &s)
{
    if (s.most > 20)
        return "_cliffs";
    return s.most > 2 ? "_steep" : "";
}

tv_dropout dropout_of(const Shape &s)
{
    return s.has_dropout ? tv_dropout{77, 858993459u, 1.25f, 1000, 12} : tv_dropout{}; // p = 0.2
}

// Documents of equal length; the first of each sequence is cut, elsewhere in each.
const int32_t *first_keys_of(Call &run, const Shape &s)
{
    if (s.document_length == 0)
        return nullptr;
    run.ids.emplace_back((size_t)s.rows());
    for (int b = 0; b < s.batch; b++) {
        int32_t start = 0;
        for (int i = 0; i < s.seq_length; i++) {
            if ((i + 3 * b + 1) % s.document_length == 0)
                start = i;
            run.ids.back()[(size_t)(b * s.seq_length + i)] = start;
        }
    }
    return run.ids.back().data();
}

tv_attention_args forward_args(Call &run, const Shape &s)
{
    tv_attention_args args = {};
    args.batch = s.batch;
    args.seq_length = s.seq_length;
    args.num_heads = s.num_heads;
    args.num_kv_heads = s.num_kv_heads;
    args.head_dim = s.head_dim;
    args.ld_q = s.q_cols() + 3 * s.gaps;
    args.ld_k = s.kv_cols() + 5 * s.gaps;
    args.ld_v = s.kv_cols() + 1 * s.gaps;
    args.ld_o = s.q_cols() + 2 * s.gaps;
    args.q = run.in(s.rows(), s.q_cols(), args.ld_q, -s.most, s.most).data();
    args.k = run.in(s.rows(), s.kv_cols(), args.ld_k, -2, 2).data();
    args.v = run.in(s.rows(), s.kv_cols(), args.ld_v).data();
    args.o = run.out(s.rows(), s.q_cols(), args.ld_o).data();
    args.lse = run.out(1, s.num_lse(), s.num_lse()).data();
    args.dropout = dropout_of(s);
    args.first_keys = first_keys_of(run, s);
    return args;
}

tv_status_t forward(Call &run, const Shape &s)
{
    const tv_attention_args args = forward_args(run, s);
    return run.kernels->attention_forward(run.stream, &args);
}

// o and lse come from the reference, so that both tables start from the same.
tv_status_t backward(Call &run, const Shape &s)
{
    const tv_attention_args f = forward_args(run, s);
    const tv_status_t status =
        tv_kernels_ref(run.kernels->dtype)->attention_forward(run.stream, &f);
    if (status != TV_OK)
        return status;
    if (run.rounds_stored)
        run.tensors[3].round(); // o, which a table of bf16 would have stored
    tv_attention_backward_args args = {};
    args.batch = s.batch;
    args.seq_length = s.seq_length;
    args.num_heads = s.num_heads;
    args.num_kv_heads = s.num_kv_heads;
    args.head_dim = s.head_dim;
    args.q = f.q;
    args.k = f.k;
    args.v = f.v;
    args.ld_q = f.ld_q;
    args.ld_k = f.ld_k;
    args.ld_v = f.ld_v;
    args.o = f.o;
    args.ld_o = f.ld_o;
    args.lse = f.lse;
    args.ld_do = s.q_cols() + 7 * s.gaps;
    args.d_o = run.in(s.rows(), s.q_cols(), args.ld_do).data();
    args.ld_dq = s.q_cols() + 4 * s.gaps;
    args.ld_dk = s.kv_cols() + 6 * s.gaps;
    args.ld_dv = s.kv_cols() + 9 * s.gaps;
    args.dq = run.out(s.rows(), s.q_cols(), args.ld_dq).data();
    args.dk = run.out(s.rows(), s.kv_cols(), args.ld_dk).data();
    args.dv = run.out(s.rows(), s.kv_cols(), args.ld_dv).data();
    args.dropout = dropout_of(s);
    args.first_keys = f.first_keys;
    args.work = run.room(tv_attention_work_count(run.kernels->dtype, s.rows(), s.q_cols()));
    return run.kernels->attention_backward(run.stream, &args);
}

const Shape shapes[] = {
    {1, 1, 1, 1, 8, false, 0},
    {3, 1, 4, 2, 10, false, 0},
    {1, 63, 4, 1, 10, false, 0},
    {1, 64, 4, 2, 8, false, 0},
    {2, 65, 4, 4, 8, false, 0},
    {2, 65, 4, 1, 10, false, 0},
    {1, 130, 4, 2, 8, false, 0},
    {1, 130, 4, 4, 10, false, 0},
    {1, 65, 1, 1, 64, false, 0},
    {1, 33, 2, 1, 80, false, 0},
    {1, 5, 2, 1, 256, false, 0},
    {1, 3, 2, 1, 260, false, 0},
    {1, 5, 4, 2, 8, true, 0},
    {2, 65, 4, 1, 10, true, 0},
    {1, 130, 4, 4, 8, true, 0},
    {1, 3, 2, 1, 260, true, 0},
    {1, 5, 4, 2, 8, false, 2},
    {2, 65, 4, 1, 10, false, 7},
    {2, 200, 4, 2, 8, false, 70},
    {1, 200, 2, 2, 8, false, 1},
    {1, 130, 2, 1, 8, true, 50},
    {1, 3, 2, 1, 260, false, 2},
    {1, 129, 1, 1, 64, false, 0, 8},
    {2, 70, 2, 1, 64, true, 0, 8},
    {1, 200, 2, 1, 64, true, 70, 8},
    {1, 131, 1, 1, 64, false, 50},
    {1, 150, 1, 1, 128, false, 0, 8},
    {1, 66, 4, 2, 128, true, 0, 8},
    {1, 140, 2, 1, 128, true, 60, 8},
    {1, 70, 1, 1, 128, true, 30},
    // tiles of 64 queries a warpgroup and of 128 keys, taken by a block one after another
    {3, 5, 2, 1, 64, false, 0, 8},
    {1, 290, 2, 1, 64, false, 0, 8},
    {1, 290, 1, 1, 128, false, 0, 8},
    {1, 270, 2, 1, 64, false, 90, 8},
    {2, 140, 1, 1, 128, false, 60, 8},
    {1, 290, 1, 1, 64, false, 0, 8, 12}, // maxima rise far, block by block
    {1, 290, 1, 1, 128, false, 0, 8, 12},
    // scores so far over an earlier block's maximum that their powers of 2 are beyond a float
    {1, 290, 1, 1, 64, false, 0, 8, 100},
    {1, 270, 2, 1, 128, false, 150, 8, 100},
#ifdef TV_TESTS_GPU // too long elsewhere; in the end, more tiles than multiprocessors
    {1, 517, 4, 2, 64, false, 0, 8},
    {1, 390, 2, 1, 128, false, 0, 8},
    {1, 450, 2, 1, 128, false, 100, 8},
    {34, 129, 2, 1, 64, false, 0, 8},
    {34, 129, 2, 1, 128, false, 0, 8},
#endif
    // more threads than key heads, in heads that fill whole steps; tiles of 64 keys
    {1, 130, 1, 1, 16, false, 0},
    {1, 66, 1, 1, 132, true, 20}};
} // namespace

void add_attention_cases(std::vector<Case> &cases)
{
    for (const Shape &s : shapes) {
        const std::string shape =
            shape_name({s.batch, s.seq_length, s.num_heads, s.num_kv_heads, s.head_dim}) +
            (s.has_dropout ? "_dropout" : "") +
            (s.document_length > 0 ? "_documents" + std::to_string(s.document_length) : "") +
            (s.gaps == 8 ? "_even" : "") + steepness_of(s);
        // scores, and with them the roundings that lse and weights take over, grow with the queries
        const double limit = s.most > 12 ? s.most / 12 * sums : sums;
        cases.push_back(
            {"attention_forward", shape, limit, [=](Call &run) { return forward(run, s); }});
        if (s.most > 2)
            continue;
        // Weights and gradients of scores, each good to 2^-9, are multiplied as bf16. The worst of half a million
        // errors lies further out (0.0204, the same with every kernel) than that of some thousand; the limit of their
        // norm is the same.
        const bool is_rounded = s.head_dim == 64 || s.head_dim == 128;
        const bool has_many = s.batch * s.seq_length * s.num_heads * s.head_dim > 1 << 19;
        cases.push_back({"attention_backward", shape, sums,
                         [=](Call &run) { return backward(run, s); },
                         has_many     ? 0x1p-5
                         : is_rounded ? 0x1p-6
                                      : 0x1p-7});
    }
}

/* train/bench_kernel_cases.c -- arguments of every kernel at the sizes of a model: one function per kernel. */
#include "train/bench_kernels.h"
#include "train/bench_room.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- matrix products ---- */

struct product {
    const char *name;
    int64_t in, out;
    int is_out_in; /* the weight is stored [out, in] */
    int64_t rows;
};
enum { MOST_PRODUCTS = 6, FORMS = 3 };
static const char *const forms[FORMS] = {"y", "dx", "dw"};

static int list_products(const struct tv_kernel_sizes *s, struct product products[MOST_PRODUCTS])
{
    const int64_t R = s->rows, C = s->hidden, q = (int64_t)s->num_heads * s->head_dim;
    const int64_t kv = (int64_t)s->num_kv_heads * s->head_dim;
    const int is_llama = s->family == TV_LLAMA;
    int num = 0;
    if (is_llama) {
        products[num++] = (struct product){"query", C, q, 1, R};
        products[num++] = (struct product){"key", C, kv, 1, R};
        products[num++] = (struct product){"out", q, C, 1, R};
        products[num++] = (struct product){"gate", C, s->ffn, 1, R};
    } else {
        products[num++] = (struct product){"qkv", C, q + 2 * kv, 0, R};
        products[num++] = (struct product){"out", q, C, 0, R};
        products[num++] = (struct product){"up", C, s->ffn, 0, R};
    }
    products[num++] = (struct product){"down", s->ffn, C, is_llama, R};
    products[num++] = (struct product){"head", C, s->vocab, 1, s->head_rows};
    return num;
}

/* y = x W; dx = dy W^T; dW += x^T dy, or of the transpose: as tensor/linear.c has them. */
static void fill_product(struct tv_room *room, const struct product *p, int form,
                         struct tv_matmul_args *a)
{
    void *x = tv_take(room, p->rows * p->in), *y = tv_take(room, p->rows * p->out);
    void *weight = form < 2 ? tv_take(room, p->in * p->out) : tv_take_floats(room, p->in * p->out);
    const int64_t ld_weight = p->is_out_in ? p->in : p->out;
    if (form < 2) {
        const int is_forward = form == 0;
        *a = (struct tv_matmul_args){.m = p->rows,
                                     .n = is_forward ? p->out : p->in,
                                     .k = is_forward ? p->in : p->out,
                                     .a = is_forward ? x : y,
                                     .ld_a = is_forward ? p->in : p->out,
                                     .b = weight,
                                     .ld_b = ld_weight,
                                     .trans_b = is_forward == p->is_out_in,
                                     .c = is_forward ? y : x,
                                     .ld_c = is_forward ? p->out : p->in};
        return;
    }
    *a = (struct tv_matmul_args){.m = p->is_out_in ? p->out : p->in,
                                 .n = p->is_out_in ? p->in : p->out,
                                 .k = p->rows,
                                 .a = p->is_out_in ? y : x,
                                 .ld_a = p->is_out_in ? p->out : p->in,
                                 .trans_a = 1,
                                 .b = p->is_out_in ? x : y,
                                 .ld_b = ld_weight,
                                 .accumulate = 1,
                                 .c = weight,
                                 .ld_c = ld_weight};
}

/* ---- rows ---- */

static void fill_bias_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                               struct tv_kernel_case *one)
{
    one->args.bias_backward = (struct tv_bias_backward_args){.rows = s->rows,
                                                             .cols = s->ffn,
                                                             .ld_dy = s->ffn,
                                                             .dy = tv_take(room, s->rows * s->ffn),
                                                             .accumulate = 1,
                                                             .dbias = tv_take_floats(room, s->ffn)};
}

static void fill_add(struct tv_room *room, const struct tv_kernel_sizes *s,
                     struct tv_kernel_case *one)
{
    const int64_t count = s->rows * s->hidden;
    one->args.add = (struct tv_add_args){count, tv_take(room, count), tv_take(room, count),
                                         tv_take(room, count)};
}

/* Norms are those of a layer's second branch: of a sum with the first one's result, whose place it takes, and back
 * into a gradient that is there. */
static void fill_norm(struct tv_room *room, const struct tv_kernel_sizes *s, struct tv_norm_args *a)
{
    const int64_t C = s->hidden;
    void *sum = tv_take(room, s->rows * C);
    *a = (struct tv_norm_args){.rows = s->rows,
                               .cols = C,
                               .eps = 1e-5,
                               .x = tv_take(room, s->rows * C),
                               .weight = tv_take(room, C),
                               .y = tv_take(room, s->rows * C),
                               .rstd = tv_take_floats(room, s->rows),
                               .added = sum,
                               .sum = sum};
}

static void fill_layernorm_forward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                   struct tv_kernel_case *one)
{
    fill_norm(room, s, &one->args.layernorm_forward);
    one->args.layernorm_forward.bias = tv_take(room, s->hidden);
    one->args.layernorm_forward.mean = tv_take_floats(room, s->rows);
}

static void fill_rmsnorm_forward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                 struct tv_kernel_case *one)
{
    fill_norm(room, s, &one->args.rmsnorm_forward);
}

static void fill_norm_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                               struct tv_norm_backward_args *a)
{
    const int64_t C = s->hidden;
    *a = (struct tv_norm_backward_args){.rows = s->rows,
                                        .cols = C,
                                        .dy = tv_take(room, s->rows * C),
                                        .x = tv_take(room, s->rows * C),
                                        .weight = tv_take(room, C),
                                        .rstd = tv_take_constant(room, s->rows, 1),
                                        .add_dx = 1,
                                        .dx = tv_take(room, s->rows * C),
                                        .accumulate = 1,
                                        .dweight = tv_take_floats(room, C)};
}

static void fill_layernorm_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                    struct tv_kernel_case *one)
{
    fill_norm_backward(room, s, &one->args.layernorm_backward);
    one->args.layernorm_backward.mean = tv_take_floats(room, s->rows);
    one->args.layernorm_backward.dbias = tv_take_floats(room, s->hidden);
}

static void fill_rmsnorm_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                  struct tv_kernel_case *one)
{
    fill_norm_backward(room, s, &one->args.rmsnorm_backward);
}

static void fill_rotary(struct tv_room *room, const struct tv_kernel_sizes *s,
                        struct tv_kernel_case *one)
{
    const int even = (s->head_dim + 1) / 2 * 2; /* half-split: GPT-2's heads may be odd */
    one->args.rotary = (struct tv_rotary_args){.rows = s->rows,
                                               .ld_x = (int64_t)s->num_heads * even,
                                               .seq_length = s->seq_length,
                                               .num_heads = s->num_heads,
                                               .head_dim = even,
                                               .theta = 10000,
                                               .x = tv_take(room, s->rows * s->num_heads * even)};
}

static void fill_dropout(struct tv_room *room, const struct tv_kernel_sizes *s,
                         struct tv_kernel_case *one)
{
    const int64_t count = s->rows * s->hidden;
    one->args.dropout = (struct tv_dropout_args){
        .rows = s->rows,
        .cols = s->hidden,
        .dropout = {.key = 1, .threshold = UINT32_MAX / 10, .scale = 1 / 0.9f},
        .x = tv_take(room, count),
        .y = tv_take(room, count)};
}

/* Columns and strides of attention's tensors on one rank, as in a layer. */
struct attention_sizes {
    int64_t q, kv;
    int64_t ld_o, ld_qkv;
};
static struct attention_sizes attention_sizes_of(const struct tv_kernel_sizes *s)
{
    struct attention_sizes of = {.q = (int64_t)s->num_heads * s->head_dim,
                                 .kv = (int64_t)s->num_kv_heads * s->head_dim};
    of.ld_o = tv_attention_row_stride(s->dtype, s->device, of.q);
    of.ld_qkv = tv_attention_row_stride(s->dtype, s->device, of.q + 2 * of.kv);
    return of;
}

static void fill_attention_forward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                   struct tv_kernel_case *one)
{
    const struct attention_sizes of = attention_sizes_of(s);
    void *qkv = tv_take(room, s->rows * of.ld_qkv);
    one->args.attention_forward =
        (struct tv_attention_args){.batch = s->batch,
                                   .seq_length = s->seq_length,
                                   .num_heads = s->num_heads,
                                   .num_kv_heads = s->num_kv_heads,
                                   .head_dim = s->head_dim,
                                   .q = qkv,
                                   .k = tv_room_part(room, qkv, of.q),
                                   .v = tv_room_part(room, qkv, of.q + of.kv),
                                   .ld_q = of.ld_qkv,
                                   .ld_k = of.ld_qkv,
                                   .ld_v = of.ld_qkv,
                                   .o = tv_take(room, s->rows * of.ld_o),
                                   .ld_o = of.ld_o,
                                   .lse = tv_take_floats(room, s->rows * s->num_heads)};
}

static void fill_attention_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                    struct tv_kernel_case *one)
{
    const struct attention_sizes of = attention_sizes_of(s);
    void *qkv = tv_take(room, s->rows * of.ld_qkv), *d_qkv = tv_take(room, s->rows * of.ld_qkv);
    one->args.attention_backward = (struct tv_attention_backward_args){
        .batch = s->batch,
        .seq_length = s->seq_length,
        .num_heads = s->num_heads,
        .num_kv_heads = s->num_kv_heads,
        .head_dim = s->head_dim,
        .q = qkv,
        .k = tv_room_part(room, qkv, of.q),
        .v = tv_room_part(room, qkv, of.q + of.kv),
        .ld_q = of.ld_qkv,
        .ld_k = of.ld_qkv,
        .ld_v = of.ld_qkv,
        .o = tv_take(room, s->rows * of.ld_o),
        .d_o = tv_take(room, s->rows * of.ld_o),
        .ld_o = of.ld_o,
        .ld_do = of.ld_o,
        .lse = tv_take_constant(room, s->rows * s->num_heads, logf((float)s->seq_length) + 1),
        .dq = d_qkv,
        .dk = tv_room_part(room, d_qkv, of.q),
        .dv = tv_room_part(room, d_qkv, of.q + of.kv),
        .ld_dq = of.ld_qkv,
        .ld_dk = of.ld_qkv,
        .ld_dv = of.ld_qkv,
        .work = tv_take_floats(room, tv_attention_work_count(s->dtype, s->rows, of.q))};
}

static void fill_gelu_forward(struct tv_room *room, const struct tv_kernel_sizes *s,
                              struct tv_kernel_case *one)
{
    const int64_t count = s->rows * s->ffn;
    one->args.gelu_forward =
        (struct tv_gelu_args){count, tv_take(room, count), tv_take(room, count)};
}

static void fill_gelu_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                               struct tv_kernel_case *one)
{
    const int64_t count = s->rows * s->ffn;
    one->args.gelu_backward = (struct tv_gelu_backward_args){.count = count,
                                                             .x = tv_take(room, count),
                                                             .dy = tv_take(room, count),
                                                             .dx = tv_take(room, count)};
}

static void fill_swiglu_forward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                struct tv_kernel_case *one)
{
    const int64_t F = s->ffn;
    void *both = tv_take(room, 2 * s->rows * F);
    one->args.swiglu_forward = (struct tv_swiglu_args){.rows = s->rows,
                                                       .cols = F,
                                                       .ld_gate = 2 * F,
                                                       .ld_up = 2 * F,
                                                       .ld_y = F,
                                                       .gate = both,
                                                       .up = tv_room_part(room, both, F),
                                                       .y = tv_take(room, s->rows * F)};
}

static void fill_swiglu_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                 struct tv_kernel_case *one)
{
    const int64_t F = s->ffn;
    void *both = tv_take(room, 2 * s->rows * F), *d_both = tv_take(room, 2 * s->rows * F);
    one->args.swiglu_backward =
        (struct tv_swiglu_backward_args){.rows = s->rows,
                                         .cols = F,
                                         .ld_gate = 2 * F,
                                         .ld_up = 2 * F,
                                         .ld_dy = F,
                                         .ld_dgate = 2 * F,
                                         .ld_dup = 2 * F,
                                         .gate = both,
                                         .up = tv_room_part(room, both, F),
                                         .dy = tv_take(room, s->rows * F),
                                         .d_gate = d_both,
                                         .d_up = tv_room_part(room, d_both, F)};
}

/* ---- vocabulary ---- */

static void fill_embedding_forward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                   struct tv_kernel_case *one)
{
    one->args.embedding_forward =
        (struct tv_embedding_args){.rows = s->rows,
                                   .cols = s->hidden,
                                   .num = s->vocab,
                                   .ids = tv_take_ids(room, s->rows, s->vocab),
                                   .table = tv_take(room, s->vocab * s->hidden),
                                   .y = tv_take(room, s->rows * s->hidden)};
}

static void fill_embedding_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                    struct tv_kernel_case *one)
{
    one->args.embedding_backward =
        (struct tv_embedding_backward_args){.rows = s->rows,
                                            .cols = s->hidden,
                                            .num = s->vocab,
                                            .ids = tv_take_ids(room, s->rows, s->vocab),
                                            .dy = tv_take(room, s->rows * s->hidden),
                                            .dtable = tv_take_floats(room, s->vocab * s->hidden)};
}

/* All of them read or write these; lse is high enough for logits that backward replaces again and again to stay
 * small. */
static void fill_loss(struct tv_room *room, const struct tv_kernel_sizes *s,
                      struct tv_cross_entropy_args *a)
{
    *a = (struct tv_cross_entropy_args){
        .rows = s->head_rows,
        .cols = s->vocab,
        .ld = s->vocab,
        .padded = s->vocab,
        .logits = tv_take(room, s->head_rows * s->vocab),
        .targets = tv_take_ids(room, s->head_rows, s->vocab),
        .row_max = tv_take_constant(room, s->head_rows, 1),
        .row_base = tv_take_constant(room, s->head_rows, 1),
        .row_sum = tv_take_constant(room, s->head_rows, 1),
        .row_target = tv_take_floats(room, s->head_rows),
        .row_lse = tv_take_constant(room, s->head_rows, logf((float)s->vocab) + 2),
        .row_loss = (double *)(void *)tv_take_floats(room, 2 * s->head_rows)};
}

static void fill_cross_entropy_forward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                       struct tv_kernel_case *one)
{
    fill_loss(room, s, &one->args.cross_entropy_forward);
}

static void fill_cross_entropy_rebase(struct tv_room *room, const struct tv_kernel_sizes *s,
                                      struct tv_kernel_case *one)
{
    fill_loss(room, s, &one->args.cross_entropy_rebase);
}

static void fill_cross_entropy_loss(struct tv_room *room, const struct tv_kernel_sizes *s,
                                    struct tv_kernel_case *one)
{
    fill_loss(room, s, &one->args.cross_entropy_loss);
}

static void fill_cross_entropy_backward(struct tv_room *room, const struct tv_kernel_sizes *s,
                                        struct tv_kernel_case *one)
{
    fill_loss(room, s, &one->args.cross_entropy_backward);
}

static void fill_cross_entropy(struct tv_room *room, const struct tv_kernel_sizes *s,
                               struct tv_kernel_case *one)
{
    fill_loss(room, s, &one->args.cross_entropy);
}

/* ---- the optimizer, on a matrix of a layer ---- */

static void fill_adamw(struct tv_room *room, const struct tv_kernel_sizes *s,
                       struct tv_kernel_case *one)
{
    const int64_t count = (int64_t)s->hidden * s->ffn;
    one->weight = (struct tv_adamw_weight){
        .count = count,
        .param = tv_take_floats(room, count),
        .m = tv_take_floats(room, count),
        .v = tv_take_constant(room, count, 1e-3f),
        .grad = tv_take_floats(room, count),
        .lr = 1e-4,
        .weight_decay = 0.1,
        .rounded = s->dtype == TV_BF16 ? tv_take_of(room, count, TV_BF16) : NULL};
    one->args.adamw = (struct tv_adamw_args){.num = 1,
                                             .of = &one->weight,
                                             .beta1 = 0.9,
                                             .beta2 = 0.95,
                                             .eps = 1e-8,
                                             .grad_scale = 1,
                                             .step = 1};
}

static void fill_lion(struct tv_room *room, const struct tv_kernel_sizes *s,
                      struct tv_kernel_case *one)
{
    const int64_t count = (int64_t)s->hidden * s->ffn;
    one->args.lion = (struct tv_lion_args){.count = count,
                                           .param = tv_take_floats(room, count),
                                           .m = tv_take_floats(room, count),
                                           .grad = tv_take_floats(room, count),
                                           .lr = 1e-4,
                                           .beta1 = 0.9,
                                           .beta2 = 0.99,
                                           .weight_decay = 0.1,
                                           .grad_scale = 1};
}

static void fill_axpby(struct tv_room *room, const struct tv_kernel_sizes *s,
                       struct tv_kernel_case *one)
{
    const int64_t count = (int64_t)s->hidden * s->ffn;
    one->args.axpby = (struct tv_axpby_args){.rows = s->hidden,
                                             .cols = s->ffn,
                                             .ld_x = s->ffn,
                                             .ld_y = s->ffn,
                                             .alpha = 0.05,
                                             .beta = 0.95,
                                             .x = tv_take_floats(room, count),
                                             .y = tv_take_floats(room, count)};
}

static void fill_square_sum(struct tv_room *room, const struct tv_kernel_sizes *s,
                            struct tv_kernel_case *one)
{
    const int64_t count = (int64_t)s->hidden * s->ffn;
    one->squared = (struct tv_square_sum_array){count, tv_take_floats(room, count)};
    one->args.square_sum = (struct tv_square_sum_args){1, &one->squared, &one->sum};
}

static void fill_to_bf16(struct tv_room *room, const struct tv_kernel_sizes *s,
                         struct tv_kernel_case *one)
{
    const int64_t count = (int64_t)s->hidden * s->ffn;
    one->args.to_bf16 = (struct tv_to_bf16_args){count, tv_take_floats(room, count),
                                                 tv_take_of(room, count, TV_BF16)};
}

static void fill_from_bf16(struct tv_room *room, const struct tv_kernel_sizes *s,
                           struct tv_kernel_case *one)
{
    const int64_t count = (int64_t)s->hidden * s->ffn;
    one->args.from_bf16 = (struct tv_from_bf16_args){count, tv_take_of(room, count, TV_BF16),
                                                     tv_take_floats(room, count)};
}

/* ---- the list ---- */

#define fill_matmul        NULL /* products have cases of their own */
#define fill_matmul_to_f32 NULL

#define FILL(op, type) [TV_KERNEL_##op] = fill_##op,
static void (*const fills[TV_NUM_KERNELS])(struct tv_room *room, const struct tv_kernel_sizes *s,
                                           struct tv_kernel_case *one) = {TV_KERNEL_LIST(FILL)};

enum { OF_PRODUCTS = 2 }; /* the first kernels */
_Static_assert(TV_KERNEL_matmul == 0 && TV_KERNEL_matmul_to_f32 == 1, "the products come first");

int tv_kernel_num_cases(const struct tv_kernel_sizes *sizes)
{
    struct product products[MOST_PRODUCTS];
    return list_products(sizes, products) * FORMS + TV_NUM_KERNELS - OF_PRODUCTS;
}

tv_status_t tv_kernel_case_fill(const struct tv_kernel_sizes *sizes, int index,
                                struct tv_stream *stream, void *memory,
                                struct tv_kernel_case *case_out, int64_t *num_bytes_out)
{
    struct product products[MOST_PRODUCTS];
    struct tv_room room = {.stream = stream, .dtype = sizes->dtype, .base = memory};
    struct tv_kernel_case *one = case_out;
    memset(one, 0, sizeof(*one));
    const int num_products = FORMS * list_products(sizes, products);
    if (index < num_products) {
        const struct product *product = &products[index / FORMS];
        one->kernel = index % FORMS < 2 ? TV_KERNEL_matmul : TV_KERNEL_matmul_to_f32;
        fill_product(&room, product, index % FORMS, &one->args.matmul);
        snprintf(one->name, sizeof(one->name), "matmul, %s, %s", product->name,
                 forms[index % FORMS]);
    } else {
        one->kernel = (tv_kernel_t)(index - num_products + OF_PRODUCTS);
        fills[one->kernel](&room, sizes, one);
        snprintf(one->name, sizeof(one->name), "%s", tv_kernel_name(one->kernel));
    }
    TV_TRY(room.status);
    *num_bytes_out = room.used;
    return TV_OK;
}

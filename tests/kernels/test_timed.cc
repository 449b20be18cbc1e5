// The table that counts around another one, and what a call has to do at least.
#include "kernels/harness.h"
#include "kernels/timed.h"
#include <cstring>
#include <set>
#include <thread>

namespace
{
void expect_work(tv_kernel_work got, double flops, double floats, double ids = 0)
{
    EXPECT_EQ(got.flops, flops);
    EXPECT_EQ(got.bytes, 4 * (floats + ids));
}
} // namespace

TEST(Timed, EveryEntryGivesTheSameBitsAndIsCounted)
{
    Device device(1);
    std::set<std::string> called;
    for (const Case &c : all_cases()) {
        SCOPED_TRACE(c.op + " " + c.shape);
        tv_kernel_times times = {};
        const tv_kernels *timed = tv_kernels_timed(tv_kernels_cpu(TV_F32), &times);
        Call got = run_case(c, timed, device.stream);
        Call want = run_case(c, tv_kernels_cpu(TV_F32), device.stream);
        expect_same_bits(got, want);
        for (int k = 0; k < TV_NUM_KERNELS; k++) {
            const tv_kernel_count &count = times.of[k];
            if (count.calls == 0) {
                EXPECT_EQ(count.seconds, 0);
                EXPECT_EQ(count.work.bytes, 0);
                continue;
            }
            EXPECT_GT(count.seconds, 0);
            called.insert(tv_kernel_name((tv_kernel_t)k));
        }
    }
    EXPECT_EQ(called.size(), (size_t)TV_NUM_KERNELS);
}

TEST(Timed, ACallAddsItsWorkToItsOwnKernel)
{
    Device device(1);
    tv_kernel_times times = {};
    const tv_kernels *timed = tv_kernels_timed(tv_kernels_cpu(TV_F32), &times);
    float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 1, 1, 1, 1, 1}, c[4];
    const tv_matmul_args args = {2, 2, 3, a, 3, 0, b, 2, 0, nullptr, 0, c, 2};
    ASSERT_EQ(timed->matmul(device.stream, &args), TV_OK);
    ASSERT_EQ(timed->matmul(device.stream, &args), TV_OK);
    EXPECT_EQ(times.of[TV_KERNEL_matmul].calls, 2);
    EXPECT_EQ(times.of[TV_KERNEL_matmul].work.flops, 2 * 24);
    EXPECT_EQ(times.of[TV_KERNEL_matmul].work.bytes, 2 * 4 * (6 + 6 + 4));
    EXPECT_EQ(times.of[TV_KERNEL_add].calls, 0);
    EXPECT_STREQ(timed->name, "timed");
    times.is_off = 1;
    c[0] = 0;
    ASSERT_EQ(timed->matmul(device.stream, &args), TV_OK);
    EXPECT_EQ(c[0], 6);
    EXPECT_EQ(times.of[TV_KERNEL_matmul].calls, 2);
    times.is_off = 0;

    // Another thread counts nothing here, and cannot call what it has not set up.
    tv_status_t status = TV_OK;
    std::thread([&] { status = timed->matmul(device.stream, &args); }).join();
    EXPECT_EQ(status, TV_INTERNAL);
    EXPECT_EQ(times.of[TV_KERNEL_matmul].calls, 2);
}

// A run with bf16 weights calls both tables: each does its own work, all of it is counted in one place.
TEST(Timed, TablesOfTwoDtypesDoNotReplaceEachOther)
{
    Device device(1);
    tv_kernel_times times = {};
    const tv_kernels *f32 = tv_kernels_timed(tv_kernels_cpu(TV_F32), &times);
    const tv_kernels *bf16 = tv_kernels_timed(tv_kernels_cpu(TV_BF16), &times);
    EXPECT_EQ(f32->dtype, TV_F32);
    EXPECT_EQ(bf16->dtype, TV_BF16);
    float a[2] = {1, 2}, b[2] = {3, 4}, y[2];
    uint16_t low_a[2] = {tv_bf16_from_f32(1), tv_bf16_from_f32(2)}, low_y[2];
    const tv_add_args floats = {2, a, b, y}, halves = {2, low_a, low_a, low_y};
    ASSERT_EQ(f32->add(device.stream, &floats), TV_OK);
    ASSERT_EQ(bf16->add(device.stream, &halves), TV_OK);
    EXPECT_EQ(y[0], 4);
    EXPECT_EQ(y[1], 6);
    EXPECT_EQ(tv_bf16_to_f32(low_y[0]), 2);
    EXPECT_EQ(tv_bf16_to_f32(low_y[1]), 4);
    EXPECT_EQ(times.of[TV_KERNEL_add].calls, 2);
    EXPECT_EQ(times.of[TV_KERNEL_add].work.bytes, 3 * 2 * (4 + 2));
}

// Sizes 2, 3, 5, 7, so that no wrong product gives the same number.
TEST(Work, OfMatrixProductsAndAttention)
{
    float some = 0;
    tv_matmul_args product = {};
    product.m = 2, product.n = 3, product.k = 5;
    expect_work(tv_kernel_work_of(TV_KERNEL_matmul, &product, TV_F32), 60, 10 + 15 + 6);
    product.accumulate = 1;
    product.bias = &some;
    expect_work(tv_kernel_work_of(TV_KERNEL_matmul, &product, TV_F32), 60, 10 + 15 + 12 + 3);

    // 2 sequences of 3, 4 heads on 2 kv heads, of 5: 6 pairs, 10 FLOPs each, for each head
    tv_attention_args forward = {};
    forward.batch = 2, forward.seq_length = 3, forward.num_heads = 4, forward.num_kv_heads = 2;
    forward.head_dim = 5;
    expect_work(tv_kernel_work_of(TV_KERNEL_attention_forward, &forward, TV_F32),
                2 * (2 * 4 * 6 * 10), 6 * (2 * 20 + 2 * 10 + 4));
    tv_attention_backward_args backward = {};
    backward.batch = 2, backward.seq_length = 3, backward.num_heads = 4, backward.num_kv_heads = 2;
    backward.head_dim = 5;
    expect_work(tv_kernel_work_of(TV_KERNEL_attention_backward, &backward, TV_F32),
                5 * (2 * 4 * 6 * 10), 6 * (4 * 20 + 4 * 10 + 4));
}

TEST(Work, OfRowsAndColumns)
{
    float some = 0;
    tv_bias_backward_args bias = {};
    bias.rows = 2, bias.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_bias_backward, &bias, TV_F32), 0, 6 + 3);
    bias.accumulate = 1;
    expect_work(tv_kernel_work_of(TV_KERNEL_bias_backward, &bias, TV_F32), 0, 6 + 6);
    tv_norm_args norm = {};
    norm.rows = 2, norm.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_layernorm_forward, &norm, TV_F32), 0, 12 + 6 + 4);
    expect_work(tv_kernel_work_of(TV_KERNEL_rmsnorm_forward, &norm, TV_F32), 0, 12 + 3 + 2);
    norm.added = &some; // and the sum
    expect_work(tv_kernel_work_of(TV_KERNEL_layernorm_forward, &norm, TV_F32), 0, 24 + 6 + 4);
    expect_work(tv_kernel_work_of(TV_KERNEL_rmsnorm_forward, &norm, TV_F32), 0, 24 + 3 + 2);
    tv_norm_backward_args back = {};
    back.rows = 2, back.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_layernorm_backward, &back, TV_F32), 0, 18 + 9 + 4);
    back.accumulate = 1;
    expect_work(tv_kernel_work_of(TV_KERNEL_layernorm_backward, &back, TV_F32), 0, 18 + 15 + 4);
    back.add_dx = 1;
    expect_work(tv_kernel_work_of(TV_KERNEL_rmsnorm_backward, &back, TV_F32), 0, 24 + 9 + 2);
    tv_rotary_args rotary = {};
    rotary.rows = 2, rotary.num_heads = 3, rotary.head_dim = 4;
    expect_work(tv_kernel_work_of(TV_KERNEL_rotary, &rotary, TV_F32), 0, 48);
    tv_dropout_args dropout = {};
    dropout.rows = 2, dropout.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_dropout, &dropout, TV_F32), 0, 12);
    tv_swiglu_args swiglu = {};
    swiglu.rows = 2, swiglu.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_swiglu_forward, &swiglu, TV_F32), 0, 18);
    tv_swiglu_backward_args swiglu_back = {};
    swiglu_back.rows = 2, swiglu_back.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_swiglu_backward, &swiglu_back, TV_F32), 0, 30);
    tv_embedding_args embedding = {};
    embedding.rows = 2, embedding.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_embedding_forward, &embedding, TV_F32), 0, 12, 2);
    embedding.accumulate = 1;
    expect_work(tv_kernel_work_of(TV_KERNEL_embedding_forward, &embedding, TV_F32), 0, 18, 2);
    tv_embedding_backward_args embedding_back = {};
    embedding_back.rows = 2, embedding_back.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_embedding_backward, &embedding_back, TV_F32), 0, 18, 2);
    tv_cross_entropy_args loss = {};
    loss.rows = 2, loss.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy_forward, &loss, TV_F32), 0, 6 + 8, 2);
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy_rebase, &loss, TV_F32), 0, 8);
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy_loss, &loss, TV_F32), 0, 8 + 4, 2);
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy_backward, &loss, TV_F32), 0, 12 + 2, 2);
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy, &loss, TV_F32), 0, 12 + 2 + 4, 2);
    loss.row_rest = &some;
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy_forward, &loss, TV_F32), 0, 6 + 10, 2);
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy_rebase, &loss, TV_F32), 0, 12);
    expect_work(tv_kernel_work_of(TV_KERNEL_cross_entropy_loss, &loss, TV_F32), 0, 10 + 4, 2);
    tv_axpby_args axpby = {};
    axpby.rows = 2, axpby.cols = 3;
    expect_work(tv_kernel_work_of(TV_KERNEL_axpby, &axpby, TV_F32), 0, 12);
    axpby.beta = 1;
    expect_work(tv_kernel_work_of(TV_KERNEL_axpby, &axpby, TV_F32), 0, 18);
}

TEST(Work, OfElements)
{
    tv_add_args add = {};
    add.count = 11;
    expect_work(tv_kernel_work_of(TV_KERNEL_add, &add, TV_F32), 0, 33);
    tv_gelu_args gelu = {};
    gelu.count = 11;
    expect_work(tv_kernel_work_of(TV_KERNEL_gelu_forward, &gelu, TV_F32), 0, 22);
    tv_gelu_backward_args back = {};
    back.count = 11;
    expect_work(tv_kernel_work_of(TV_KERNEL_gelu_backward, &back, TV_F32), 0, 33);
    float dbias[11] = {};
    back.dbias = dbias;
    back.cols = 11;
    expect_work(tv_kernel_work_of(TV_KERNEL_gelu_backward, &back, TV_F32), 0, 33 + 11);
    back.accumulate = 1;
    expect_work(tv_kernel_work_of(TV_KERNEL_gelu_backward, &back, TV_F32), 0, 33 + 2 * 11);
    tv_adamw_args adamw = {};
    tv_adamw_weight weights[2] = {};
    weights[0].count = 11;
    weights[1].count = 6;
    adamw.num = 2;
    adamw.of = weights;
    expect_work(tv_kernel_work_of(TV_KERNEL_adamw, &adamw, TV_F32), 0, 7 * 17);
    weights[1].rounded = weights; // 6 more, of two bytes
    expect_work(tv_kernel_work_of(TV_KERNEL_adamw, &adamw, TV_F32), 0, 7 * 17 + 3);
    tv_lion_args lion = {};
    lion.count = 11;
    expect_work(tv_kernel_work_of(TV_KERNEL_lion, &lion, TV_F32), 0, 55);
    tv_square_sum_args squares = {};
    const tv_square_sum_array arrays[] = {{5, nullptr}, {6, nullptr}};
    squares.num = 2;
    squares.of = arrays;
    expect_work(tv_kernel_work_of(TV_KERNEL_square_sum, &squares, TV_F32), 0, 11);
}

TEST(Work, EveryKernelHasAGroupWithAName)
{
    std::set<std::string> names;
    for (int g = 0; g < TV_NUM_GROUPS; g++)
        names.insert(tv_kernel_group_name((tv_kernel_group_t)g));
    EXPECT_EQ(names.size(), (size_t)TV_NUM_GROUPS);
    EXPECT_EQ(tv_kernel_group(TV_KERNEL_matmul), TV_GROUP_MATMUL);
    EXPECT_EQ(tv_kernel_group(TV_KERNEL_rotary), TV_GROUP_ATTENTION);
    EXPECT_EQ(tv_kernel_group(TV_KERNEL_bias_backward), TV_GROUP_NORM);
    EXPECT_EQ(tv_kernel_group(TV_KERNEL_cross_entropy_forward), TV_GROUP_LOSS);
    EXPECT_EQ(tv_kernel_group(TV_KERNEL_square_sum), TV_GROUP_OPTIMIZER);
    int matmuls = 0; // 0 is its number: a kernel without a row in the table would be there too
    for (int k = 0; k < TV_NUM_KERNELS; k++)
        matmuls += tv_kernel_group((tv_kernel_t)k) == TV_GROUP_MATMUL;
    EXPECT_EQ(matmuls, 2);
}

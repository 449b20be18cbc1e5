/* A rank's part of the model: memory as announced, places in the flat arrays, initial values, the
 * order in which units complete, refusals. */
#include "model/step.h"
#include "tensor/axis_ranks.h"
#include <cstring>

namespace
{

struct tv_model_args args_of(const StepCase &step, const struct tv_tensor_axis &axis)
{
    struct tv_model_args args = {};
    args.config = step.config;
    args.axis = axis;
    args.micro_batch = step.micro_batch;
    args.seq_length = step.seq_length;
    args.num_units = step.config.num_layers + 2;
    args.num_slots = 1;
    args.seed = 7;
    return args;
}

void expect_announced_memory(const struct tv_model_args &args)
{
    int64_t bytes[TV_NUM_MEM_KINDS];
    ASSERT_OK(tv_model_memory(&args, tv_comm_size(args.axis.comm), bytes));
    struct tv_model *model = nullptr;
    ASSERT_OK(tv_model_create(&args, &model));
    const struct tv_device *device = tv_stream_device(args.axis.stream);
    for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++)
        EXPECT_EQ((size_t)bytes[kind], tv_device_bytes(device, (tv_mem_kind_t)kind))
            << tv_mem_kind_name((tv_mem_kind_t)kind);
    EXPECT_EQ((size_t)tv_model_param_count(model) * sizeof(float), (size_t)bytes[TV_MEM_PARAMS]);
    EXPECT_EQ((size_t)tv_model_param_count(model) * sizeof(float), (size_t)bytes[TV_MEM_GRADS]);
    tv_model_destroy(model);
}

TEST(Memory, IsWhatWasAnnounced)
{
    for (const struct tv_model_config &config : {small_gpt2(), small_llama()})
        for (const int T : {1, 2, 8})
            run_axis(T, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
                struct tv_model_args args = args_of(some_step(config), axis);
                for (const auto &[first, num, slots] : std::vector<std::array<int, 3>>{
                         {0, 5, 1}, {0, 1, 3}, {1, 2, 4}, {3, 2, 2}, {4, 1, 1}}) {
                    args.first_unit = first;
                    args.num_units = num;
                    args.num_slots = slots;
                    ASSERT_NO_FATAL_FAILURE(expect_announced_memory(args));
                }
            });
}

TEST(Memory, OfOneSlotByHand)
{
    run_axis(1, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
        /* gpt2's second layer alone: B 2, S 6, C 32, F 128, 8 heads; multiples of 16 floats */
        struct tv_model_args args = args_of(some_step(small_gpt2()), axis);
        args.first_unit = 2;
        args.num_units = 1;
        int64_t bytes[TV_NUM_MEM_KINDS];
        ASSERT_OK(tv_model_memory(&args, 1, bytes));
        const int64_t rows = 12, statistics = 16; /* [rows] rounded up */
        const int64_t norms = 2 * (rows * 32 + 2 * statistics);
        const int64_t attention = rows * (96 + 32) + rows * 8 + rows * 32; /* qkv, out, lse, mid */
        EXPECT_EQ(4 * (norms + attention + 2 * rows * 128), bytes[TV_MEM_ACTIVATIONS]);
        /* two residual gradients, d_ff, d_act, d_qkv, d_att, loss work; positions, ids, targets */
        const int64_t scratch = rows * (32 + 32 + 128 + 128 + 96 + 32) + 48;
        EXPECT_EQ(4 * (scratch + 3 * rows), bytes[TV_MEM_BUFFERS]);
        EXPECT_EQ(4 * (2 * 64 + 32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32),
                  bytes[TV_MEM_PARAMS]);
    });
}

void expect_order_of_places(struct tv_model *model)
{
    int64_t end = 0;
    int unit = INT32_MAX;
    for (int i = 0; i < tv_model_num_local_params(model); i++) {
        const struct tv_local_param local = tv_model_local_param(model, i);
        EXPECT_EQ(0, local.first % 16) << local.param->name;
        EXPECT_GE(local.first, end) << local.param->name;
        EXPECT_LT(local.first, end + 16) << local.param->name;
        EXPECT_LE(local.unit, unit) << local.param->name;
        for (; end < local.first; end++)
            EXPECT_EQ(0, tv_model_params(model)[end]) << "gap before " << local.param->name;
        end = local.first + local.count;
        unit = local.unit;
    }
    EXPECT_LE(end, tv_model_param_count(model));
    EXPECT_GT(end + 16, tv_model_param_count(model));
}

TEST(Places, DescendByUnitAndStartAligned)
{
    for (const struct tv_model_config &config : {small_gpt2(), small_llama()})
        run_axis(2, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
            const struct tv_model_args args = args_of(some_step(config), axis);
            struct tv_model *model = nullptr;
            ASSERT_OK(tv_model_create(&args, &model));
            EXPECT_EQ(tv_model_table(model)->num_params, tv_model_num_local_params(model));
            expect_order_of_places(model);
            tv_model_destroy(model);
        });
}

/* The row of `name`, or one with param NULL. */
struct tv_local_param find(const struct tv_model *model, const char *name)
{
    for (int i = 0; i < tv_model_num_local_params(model); i++)
        if (std::strcmp(tv_model_local_param(model, i).param->name, name) == 0)
            return tv_model_local_param(model, i);
    return {};
}

TEST(TiedWeight, IsOneTensorHereAndACopyOnAnotherStage)
{
    const char *wte = "transformer.wte.weight";
    run_axis(1, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
        struct tv_model_args args = args_of(some_step(small_gpt2()), axis);
        struct tv_model *whole = nullptr, *first = nullptr, *last = nullptr;
        ASSERT_OK(tv_model_create(&args, &whole));
        args.num_units = 2;
        ASSERT_OK(tv_model_create(&args, &first));
        args.first_unit = 2;
        args.num_units = 3;
        ASSERT_OK(tv_model_create(&args, &last));

        EXPECT_EQ(0, find(whole, wte).unit);
        EXPECT_FALSE(find(whole, wte).is_copy);
        EXPECT_EQ(0, find(first, wte).unit);
        EXPECT_FALSE(find(first, wte).is_copy);
        EXPECT_EQ(4, find(last, wte).unit);
        EXPECT_TRUE(find(last, wte).is_copy);
        ASSERT_EQ(37 * 32, find(last, wte).count);
        EXPECT_EQ(0, std::memcmp(tv_model_params(first) + find(first, wte).first,
                                 tv_model_params(last) + find(last, wte).first,
                                 37 * 32 * sizeof(float)))
            << "the copies start different";
        EXPECT_EQ(nullptr, find(last, "transformer.wpe.weight").param);
        for (struct tv_model *model : {whole, first, last})
            tv_model_destroy(model);
    });
}

TEST(InitialValues, DoNotDependOnTheAxis)
{
    for (const int T : {1, 2, 8})
        run_axis(T, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
            const struct tv_model_args args = args_of(some_step(small_llama()), axis);
            struct tv_model *model = nullptr;
            ASSERT_OK(tv_model_create(&args, &model));
            const int t = tv_comm_rank(axis.comm);
            for (int i = 0; i < tv_model_num_local_params(model); i++) {
                const struct tv_local_param local = tv_model_local_param(model, i);
                std::vector<float> whole((size_t)tv_param_count(local.param)),
                    want((size_t)local.count);
                tv_param_init(local.param, 1, 0, 7, 0.02, 3, whole.data());
                tv_param_scatter(local.param, T, t, whole.data(), want.data());
                EXPECT_EQ(0, std::memcmp(want.data(), tv_model_params(model) + local.first,
                                         want.size() * sizeof(float)))
                    << local.param->name;
            }
            tv_model_destroy(model);
        });
}

/* Units in the order reported, and each one's gradients at that moment. */
struct DoneLog {
    struct tv_model *model;
    std::vector<int> units;
    std::vector<float> grads;
};

tv_status_t unit_done(void *context, int unit)
{
    DoneLog *log = static_cast<DoneLog *>(context);
    log->units.push_back(unit);
    for (int i = 0; i < tv_model_num_local_params(log->model); i++) {
        const struct tv_local_param local = tv_model_local_param(log->model, i);
        const float *grad = tv_model_grads(log->model) + local.first;
        if (local.unit == unit)
            std::copy(grad, grad + local.count, log->grads.begin() + local.first);
    }
    return TV_OK;
}

TEST(UnitDone, ComesInDescendingOrderWithCompleteGradients)
{
    for (const struct tv_model_config &config : {small_gpt2(), small_llama()})
        run_axis(2, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
            const StepCase step = some_step(config);
            const struct tv_model_args args = args_of(step, axis);
            struct tv_model *model = nullptr;
            double loss = 0;
            ASSERT_OK(tv_model_create(&args, &model));
            DoneLog log = {model, {}, std::vector<float>((size_t)tv_model_param_count(model))};
            const struct tv_unit_done done = {&log, unit_done};
            ASSERT_OK(tv_model_forward(model, 0, step.ids.data(), step.targets.data(), nullptr,
                                       nullptr, &loss));
            ASSERT_OK(tv_model_backward(model, 0, nullptr, nullptr, nullptr, &done));
            EXPECT_EQ((std::vector<int>{4, 3, 2, 1, 0}), log.units);
            EXPECT_EQ(0, std::memcmp(log.grads.data(), tv_model_grads(model),
                                     log.grads.size() * sizeof(float)))
                << "a gradient changed after its unit was reported";
            ASSERT_OK(tv_model_zero_grads(model));
            for (int64_t i = 0; i < tv_model_param_count(model); i++)
                ASSERT_EQ(0, tv_model_grads(model)[i]);
            tv_model_destroy(model);
        });
}

tv_status_t refuse(void *, int)
{
    return TV_ERR(TV_INTERNAL, "asked to stop");
}

TEST(UnitDone, FailurePassesUp)
{
    run_axis(1, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
        const StepCase step = some_step(small_gpt2());
        const struct tv_model_args args = args_of(step, axis);
        struct tv_model *model = nullptr;
        double loss = 0;
        ASSERT_OK(tv_model_create(&args, &model));
        const struct tv_unit_done done = {nullptr, refuse};
        ASSERT_OK(tv_model_forward(model, 0, step.ids.data(), step.targets.data(), nullptr, nullptr,
                                   &loss));
        EXPECT_EQ(TV_INTERNAL, tv_model_backward(model, 0, nullptr, nullptr, nullptr, &done));
        tv_model_destroy(model);
    });
}

struct Refusal {
    const char *says;
    std::function<void(struct tv_model_args *)> change;
};

TEST(Create, RefusesOnEveryRankAndMakesNothing)
{
    using Args = struct tv_model_args;
    const std::vector<Refusal> refusals = {
        {"sequence length 7 is beyond", [](Args *a) { a->seq_length = 7; }},
        {"micro-batch 0", [](Args *a) { a->micro_batch = 0; }},
        {"0 slots", [](Args *a) { a->num_slots = 0; }},
        {"units 0..5", [](Args *a) { a->num_units = 6; }},
        {"units -1..", [](Args *a) { a->first_unit = -1; }},
        {"units 2..1", [](Args *a) { a->first_unit = 2, a->num_units = 0; }},
        {"attention heads", [](Args *a) { a->config.num_heads = a->config.num_kv_heads = 1; }},
    };
    for (const Refusal &refusal : refusals)
        run_axis(2, tv_kernels_ref(), [&](const struct tv_tensor_axis &axis) {
            struct tv_model_args args = args_of(some_step(small_gpt2()), axis);
            refusal.change(&args);
            struct tv_model *model = nullptr;
            int64_t bytes[TV_NUM_MEM_KINDS];
            EXPECT_EQ(TV_INVALID, tv_model_create(&args, &model)) << refusal.says;
            EXPECT_NE(nullptr, std::strstr(tv_error_message(), refusal.says)) << tv_error_message();
            EXPECT_EQ(nullptr, model);
            EXPECT_EQ(TV_INVALID, tv_model_memory(&args, 2, bytes)) << refusal.says;
        });
}

} // namespace

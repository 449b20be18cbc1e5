/* A rank's part of the model: memory as announced, places in the flat arrays, initial values, the
 * order in which units complete, refusals. */
#include "model/step.h"
#include "tensor/axis_ranks.h"
#include <array>
#include <cmath>
#include <cstring>

namespace
{

using Chunks = std::vector<struct tv_model_chunk>;

const Chunks whole = {{0, 5, 1, 1}}; /* the test models have 3 layers */

/* chunks: borrowed */
struct tv_model_args args_of(const StepCase &step, const struct tv_tensor_axis &axis,
                             const Chunks &chunks)
{
    struct tv_model_args args = {};
    args.config = step.config;
    args.axis = axis;
    args.micro_batch = step.micro_batch;
    args.seq_length = step.seq_length;
    args.num_chunks = (int)chunks.size();
    args.chunks = chunks.data();
    args.seed = 7;
    return args;
}

void expect_announced_memory(const struct tv_model_args &args)
{
    int64_t bytes[TV_NUM_MEM_KINDS];
    ASSERT_OK(
        tv_model_memory(&args, tv_comm_size(args.axis.comm), tv_tensor_dtype(&args.axis), bytes));
    struct tv_model *model = nullptr;
    ASSERT_OK(tv_model_create(&args, &model));
    const struct tv_device *device = tv_stream_device(args.axis.stream);
    for (int kind = 0; kind < TV_NUM_MEM_KINDS; kind++)
        EXPECT_EQ((size_t)bytes[kind], tv_device_bytes(device, (tv_mem_kind_t)kind))
            << tv_mem_kind_name((tv_mem_kind_t)kind);
    EXPECT_EQ(tv_tensor_bytes(&args.axis, tv_model_param_count(model)),
              (size_t)bytes[TV_MEM_PARAMS]);
    EXPECT_EQ((size_t)tv_model_param_count(model) * sizeof(float), (size_t)bytes[TV_MEM_GRADS]);
    tv_model_destroy(model);
}

TEST(Memory, IsWhatWasAnnounced)
{
    for (const tv_dtype_t dtype : {TV_F32, TV_BF16})
        for (const auto &[config, T] : {std::pair{small_gpt2(), 1}, std::pair{small_gpt2(), 8},
                                        std::pair{small_llama(), 2}, std::pair{small_llama(), 8}})
            run_axis(
                T, tv_kernels_ref(dtype), [&, &config = config](const struct tv_tensor_axis &axis) {
                    const std::vector<Chunks> cases = {
                        whole,          {{0, 1, 3, 2}}, {{1, 2, 4, 1}},
                        {{3, 2, 2, 2}}, {{4, 1, 1, 1}}, {{0, 2, 3, 2}, {2, 1, 1, 1}, {4, 1, 2, 3}}};
                    for (const Chunks &chunks : cases)
                        for (const auto recompute :
                             {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE, TV_RECOMPUTE_FULL})
                            for (const int is_sequence_parallel : {0, 1}) {
                                struct tv_model_args args =
                                    args_of(some_step(config), axis, chunks);
                                args.micro_batch = 4; /* 24 rows */
                                args.recompute = recompute;
                                args.is_backward_whole = is_sequence_parallel;
                                args.is_sequence_parallel = is_sequence_parallel;
                                args.hidden_dropout = is_sequence_parallel ? 0 : 0.1;
                                args.label_smoothing = is_sequence_parallel ? 0.1 : 0;
                                ASSERT_NO_FATAL_FAILURE(expect_announced_memory(args));
                            }
                });
}

/* gpt2's second layer alone: B 2, S 6, C 32, F 128, 8 heads; multiples of 16 floats */
constexpr int64_t rows = 12, statistics = 16; /* [rows] rounded up */
constexpr int64_t norms = 2 * (rows * 32 + 2 * statistics);
constexpr int64_t attention = rows * (96 + 32) + rows * 8 + rows * 32; /* qkv, out, lse, mid */
constexpr int64_t ff = rows * 128, act = rows * 128;

std::array<int64_t, TV_NUM_MEM_KINDS> bytes_of_a_layer(tv_recompute_t recompute, int num_slots,
                                                       int num_works)
{
    std::array<int64_t, TV_NUM_MEM_KINDS> bytes = {};
    const Chunks chunks = {{2, 1, num_slots, num_works}};
    struct tv_model_args args = args_of(some_step(small_gpt2()), {}, chunks);
    args.recompute = recompute;
    EXPECT_EQ(TV_OK, tv_model_memory(&args, 1, TV_F32, bytes.data())) << tv_error_message();
    return bytes;
}

TEST(Memory, OfOneSlotByHand)
{
    const auto bytes = bytes_of_a_layer(TV_RECOMPUTE_NONE, 1, 0);
    EXPECT_EQ(4 * (norms + attention + ff + act), bytes[TV_MEM_ACTIVATIONS]);
    /* two residual gradients, d_act, d_qkv, d_att; positions, ids, targets */
    const int64_t scratch = rows * (32 + 32 + 128 + 96 + 32);
    EXPECT_EQ(4 * (scratch + 3 * rows), bytes[TV_MEM_BUFFERS]);
    EXPECT_EQ(4 * (2 * 64 + 32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32),
              bytes[TV_MEM_PARAMS]);
}

/* T = 2: mid, statistics and the residual gradients are own rows, norm outputs are whole. */
TEST(Memory, OfOneSlotWithCutRowsByHand)
{
    std::array<int64_t, TV_NUM_MEM_KINDS> bytes = {};
    const Chunks chunks = {{2, 1, 1, 0}};
    struct tv_model_args args = args_of(some_step(small_gpt2()), {}, chunks);
    args.is_sequence_parallel = 1;
    ASSERT_EQ(TV_OK, tv_model_memory(&args, 2, TV_F32, bytes.data())) << tv_error_message();
    const int64_t own = rows / 2, own_norms = 2 * (rows * 32 + 2 * 16); /* 6 floats take 16 */
    const int64_t own_attention = rows * (96 + 32) / 2 + rows * 4 + own * 32;
    EXPECT_EQ(4 * (own_norms + own_attention + (ff + act) / 2), bytes[TV_MEM_ACTIVATIONS]);
    /* two of own rows and one of all; d_act, d_qkv, d_att halved; 4 norm and 2 bias gradients packed */
    const int64_t scratch = (2 * own + rows) * 32 + rows * (128 + 96 + 32) / 2 + 6 * 32;
    EXPECT_EQ(4 * (scratch + 3 * rows), bytes[TV_MEM_BUFFERS]);
}

/* 256 channels: rows of 3 KiB (qkv) and 1 KiB (out) are 64 bytes further apart on a CPU, rows of 512 bytes are not. */
TEST(Memory, OfAttentionWhoseRowsWouldShareSetsOfTheCache)
{
    const Chunks chunks = {{2, 1, 1, 0}};
    StepCase step = some_step(small_gpt2());
    step.config.hidden_size = 256;
    struct tv_model_args args = args_of(step, {}, chunks);
    const auto memory = [&](tv_device_kind_t device, tv_dtype_t dtype, int T, tv_mem_kind_t kind) {
        std::array<int64_t, TV_NUM_MEM_KINDS> bytes = {};
        args.device = device;
        EXPECT_EQ(TV_OK, tv_model_memory(&args, T, dtype, bytes.data())) << tv_error_message();
        return bytes[kind];
    };
    for (const tv_mem_kind_t kind : {TV_MEM_ACTIVATIONS, TV_MEM_BUFFERS}) { /* d_qkv, d_att */
        EXPECT_EQ(rows * 2 * 64,
                  memory(TV_DEVICE_CPU, TV_F32, 1, kind) - memory(TV_DEVICE_CUDA, TV_F32, 1, kind));
        EXPECT_EQ(0,
                  memory(TV_DEVICE_CPU, TV_F32, 2, kind) - memory(TV_DEVICE_CUDA, TV_F32, 2, kind));
        EXPECT_EQ(0, memory(TV_DEVICE_CPU, TV_BF16, 1, kind) -
                         memory(TV_DEVICE_CUDA, TV_BF16, 1, kind)); /* 512 and 1536 bytes */
    }
}

TEST(Memory, OfSlotsAndWorkingSets)
{
    EXPECT_EQ(4 * 5 * (norms + attention + ff + act),
              bytes_of_a_layer(TV_RECOMPUTE_NONE, 5, 2)[TV_MEM_ACTIVATIONS]);
    EXPECT_EQ(4 * (5 * (attention + ff) + 2 * (norms + act)),
              bytes_of_a_layer(TV_RECOMPUTE_SELECTIVE, 5, 2)[TV_MEM_ACTIVATIONS]);
    EXPECT_EQ(4 * 2 * (norms + attention + ff + act),
              bytes_of_a_layer(TV_RECOMPUTE_FULL, 5, 2)[TV_MEM_ACTIVATIONS]);
}

/* Units of whole chunks take turns: one layer's working set, whatever the chunks. */
TEST(Memory, OfAWorkingSetThatUnitsShare)
{
    for (const Chunks &chunks : {Chunks{{1, 3, 5, 2}}, Chunks{{1, 1, 5, 1}, {2, 2, 5, 1}}}) {
        std::array<int64_t, TV_NUM_MEM_KINDS> bytes = {};
        struct tv_model_args args = args_of(some_step(small_gpt2()), {}, chunks);
        args.recompute = TV_RECOMPUTE_SELECTIVE;
        args.is_backward_whole = 1;
        ASSERT_EQ(TV_OK, tv_model_memory(&args, 1, TV_F32, bytes.data())) << tv_error_message();
        const int64_t num_inputs = chunks.size() == 1 ? 2 : 1; /* of units behind another one */
        EXPECT_EQ(4 * (5 * (3 * (attention + ff) + num_inputs * rows * 32) + norms + act),
                  bytes[TV_MEM_ACTIVATIONS]);
    }
}

/* Positions and first keys of each slot, where they are reset. */
TEST(Memory, OfDocumentStarts)
{
    const auto without = bytes_of_a_layer(TV_RECOMPUTE_NONE, 5, 0);
    const Chunks chunks = {{2, 1, 5, 0}};
    struct tv_model_args args = args_of(some_step(small_gpt2()), {}, chunks);
    std::array<int64_t, TV_NUM_MEM_KINDS> bytes = {};
    args.resets_positions = 1;
    ASSERT_EQ(TV_OK, tv_model_memory(&args, 1, TV_F32, bytes.data())) << tv_error_message();
    EXPECT_EQ(without[TV_MEM_BUFFERS] + 5 * rows * 4, bytes[TV_MEM_BUFFERS]);
    args.resets_attention = 1;
    ASSERT_EQ(TV_OK, tv_model_memory(&args, 1, TV_F32, bytes.data())) << tv_error_message();
    EXPECT_EQ(without[TV_MEM_BUFFERS] + 5 * 2 * rows * 4, bytes[TV_MEM_BUFFERS]);
}

TEST(Memory, OfFullRecomputationGrowsByTokensAlone)
{
    const auto few = bytes_of_a_layer(TV_RECOMPUTE_FULL, 1, 1),
               many = bytes_of_a_layer(TV_RECOMPUTE_FULL, 9, 1);
    EXPECT_EQ(few[TV_MEM_ACTIVATIONS], many[TV_MEM_ACTIVATIONS]);
    EXPECT_EQ(few[TV_MEM_BUFFERS] + 8 * 2 * rows * 4, many[TV_MEM_BUFFERS]); /* ids, targets */
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
            EXPECT_EQ(0, static_cast<float *>(tv_model_params(model))[end])
                << "gap before " << local.param->name;
        end = local.first + local.count;
        unit = local.unit;
    }
    EXPECT_LE(end, tv_model_param_count(model));
    EXPECT_GT(end + 16, tv_model_param_count(model));
}

TEST(Places, DescendByUnitAndStartAligned)
{
    for (const struct tv_model_config &config : {small_gpt2(), small_llama()})
        for (const Chunks &chunks : {whole, {{0, 1, 1, 0}, {1, 2, 1, 0}, {3, 2, 1, 0}}})
            run_axis(2, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
                const struct tv_model_args args = args_of(some_step(config), axis, chunks);
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
    run_axis(1, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
        const StepCase step = some_step(small_gpt2());
        const auto create = [&](const Chunks &chunks) {
            const struct tv_model_args args = args_of(step, axis, chunks);
            struct tv_model *model = nullptr;
            EXPECT_EQ(TV_OK, tv_model_create(&args, &model)) << tv_error_message();
            return model;
        };
        struct tv_model *one_chunk = create(whole),
                        *both_ends = create({{0, 2, 1, 0}, {4, 1, 1, 0}}),
                        *first = create({{0, 2, 1, 0}}), *last = create({{2, 3, 1, 0}});
        for (struct tv_model *model : {one_chunk, both_ends, first}) {
            EXPECT_EQ(0, find(model, wte).unit);
            EXPECT_FALSE(find(model, wte).is_copy);
        }
        /* 12 of the layer, wte, wpe, the last norm's two */
        EXPECT_EQ(12 + 2 + 2, tv_model_num_local_params(both_ends));
        EXPECT_EQ(4, find(last, wte).unit);
        EXPECT_TRUE(find(last, wte).is_copy);
        ASSERT_EQ(37 * 32, find(last, wte).count);
        EXPECT_EQ(0,
                  std::memcmp(tv_tensor_at(&axis, tv_model_params(first), find(first, wte).first),
                              tv_tensor_at(&axis, tv_model_params(last), find(last, wte).first),
                              37 * 32 * sizeof(float)))
            << "the copies start different";
        EXPECT_EQ(nullptr, find(last, "transformer.wpe.weight").param);
        for (struct tv_model *model : {one_chunk, both_ends, first, last})
            tv_model_destroy(model);
    });
}

TEST(InitialValues, DoNotDependOnTheAxis)
{
    for (const int T : {1, 2, 8})
        run_axis(T, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
            const struct tv_model_args args = args_of(some_step(small_llama()), axis, whole);
            struct tv_model *model = nullptr;
            ASSERT_OK(tv_model_create(&args, &model));
            const int t = tv_comm_rank(axis.comm);
            for (int i = 0; i < tv_model_num_local_params(model); i++) {
                const struct tv_local_param local = tv_model_local_param(model, i);
                std::vector<float> tensor((size_t)tv_param_count(local.param)),
                    want((size_t)local.count);
                tv_param_init(local.param, 1, 0, 7, 0.02, 3, 1, tensor.data());
                tv_param_scatter(local.param, T, t, tensor.data(), want.data());
                EXPECT_EQ(0, std::memcmp(want.data(),
                                         tv_tensor_at(&axis, tv_model_params(model), local.first),
                                         want.size() * sizeof(float)))
                    << local.param->name;
            }
            tv_model_destroy(model);
        });
}

/* Units and branches in the order reported, and each one's gradients at that moment. */
struct DoneLog {
    struct tv_model *model;
    std::vector<std::pair<int, int>> branches;
    std::vector<float> grads;
};

tv_status_t unit_done(void *context, int unit, int branch)
{
    DoneLog *log = static_cast<DoneLog *>(context);
    log->branches.push_back({unit, branch});
    for (int i = 0; i < tv_model_num_local_params(log->model); i++) {
        const struct tv_local_param local = tv_model_local_param(log->model, i);
        const float *grad = tv_model_grads(log->model) + local.first;
        if (local.unit == unit && local.param->branch == branch)
            std::copy(grad, grad + local.count, log->grads.begin() + local.first);
    }
    return TV_OK;
}

/* The call of a whole model. */
struct tv_model_call call_of(const StepCase &step, double *loss_sum_out,
                             const struct tv_unit_done *done)
{
    struct tv_model_call call = {};
    call.ids = step.ids.data();
    call.targets = step.targets.data();
    call.loss_sum_out = loss_sum_out;
    call.unit_done = done;
    return call;
}

void expect_done(const struct tv_tensor_axis &axis, const StepCase &step, bool is_split)
{
    const struct tv_model_args args = args_of(step, axis, whole);
    struct tv_model *model = nullptr;
    double loss = 0;
    ASSERT_OK(tv_model_create(&args, &model));
    DoneLog log = {model, {}, std::vector<float>((size_t)tv_model_param_count(model))};
    const struct tv_unit_done done = {&log, unit_done};
    const struct tv_model_call call = call_of(step, &loss, &done);
    ASSERT_OK(tv_model_forward(model, &call));
    if (is_split) {
        ASSERT_OK(tv_model_backward_input(model, &call));
        EXPECT_TRUE(log.branches.empty());
        ASSERT_OK(tv_model_backward_weight(model, &call));
    } else
        ASSERT_OK(tv_model_backward(model, &call));
    EXPECT_EQ((std::vector<std::pair<int, int>>{
                  {4, 0}, {3, 1}, {3, 0}, {2, 1}, {2, 0}, {1, 1}, {1, 0}, {0, 0}}),
              log.branches);
    EXPECT_EQ(
        0, std::memcmp(log.grads.data(), tv_model_grads(model), log.grads.size() * sizeof(float)))
        << "a gradient changed after its branch was reported";
    tv_model_destroy(model);
}

TEST(UnitDone, ComesInDescendingOrderWithCompleteGradients)
{
    for (const struct tv_model_config &config : {small_gpt2(), small_llama()})
        for (const bool is_split : {false, true})
            run_axis(2, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
                expect_done(axis, some_step(config), is_split);
            });
}

tv_status_t refuse(void *, int, int)
{
    return TV_ERR(TV_INTERNAL, "asked to stop");
}

TEST(UnitDone, FailurePassesUp)
{
    run_axis(1, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
        const StepCase step = some_step(small_gpt2());
        const struct tv_model_args args = args_of(step, axis, whole);
        struct tv_model *model = nullptr;
        double loss = 0;
        ASSERT_OK(tv_model_create(&args, &model));
        const struct tv_unit_done done = {nullptr, refuse};
        const struct tv_model_call call = call_of(step, &loss, &done);
        ASSERT_OK(tv_model_forward(model, &call));
        EXPECT_EQ(TV_INTERNAL, tv_model_backward(model, &call));
        EXPECT_EQ(TV_INTERNAL, tv_model_backward_weight(model, &call));
        tv_model_destroy(model);
    });
}

struct Refusal {
    const char *says;
    std::function<void(struct tv_model_args *, Chunks *)> change;
};

TEST(Create, RefusesOnEveryRankAndMakesNothing)
{
    using Args = struct tv_model_args;
    const auto chunks = [](const Chunks &to) { return [to](Args *, Chunks *c) { *c = to; }; };
    const std::vector<Refusal> refusals = {
        {"sequence length 7 is beyond", [](Args *a, Chunks *) { a->seq_length = 7; }},
        {"micro-batch 0", [](Args *a, Chunks *) { a->micro_batch = 0; }},
        {"1 x 5 is not a multiple of 2 tensor ranks",
         [](Args *a, Chunks *) {
             a->micro_batch = 1;
             a->seq_length = 5;
             a->is_sequence_parallel = 1;
         }},
        {"attention dropout 1 ", [](Args *a, Chunks *) { a->attention_dropout = 1; }},
        {"hidden dropout -0.5 ", [](Args *a, Chunks *) { a->hidden_dropout = -0.5; }},
        {"label smoothing nan ", [](Args *a, Chunks *) { a->label_smoothing = NAN; }},
        {"a vocabulary of one",
         [](Args *a, Chunks *) {
             a->label_smoothing = 0.1;
             a->config.vocab_size = 1;
         }},
        {"0 chunks", chunks({})},
        {"0 slots", chunks({{0, 2, 1, 0}, {2, 3, 0, 0}})},
        {"0 working sets, recomputation full",
         [](Args *a, Chunks *c) { a->recompute = TV_RECOMPUTE_FULL, (*c)[0].num_works = 0; }},
        {"units 0..5", chunks({{0, 6, 1, 0}})},
        {"units 4..5", chunks({{0, 1, 1, 0}, {4, 2, 1, 0}})},
        {"units -1..", chunks({{-1, 2, 1, 0}})},
        {"units 2..1", chunks({{2, 0, 1, 0}})},
        {"from unit 1 behind one that ends with unit 1", chunks({{0, 2, 1, 0}, {1, 2, 1, 0}})},
        {"from unit 0 behind one that ends with unit 3", chunks({{3, 1, 1, 0}, {0, 2, 1, 0}})},
        {"attention heads",
         [](Args *a, Chunks *) { a->config.num_heads = a->config.num_kv_heads = 1; }},
    };
    for (const Refusal &refusal : refusals)
        run_axis(2, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
            Chunks some = whole;
            struct tv_model_args args = args_of(some_step(small_gpt2()), axis, some);
            refusal.change(&args, &some);
            args.num_chunks = (int)some.size();
            args.chunks = some.data();
            struct tv_model *model = nullptr;
            int64_t bytes[TV_NUM_MEM_KINDS];
            EXPECT_EQ(TV_INVALID, tv_model_create(&args, &model)) << refusal.says;
            EXPECT_NE(nullptr, std::strstr(tv_error_message(), refusal.says)) << tv_error_message();
            EXPECT_EQ(nullptr, model);
            EXPECT_EQ(TV_INVALID, tv_model_memory(&args, 2, TV_F32, bytes)) << refusal.says;
        });
}

TEST(Call, OfAPlaceThatIsNotThereIsRefused)
{
    run_axis(1, tv_kernels_ref(TV_F32), [&](const struct tv_tensor_axis &axis) {
        const StepCase step = some_step(small_gpt2());
        const Chunks chunks = {{0, 2, 2, 3}, {4, 1, 1, 1}};
        struct tv_model_args args = args_of(step, axis, chunks);
        args.recompute = TV_RECOMPUTE_SELECTIVE;
        struct tv_model *model = nullptr;
        ASSERT_OK(tv_model_create(&args, &model));
        const struct {
            const char *says;
            int chunk, slot, work;
        } refusals[] = {{"chunk 2 of 2", 2, 0, 0},
                        {"chunk -1 of 2", -1, 0, 0},
                        {"slot 2 of 2 in chunk 0", 0, 2, 0},
                        {"slot 1 of 1 in chunk 1", 1, 1, 0},
                        {"working set 3 of 3 in chunk 0", 0, 1, 3}};
        for (const auto &refusal : refusals) {
            struct tv_model_call call = {};
            call.chunk = refusal.chunk;
            call.slot = refusal.slot;
            call.work = refusal.work;
            for (const auto function : {tv_model_forward, tv_model_backward,
                                        tv_model_backward_input, tv_model_backward_weight}) {
                EXPECT_EQ(TV_INVALID, function(model, &call)) << refusal.says;
                EXPECT_NE(nullptr, std::strstr(tv_error_message(), refusal.says))
                    << tv_error_message();
            }
        }
        tv_model_destroy(model);
    });
}

TEST(Recompute, HasNames)
{
    for (const auto recompute : {TV_RECOMPUTE_NONE, TV_RECOMPUTE_SELECTIVE, TV_RECOMPUTE_FULL}) {
        tv_recompute_t got = TV_RECOMPUTE_NONE;
        ASSERT_OK(tv_recompute_parse(tv_recompute_name(recompute), &got));
        EXPECT_EQ(recompute, got);
    }
    EXPECT_STREQ("selective", tv_recompute_name(TV_RECOMPUTE_SELECTIVE));
    tv_recompute_t got = TV_RECOMPUTE_FULL;
    EXPECT_EQ(TV_INVALID, tv_recompute_parse("some", &got));
    EXPECT_EQ(TV_RECOMPUTE_FULL, got);
}

} // namespace

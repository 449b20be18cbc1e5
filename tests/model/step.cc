#include "model/step.h"
#include "model/lender.h"
#include "tensor/axis_ranks.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

namespace
{

using Model = std::unique_ptr<struct tv_model, decltype(&tv_model_destroy)>;

/* What one tensor rank did. */
struct RankRun {
    double loss_sum = 0, grad_square_sum = 0;
    int64_t sent_bytes = 0, num_gradient_sums = 0;
    std::vector<std::vector<float>> outputs; /* y of every chunk and micro-batch */
    Tensors grads;                           /* local pieces */
};

/* Gradient of a weight that is here for certain. */
float *gradient(struct tv_model *model, float *grads, const char *name)
{
    for (int i = 0; i < tv_model_num_local_params(model); i++) {
        const struct tv_local_param local = tv_model_local_param(model, i);
        if (std::strcmp(local.param->name, name) == 0)
            return grads + local.first;
    }
    ADD_FAILURE() << name << " is not here";
    return nullptr;
}

void add(float *sum, const float *x, int64_t count)
{
    for (int64_t i = 0; sum != nullptr && i < count; i++)
        sum[i] += x[i];
}

class Rank
{
  public:
    Rank(const StepCase &which, const struct tv_tensor_axis &tensor_axis)
        : step(which), axis(tensor_axis), rows((size_t)step.micro_batch * (size_t)step.seq_length),
          width((size_t)step.config.hidden_size), num_micro(step.ids.size() / rows)
    {
    }
    void create();
    void forward();
    void backward();
    void sum_gradients();
    RankRun run;

  private:
    size_t num_chunks() const
    {
        return step.first_units.size();
    }
    size_t own_rows() const
    {
        return step.is_sequence_parallel ? rows / (size_t)step.T : rows;
    }
    size_t stage_of(size_t chunk) const
    {
        return step.stages.empty() ? chunk : (size_t)step.stages[chunk];
    }
    int num_works() const
    {
        return step.weight_delay < 0 ? 1 : step.weight_delay + 1;
    }
    void create_stage(size_t stage);
    struct tv_model_call call_of(size_t chunk, size_t micro);

    const StepCase &step;
    struct tv_tensor_axis axis;
    size_t rows, width, num_micro;
    double evaluated = 0; /* losses that forward says */
    float *params_of(size_t stage)
    {
        return step.is_lent ? lenders[stage]->params.data()
                            : static_cast<float *>(tv_model_params(models[stage].get()));
    }
    float *grads_of(size_t stage)
    {
        return step.is_lent ? lenders[stage]->grads.data() : tv_model_grads(models[stage].get());
    }
    std::vector<std::unique_ptr<Lender>> lenders; /* of each stage, or none */
    std::vector<Model> models;                    /* of each stage */
    std::vector<std::vector<float>> output_grads; /* gradients of run.outputs */
};

void Rank::create_stage(size_t stage)
{
    const int T = tv_comm_size(axis.comm), t = tv_comm_rank(axis.comm);
    std::vector<struct tv_model_chunk> chunks;
    for (size_t c = 0; c < num_chunks(); c++) {
        const int first = step.first_units[c];
        const int end =
            c + 1 == num_chunks() ? step.config.num_layers + 2 : step.first_units[c + 1];
        if (stage_of(c) == stage)
            chunks.push_back({first, end - first, (int)num_micro, num_works()});
    }
    struct tv_model_args args = {};
    args.config = step.config;
    args.axis = axis;
    args.micro_batch = step.micro_batch;
    args.seq_length = step.seq_length;
    args.num_chunks = (int)chunks.size();
    args.chunks = chunks.data();
    args.recompute = step.recompute;
    args.is_backward_whole = step.weight_delay < 0;
    args.is_sequence_parallel = step.is_sequence_parallel;
    args.is_tensor_overlapped = step.is_tensor_overlapped;
    args.attention_dropout = step.attention_dropout;
    args.hidden_dropout = step.hidden_dropout;
    args.label_smoothing = step.label_smoothing;
    args.seed = 99;
    args.resets_positions = !step.positions.empty();
    args.resets_attention = !step.first_keys.empty();
    if (step.is_lent) {
        lenders.push_back(std::make_unique<Lender>(args, T));
        args.store = &lenders.back()->store;
    }
    struct tv_model *model = nullptr;
    ASSERT_OK(tv_model_create(&args, &model));
    models.emplace_back(model, tv_model_destroy);
    for (int i = 0; i < tv_model_num_local_params(model); i++) {
        const struct tv_local_param local = tv_model_local_param(model, i);
        const auto weight = step.weights.find(local.param->name);
        ASSERT_NE(step.weights.end(), weight) << local.param->name;
        tv_param_scatter(local.param, T, t, weight->second.data(), params_of(stage) + local.first);
    }
    // Gradients are written before they are added to: what is left of before shows.
    for (int i = 0; i < tv_model_num_local_params(model) && !step.is_lent; i++) {
        const struct tv_local_param local = tv_model_local_param(model, i);
        std::fill_n(grads_of(stage) + local.first, local.count, NAN);
    }
    tv_model_begin_step(model);
}

void Rank::create()
{
    size_t num_stages = 0;
    for (size_t c = 0; c < num_chunks(); c++)
        num_stages = std::max(num_stages, stage_of(c) + 1);
    for (size_t s = 0; s < num_stages; s++)
        ASSERT_NO_FATAL_FAILURE(create_stage(s));
    run.outputs.assign((num_chunks() - 1) * num_micro, std::vector<float>(own_rows() * width));
    output_grads = run.outputs;
}

struct tv_model_call Rank::call_of(size_t chunk, size_t micro)
{
    struct tv_model_call call = {};
    for (size_t c = 0; c < chunk; c++)
        call.chunk += stage_of(c) == stage_of(chunk);
    call.slot = (int)micro;
    call.work = (int)micro % num_works();
    call.step = step.step;
    call.first_sequence = step.first_sequence + (int64_t)micro * step.micro_batch;
    if (chunk == 0)
        call.ids = step.ids.data() + micro * rows;
    if (!step.positions.empty())
        call.positions = step.positions.data() + micro * rows;
    if (!step.first_keys.empty())
        call.first_keys = step.first_keys.data() + micro * rows;
    if (chunk > 0) {
        call.x = run.outputs[(chunk - 1) * num_micro + micro].data();
        call.dx = output_grads[(chunk - 1) * num_micro + micro].data();
    }
    if (chunk + 1 < num_chunks()) {
        call.y = run.outputs[chunk * num_micro + micro].data();
        call.dy = output_grads[chunk * num_micro + micro].data();
    }
    if (chunk + 1 == num_chunks())
        call.targets = step.targets.data() + micro * rows;
    return call;
}

void Rank::forward()
{
    for (size_t micro = 0; micro < num_micro; micro++) {
        double loss_sum = NAN;
        for (size_t c = 0; c < num_chunks(); c++) {
            struct tv_model_call call = call_of(c, micro);
            call.loss_sum_out = &loss_sum;
            ASSERT_OK(tv_model_forward(models[stage_of(c)].get(), &call));
        }
        if (step.step > 0) {
            ASSERT_TRUE(std::isnan(loss_sum)) << "training: backward says the loss";
        }
        evaluated += loss_sum;
    }
}

void Rank::backward()
{
    const bool is_split = step.weight_delay >= 0;
    const size_t delay = is_split ? (size_t)step.weight_delay : 0;
    for (size_t micro = 0; micro < num_micro + delay; micro++) {
        double loss_sum = 0;
        for (size_t c = num_chunks(); micro < num_micro && c-- > 0;) {
            struct tv_model_call call = call_of(c, micro);
            struct tv_model *model = models[stage_of(c)].get();
            call.loss_sum_out = &loss_sum;
            ASSERT_OK(is_split ? tv_model_backward_input(model, &call)
                               : tv_model_backward(model, &call));
        }
        run.loss_sum += loss_sum;
        for (size_t c = num_chunks(); is_split && micro >= delay && c-- > 0;) {
            struct tv_model_call call = call_of(c, micro - delay);
            call.dx = nullptr;
            ASSERT_OK(tv_model_backward_weight(models[stage_of(c)].get(), &call));
        }
    }
    if (step.step == 0) {
        ASSERT_EQ(evaluated, run.loss_sum);
    }
}

/* What the caller of a model owes: the tied weight's copy, then the replicated kv heads. */
void Rank::sum_gradients()
{
    const size_t head = stage_of(num_chunks() - 1), embedding = stage_of(0);
    for (int i = 0; i < tv_model_num_local_params(models[head].get()); i++) {
        const struct tv_local_param local = tv_model_local_param(models[head].get(), i);
        if (local.is_copy)
            add(gradient(models[embedding].get(), grads_of(embedding), local.param->name),
                grads_of(head) + local.first, local.count);
    }
    for (size_t stage = 0; stage < models.size(); stage++) {
        struct tv_model *model = models[stage].get();
        const int num = tv_model_num_local_params(model);
        std::vector<struct tv_grad_piece> pieces;
        for (int i = 0; i < num; i++) {
            const struct tv_local_param local = tv_model_local_param(model, i);
            pieces.push_back({i, local.count, grads_of(stage) + local.first});
        }
        const struct tv_grad_piece *given = step.is_lent ? pieces.data() : nullptr;
        double sum = 0;
        ASSERT_OK(tv_model_sync_replicated(model, num, given));
        ASSERT_OK(tv_model_grad_square_sum(model, num, given, &sum));
        run.grad_square_sum += sum;
        for (int i = 0; i < num; i++) {
            const struct tv_local_param local = tv_model_local_param(model, i);
            const float *grad = grads_of(stage) + local.first;
            if (!local.is_copy)
                run.grads[local.param->name].assign(grad, grad + local.count);
        }
    }
}

void run_rank(const StepCase &step, const struct tv_tensor_axis &axis, RankRun *run_out)
{
    Rank rank(step, axis);
    ASSERT_NO_FATAL_FAILURE(rank.create());
    struct tv_device *device = tv_stream_device(axis.stream);
    const int64_t num_buffers = tv_device_num_buffers(device);
    const int64_t sent_before = tv_comm_get_stats(axis.comm).sent_bytes;
    ASSERT_NO_FATAL_FAILURE(rank.forward());
    ASSERT_NO_FATAL_FAILURE(rank.backward());
    ASSERT_EQ(num_buffers, tv_device_num_buffers(device)) << "memory asked for inside the step";
    const int64_t sums_before = tv_comm_get_stats(axis.comm).num_operations;
    ASSERT_NO_FATAL_FAILURE(rank.sum_gradients());
    rank.run.num_gradient_sums = tv_comm_get_stats(axis.comm).num_operations - sums_before;
    rank.run.sent_bytes = tv_comm_get_stats(axis.comm).sent_bytes - sent_before;
    *run_out = std::move(rank.run);
}

/* Whole activations; under sequence parallelism the ranks' rows one behind the other. */
void collect_outputs(const std::vector<RankRun> &runs, bool is_cut,
                     std::vector<std::vector<float>> *outputs_out)
{
    *outputs_out = runs[0].outputs;
    for (size_t t = 1; t < runs.size(); t++) {
        ASSERT_EQ(runs[0].loss_sum, runs[t].loss_sum) << "tensor rank " << t;
        for (size_t i = 0; i < runs[0].outputs.size(); i++) {
            std::vector<float> &whole = (*outputs_out)[i];
            if (is_cut)
                whole.insert(whole.end(), runs[t].outputs[i].begin(), runs[t].outputs[i].end());
            else
                ASSERT_TRUE(is_same_bits(runs[0].outputs[i], runs[t].outputs[i]))
                    << "tensor rank " << t << ", activation " << i;
        }
    }
}

/* Local elements that belong to the true tensor. */
int64_t num_true_elements(const struct tv_param *param, int T, int t)
{
    struct tv_param_slice slices[3];
    int64_t num = 0;
    for (int i = tv_param_slices(param, T, t, slices, 3); i-- > 0;)
        num += slices[i].num_rows * slices[i].num_cols;
    return num;
}

/* Puts the ranks' pieces of one weight together. */
void gather(const struct tv_param *param, const std::vector<RankRun> &runs,
            std::vector<float> *whole_out)
{
    const int T = (int)runs.size();
    whole_out->assign((size_t)tv_param_count(param), NAN);
    for (int t = 0; t < T; t++) {
        const auto piece = runs[(size_t)t].grads.find(param->name);
        ASSERT_NE(runs[(size_t)t].grads.end(), piece) << param->name << " is on no stage";
        int first, num;
        tv_param_holders(param, T, t, &first, &num);
        ASSERT_TRUE(is_same_bits(runs[(size_t)first].grads.at(param->name), piece->second))
            << param->name << ": ranks " << first << " and " << t << " hold different gradients";
        const auto num_true = (size_t)num_true_elements(param, T, t);
        for (size_t i = num_true; i < piece->second.size(); i++)
            ASSERT_EQ(0, piece->second[i]) << param->name << ": padding, rank " << t;
        tv_param_gather(param, T, t, piece->second.data(), whole_out->data());
    }
}

void collect(const StepCase &step, const std::vector<RankRun> &runs, StepResult *result_out)
{
    ASSERT_NO_FATAL_FAILURE(collect_outputs(runs, step.is_sequence_parallel, &result_out->outputs));
    struct tv_param_table table = {};
    ASSERT_OK(tv_model_param_table(&step.config, &table));
    for (int i = 0; i < table.num_params && !testing::Test::HasFatalFailure(); i++)
        gather(&table.params[i], runs, &result_out->grads[table.params[i].name]);
    tv_param_table_destroy(&table);
    result_out->loss_sum = runs[0].loss_sum;
    result_out->sent_bytes = runs[0].sent_bytes;
    result_out->num_gradient_sums = runs[0].num_gradient_sums;
    for (const RankRun &run : runs)
        result_out->grad_square_sum += run.grad_square_sum;
}

/* -1 .. 1, by a multiplicative hash of the place */
float noise(uint32_t place)
{
    return (float)(place * 2654435761u >> 8) / (float)(1 << 23) - 1;
}

} // namespace

StepResult run_step(const StepCase &step)
{
    std::vector<RankRun> runs((size_t)step.T);
    run_axis(step.T, step.kernels, [&](const struct tv_tensor_axis &axis) {
        run_rank(step, axis, &runs[(size_t)tv_comm_rank(axis.comm)]);
    });
    StepResult result;
    if (!testing::Test::HasFatalFailure())
        collect(step, runs, &result);
    return result;
}

struct tv_model_config small_gpt2()
{
    struct tv_model_config config = {};
    config.family = TV_GPT2;
    config.num_layers = 3;
    config.hidden_size = 32;
    config.num_heads = 8;
    config.vocab_size = 37;
    config.max_positions = 6;
    config.is_tied = 1;
    tv_model_config_defaults(&config);
    return config;
}

struct tv_model_config small_llama()
{
    struct tv_model_config config = small_gpt2();
    config.family = TV_LLAMA;
    config.num_kv_heads = 4;
    config.ffn_size = 40;
    config.is_tied = 0;
    return config;
}

Tensors some_weights(const struct tv_model_config &config, double scale)
{
    Tensors weights;
    struct tv_param_table table = {};
    if (tv_model_param_table(&config, &table) != TV_OK)
        return weights;
    uint32_t place = 1;
    for (int i = 0; i < table.num_params; i++) {
        std::vector<float> &weight = weights[table.params[i].name];
        const bool is_norm = table.params[i].init == TV_INIT_ONES;
        for (int64_t k = 0; k < tv_param_count(&table.params[i]); k++)
            weight.push_back((is_norm ? 1.0f : 0.0f) + (float)scale * noise(place++));
    }
    tv_param_table_destroy(&table);
    return weights;
}

StepCase some_step(const struct tv_model_config &config)
{
    StepCase step = {};
    step.config = config;
    step.micro_batch = 2;
    step.seq_length = config.max_positions;
    step.kernels = tv_kernels_ref(TV_F32);
    step.weights = some_weights(config, 0.3);
    for (int i = 0; i < 2 * step.micro_batch * step.seq_length; i++) {
        step.ids.push_back((int32_t)((i * i + 5 * i) % config.vocab_size));
        step.targets.push_back(i % 5 == 3 ? -100 : (int32_t)((i * 7 + 1) % config.vocab_size));
    }
    return step;
}

void reset_documents(StepCase *step)
{
    int32_t start = 0;
    for (size_t i = 0; i < step->ids.size(); i++) {
        const auto place = (int32_t)(i % (size_t)step->seq_length);
        if (place == 0 || step->ids[i - 1] % 5 == 0)
            start = place;
        step->positions.push_back(place - start);
        step->first_keys.push_back(start);
    }
}

bool is_same_bits(const std::vector<float> &a, const std::vector<float> &b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double relative_difference(const std::vector<float> &got, const std::vector<float> &want)
{
    if (got.size() != want.size())
        return INFINITY;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < want.size(); i++) {
        difference += std::pow((double)got[i] - (double)want[i], 2);
        norm += std::pow((double)want[i], 2);
    }
    return std::sqrt(norm > 0 ? difference / norm : difference);
}

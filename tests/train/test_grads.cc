// The gradients of a step are written before they are added to: what was there before, and nothing that a store lends,
// gets into them; and nothing is cleared but what can only be added to. Whole runs, ranks as threads, against the same
// runs with all gradients cleared first and added to.
#include "train/resolved_run.h"
#include "train/temporary.h"
#include <cmath>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "model/model_internal.h"
#pragma GCC diagnostic pop

namespace
{
enum Way { WRITE, CLEAR_AND_ADD };
constexpr float none = NAN;
constexpr int64_t num_steps = 3;

// What the functions in the place of others see of the rank of this thread.
thread_local struct {
    Way way = WRITE;
    const struct tv_sharding *sharding = nullptr;
    tv_status_t (*acquire)(void *, int, int, tv_unit_use_t, struct tv_unit_memory *) = nullptr;
    int64_t cleared_bytes = 0;
} here;

extern "C" tv_status_t __real_tv_stream_zero(struct tv_stream *, void *, size_t);
extern "C" tv_status_t __wrap_tv_stream_zero(struct tv_stream *stream, void *dst, size_t bytes)
{
    here.cleared_bytes += (int64_t)bytes;
    return __real_tv_stream_zero(stream, dst, bytes);
}

extern "C" void __real_tv_model_begin_step(struct tv_model *);
extern "C" void __wrap_tv_model_begin_step(struct tv_model *model)
{
    __real_tv_model_begin_step(model);
    if (here.way == WRITE || model->grads.data == nullptr)
        return;
    memset(model->grads.data, 0, model->grads.bytes);
    memset(model->given, TV_GIVEN_NORMS | TV_GIVEN_OTHERS, (size_t)model->layout.num_units);
    model->given_tied = TV_GIVEN_TIED;
}

// A store's acquire: what is lent holds no number, or zeros to add to; but for what the first part of a backward gave.
tv_status_t lend(void *context, int unit, int next, tv_unit_use_t use,
                 struct tv_unit_memory *memory)
{
    const struct tv_local_params &locals = here.sharding->locals;
    const float value = here.way == WRITE ? none : 0;
    const struct tv_local_param *first = nullptr, *tied = nullptr;
    TV_TRY(here.acquire(context, unit, next, use, memory));
    for (int i = 0; i < locals.num && use != TV_USE_FORWARD; i++) {
        const struct tv_local_param *local = &locals.params[i];
        tied = local->param->tied_unit == unit ? local : tied;
        if (local->unit != unit)
            continue;
        first = first == nullptr ? local : first;
        if (use == TV_USE_BACKWARD || !local->param->is_for_rows)
            std::fill_n(memory->grads + local->first - first->first, local->count, value);
    }
    if (tied != nullptr && use != TV_USE_FORWARD)
        std::fill_n(memory->tied_grads, tied->count, value);
    if (here.way == CLEAR_AND_ADD)
        memory->given = TV_GIVEN_NORMS | TV_GIVEN_OTHERS | TV_GIVEN_TIED;
    return TV_OK;
}

// Bytes of what a rank has to clear in a step.
int64_t bytes_to_clear(const struct tv_trainer *tr)
{
    const struct tv_local_params &locals = tr->sharding.locals;
    const struct tv_run *run = tr->run;
    const int head = run->model.num_layers + 1;
    const bool is_lent = tr->store != nullptr,
               has_head = tv_run_stage_of_unit(run, head) == tr->here.at[TV_PIPE],
               is_split = std::string(run->options.schedule).rfind("zb-", 0) == 0;
    int64_t once = 0, each = 0; // in a step; in each micro-batch
    for (int i = 0; i < locals.num; i++) {
        const struct tv_local_param &local = locals.params[i];
        if (local.unit == 0 && (is_lent || local.param->tied_unit < 0 || !has_head))
            (is_lent ? each : once) += local.count;
        else if (local.unit > 0 && local.unit < head && local.param->is_for_rows && is_lent)
            each +=
                is_split ? 2 * local.count : 0; // before the first part, and what the second took
    }
    return (once + each * run->num_micro) * (int64_t)sizeof(float);
}

struct Result {
    std::vector<double> numbers; // losses and norms
    std::vector<float> grads;    // of rank 0 to the last, what each owns
};

void train_rank(struct tv_comm *world, const struct tv_run *run, Way way, Result *result)
{
    struct tv_trainer *tr = nullptr;
    ASSERT_EQ(tv_trainer_create(world, run, &tr), TV_OK) << tv_error_message();
    here = {way, &tr->sharding, nullptr, 0};
    if (tr->store != nullptr) {
        auto *lender = const_cast<struct tv_unit_store *>(tv_store_lender(tr->store));
        here.acquire = lender->acquire;
        lender->acquire = lend;
    }
    const int64_t count =
        tr->grads.is_compact ? tr->sharding.shards.own_count : tr->sharding.locals.count;
    for (int64_t step = 1; step <= num_steps; step++) {
        struct tv_step_report report = {};
        struct tv_eval_report held_out = {};
        std::fill_n(tr->grads.data, count, none); // gaps too: they are nobody's
        here.cleared_bytes = 0;
        ASSERT_EQ(tv_train_step(tr, step, &report), TV_OK) << tv_error_message();
        EXPECT_TRUE(way != WRITE || here.cleared_bytes == bytes_to_clear(tr))
            << here.cleared_bytes << " bytes, not " << bytes_to_clear(tr);
        ASSERT_EQ(tv_train_eval(tr, &held_out), TV_OK) << tv_error_message();
        for (double number : {report.loss, report.grad_norm, held_out.all.loss})
            result->numbers.push_back(number);
    }
    for (int i = 0; i < tr->sharding.num_pieces; i++) {
        const struct tv_owned_piece *piece = &tr->sharding.pieces[i];
        const float *grad = tr->grads.data + tv_piece_offset(&tr->grads, piece);
        result->grads.insert(result->grads.end(), grad, grad + piece->count);
    }
    tv_trainer_destroy(tr);
}

std::vector<Result> train(const Mesh &mesh, Way way)
{
    Temporary folder;
    std::string tokens;
    for (int i = 0; i < 8 * 40 + 1; i++)
        tokens += {(char)((i * i + 3 * i) % 61), 0};
    const std::string data = folder.write("tokens", tokens),
                      valid = folder.write("valid", tokens.substr(0, 2 * (8 * 8 + 1)));
    const Resolved resolved(small_model() +
                                Flags{"--num-layers", "4", "--data", data, "--valid-data", valid,
                                      "--train-iters", std::to_string(num_steps)} +
                                mesh.flags(),
                            mesh.num_ranks());
    std::vector<Result> results((size_t)mesh.num_ranks());
    on_ranks(mesh.num_ranks(), [&](struct tv_comm *world, int rank) {
        train_rank(world, &resolved.run, way, &results[(size_t)rank]);
    });
    return results;
}

const Flags llama = {"--model", "llama"};
const Flags untied = llama + Flags{"--untie-embeddings-and-output-weights"};
const Mesh meshes[] = {
    {"one_rank", 1, 1, 1, 0, {}},
    {"one_micro_batch", 1, 1, 1, 0, {"--micro-batch-size", "12"}},
    {"tied_llama", 1, 1, 1, 0, llama},
    {"pp2", 2, 1, 1, 0, untied},
    {"pp2_gpipe", 2, 1, 1, 0, {"--schedule", "gpipe"}},
    {"pp2_interleaved", 2, 1, 1, 0, {"--vpp", "2", "--recompute", "full"}},
    {"pp2_zb_h1", 2, 1, 1, 0, {"--schedule", "zb-h1", "--recompute", "selective"}},
    {"pp2_zb_v", 2, 1, 1, 0, {"--schedule", "zb-v"}}, // both ends on one stage
    {"tp2", 1, 1, 2, 0, {"--sequence-parallel", "--optimizer", "lion"}},
    {"dp2_muon", 1, 2, 1, 0, {"--optimizer", "muon"}},
    {"dp2_zero1_bf16", 1, 2, 1, 1, {"--precision", "bf16", "--grad-reduce-in-bf16"}},
    {"pp2_dp2_zero1", 2, 2, 1, 1, {"--schedule", "zb-h1"}},
    {"dp2_zero2_bf16", 1, 2, 1, 2, {"--precision", "bf16", "--grad-reduce-in-bf16"}},
    {"pp2_dp2_zero2_zb_v", 2, 2, 1, 2, {"--schedule", "zb-v"}},
    {"dp2_zero3", 1, 2, 1, 3, untied + Flags{"--recompute", "full"}},
    {"pp2_dp2_zero3_zb_h1", 2, 2, 1, 3, {"--schedule", "zb-h1"}},
};

class GradsOfAStep : public testing::TestWithParam<Mesh>
{
};

TEST_P(GradsOfAStep, AreThoseThatClearedOnesWereAddedTo)
{
    const std::vector<Result> got = train(GetParam(), WRITE),
                              want = train(GetParam(), CLEAR_AND_ADD);
    for (size_t r = 0; r < got.size(); r++) {
        EXPECT_EQ(got[r].numbers, want[r].numbers) << "rank " << r;
        EXPECT_EQ(got[r].grads, want[r].grads) << "rank " << r; // 0 and -0 are equal
    }
}

INSTANTIATE_TEST_SUITE_P(Meshes, GradsOfAStep, testing::ValuesIn(meshes),
                         [](const testing::TestParamInfo<Mesh> &which) {
                             return std::string(which.param.name);
                         });
} // namespace

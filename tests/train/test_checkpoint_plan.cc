// What each rank writes: every element of every logical tensor once, whatever is cut how; and the index of it.
#include "train/resolved_run.h"
#include <cstring>
#include <map>
#include <set>

namespace
{
const Flags llama = {"--model", "llama"}, gpt2 = {"--model", "gpt2"};

const Mesh meshes[] = {
    {"one_rank", 1, 1, 1, 0, llama},
    {"replicas_divide", 1, 3, 1, 0, llama},
    {"zero1", 1, 3, 1, 1, llama},
    {"groups", 1, 6, 1, 2, llama + Flags{"--zero-group-size", "3"}},
    {"groups_tensor", 2, 4, 2, 3, gpt2 + Flags{"--zero-group-size", "2"}},
    {"zero3_tensor", 1, 3, 2, 3, llama + Flags{"--num-query-groups", "2"}},
    {"replicated_heads", 1, 2, 4, 3, llama + Flags{"--num-query-groups", "2"}},
    {"groups_more", 1, 4, 1, 3, llama + Flags{"--zero-group-size", "2"}},
    {"gpt2_fused", 1, 3, 4, 2, gpt2},
    {"gpt2_tied_stages", 2, 2, 2, 3, gpt2},
    {"tied_v", 2, 3, 1, 3, gpt2 + Flags{"--schedule", "zb-v", "--num-layers", "4"}},
    {"untied_stages", 3, 2, 1, 1, llama + Flags{"--untie-embeddings-and-output-weights"}},
    {"sgd", 1, 2, 2, 3, llama + Flags{"--optimizer", "sgd"}},
    {"lion", 2, 2, 1, 2, llama + Flags{"--optimizer", "lion"}},
    {"muon", 1, 3, 2, 3, llama + Flags{"--optimizer", "muon"}},
    {"more_replicas_than_blocks", 1, 12, 1, 3, llama + Flags{"--hidden-size", "8"}},
};

class Plan : public testing::TestWithParam<Mesh>
{
  protected:
    const Mesh mesh = GetParam();
    Resolved resolved = {small_model() + mesh.flags() +
                             Flags{"--data", "unused", "--train-iters", "1"},
                         mesh.num_ranks()};
    const struct tv_run *run = &resolved.run;

    struct tv_save_plan plan_of(int rank) const
    {
        struct tv_save_plan plan = {};
        EXPECT_EQ(tv_save_plan_create(run, tv_mesh_coord_of(run->extent, rank), &plan), TV_OK);
        return plan;
    }
    // How often each element is written, by kind and name.
    std::map<std::string, std::vector<int>> written(int64_t *bytes) const
    {
        std::map<std::string, std::vector<int>> times;
        for (int rank = 0; rank < mesh.num_ranks(); rank++) {
            struct tv_save_plan plan = plan_of(rank);
            *bytes += plan.bytes;
            for (int i = 0; i < plan.num_slices; i++) {
                const struct tv_save_slice *slice = &plan.slices[i];
                const struct tv_rect *rect = &slice->rect;
                auto &counts =
                    times[std::string(tv_state_name(slice->kind)) + " " + slice->param->name];
                counts.resize((size_t)tv_param_count(slice->param));
                const int64_t cols = slice->param->num_dims == 1 ? 1 : slice->param->shape[1];
                for (int64_t r = 0; r < rect->num_rows; r++)
                    for (int64_t c = 0; c < rect->num_cols; c++)
                        counts.at((size_t)((rect->row + r) * cols + rect->col + c))++;
            }
            tv_save_plan_destroy(&plan);
        }
        return times;
    }
};
INSTANTIATE_TEST_SUITE_P(Checkpoint, Plan, testing::ValuesIn(meshes),
                         [](const auto &mesh) { return std::string(mesh.param.name); });

// Kinds that each optimizer has for a weight.
std::set<std::string> kinds_for(const struct tv_run *run, const struct tv_param *param)
{
    const std::string optimizer = run->options.optimizer;
    const bool is_matrix =
        param->num_dims == 2 && param->unit >= 1 && param->unit <= run->model.num_layers;
    if (optimizer == "sgd" || (optimizer == "muon" && is_matrix))
        return {"weight", "momentum"};
    if (optimizer == "lion")
        return {"weight", "exp_avg"};
    return {"weight", "exp_avg", "exp_avg_sq"};
}
} // namespace

TEST_P(Plan, EveryElementIsWrittenOnce)
{
    int64_t bytes = 0, expected = 0, stated = 0;
    auto times = written(&bytes);
    struct tv_param_table table;
    ASSERT_EQ(tv_model_param_table(&run->model, &table), TV_OK);
    for (int i = 0; i < table.num_params; i++) {
        for (const std::string &kind : kinds_for(run, &table.params[i])) {
            const auto found = times.extract(kind + " " + table.params[i].name);
            ASSERT_FALSE(found.empty()) << kind << " " << table.params[i].name;
            ASSERT_EQ(found.mapped(), std::vector<int>((size_t)tv_param_count(&table.params[i]), 1))
                << found.key();
            expected += 4 * tv_param_count(&table.params[i]);
        }
    }
    tv_param_table_destroy(&table);
    EXPECT_TRUE(times.empty()) << times.begin()->first; /* no padding, nothing besides */
    EXPECT_EQ(bytes, expected);
    ASSERT_EQ(tv_state_bytes(run, &stated), TV_OK);
    EXPECT_EQ(stated, expected);
}

TEST_P(Plan, ReplicasWriteAboutTheSame)
{
    if (mesh.name == std::string("muon") || mesh.tp > 1)
        GTEST_SKIP() << "matrices are not cut, or one tensor rank writes what several hold";
    // At most a block of 16 elements of each kind apart, in each bucket.
    std::vector<int64_t> bytes((size_t)mesh.num_ranks());
    for (int rank = 0; rank < mesh.num_ranks(); rank++) {
        struct tv_save_plan plan = plan_of(rank);
        bytes[(size_t)rank] = plan.bytes;
        tv_save_plan_destroy(&plan);
    }
    for (int rank = 0; rank < mesh.num_ranks(); rank++) {
        struct tv_mesh_coord first = tv_mesh_coord_of(run->extent, rank);
        first.at[TV_DATA] = 0;
        const int64_t other = bytes[(size_t)tv_mesh_rank_of(run->extent, first)];
        EXPECT_LT(std::abs(bytes[(size_t)rank] - other), 3 * 16 * 4 * 8) << rank;
    }
}

TEST_P(Plan, TheIndexSaysWhoHasWhat)
{
    std::vector<struct tv_file_digest> digests;
    int num_shards = 0;
    for (int rank = 0; rank < mesh.num_ranks(); rank++) {
        struct tv_save_plan plan = plan_of(rank);
        digests.push_back({plan.bytes, (uint64_t)rank * 0x123456789abcdef1u});
        num_shards += plan.num_slices > 0;
        tv_save_plan_destroy(&plan);
    }
    const struct tv_file_digest state = {17, 0xfedcba9876543210u};
    char *text = nullptr;
    struct tv_index index = {};
    ASSERT_EQ(tv_index_make(run, digests.data(), &state, &text), TV_OK);
    ASSERT_EQ(tv_index_parse("index.json", text, std::strlen(text), &index), TV_OK)
        << tv_error_message();
    EXPECT_EQ(index.vocab_size, 97);
    EXPECT_EQ(index.state.hash, state.hash);
    EXPECT_EQ(index.num_shards, num_shards);
    for (int i = 0; i < index.num_shards; i++) {
        const int rank = std::atoi(index.shards[i].name + std::strlen("shard-"));
        EXPECT_EQ(index.shards[i].digest.bytes, digests[(size_t)rank].bytes);
        EXPECT_EQ(index.shards[i].digest.hash, digests[(size_t)rank].hash);
    }
    const char *embedding =
        run->model.family == TV_GPT2 ? "transformer.wte.weight" : "model.embed_tokens.weight";
    const struct tv_index_tensor *vocabulary = tv_index_find(&index, "weight", embedding);
    ASSERT_NE(vocabulary, nullptr);
    EXPECT_EQ(vocabulary->shape[0], 97);
    EXPECT_EQ(tv_index_find(&index, "weight", "transformer.wte"), nullptr);
    tv_index_free(&index);
    std::free(text);
}

// Rectangles of a piece against the copy of the whole piece, element by element.
TEST(Rects, AreThePieceCutAnywhere)
{
    struct tv_param fused = {};
    fused.num_dims = 2;
    fused.shape[0] = 5;
    fused.shape[1] = 12;
    fused.split_dim = 1;
    fused.num_blocks = 3;
    const int T = 2, t = 1;
    std::vector<float> global(60), local(30);
    for (size_t i = 0; i < global.size(); i++)
        global[i] = (float)i;
    tv_param_scatter(&fused, T, t, global.data(), local.data());
    for (int64_t first = 0; first < 30; first++) {
        for (int64_t count = 0; first + count <= 30; count++) {
            std::vector<float> seen;
            struct tv_rect rects[TV_MAX_RECTS];
            const int num = tv_rects_of(&fused, T, t, first, count, rects);
            int64_t elements = 0;
            for (int i = 0; i < num; i++) {
                const struct tv_rect *r = &rects[i];
                for (int64_t y = 0; y < r->num_rows; y++)
                    for (int64_t x = 0; x < r->num_cols; x++) {
                        const int64_t at = r->local + y * r->local_cols + x;
                        ASSERT_TRUE(at >= first && at < first + count);
                        ASSERT_EQ(local[(size_t)at],
                                  global[(size_t)((r->row + y) * 12 + r->col + x)]);
                        elements++;
                    }
            }
            ASSERT_EQ(elements, count) << first;
        }
    }
}

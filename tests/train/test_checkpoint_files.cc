// index.json and state.json that are not what they should be, folders of steps, and what saving leaves behind.
#include "train/heap.h"
#include "train/resolved_run.h"
#include "train/temporary.h"
#include <cstring>
#include <filesystem>
#include <jansson.h>
#include <xxhash.h>

namespace
{
const Mesh mesh = {"", 1, 3, 2, 3, {"--model", "llama"}};

// The index of a run as JSON, to be changed.
struct Index {
    Resolved resolved = {small_model() + mesh.flags() +
                             Flags{"--data", "unused", "--train-iters", "1"},
                         mesh.num_ranks()};
    json_t *json = nullptr;

    Index()
    {
        const std::vector<struct tv_file_digest> digests(6, {1000, 1});
        const struct tv_file_digest state = {10, 2};
        char *text = nullptr;
        EXPECT_EQ(tv_index_make(&resolved.run, digests.data(), &state, &text), TV_OK);
        json = json_loads(text, 0, nullptr);
        std::free(text);
    }
    ~Index()
    {
        json_decref(json);
    }
    json_t *tensor()
    {
        return json_object_get(json_object_get(json_object_get(json, "tensors"), "weight"),
                               "model.embed_tokens.weight");
    }
    json_t *slice(size_t i)
    {
        return json_array_get(json_object_get(tensor(), "slices"), i);
    }
    void set(json_t *object, const char *key, const char *value)
    {
        json_object_set_new(object, key, json_loads(value, JSON_DECODE_ANY, nullptr));
    }
    void expect_refused(const std::vector<std::string> &words)
    {
        char *text = json_dumps(json, 0);
        struct tv_index index = {};
        EXPECT_EQ(tv_index_parse("D/index.json", text, std::strlen(text), &index), TV_BAD_FILE);
        EXPECT_EQ(index.json, nullptr);
        for (const std::string &word : words)
            expect_message_has(word, tv_error_message());
        expect_message_has("D/index.json", tv_error_message());
        std::free(text);
    }
};

std::string state_text(const char *changes)
{
    const std::string text =
        R"({"format":"trivet checkpoint","version":1,"step":7,"consumed_samples":84,"seed":1,
        "num_updates":6,"bad_steps_in_a_row":1,"num_samples":99,"seq_length":8,"optimizer":"adam",
        "flags":{"lr":"0.001"},"resolved":{"global-batch-size":"12"},"config":{"model":{"family":"llama",
        "num_layers":3,"hidden_size":24,"num_attention_heads":4,"num_query_groups":2,"ffn_hidden_size":52,
        "vocab_size":97,"max_position_embeddings":8,"tied":true,"norm_epsilon":1e-5,"rotary_base":10000,
        "init_method_std":0.02}}})";
    json_t *json = json_loads(text.c_str(), 0, nullptr), *more = json_loads(changes, 0, nullptr);
    json_object_update(json, more);
    char *changed = json_dumps(json, 0);
    const std::string result = changed;
    std::free(changed);
    json_decref(json);
    json_decref(more);
    return result;
}

tv_status_t parse(const std::string &text, struct tv_checkpoint *checkpoint)
{
    *checkpoint = {};
    return tv_saved_state_parse("D/state.json", text.data(), text.size(), &checkpoint->state);
}

std::vector<int64_t> steps_of(const std::string &folder)
{
    int64_t *steps = nullptr;
    int num = 0;
    EXPECT_EQ(tv_folder_steps(folder.c_str(), &steps, &num), TV_OK) << tv_error_message();
    const std::vector<int64_t> all(steps, steps + num);
    std::free(steps);
    return all;
}

void make(const Temporary &folder, const std::string &name, const std::string &content)
{
    std::filesystem::create_directories(folder.path(name));
    folder.write(name + "/index.json", content);
}

size_t num_open_files()
{
    size_t num = 0;
    for (const auto &entry : std::filesystem::directory_iterator("/proc/self/fd"))
        num += !entry.path().empty();
    return num;
}
} // namespace

TEST(Index, WhatIsWrongIsNamed)
{
    const std::string name = "model.embed_tokens.weight";
    const struct {
        const char *what;
        std::function<void(Index &)> change;
        std::vector<std::string> words;
    } cases[] = {
        {"no format", [](Index &i) { i.set(i.json, "format", "\"other\""); }, {"other"}},
        {"version", [](Index &i) { i.set(i.json, "version", "2"); }, {"version 2", "reads 1"}},
        {"no shards", [](Index &i) { json_object_del(i.json, "shards"); }, {"\"shards\""}},
        {"no state", [](Index &i) { json_object_del(i.json, "state"); }, {"state", "bytes"}},
        {"vocabulary", [](Index &i) { i.set(i.json, "vocab_size", "0"); }, {"vocab_size", "0"}},
        {"a path",
         [](Index &i) { i.set(json_object_get(i.json, "shards"), "../s", "{}"); },
         {"'../s'"}},
        {"hash",
         [](Index &i) {
             i.set(json_object_get(i.json, "shards"), "s", R"({"bytes":1,"xxh3":"12"})");
         },
         {"s:", "16"}},
        {"size",
         [](Index &i) {
             i.set(json_object_get(i.json, "shards"), "s", R"({"bytes":-1,"xxh3":""})");
         },
         {"s:", "-1"}},
        {"three dims", [](Index &i) { i.set(i.tensor(), "shape", "[1,2,3]"); }, {name, "shape"}},
        {"no size", [](Index &i) { i.set(i.tensor(), "shape", "[97,0]"); }, {name, "shape"}},
        {"too large",
         [](Index &i) { i.set(i.tensor(), "shape", "[4611686018427387904,4]"); },
         {name, "too large"}},
        {"dtype", [](Index &i) { i.set(i.tensor(), "dtype", "\"F33\""); }, {name, "F33"}},
        {"no slices", [](Index &i) { i.set(i.tensor(), "slices", "{}"); }, {name, "2328 elements"}},
        {"a hole",
         [](Index &i) { json_array_remove(json_object_get(i.tensor(), "slices"), 0); },
         {name, "in no slice"}},
        {"overlap", [](Index &i) { i.set(i.slice(1), "start", "[0,0]"); }, {name, "two slices"}},
        {"outside", [](Index &i) { i.set(i.slice(0), "shape", "[98,24]"); }, {name, "leaves"}},
        {"overflow",
         [](Index &i) { i.set(i.slice(0), "start", "[9223372036854775807,0]"); },
         {name, "leaves"}},
        {"negative", [](Index &i) { i.set(i.slice(0), "start", "[-1,0]"); }, {name, "start"}},
        {"no such shard", [](Index &i) { i.set(i.slice(0), "shard", "\"t\""); }, {name, "'t'"}},
        {"one byte", [](Index &i) { i.set(i.json, "vocab_size", "98"); }, {"hash"}},
    };
    for (const auto &c : cases) {
        SCOPED_TRACE(c.what);
        Index index;
        c.change(index);
        index.expect_refused(c.words);
    }
}

TEST(Index, TextThatIsNoIndex)
{
    struct tv_index index = {};
    for (const std::string text : {"", "{", "[]", "{}", "\xff", "{\"format\":1}"})
        EXPECT_EQ(tv_index_parse("D/index.json", text.data(), text.size(), &index), TV_BAD_FILE);
}

TEST(State, IsReadAndTakenOver)
{
    struct tv_checkpoint c;
    ASSERT_EQ(parse(state_text("{}"), &c), TV_OK) << tv_error_message();
    EXPECT_EQ(c.state.step, 7);
    EXPECT_EQ(c.state.consumed, 84);
    EXPECT_EQ(c.state.num_updates, 6);
    EXPECT_EQ(c.state.model.vocab_size, 97);
    EXPECT_EQ(c.state.model.family, TV_LLAMA);
    Words words("train", {"--min-lr", "1e-4"});
    struct tv_train_options options = {};
    ASSERT_EQ(tv_train_options_parse(words.argc(), words.argv.data(), &options), TV_OK);
    ASSERT_EQ(tv_checkpoint_inherit(&c, &options), TV_OK);
    EXPECT_EQ(options.lr, 0.001);
    EXPECT_EQ(options.min_lr, 1e-4);
    EXPECT_EQ(options.global_batch, 12);
    EXPECT_TRUE(tv_train_options_has(&options, "lr"));
    EXPECT_EQ(options.stored_model, &c.state.model);
    tv_saved_state_free(&c.state);

    ASSERT_EQ(parse(state_text(R"({"flags":{"lr":"-3"}})"), &c), TV_OK);
    EXPECT_EQ(tv_checkpoint_inherit(&c, &options), TV_OK) << "it has its own by now";
    tv_options_take_back(&tv_train_option_table, &options.given, &options, &options, "lr");
    EXPECT_EQ(tv_checkpoint_inherit(&c, &options), TV_BAD_FILE);
    expect_message_has("--lr -3", tv_error_message());
    tv_saved_state_free(&c.state);
}

TEST(State, WhatIsWrongIsNamed)
{
    const std::pair<const char *, const char *> cases[] = {
        {R"({"step":"7"})", "\"step\""},
        {R"({"step":-1})", "-1"},
        {R"({"consumed_samples":9223372036854775807})", "consumed_samples"},
        {R"({"num_updates":8})", "num_updates"},
        {R"({"optimizer":null})", "optimizer"},
        {R"({"num_samples":0})", "num_samples"},
        {R"({"flags":[]})", "flags"},
        {R"({"config":{}})", "\"model\""},
        {R"({"config":{"model":{"family":"bert","tied":true}}})", "bert"},
        {R"({"config":{"model":{"family":"gpt2","tied":1}}})", "tied"},
        {R"({"config":{"model":{"family":"gpt2","tied":true,"num_layers":0}}})", "num_layers"},
    };
    for (const auto &[change, word] : cases) {
        struct tv_checkpoint c;
        EXPECT_EQ(parse(state_text(change), &c), TV_BAD_FILE) << change;
        expect_message_has(word, tv_error_message());
        expect_message_has("D/state.json", tv_error_message());
    }
}

TEST(Folder, OnlyNamesOfStepsAreSteps)
{
    Temporary folder;
    for (const char *name :
         {"step-00000020", "step-00000003", "step-123456789", "step-00000004.tmp", "step-5",
          "step-", "step-0000000a", "step--0000001", "step-00000006x", "xstep-00000007",
          "step-0000000000000001"})
        make(folder, name, "");
    EXPECT_EQ(steps_of(folder.path("")), (std::vector<int64_t>{3, 20, 123456789}));
    EXPECT_EQ(steps_of(folder.path("nothing")), std::vector<int64_t>{});
}

TEST(Folder, ANewStepTakesThePlaceOfAnOlderOne)
{
    Temporary folder;
    const std::string root = folder.path("");
    make(folder, "step-00000004", "old");
    ASSERT_EQ(tv_folder_begin(root.c_str(), 4), TV_OK);
    make(folder, "step-00000004.tmp", "new");
    EXPECT_EQ(folder.read("step-00000004/index.json"), "old");
    ASSERT_EQ(tv_folder_commit(root.c_str(), 4), TV_OK) << tv_error_message();
    EXPECT_EQ(folder.read("step-00000004/index.json"), "new");
    EXPECT_FALSE(folder.has("step-00000004.tmp"));
    EXPECT_FALSE(folder.has("step-00000004.old"));
    EXPECT_EQ(tv_folder_commit(root.c_str(), 5), TV_IO);
    make(folder, "step-00000006.tmp", "left behind");
    ASSERT_EQ(tv_folder_begin(root.c_str(), 6), TV_OK);
    EXPECT_FALSE(folder.has("step-00000006.tmp/index.json"));
    make(folder, "step-00000004.old", "replaced");
    make(folder, "step-00000007.old", "to be replaced");
    tv_folder_clean(root.c_str());
    EXPECT_EQ(folder.read("step-00000004/index.json"), "new");
    EXPECT_EQ(folder.read("step-00000007/index.json"), "to be replaced");
    EXPECT_FALSE(folder.has("step-00000004.old") || folder.has("step-00000007.old"));
    EXPECT_FALSE(folder.has("step-00000006.tmp"));
    EXPECT_TRUE(folder.has("step-00000004"));
}

TEST(Folder, TheOldestGoAndTheNewestStays)
{
    Temporary folder;
    const std::string root = folder.path("");
    for (const char *name :
         {"step-00000001", "step-00000002", "step-00000003", "step-00000009", "other"})
        make(folder, name, "");
    tv_folder_prune(root.c_str(), 9, 0);
    EXPECT_EQ(steps_of(root), (std::vector<int64_t>{1, 2, 3, 9}));
    tv_folder_prune(root.c_str(), 9, 3);
    EXPECT_EQ(steps_of(root), (std::vector<int64_t>{2, 3, 9}));
    tv_folder_prune(root.c_str(), 2, 1); // the one just written, though it is not the largest
    EXPECT_EQ(steps_of(root), (std::vector<int64_t>{2}));
    EXPECT_TRUE(folder.has("other/index.json"));
}

// A writer with several dtypes: aligned, its hash that of the file.
TEST(Shard, DigestAndDtypes)
{
    Temporary folder;
    const std::string path = folder.path("s.safetensors");
    const tv_safetensors_entry entries[] = {
        {"a", "F64", 1, {1}}, {"b", nullptr, 2, {1, 3}}, {"c", "BF16", 1, {3}}};
    const unsigned char data[8 + 12 + 6] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    tv_safetensors_writer *writer = nullptr;
    ASSERT_EQ(tv_safetensors_create(path.c_str(), 3, entries, &writer), TV_OK);
    ASSERT_EQ(tv_safetensors_write_bytes(writer, data, 10), TV_OK);
    ASSERT_EQ(tv_safetensors_write_bytes(writer, data + 10, 16), TV_OK);
    EXPECT_EQ(tv_safetensors_write_bytes(writer, data, 1), TV_INTERNAL);
    const struct tv_file_digest digest = tv_safetensors_digest(writer);
    ASSERT_EQ(tv_safetensors_finish(&writer), TV_OK);
    const std::string bytes = folder.read("s.safetensors");
    EXPECT_EQ(digest.bytes, (int64_t)bytes.size());
    EXPECT_EQ(digest.hash, XXH3_64bits(bytes.data(), bytes.size()));
    tv_safetensors *file = nullptr;
    ASSERT_EQ(tv_safetensors_open(path.c_str(), &file), TV_OK) << tv_error_message();
    EXPECT_STREQ(tv_safetensors_find(file, "c")->dtype, "BF16");
    EXPECT_EQ(tv_safetensors_find(file, "c")->offset, 20);
    tv_safetensors_close(file);
    // A wide element behind narrow ones would not lie at a multiple of its size.
    const tv_safetensors_entry unaligned[] = {{"c", "BF16", 1, {3}}, {"b", "F32", 1, {1}}};
    EXPECT_EQ(tv_safetensors_create(path.c_str(), 2, unaligned, &writer), TV_INVALID);
    EXPECT_EQ(folder.read("s.safetensors"), bytes);
}

// Row B59: many saves leave no memory and no open files behind.
TEST(Saving, LeavesNothingBehind)
{
    Temporary folder;
    std::ofstream(folder.path("tokens"), std::ios::binary) << std::string(4000, '\0');
    for (const char *how : {"--save-async", "--deterministic"}) {
        const Mesh two = {"", 1, 2, 1, 3, {"--model", "llama"}};
        Resolved resolved(small_model() + two.flags() +
                              Flags{"--data", folder.path("tokens"), "--train-iters", "1000",
                                    "--save", folder.path("ckpt"), "--keep", "2", how},
                          2);
        size_t files[2] = {}, bytes[2] = {};
        on_ranks(2, [&](struct tv_comm *world, int rank) {
            struct tv_trainer *tr = nullptr;
            int64_t saved = 0;
            ASSERT_EQ(tv_trainer_create(world, &resolved.run, &tr), TV_OK) << tv_error_message();
            for (int64_t step = 1; step <= 30; step++) {
                ASSERT_EQ(tv_checkpoint_save(tr, step), TV_OK) << tv_error_message();
                ASSERT_EQ(tv_checkpoint_finish(tr, &saved), TV_OK) << tv_error_message();
                ASSERT_EQ(saved, step);
                ASSERT_EQ(tv_checkpoint_save(tr, step), TV_OK); // it is there already
                ASSERT_EQ(tv_checkpoint_poll(tr, &saved), TV_OK);
                ASSERT_EQ(saved, 0);
                ASSERT_EQ(tv_comm_barrier(world), TV_OK);
                if (rank == 0 && (step == 10 || step == 30)) {
                    files[step == 30] = num_open_files();
                    bytes[step == 30] = heap_in_use();
                }
                ASSERT_EQ(tv_comm_barrier(world), TV_OK);
            }
            tv_trainer_destroy(tr);
        });
        EXPECT_EQ(files[0], files[1]);
        EXPECT_LT(std::abs((double)bytes[1] - (double)bytes[0]), 1e4) << how;
        EXPECT_EQ(steps_of(folder.path("ckpt")), (std::vector<int64_t>{29, 30}));
    }
}

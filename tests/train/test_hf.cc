// Hugging Face folders: every weight of the model, once, with its shape, and nothing besides.
#include "base/status.h"
#include "hf_model.h"
#include <functional>

namespace
{
void expect_refused(const Model &model, const std::string &path, const std::string &part)
{
    tv_hf *hf = nullptr;
    EXPECT_EQ(tv_hf_open(path.c_str(), &model.config, &model.table, &hf), TV_BAD_FILE) << part;
    EXPECT_EQ(hf, nullptr);
    expect_message_has(part, tv_error_message());
}

// Writes the model's tensors changed by `change` and expects the file to be refused.
void expect_change_refused(const Model &model, const std::string &part,
                           const std::function<void(std::vector<Tensor> &)> &change)
{
    Temporary dir;
    auto tensors = tensors_of(model);
    change(tensors);
    write_tensors(dir.path("model.safetensors"), tensors);
    expect_refused(model, dir.path("model.safetensors"), part);
}

std::string without_prefix(const std::string &name)
{
    return name.rfind("transformer.", 0) == 0 ? name.substr(12) : name;
}

// Splits tensors over two shards and writes an index; `name` may rename a shard in the index.
void write_shards(const Temporary &dir, const std::vector<Tensor> &tensors,
                  const std::function<std::string(size_t)> &name)
{
    std::vector<Tensor> shards[2];
    std::string map;
    for (size_t i = 0; i < tensors.size(); i++) {
        shards[i % 2].push_back(tensors[i]);
        map += (i ? ",\"" : "\"") + tensors[i].name + "\":\"" + name(i % 2) + "\"";
    }
    for (int s = 0; s < 2; s++)
        write_tensors(dir.path("shard-" + std::to_string(s) + ".safetensors"), shards[s]);
    dir.write("model.safetensors.index.json",
              R"({"metadata":{"total_size":1},"weight_map":{)" + map + "}}");
}

std::string plain_shard(size_t s)
{
    return "shard-" + std::to_string(s) + ".safetensors";
}
} // namespace

TEST(Hf, ReadsEveryPiece)
{
    for (const Model *model : {new Model(TV_GPT2), new Model(TV_LLAMA), new Model(TV_LLAMA, 0)}) {
        Temporary dir;
        write_tensors(dir.path("model.safetensors"), tensors_of(*model));
        expect_opens(*model, dir.path("model.safetensors"));
        expect_opens(*model, dir.path("")); // the folder
        delete model;
    }
}

TEST(Hf, Gpt2NamesWithoutPrefixAndWithBuffers)
{
    const Model model(TV_GPT2);
    Temporary dir;
    auto tensors = tensors_of(model);
    for (Tensor &tensor : tensors)
        tensor.name = without_prefix(tensor.name);
    tensors.push_back({"h.0.attn.bias", {1, 1, 8, 8}, std::vector<float>(64, 1.0f)});
    tensors.push_back({"h.1.attn.masked_bias", {}, {-1e4f}});
    write_tensors(dir.path("model.safetensors"), tensors);
    expect_opens(model, dir.path(""));
}

TEST(Hf, LlamaBuffersArePassedOver)
{
    const Model model(TV_LLAMA);
    Temporary dir;
    auto tensors = tensors_of(model);
    tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {2}, {1, 0.5}});
    write_tensors(dir.path("model.safetensors"), tensors);
    expect_opens(model, dir.path(""));
}

TEST(Hf, ATiedHeadMayBeThereWhenItIsEqual)
{
    for (tv_model_family_t family : {TV_GPT2, TV_LLAMA}) {
        const Model model(family);
        const auto plain = tensors_of(model);
        const Tensor head = {"lm_head.weight", plain[0].shape, plain[0].values};
        ASSERT_EQ(plain[0].shape[0], 19) << "the first row is the embedding";
        Temporary dir;
        auto tensors = plain;
        tensors.push_back(head);
        write_tensors(dir.path("model.safetensors"), tensors);
        expect_opens(model, dir.path(""));
        expect_change_refused(model, "differ in row 18", [&](std::vector<Tensor> &changed) {
            changed.push_back(head);
            changed.back().values.back() += 1;
        });
        expect_change_refused(model, "[20, 16]", [&](std::vector<Tensor> &changed) {
            changed.push_back({"lm_head.weight", {20, 16}, std::vector<float>(320)});
        });
    }
    // Untied, the head must be there.
    const Model untied(TV_LLAMA, 0);
    expect_change_refused(untied, "lm_head.weight is missing", [](std::vector<Tensor> &t) {
        std::erase_if(t, [](const Tensor &x) { return x.name == "lm_head.weight"; });
    });
}

TEST(Hf, WhatDoesNotFitIsRefused)
{
    const Model model(TV_GPT2);
    expect_change_refused(model, "transformer.h.1.mlp.c_fc.weight is missing",
                          [](std::vector<Tensor> &t) {
                              std::erase_if(t, [](const Tensor &x) {
                                  return x.name == "transformer.h.1.mlp.c_fc.weight";
                              });
                          });
    expect_change_refused(
        model, "transformer.h.2.ln_1.weight does not belong", [](std::vector<Tensor> &t) {
            t.push_back({"transformer.h.2.ln_1.weight", {16}, std::vector<float>(16)});
        });
    expect_change_refused(model, "wte.weight is there twice", [](std::vector<Tensor> &t) {
        t.push_back(t[0]);
        t.back().name = without_prefix(t.back().name);
    });
    expect_change_refused(model, "is [16, 19], the model needs [19, 16]",
                          [](std::vector<Tensor> &t) {
                              t[0].shape = {16, 19};
                          });
    expect_change_refused(model, "the model needs [16]", [](std::vector<Tensor> &t) {
        for (Tensor &x : t) // right number of elements, wrong number of dims
            if (x.shape.size() == 1 && x.shape[0] == 16)
                x.shape = {1, 16};
    });
}

TEST(Hf, ATypeThatIsNotReadIsRefusedWhenOpened)
{
    const Model model(TV_GPT2);
    Temporary dir;
    auto tensors = tensors_of(model);
    write_tensors(dir.path("model.safetensors"), tensors);
    std::string content = dir.read("model.safetensors");
    const size_t at = content.find("\"F32\"");
    ASSERT_NE(at, std::string::npos);
    content.replace(at, 5, "\"I32\"");
    dir.write("model.safetensors", content);
    expect_refused(model, dir.path(""), "is I32");
}

TEST(Hf, Shards)
{
    const Model model(TV_LLAMA, 0);
    const auto tensors = tensors_of(model);
    Temporary dir;
    write_shards(dir, tensors, plain_shard);
    expect_opens(model, dir.path(""));
    expect_opens(model, dir.path("model.safetensors.index.json"));
    const std::string index = dir.read("model.safetensors.index.json");

    std::filesystem::remove(dir.path("shard-1.safetensors"));
    expect_refused(model, dir.path(""), "shard-1.safetensors");
    write_shards(dir, tensors, [](size_t) { return plain_shard(0); });
    expect_refused(model, dir.path(""), "is not in");
    // A shard that holds more than the index says.
    write_shards(dir, tensors, plain_shard);
    dir.write(
        "model.safetensors.index.json",
        std::string(index).replace(index.find("\"lm_head.weight\":"), 17, "\"other.weight\":"));
    expect_refused(model, dir.path(""), "other.weight is not in");
    dir.write("model.safetensors.index.json", R"({"weight_map":{}})");
    expect_refused(model, dir.path(""), "is missing");
    dir.write("model.safetensors.index.json", R"({"weight_map":[]})");
    expect_refused(model, dir.path(""), "weight_map");
    dir.write("model.safetensors.index.json", "{");
    expect_refused(model, dir.path(""), "line 1");
}

TEST(Hf, ShardsMustBeInTheFolder)
{
    const Model model(TV_LLAMA, 0);
    Temporary dir;
    for (const char *bad :
         {"../shard-0.safetensors", "/etc/hostname", "sub/shard-0.safetensors", "..", ""}) {
        write_shards(dir, tensors_of(model),
                     [&](size_t s) { return s == 0 ? bad : plain_shard(1); });
        expect_refused(model, dir.path(""), "not the name of a file in this folder");
    }
}

TEST(Hf, FoldersWithoutWeights)
{
    const Model model(TV_GPT2);
    Temporary dir;
    expect_refused(model, dir.path(""), "neither model.safetensors nor");
    expect_refused(model, dir.path("absent.safetensors"), "absent.safetensors");
}

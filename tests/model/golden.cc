#include "model/golden.h"
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <jansson.h>
#include <memory>
#include <stdexcept>

namespace
{

using Json = std::unique_ptr<json_t, decltype(&json_decref)>;

std::string read_bytes(const std::filesystem::path &path)
{
    std::ifstream file(path, std::ios::binary);
    if (!file)
        throw std::runtime_error("cannot read " + path.string());
    return {std::istreambuf_iterator<char>(file), {}};
}

Json parse(const std::string &text)
{
    Json json(json_loadb(text.data(), text.size(), 0, nullptr), json_decref);
    if (json == nullptr)
        throw std::runtime_error("not JSON: " + text.substr(0, 40));
    return json;
}

/* A number of an object, whatever its kind; `otherwise` when absent or null. */
double number(const json_t *object, const char *key, double otherwise = 0)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

/* 8 bytes of header length, a JSON header, then F32 data at the offsets it names. */
Tensors read_tensors(const std::filesystem::path &path)
{
    const std::string bytes = read_bytes(path);
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof(length));
    const Json header = parse(bytes.substr(8, length));
    Tensors tensors;
    const char *name = nullptr;
    json_t *entry = nullptr;
    json_object_foreach(header.get(), name, entry)
    {
        const json_t *offsets = json_object_get(entry, "data_offsets");
        if (offsets == nullptr)
            continue; /* __metadata__ */
        const auto begin = (size_t)json_integer_value(json_array_get(offsets, 0));
        const auto end = (size_t)json_integer_value(json_array_get(offsets, 1));
        std::vector<float> &tensor = tensors[name];
        tensor.resize((end - begin) / sizeof(float));
        std::memcpy(tensor.data(), bytes.data() + 8 + length + begin, end - begin);
    }
    return tensors;
}

struct tv_model_config config_of(const json_t *json)
{
    struct tv_model_config c = {};
    const bool is_gpt2 =
        std::strcmp(json_string_value(json_object_get(json, "model_type")), "gpt2") == 0;
    c.family = is_gpt2 ? TV_GPT2 : TV_LLAMA;
    c.num_layers = (int)number(json, is_gpt2 ? "n_layer" : "num_hidden_layers");
    c.hidden_size = (int)number(json, is_gpt2 ? "n_embd" : "hidden_size");
    c.num_heads = (int)number(json, is_gpt2 ? "n_head" : "num_attention_heads");
    c.num_kv_heads = (int)number(json, "num_key_value_heads");
    c.ffn_size = (int)number(json, "intermediate_size");
    c.vocab_size = (int64_t)number(json, "vocab_size");
    c.max_positions = (int)number(json, is_gpt2 ? "n_positions" : "max_position_embeddings");
    c.is_tied = json_is_true(json_object_get(json, "tie_word_embeddings"));
    c.norm_eps = number(json, is_gpt2 ? "layer_norm_epsilon" : "rms_norm_eps");
    c.rope_theta = number(json, "rope_theta");
    tv_model_config_defaults(&c);
    return c;
}

/* Samples 0 .. G-1 in file order: sample i is tokens[i S .. i S + S]. */
void read_batch(const std::filesystem::path &path, int64_t global_batch, int mask, StepCase *step)
{
    const std::string bytes = read_bytes(path);
    const auto token = [&](int64_t i) {
        return (int32_t)((unsigned char)bytes[(size_t)(2 * i)] |
                         (unsigned char)bytes[(size_t)(2 * i + 1)] << 8);
    };
    for (int64_t i = 0; i < global_batch * step->seq_length; i++) {
        step->ids.push_back(token(i));
        step->targets.push_back(token(i + 1) == mask ? -100 : token(i + 1));
    }
}

} // namespace

std::filesystem::path golden_folder()
{
    const char *shared = std::getenv("TRIVET_SHARED");
    return std::filesystem::path(shared != nullptr ? shared : TRIVET_BESIDE_SOURCE "/shared") /
           "golden";
}

Golden read_golden(const std::filesystem::path &folder)
{
    const Json config = parse(read_bytes(folder / "config.json"));
    const Json run = parse(read_bytes(folder / "golden.json"));
    const json_t *first = json_array_get(json_object_get(run.get(), "steps"), 0);
    Golden golden = {};
    golden.step.config = config_of(config.get());
    golden.step.micro_batch = 4;
    golden.step.seq_length = (int)number(run.get(), "seq_length");
    golden.step.kernels = tv_kernels_cpu(TV_F32);
    golden.step.weights = read_tensors(folder / "model.safetensors");
    read_batch(folder / "tokens.bin", (int64_t)number(run.get(), "global_batch_size"),
               (int)number(run.get(), "mask_token", -1), &golden.step);
    golden.loss = number(first, "loss");
    golden.grad_norm = number(first, "grad_norm");
    golden.counted_tokens = (int64_t)number(first, "counted_tokens");
    golden.grads = read_tensors(folder / "grads.safetensors");
    return golden;
}

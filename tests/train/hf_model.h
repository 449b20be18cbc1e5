// Small models whose weights are all different numbers, and files of them.
#ifndef TV_TESTS_TRAIN_HF_MODEL_H
#define TV_TESTS_TRAIN_HF_MODEL_H
#include "temporary.h"
#include "train/hf.h"
#include <vector>

struct Model {
    explicit Model(tv_model_family_t family, int is_tied = 1)
    {
        config.family = family;
        config.num_layers = 2;
        config.hidden_size = 16;
        config.num_heads = 4;
        config.num_kv_heads = family == TV_LLAMA ? 2 : 4;
        config.ffn_size = 24;
        config.vocab_size = 19; // divides by nothing
        config.max_positions = 8;
        config.is_tied = is_tied;
        tv_model_config_defaults(&config);
        EXPECT_EQ(tv_model_param_table(&config, &table), TV_OK) << tv_error_message();
    }
    ~Model()
    {
        tv_param_table_destroy(&table);
    }
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;

    tv_model_config config = {};
    tv_param_table table = {};
};

// Element e of row i of the table: every number in a file is another one.
inline float value_of(int i, int64_t e)
{
    return (float)i * 10000.0f + (float)e;
}

inline std::vector<float> values_of(const Model &model, int i)
{
    std::vector<float> values((size_t)tv_param_count(&model.table.params[i]));
    for (size_t e = 0; e < values.size(); e++)
        values[e] = value_of(i, (int64_t)e);
    return values;
}

struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    std::vector<float> values;
};

inline std::vector<Tensor> tensors_of(const Model &model)
{
    std::vector<Tensor> tensors;
    for (int i = 0; i < model.table.num_params; i++) {
        const tv_param &p = model.table.params[i];
        tensors.push_back({p.name, {p.shape, p.shape + p.num_dims}, values_of(model, i)});
    }
    return tensors;
}

inline void write_tensors(const std::string &path, const std::vector<Tensor> &tensors)
{
    std::vector<tv_safetensors_entry> entries;
    for (const Tensor &tensor : tensors) {
        tv_safetensors_entry entry = {};
        entry.name = tensor.name.c_str();
        entry.num_dims = (int)tensor.shape.size();
        for (size_t i = 0; i < tensor.shape.size(); i++)
            entry.shape[i] = tensor.shape[i];
        entries.push_back(entry);
    }
    tv_safetensors_writer *writer = nullptr;
    ASSERT_EQ(tv_safetensors_create(path.c_str(), (int)entries.size(), entries.data(), &writer),
              TV_OK)
        << tv_error_message();
    for (const Tensor &tensor : tensors)
        ASSERT_EQ(tv_safetensors_write(writer, tensor.values.data(), (int64_t)tensor.values.size()),
                  TV_OK);
    ASSERT_EQ(tv_safetensors_finish(&writer), TV_OK);
}

// Every piece of every rank against the cut of the whole tensor.
inline void expect_all_pieces(const tv_hf *hf, const Model &model, int T)
{
    for (int i = 0; i < model.table.num_params; i++) {
        const tv_param &p = model.table.params[i];
        const auto global = values_of(model, i);
        for (int t = 0; t < T; t++) {
            const size_t count = (size_t)tv_param_local_count(&p, T);
            std::vector<float> want(count, 0.0f), got(count, -7.0f);
            tv_param_scatter(&p, T, t, global.data(), want.data());
            ASSERT_EQ(tv_hf_read_piece(hf, &p, T, t, got.data()), TV_OK) << tv_error_message();
            EXPECT_EQ(got, want) << p.name << " rank " << t << " of " << T;
        }
    }
}

inline void expect_opens(const Model &model, const std::string &path)
{
    tv_hf *hf = nullptr;
    ASSERT_EQ(tv_hf_open(path.c_str(), &model.config, &model.table, &hf), TV_OK)
        << tv_error_message();
    for (int T : {1, 2, 4})
        expect_all_pieces(hf, model, T);
    tv_hf_close(hf);
}
#endif

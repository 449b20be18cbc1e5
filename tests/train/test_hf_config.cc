// config.json: what it says is what is trained, or it is refused with the key and the value.
#include "base/log.h"
#include "base/status.h"
#include "temporary.h"
#include "train/hf.h"
#include <cstring>

namespace
{
class HfConfig : public ::testing::Test
{
  protected:
    tv_status_t read(const std::string &json)
    {
        config = {};
        path = dir.write("config.json", json);
        return tv_hf_config_read(path.c_str(), &config);
    }
    void expect_refused(const std::string &json, tv_status_t status, const std::string &part)
    {
        EXPECT_EQ(read(json), status) << json;
        expect_message_has(path, tv_error_message());
        expect_message_has(part, tv_error_message());
        EXPECT_EQ(config.num_layers, 0) << "the output is untouched";
    }
    Temporary dir;
    std::string path;
    tv_model_config config = {};
};

std::string llama(const std::string &keys)
{
    return R"({"model_type":"llama","num_hidden_layers":2,"hidden_size":64,)"
           R"("num_attention_heads":8,"intermediate_size":176,"vocab_size":250,)"
           R"("max_position_embeddings":32)" +
           (keys.empty() ? "" : "," + keys) + "}";
}

std::string gpt2(const std::string &keys)
{
    return R"({"model_type":"gpt2","n_layer":2,"n_embd":64,"n_head":8,"n_positions":32,)"
           R"("vocab_size":257)" +
           (keys.empty() ? "" : "," + keys) + "}";
}
} // namespace

TEST_F(HfConfig, DefaultsAreThoseOfTheFormat)
{
    ASSERT_EQ(read(R"({"model_type":"gpt2"})"), TV_OK) << tv_error_message();
    EXPECT_EQ(config.family, TV_GPT2);
    EXPECT_EQ(config.num_layers, 12);
    EXPECT_EQ(config.hidden_size, 768);
    EXPECT_EQ(config.num_heads, 12);
    EXPECT_EQ(config.num_kv_heads, 12);
    EXPECT_EQ(config.ffn_size, 3072);
    EXPECT_EQ(config.vocab_size, 50257);
    EXPECT_EQ(config.max_positions, 1024);
    EXPECT_EQ(config.is_tied, 1);
    EXPECT_EQ(config.norm_eps, 1e-5);
    EXPECT_EQ(config.init_std, 0.02);
    ASSERT_EQ(read(R"({"model_type":"llama"})"), TV_OK) << tv_error_message();
    EXPECT_EQ(config.family, TV_LLAMA);
    EXPECT_EQ(config.num_layers, 32);
    EXPECT_EQ(config.hidden_size, 4096);
    EXPECT_EQ(config.num_kv_heads, 32);
    EXPECT_EQ(config.ffn_size, 11008);
    EXPECT_EQ(config.vocab_size, 32000);
    EXPECT_EQ(config.max_positions, 2048);
    EXPECT_EQ(config.is_tied, 0);
    EXPECT_EQ(config.norm_eps, 1e-6);
    EXPECT_EQ(config.rope_theta, 10000);
}

TEST_F(HfConfig, EveryKeyArrives)
{
    ASSERT_EQ(read(llama(R"("num_key_value_heads":2,"rms_norm_eps":1e-4,"rope_theta":500000,)"
                         R"("initializer_range":0.03,"tie_word_embeddings":true,"head_dim":8,)"
                         R"("hidden_act":"silu","rope_scaling":null,"attention_bias":false)")),
              TV_OK)
        << tv_error_message();
    EXPECT_EQ(config.num_layers, 2);
    EXPECT_EQ(config.hidden_size, 64);
    EXPECT_EQ(config.num_heads, 8);
    EXPECT_EQ(config.num_kv_heads, 2);
    EXPECT_EQ(config.ffn_size, 176);
    EXPECT_EQ(config.vocab_size, 250);
    EXPECT_EQ(config.max_positions, 32);
    EXPECT_EQ(config.norm_eps, 1e-4);
    EXPECT_EQ(config.rope_theta, 500000);
    EXPECT_EQ(config.init_std, 0.03);
    EXPECT_EQ(config.is_tied, 1);
    ASSERT_EQ(read(gpt2(R"("n_inner":100,"layer_norm_epsilon":1e-6)")), TV_OK);
    EXPECT_EQ(config.ffn_size, 100);
    EXPECT_EQ(config.max_positions, 32);
    EXPECT_EQ(config.vocab_size, 257);
    EXPECT_EQ(config.norm_eps, 1e-6);
    ASSERT_EQ(read(gpt2(R"("n_inner":null)")), TV_OK);
    EXPECT_EQ(config.ffn_size, 256);
    ASSERT_EQ(read(llama(R"("num_key_value_heads":null,"head_dim":null)")), TV_OK);
    EXPECT_EQ(config.num_kv_heads, 8);
    ASSERT_EQ(read(llama(R"("rope_parameters":{"rope_type":"default","rope_theta":7000.0})")),
              TV_OK);
    EXPECT_EQ(config.rope_theta, 7000);
}

TEST_F(HfConfig, AFolderMeansItsConfig)
{
    ASSERT_EQ(read(gpt2("")), TV_OK);
    config = {};
    ASSERT_EQ(tv_hf_config_read(dir.path("").c_str(), &config), TV_OK);
    EXPECT_EQ(config.num_layers, 2);
}

TEST_F(HfConfig, ValuesThatChangeTheResultAreRefused)
{
    for (const char *key :
         {R"("rope_scaling":{"type":"linear","factor":2.0})",
          R"("rope_scaling":{"rope_type":"llama3"})",
          R"("rope_parameters":{"rope_type":"yarn","rope_theta":1e4})", R"("sliding_window":4096)",
          R"("sliding_window":4096,"use_sliding_window":true)", R"("attention_bias":true)",
          R"("mlp_bias":true)", R"("hidden_act":"gelu")", R"("partial_rotary_factor":0.5)",
          R"("layer_types":["full_attention","sliding_attention"])",
          R"("quantization_config":{"bits":4})", R"("head_dim":16)"}) {
        const std::string text = key;
        expect_refused(llama(text), TV_INVALID, text.substr(1, text.find('"', 1) - 1));
    }
    for (const char *key :
         {R"("scale_attn_by_inverse_layer_idx":true)", R"("reorder_and_upcast_attn":true)",
          R"("scale_attn_weights":false)", R"("activation_function":"gelu")",
          R"("activation_function":"relu")", R"("add_cross_attention":true)",
          R"("is_encoder_decoder":true)", R"("pruned_heads":{"0":[1]})"}) {
        const std::string text = key;
        expect_refused(gpt2(text), TV_INVALID, text.substr(1, text.find('"', 1) - 1));
    }
    expect_refused(llama(R"("rope_scaling":{"type":"linear","factor":2.0})"), TV_INVALID,
                   R"({"type":"linear","factor":2.0})"); // the value, too
    expect_refused(gpt2(R"("tie_word_embeddings":false)"), TV_INVALID, "ties");
    expect_refused(R"({"model_type":"mistral"})", TV_INVALID, "mistral");
    expect_refused(R"({"n_layer":2})", TV_BAD_FILE, "model_type");
}

TEST_F(HfConfig, NeutralValuesAreAccepted)
{
    for (const char *key :
         {R"("use_sliding_window":false,"sliding_window":4096)", R"("sliding_window":null)",
          R"("attention_dropout":0.1)", R"("pretraining_tp":2)", R"("rope_scaling":null)",
          R"("layer_types":["full_attention","full_attention"])", R"("use_cache":true)",
          R"("torch_dtype":"bfloat16","architectures":["LlamaForCausalLM"])",
          R"("bos_token_id":1,"eos_token_id":[2,3],"pad_token_id":null)",
          R"("transformers_version":"4.40.0","_attn_implementation":"eager")",
          R"("quantization_config":null,"partial_rotary_factor":1.0)"})
        EXPECT_EQ(read(llama(key)), TV_OK) << key << ": " << tv_error_message();
    for (const char *key :
         {R"("resid_pdrop":0.1,"embd_pdrop":0.1,"attn_pdrop":0.1)", R"("n_ctx":32)",
          R"("summary_type":"cls_index","summary_proj_to_labels":true)",
          R"("activation_function":"gelu_pytorch_tanh")", R"("pruned_heads":{})",
          R"("task_specific_params":{"text-generation":{"do_sample":true}})"})
        EXPECT_EQ(read(gpt2(key)), TV_OK) << key << ": " << tv_error_message();
}

TEST_F(HfConfig, UnknownKeysWarnAndKnownOnesDoNot)
{
    ::testing::internal::CaptureStderr();
    ASSERT_EQ(read(gpt2(R"("some_new_thing":3,"use_cache":true,"resid_pdrop":0.0)")), TV_OK);
    const std::string said = ::testing::internal::GetCapturedStderr();
    expect_message_has("warning", said);
    expect_message_has("some_new_thing", said);
    EXPECT_EQ(said.find("use_cache"), std::string::npos) << said;
    EXPECT_EQ(said.find("resid_pdrop"), std::string::npos) << said;
    ::testing::internal::CaptureStderr();
    ASSERT_EQ(read(gpt2(R"("resid_pdrop":0.1)")), TV_OK);
    expect_message_has("resid_pdrop", ::testing::internal::GetCapturedStderr());
}

TEST_F(HfConfig, TypesAndRanges)
{
    expect_refused(gpt2(R"("n_inner":"4")"), TV_BAD_FILE, R"("n_inner": "4")");
    expect_refused(gpt2(R"("n_inner":64.5)"), TV_BAD_FILE, "n_inner");
    expect_refused(gpt2(R"("n_inner":0)"), TV_INVALID, R"("n_inner": 0)");
    expect_refused(gpt2(R"("n_inner":-4)"), TV_INVALID, "n_inner");
    expect_refused(gpt2(R"("n_inner":2147483648)"), TV_INVALID, "n_inner");
    expect_refused(gpt2(R"("layer_norm_epsilon":"1e-5")"), TV_BAD_FILE, "layer_norm_epsilon");
    expect_refused(gpt2(R"("layer_norm_epsilon":-1e-5)"), TV_INVALID, "layer_norm_epsilon");
    expect_refused(gpt2(R"("layer_norm_epsilon":0)"), TV_INVALID, "epsilon");
    expect_refused(gpt2(R"("tie_word_embeddings":1)"), TV_BAD_FILE, "tie_word_embeddings");
    expect_refused(llama(R"("num_key_value_heads":3)"), TV_INVALID, "8 attention heads");
    expect_refused(R"({"model_type":"gpt2","n_embd":65,"n_head":8})", TV_INVALID, "65");
    expect_refused(R"({"model_type":"gpt2","n_layer":null})", TV_BAD_FILE, "n_layer");
    expect_refused(R"({"model_type":"gpt2","n_embd":2147483640,"n_head":8})", TV_INVALID,
                   "2147483640");
    expect_refused(R"({"model_type":"gpt2","n_layer":100001})", TV_INVALID, "at most 100000");
    expect_refused("", TV_BAD_FILE, "not empty");
    expect_refused("{", TV_BAD_FILE, "line 1");
    expect_refused("[1]", TV_BAD_FILE, "not a JSON object");
    expect_refused(R"({"model_type":"gpt2","n_layer":2,"n_layer":3})", TV_BAD_FILE, "n_layer");
    EXPECT_EQ(tv_hf_config_read(dir.path("absent.json").c_str(), &config), TV_BAD_FILE);
}

TEST_F(HfConfig, WhatIsWrittenReadsBack)
{
    for (const std::string &json :
         {gpt2(R"("n_inner":100,"layer_norm_epsilon":1e-5,"initializer_range":0.025)"),
          llama(R"("num_key_value_heads":2,"rms_norm_eps":1e-6,"rope_theta":500000.0)"),
          llama(R"("tie_word_embeddings":true,"rms_norm_eps":0.00001234567890123)")}) {
        ASSERT_EQ(read(json), TV_OK);
        const tv_model_config first = config;
        ASSERT_EQ(tv_hf_config_write(dir.path("out.json").c_str(), &first, TV_HF_FP32), TV_OK);
        EXPECT_FALSE(dir.has("out.json.tmp"));
        ::testing::internal::CaptureStderr();
        ASSERT_EQ(tv_hf_config_read(dir.path("out.json").c_str(), &config), TV_OK)
            << tv_error_message();
        EXPECT_EQ(::testing::internal::GetCapturedStderr(), ""); // we know our own keys
        EXPECT_EQ(config.family, first.family);
        EXPECT_EQ(config.num_layers, first.num_layers);
        EXPECT_EQ(config.hidden_size, first.hidden_size);
        EXPECT_EQ(config.num_heads, first.num_heads);
        EXPECT_EQ(config.num_kv_heads, first.num_kv_heads);
        EXPECT_EQ(config.ffn_size, first.ffn_size);
        EXPECT_EQ(config.vocab_size, first.vocab_size);
        EXPECT_EQ(config.max_positions, first.max_positions);
        EXPECT_EQ(config.is_tied, first.is_tied);
        EXPECT_EQ(config.norm_eps, first.norm_eps);
        EXPECT_EQ(config.rope_theta, first.rope_theta);
        EXPECT_EQ(config.init_std, first.init_std);
    }
    ASSERT_EQ(read(gpt2("")), TV_OK);
    ASSERT_EQ(tv_hf_config_write(dir.path("out.json").c_str(), &config, TV_HF_BF16), TV_OK);
    expect_message_has("\"layer_norm_epsilon\": 1e-", dir.read("out.json"));
    expect_message_has("\"torch_dtype\": \"bfloat16\"", dir.read("out.json"));
    // transformers takes 50256 for the end of text, where that is an id
    for (int64_t vocab : {50256, 50257}) {
        config.vocab_size = vocab;
        ASSERT_EQ(tv_hf_config_write(dir.path("out.json").c_str(), &config, TV_HF_FP32), TV_OK);
        EXPECT_EQ(dir.read("out.json").find("\"eos_token_id\": null") != std::string::npos,
                  vocab == 50256);
    }
    EXPECT_EQ(tv_hf_config_write(dir.path("no/out.json").c_str(), &config, TV_HF_BF16), TV_IO);
}

// config.json: any bytes are a model that can be, and that reads back the same after it was written, or
// a sentence. Reading makes nothing of the sizes that it claims.
#include "base/log.h"
#include "fuzz_file.h"
#include "train/hf.h"
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tv_log_set_level(TV_LOG_OFF);
    const FuzzFile input(data, size);
    static const FuzzFolder scratch;
    const std::string written = scratch.name() + "/config.json";
    tv_model_config config = {}, again = {};
    if (tv_hf_config_read(input.path(), &config) != TV_OK) {
        require(std::strlen(tv_error_message()) > 0);
        return 0;
    }
    require(tv_model_config_check(&config) == TV_OK);
    require(tv_hf_config_write(written.c_str(), &config, TV_HF_FP32) == TV_OK);
    require(tv_hf_config_read(written.c_str(), &again) == TV_OK);
    require(config.family == again.family && config.num_layers == again.num_layers &&
            config.hidden_size == again.hidden_size && config.num_heads == again.num_heads &&
            config.num_kv_heads == again.num_kv_heads && config.ffn_size == again.ffn_size &&
            config.vocab_size == again.vocab_size && config.max_positions == again.max_positions &&
            config.is_tied == again.is_tied && config.norm_eps == again.norm_eps &&
            config.init_std == again.init_std);
    require(config.family == TV_GPT2 || config.rope_theta == again.rope_theta);
    return 0;
}

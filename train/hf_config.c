/* train/hf_config.c -- config.json as a table: what each key means here, and which values it may
 * have.
 *
 * Defaults are those of transformers' GPT2Config and LlamaConfig, since a file may leave out what
 * equals them. */
#include "base/log.h"
#include "train/files.h"
#include "train/hf.h"
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* MAX_LAYERS: as --num-layers has it. A few bytes must not ask for a table of any size. */
enum { MAX_CONFIG_BYTES = 16 << 20, MAX_LAYERS = 100000 };

/* What is read; 0 in an optional size: derived from others. */
struct values {
    int64_t layers, hidden, heads, kv_heads, ffn, vocab, positions, head_dim;
    double eps, theta, std;
    int64_t is_tied, has_window, uses_window;
};

typedef enum {
    KEY_SIZE,          /* an integer >= 1 */
    KEY_OPTIONAL_SIZE, /* or null */
    KEY_REAL,          /* a number >= 0 */
    KEY_BOOL,
    KEY_FALSE,     /* only false (or null) gives what is trained here */
    KEY_TRUE,      /* only true */
    KEY_NULL,      /* only null */
    KEY_ONE,       /* only the number 1 */
    KEY_EMPTY,     /* only null or an empty list or object */
    KEY_WORD,      /* one of `words` */
    KEY_WORD_LIST, /* null, or a list of words that are all one of `words` */
    KEY_ROPE,      /* an object: plain rotary embedding, maybe with rope_theta */
    KEY_WINDOW,    /* a window is used if it is not null and not switched off */
    KEY_DROPOUT,   /* said to be unused when it is not 0 */
    KEY_NEUTRAL    /* changes nothing here */
} key_kind_t;

struct key {
    const char *name;
    key_kind_t kind;
    size_t offset;     /* in struct values */
    const char *words; /* separated by spaces */
};

#define AT(field) offsetof(struct values, field)

static const struct key gpt2_keys[] = {
    {"n_layer", KEY_SIZE, AT(layers), NULL},
    {"n_embd", KEY_SIZE, AT(hidden), NULL},
    {"n_head", KEY_SIZE, AT(heads), NULL},
    {"n_positions", KEY_SIZE, AT(positions), NULL},
    {"n_inner", KEY_OPTIONAL_SIZE, AT(ffn), NULL},
    {"vocab_size", KEY_SIZE, AT(vocab), NULL},
    {"layer_norm_epsilon", KEY_REAL, AT(eps), NULL},
    {"initializer_range", KEY_REAL, AT(std), NULL},
    {"tie_word_embeddings", KEY_BOOL, AT(is_tied), NULL},
    {"activation_function", KEY_WORD, 0, "gelu_new gelu_pytorch_tanh"},
    {"scale_attn_weights", KEY_TRUE, 0, NULL},
    {"scale_attn_by_inverse_layer_idx", KEY_FALSE, 0, NULL},
    {"reorder_and_upcast_attn", KEY_FALSE, 0, NULL},
    {"resid_pdrop", KEY_DROPOUT, 0, NULL},
    {"embd_pdrop", KEY_DROPOUT, 0, NULL},
    {"attn_pdrop", KEY_DROPOUT, 0, NULL},
    {"n_ctx", KEY_NEUTRAL, 0, NULL}, /* an older name of n_positions */
    {"summary_activation", KEY_NEUTRAL, 0, NULL},
    {"summary_first_dropout", KEY_NEUTRAL, 0, NULL},
    {"summary_proj_to_labels", KEY_NEUTRAL, 0, NULL},
    {"summary_type", KEY_NEUTRAL, 0, NULL},
    {"summary_use_proj", KEY_NEUTRAL, 0, NULL},
};

static const struct key llama_keys[] = {
    {"num_hidden_layers", KEY_SIZE, AT(layers), NULL},
    {"hidden_size", KEY_SIZE, AT(hidden), NULL},
    {"num_attention_heads", KEY_SIZE, AT(heads), NULL},
    {"num_key_value_heads", KEY_OPTIONAL_SIZE, AT(kv_heads), NULL},
    {"intermediate_size", KEY_SIZE, AT(ffn), NULL},
    {"max_position_embeddings", KEY_SIZE, AT(positions), NULL},
    {"vocab_size", KEY_SIZE, AT(vocab), NULL},
    {"head_dim", KEY_OPTIONAL_SIZE, AT(head_dim), NULL},
    {"rms_norm_eps", KEY_REAL, AT(eps), NULL},
    {"rope_theta", KEY_REAL, AT(theta), NULL},
    {"initializer_range", KEY_REAL, AT(std), NULL},
    {"tie_word_embeddings", KEY_BOOL, AT(is_tied), NULL},
    {"hidden_act", KEY_WORD, 0, "silu swish"},
    {"rope_parameters", KEY_ROPE, AT(theta), NULL},
    {"rope_scaling", KEY_ROPE, AT(theta), NULL},
    {"partial_rotary_factor", KEY_ONE, 0, NULL},
    {"attention_bias", KEY_FALSE, 0, NULL},
    {"mlp_bias", KEY_FALSE, 0, NULL},
    {"sliding_window", KEY_WINDOW, AT(has_window), NULL},
    {"use_sliding_window", KEY_BOOL, AT(uses_window), NULL},
    {"layer_types", KEY_WORD_LIST, 0, "full_attention"},
    {"attention_dropout", KEY_DROPOUT, 0, NULL},
    {"pretraining_tp", KEY_NEUTRAL, 0, NULL}, /* another order of the same sums */
    {"max_window_layers", KEY_NEUTRAL, 0, NULL},
};

static const struct key common_keys[] = {
    {"add_cross_attention", KEY_FALSE, 0, NULL},
    {"is_encoder_decoder", KEY_FALSE, 0, NULL},
    {"cross_attention_hidden_size", KEY_NULL, 0, NULL},
    {"quantization_config", KEY_NULL, 0, NULL},
    {"pruned_heads", KEY_EMPTY, 0, NULL},
};

/* Of every model: how text is generated, labels of classifiers, where the file is from. */
static const char neutral_keys[] =
    " _attn_implementation _attn_implementation_autoset _name_or_path architectures bad_words_ids "
    "begin_suppress_tokens "
    "bos_token_id chunk_size_feed_forward decoder_start_token_id diversity_penalty do_sample dtype "
    "early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty "
    "finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label "
    "is_decoder keys_to_ignore_at_inference label2id length_penalty max_length min_length "
    "model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences "
    "output_attentions output_hidden_states output_scores pad_token_id prefix problem_type "
    "remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id "
    "suppress_tokens task_specific_params temperature tf_legacy_loss tokenizer_class top_k top_p "
    "torch_dtype torchscript transformers_version typical_p unk_token_id use_bfloat16 use_cache ";

/* Is `word` one of the words of `list`, which are separated by spaces? */
static int has_word(const char *list, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = list; length > 0 && (at = strstr(at, word)) != NULL; at++) {
        const int starts = at == list || at[-1] == ' ';
        if (starts && (at[length] == ' ' || at[length] == '\0'))
            return 1;
    }
    return 0;
}

/* The file and the key that is looked at, for messages. */
struct place {
    const char *path, *key;
    json_t *value;
};

static tv_status_t refuse(const struct place *at, tv_status_t status, const char *wanted)
{
    char *text = json_dumps(at->value, JSON_ENCODE_ANY | JSON_COMPACT);
    TV_ERR(status, "%s: \"%s\": %.80s, but it must be %s", at->path, at->key,
           text != NULL ? text : "a value", wanted);
    free(text);
    return status;
}

static tv_status_t read_size(const struct place *at, int64_t *size_out)
{
    if (!json_is_integer(at->value))
        return refuse(at, TV_BAD_FILE, "an integer");
    const int64_t size = json_integer_value(at->value);
    if (size < 1 || size > INT_MAX)
        return refuse(at, TV_INVALID, "from 1 to 2147483647");
    *size_out = size;
    return TV_OK;
}

static tv_status_t read_real(const struct place *at, double *real_out)
{
    if (!json_is_number(at->value))
        return refuse(at, TV_BAD_FILE, "a number");
    if (json_number_value(at->value) < 0)
        return refuse(at, TV_INVALID, "0 or more");
    *real_out = json_number_value(at->value);
    return TV_OK;
}

/* {"rope_type": "default", "rope_theta": x} is the plain rotary embedding; anything else changes
 * it. */
static tv_status_t read_rope(const struct place *at, double *theta_out)
{
    const char *key;
    json_t *value;
    if (json_is_null(at->value))
        return TV_OK;
    if (!json_is_object(at->value))
        return refuse(at, TV_BAD_FILE, "an object or null");
    json_object_foreach(at->value, key, value)
    {
        if (strcmp(key, "rope_theta") == 0)
            TV_TRY(read_real(&(struct place){at->path, key, value}, theta_out));
        else if (!has_word("rope_type type", key) || !json_is_string(value) ||
                 strcmp(json_string_value(value), "default") != 0)
            return refuse(at, TV_INVALID, "null or of type default: no other is supported");
    }
    return TV_OK;
}

static tv_status_t read_words(const struct place *at, const char *words)
{
    char wanted[128];
    snprintf(wanted, sizeof(wanted), "one of: %s", words);
    if (json_is_string(at->value))
        return has_word(words, json_string_value(at->value)) ? TV_OK
                                                             : refuse(at, TV_INVALID, wanted);
    if (!json_is_array(at->value))
        return refuse(at, TV_BAD_FILE, wanted);
    for (size_t i = 0; i < json_array_size(at->value); i++) {
        const json_t *word = json_array_get(at->value, i);
        if (!json_is_string(word) || !has_word(words, json_string_value(word)))
            return refuse(at, TV_INVALID, wanted);
    }
    return TV_OK;
}

static tv_status_t read_bool(const struct place *at, int64_t *value_out)
{
    if (!json_is_boolean(at->value))
        return refuse(at, TV_BAD_FILE, "true or false");
    *value_out = json_is_true(at->value);
    return TV_OK;
}

static void tell_dropout(const struct place *at)
{
    if (json_number_value(at->value) != 0)
        tv_log(TV_LOG_INFO, "%s: \"%s\" is %g there and not used; --dropout sets it", at->path,
               at->key, json_number_value(at->value));
}

/* Only one value of such a key gives the model that is trained here. */
static tv_status_t check_fixed(const struct place *at, key_kind_t kind)
{
    const json_t *value = at->value;
    switch (kind) {
    case KEY_FALSE:
        return json_is_false(value) || json_is_null(value)
                   ? TV_OK
                   : refuse(at, TV_INVALID, "false: the other is not supported");
    case KEY_TRUE:
        return json_is_true(value) ? TV_OK
                                   : refuse(at, TV_INVALID, "true: the other is not supported");
    case KEY_NULL:
        return json_is_null(value) ? TV_OK : refuse(at, TV_INVALID, "null: no other is supported");
    case KEY_ONE:
        return json_number_value(value) == 1 ? TV_OK
                                             : refuse(at, TV_INVALID, "1: no other is supported");
    default: /* KEY_EMPTY */
        return json_is_null(value) || json_array_size(value) + json_object_size(value) == 0
                   ? TV_OK
                   : refuse(at, TV_INVALID, "empty: no other is supported");
    }
}

static tv_status_t read_key(const struct place *at, const struct key *key, struct values *values)
{
    void *field = (char *)values + key->offset;
    switch (key->kind) {
    case KEY_OPTIONAL_SIZE:
        if (json_is_null(at->value))
            return TV_OK;
        return read_size(at, field);
    case KEY_SIZE:
        return read_size(at, field);
    case KEY_REAL:
        return read_real(at, field);
    case KEY_BOOL:
        return read_bool(at, field);
    case KEY_WORD_LIST:
        return json_is_null(at->value) ? TV_OK : read_words(at, key->words);
    case KEY_WORD:
        return read_words(at, key->words);
    case KEY_ROPE:
        return read_rope(at, field);
    case KEY_WINDOW:
        values->has_window = !json_is_null(at->value);
        return TV_OK;
    case KEY_DROPOUT:
        tell_dropout(at);
        return TV_OK;
    case KEY_NEUTRAL:
        return TV_OK;
    default:
        return check_fixed(at, key->kind);
    }
}

static const struct key *find_key(const struct key *keys, size_t num, const char *name)
{
    for (size_t i = 0; i < num; i++) {
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    }
    return NULL;
}

#define NUM(array) (sizeof(array) / sizeof((array)[0]))

static tv_status_t read_keys(const char *path, json_t *json, tv_model_family_t family,
                             struct values *values)
{
    const char *name;
    json_t *value;
    json_object_foreach(json, name, value)
    {
        const struct key *key = family == TV_GPT2 ? find_key(gpt2_keys, NUM(gpt2_keys), name)
                                                  : find_key(llama_keys, NUM(llama_keys), name);
        if (key == NULL)
            key = find_key(common_keys, NUM(common_keys), name);
        if (key != NULL)
            TV_TRY(read_key(&(struct place){path, name, value}, key, values));
        else if (!has_word(neutral_keys, name))
            tv_log(TV_LOG_WARN, "%s: \"%s\" is not known and has no effect", path, name);
    }
    return TV_OK;
}

static tv_status_t read_family(const char *path, const json_t *json, tv_model_family_t *family_out)
{
    const char *type = json_string_value(json_object_get(json, "model_type"));
    for (int i = TV_GPT2; type != NULL && i <= TV_LLAMA; i++) {
        if (strcmp(type, tv_model_family_name((tv_model_family_t)i)) == 0) {
            *family_out = (tv_model_family_t)i;
            return TV_OK;
        }
    }
    if (type == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: \"model_type\" is missing or not a string", path);
    return TV_ERR(TV_INVALID, "%s: \"model_type\": \"%s\", but it must be gpt2 or llama", path,
                  type);
}

/* Rules that take more than one key, then the model's own check with the file's name before it. */
static tv_status_t fill_config(const char *path, tv_model_family_t family, const struct values *v,
                               struct tv_model_config *config_out)
{
    const int64_t ffn = v->ffn != 0 ? v->ffn : 4 * v->hidden;
    if (v->has_window && v->uses_window)
        return TV_ERR(TV_INVALID, "%s: \"sliding_window\" is set; only full attention is supported",
                      path);
    if (v->head_dim != 0 && v->head_dim * v->heads != v->hidden)
        return TV_ERR(TV_INVALID,
                      "%s: \"head_dim\": %" PRId64 " x %" PRId64
                      " heads is not the hidden size %" PRId64 "; only that is supported",
                      path, v->head_dim, v->heads, v->hidden);
    if (v->layers > MAX_LAYERS)
        return TV_ERR(TV_INVALID, "%s: %" PRId64 " layers; at most %d are supported", path,
                      v->layers, MAX_LAYERS);
    if (ffn > INT_MAX)
        return TV_ERR(TV_INVALID, "%s: a hidden size of %" PRId64 " is too large", path, v->hidden);
    const struct tv_model_config config = {
        .family = family,
        .num_layers = (int)v->layers,
        .hidden_size = (int)v->hidden,
        .num_heads = (int)v->heads,
        .num_kv_heads = (int)(v->kv_heads != 0 ? v->kv_heads : v->heads),
        .ffn_size = (int)ffn,
        .vocab_size = v->vocab,
        .max_positions = (int)v->positions,
        .is_tied = v->is_tied != 0,
        .norm_eps = v->eps,
        .rope_theta = v->theta,
        .init_std = v->std,
    };
    const tv_status_t status = tv_model_config_check(&config);
    if (status != TV_OK)
        return TV_ERR(status, "%s: %s", path, tv_error_message());
    *config_out = config;
    return TV_OK;
}

static tv_status_t read_file(const char *path, struct tv_model_config *config_out)
{
    struct values values[] = {
        [TV_GPT2] = {.layers = 12,
                     .hidden = 768,
                     .heads = 12,
                     .vocab = 50257,
                     .positions = 1024,
                     .eps = 1e-5,
                     .theta = 10000,
                     .std = 0.02,
                     .is_tied = 1},
        [TV_LLAMA] = {.layers = 32,
                      .hidden = 4096,
                      .heads = 32,
                      .ffn = 11008,
                      .vocab = 32000,
                      .positions = 2048,
                      .eps = 1e-6,
                      .theta = 10000,
                      .std = 0.02,
                      .uses_window = 1},
    };
    tv_model_family_t family = TV_GPT2;
    json_t *json = NULL;
    TV_TRY(tv_file_read_json(path, MAX_CONFIG_BYTES, &json));
    tv_status_t status = read_family(path, json, &family);
    if (status == TV_OK)
        status = read_keys(path, json, family, &values[family]);
    if (status == TV_OK)
        status = fill_config(path, family, &values[family], config_out);
    json_decref(json);
    return status;
}

tv_status_t tv_hf_config_read(const char *path, struct tv_model_config *config_out)
{
    char file[PATH_MAX];
    struct stat info;
    const int is_folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    const int length = snprintf(file, sizeof(file), is_folder ? "%s/config.json" : "%s", path);
    if (length < 0 || length >= (int)sizeof(file))
        return TV_ERR(TV_BAD_FILE, "a path of %d bytes is too long", length);
    return read_file(file, config_out);
}

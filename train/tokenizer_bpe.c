/* train/tokenizer_bpe.c -- a Hugging Face tokenizer.json of the byte-level BPE kind: special tokens are
 * cut out of a text first, what is left is split into words by a pattern, words are merged. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "train/files.h"
#include "train/tokenizer_internal.h"
#include <inttypes.h>
#include <jansson.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* White space as Unicode has it; PCRE2's \s has U+180E too. */
#define WHITE                                                                                      \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define WORDS_OF_GPT4(digits)                                                                      \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" WHITE             \
    "\\p{L}\\p{N}]+[\\r\\n]*|[" WHITE "]*[\\r\\n]+|[" WHITE "]+(?![^" WHITE "])|[" WHITE "]+"

/* Patterns as files have them, and for PCRE2. All of them end a word with a line's end, unless white
 * space follows (tv_tokenizer_cut). */
static const struct {
    const char *text, *pattern;
} patterns[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", /* GPT-2 */
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WHITE "\\p{L}\\p{N}]+|[" WHITE
     "]+(?![^" WHITE "])|[" WHITE "]+"},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", /* Llama 3 */
     WORDS_OF_GPT4("\\p{N}{1,3}")},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", /* digits one by one */
     WORDS_OF_GPT4("\\p{N}")},
};
enum { NUM_PATTERNS = sizeof(patterns) / sizeof(patterns[0]) };

struct special {
    char *text; /* owned */
    size_t length;
    uint32_t id;
};
struct bpe_state {
    struct tv_bpe *bpe;
    pcre2_code *words;
    int num_specials;
    struct special *specials;     /* the longest first */
    unsigned char may_begin[256]; /* a special token begins with this byte */
};

void tv_tokenizer_free_match(void *match)
{
    pcre2_match_data_free(match);
}

/* The special token at s, or NULL. */
static const struct special *special_at(const struct bpe_state *state, const char *s, int64_t left)
{
    if (left < 1 || !state->may_begin[(unsigned char)s[0]])
        return NULL;
    for (int i = 0; i < state->num_specials; i++) {
        const struct special *special = &state->specials[i];
        if ((int64_t)special->length <= left && memcmp(s, special->text, special->length) == 0)
            return special;
    }
    return NULL;
}

/* A word; what no alternative matches is one too. */
static tv_status_t next_word(const struct bpe_state *state, struct tv_tokenizer_worker *worker,
                             const char *text, int64_t bytes, int64_t at, int64_t *end_out)
{
    const int found = pcre2_match(state->words, (PCRE2_SPTR)text, (PCRE2_SIZE)bytes, (PCRE2_SIZE)at,
                                  PCRE2_NO_UTF_CHECK, worker->match, NULL);
    if (found == PCRE2_ERROR_NOMATCH) {
        *end_out = bytes;
        return TV_OK;
    }
    if (found < 0)
        return TV_ERR(TV_INTERNAL, "the pattern of words fails at byte %" PRId64 " with code %d",
                      at, found);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(worker->match);
    *end_out = (int64_t)span[0] > at ? (int64_t)span[0] : (int64_t)span[1];
    return TV_OK;
}

/* Words of text[at, end), where text goes on to `bytes`. */
static tv_status_t encode_words(const struct bpe_state *state, struct tv_tokenizer_worker *worker,
                                const char *text, int64_t bytes, int64_t at, int64_t end,
                                struct tv_ids *ids)
{
    while (at < end) {
        int64_t next;
        TV_TRY(next_word(state, worker, text, bytes, at, &next));
        if (next <= at || next > bytes)
            return TV_ERR(TV_INTERNAL, "a word at byte %" PRId64 " ends at %" PRId64, at, next);
        TV_TRY(tv_bpe_encode(state->bpe, worker->bpe, text + at, next - at, ids));
        at = next;
    }
    return TV_OK;
}

static tv_status_t encode(const void *opaque, struct tv_tokenizer_worker *worker, const char *text,
                          int64_t bytes, int64_t first, int64_t end, struct tv_ids *ids)
{
    const struct bpe_state *state = opaque;
    if (worker->match == NULL)
        worker->match = pcre2_match_data_create(1, NULL);
    if (worker->match == NULL)
        return TV_ERR(TV_NO_MEMORY, "a match of words");
    int64_t from = first; /* of what no special token has ended */
    for (int64_t at = first; at <= end; at++) {
        const struct special *special = special_at(state, text + at, bytes - at);
        if (special == NULL && at < end)
            continue;
        /* A special token ends the text before it, also where it is the next one's to encode. */
        TV_TRY(encode_words(state, worker, text, special != NULL ? at : bytes, from, at, ids));
        if (special == NULL || at == end)
            break;
        TV_TRY(tv_ids_add(ids, special->id));
        at += (int64_t)special->length - 1;
        from = at + 1;
    }
    return TV_OK;
}

static int64_t find(const void *opaque, const char *text)
{
    const struct bpe_state *state = opaque;
    for (int i = 0; i < state->num_specials; i++) {
        if (strcmp(state->specials[i].text, text) == 0)
            return state->specials[i].id;
    }
    return -1;
}

static void close_state(void *opaque)
{
    struct bpe_state *state = opaque;
    if (state == NULL)
        return;
    for (int i = 0; i < state->num_specials; i++)
        free(state->specials[i].text);
    free(state->specials);
    pcre2_code_free(state->words);
    tv_bpe_destroy(state->bpe);
    free(state);
}

static int longest_first(const void *a, const void *b)
{
    const struct special *x = a, *y = b;
    return (x->length < y->length) - (x->length > y->length);
}

static tv_status_t read_special(const char *path, size_t index, const json_t *token,
                                struct special *special)
{
    static const char *const off[] = {"single_word", "lstrip", "rstrip"};
    const char *content = json_string_value(json_object_get(token, "content"));
    const json_t *id = json_object_get(token, "id");
    if (content == NULL || content[0] == '\0' || !json_is_integer(id) ||
        json_integer_value(id) < 0 || json_integer_value(id) >= INT32_MAX)
        return TV_ERR(TV_BAD_FILE,
                      "%s: added_tokens[%zu] has no content, or no id in 0 .. 2^31 - 2", path,
                      index);
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        if (json_is_true(json_object_get(token, off[i])))
            return TV_ERR(TV_UNSUPPORTED, "%s: added_tokens[%zu].%s is true, which is not read",
                          path, index, off[i]);
    }
    special->text = strdup(content);
    if (special->text == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: an added token", path);
    special->length = strlen(content);
    special->id = (uint32_t)json_integer_value(id);
    return TV_OK;
}

static tv_status_t read_specials(const char *path, const json_t *added, struct bpe_state *state,
                                 struct tv_tokenizer *tokenizer)
{
    const size_t num = json_array_size(added);
    if (added != NULL && !json_is_array(added) && !json_is_null(added))
        return TV_ERR(TV_BAD_FILE, "%s: added_tokens is not an array", path);
    state->specials = calloc(num + 1, sizeof(*state->specials));
    if (state->specials == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu added tokens", path, num);
    for (size_t i = 0; i < num; i++) {
        struct special *special = &state->specials[state->num_specials];
        TV_TRY(read_special(path, i, json_array_get(added, i), special));
        state->num_specials++;
        state->may_begin[(unsigned char)special->text[0]] = 1;
        tokenizer->may_cut &= strchr(special->text, '\n') == NULL;
        if (special->id >= tokenizer->vocab_size)
            tokenizer->vocab_size = (int64_t)special->id + 1;
    }
    qsort(state->specials, (size_t)state->num_specials, sizeof(*state->specials), longest_first);
    return TV_OK;
}

static int has_type(const json_t *json, const char *type)
{
    const char *text = json_string_value(json_object_get(json, "type"));
    return text != NULL && strcmp(text, type) == 0;
}

static tv_status_t check_byte_level(const char *path, const json_t *step)
{
    if (!has_type(step, "ByteLevel"))
        return TV_ERR(TV_UNSUPPORTED,
                      "%s: pre_tokenizer is not ByteLevel, nor a Sequence of Split and ByteLevel",
                      path);
    if (json_is_true(json_object_get(step, "add_prefix_space")))
        return TV_ERR(TV_UNSUPPORTED,
                      "%s: pre_tokenizer.add_prefix_space is true, which is not read", path);
    return TV_OK;
}

/* The pattern of words: ByteLevel's own is GPT-2's. */
static tv_status_t find_pattern(const char *path, const json_t *pre, const char **pattern_out)
{
    const json_t *steps = json_object_get(pre, "pretokenizers");
    if (!has_type(pre, "Sequence")) {
        TV_TRY(check_byte_level(path, pre));
        if (json_is_false(json_object_get(pre, "use_regex")))
            return TV_ERR(TV_UNSUPPORTED,
                          "%s: pre_tokenizer.use_regex is false, and no Split is there", path);
        *pattern_out = patterns[0].pattern;
        return TV_OK;
    }
    const json_t *split = json_array_get(steps, 0);
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    const char *text =
        json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    TV_TRY(check_byte_level(path, json_array_get(steps, 1)));
    if (json_array_size(steps) != 2 || !has_type(split, "Split") || behavior == NULL ||
        strcmp(behavior, "Isolated") != 0 || json_is_true(json_object_get(split, "invert")) ||
        !json_is_false(json_object_get(json_array_get(steps, 1), "use_regex")))
        return TV_ERR(
            TV_UNSUPPORTED,
            "%s: pre_tokenizer.pretokenizers are not one Split (Isolated) and one ByteLevel "
            "without use_regex",
            path);
    for (int i = 0; text != NULL && i < NUM_PATTERNS; i++) {
        if (strcmp(text, patterns[i].text) == 0) {
            *pattern_out = patterns[i].pattern;
            return TV_OK;
        }
    }
    return TV_ERR(TV_UNSUPPORTED,
                  "%s: pre_tokenizer.pretokenizers[0].pattern.Regex is not GPT-2's nor Llama 3's",
                  path);
}

static tv_status_t compile(const char *path, const json_t *pre, struct bpe_state *state)
{
    const char *pattern;
    int code;
    PCRE2_SIZE at;
    TV_TRY(find_pattern(path, pre, &pattern));
    state->words = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                 &code, &at, NULL);
    if (state->words == NULL)
        return TV_ERR(TV_INTERNAL, "PCRE2 refuses the pattern of words at %zu with code %d", at,
                      code);
    (void)pcre2_jit_compile(state->words, PCRE2_JIT_COMPLETE); /* without it the same, slower */
    return TV_OK;
}

static tv_status_t fill_state(const char *path, const json_t *json, struct bpe_state *state,
                              struct tv_tokenizer *tokenizer)
{
    const json_t *normalizer = json_object_get(json, "normalizer");
    if (normalizer != NULL && !json_is_null(normalizer))
        return TV_ERR(TV_UNSUPPORTED, "%s: normalizer is set; only texts as they are can be read",
                      path);
    TV_TRY(tv_bpe_read(path, json, &state->bpe));
    TV_TRY(compile(path, json_object_get(json, "pre_tokenizer"), state));
    tokenizer->vocab_size = tv_bpe_vocab_size(state->bpe);
    return read_specials(path, json_object_get(json, "added_tokens"), state, tokenizer);
}

static const struct tv_tokenizer_ops bpe_ops = {"bpe", 1, encode, find, close_state};

tv_status_t tv_tokenizer_parse_bpe(const char *path, const json_t *json,
                                   struct tv_tokenizer *tokenizer_out)
{
    struct tv_tokenizer tokenizer = {.ops = &bpe_ops, .may_cut = 1};
    struct bpe_state *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: a tokenizer", path);
    const tv_status_t status = fill_state(path, json, state, &tokenizer);
    if (status != TV_OK) {
        close_state(state);
        return status;
    }
    tokenizer.state = state;
    *tokenizer_out = tokenizer;
    return TV_OK;
}

tv_status_t tv_tokenizer_open_bpe(const char *path, struct tv_tokenizer *tokenizer_out)
{
    enum { MAX_BYTES = 1 << 28 };
    json_t *json;
    TV_TRY(tv_file_read_json(path, MAX_BYTES, &json));
    const tv_status_t status = tv_tokenizer_parse_bpe(path, json, tokenizer_out);
    json_decref(json);
    return status;
}

/* train/tokens.c -- a mapped file of token ids; the vocabulary is checked once, in blocks. */
#include "train/tokens.h"
#include "base/rng.h"
#include "train/files.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct tv_tokens {
    char *path;
    tv_tokens_format_t format;
    struct tv_file_map map;
    int64_t count;
    int64_t mock_vocab; /* 0: a file */
    uint64_t mock_key;
};

static const char *const format_names[] = {
    [TV_TOKENS_TEXT] = "text", [TV_TOKENS_U16] = "u16", [TV_TOKENS_U32] = "u32"};

const char *tv_tokens_format_name(tv_tokens_format_t format)
{
    return format_names[format];
}

static int64_t width_of(tv_tokens_format_t format)
{
    return format == TV_TOKENS_TEXT ? 1 : format == TV_TOKENS_U16 ? 2 : 4;
}

/* Token `index` of the bytes of a file. */
static uint32_t token_at(const unsigned char *data, tv_tokens_format_t format, int64_t index)
{
    const unsigned char *b = data + index * width_of(format);
    if (format == TV_TOKENS_TEXT)
        return b[0];
    if (format == TV_TOKENS_U16)
        return (uint32_t)b[0] | (uint32_t)b[1] << 8;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* What a .bin file of 16-bit ids does not begin with: the magic number of llm.c's files, or ids
 * below 65536 stored in 32 bits, whose upper halves are zero while the lower ones are not. */
static tv_status_t check_begins_like_u16(const char *path)
{
    enum { LLMC_MAGIC = 20240520, MIN_PAIRS = 8, MAX_PAIRS = 4096 };
    struct tv_file_map map;
    TV_TRY(tv_file_map(path, &map));
    const int64_t words = map.bytes / 4;
    const int64_t pairs = words < MAX_PAIRS ? words : MAX_PAIRS;
    const int is_llmc = words > 0 && token_at(map.data, TV_TOKENS_U32, 0) == (uint32_t)LLMC_MAGIC;
    int64_t low = 0, high = 0;
    for (int64_t i = 0; i < pairs; i++) {
        low += token_at(map.data, TV_TOKENS_U16, 2 * i) != 0;
        high += token_at(map.data, TV_TOKENS_U16, 2 * i + 1) != 0;
    }
    tv_file_unmap(&map);
    if (is_llmc)
        return TV_ERR(TV_UNSUPPORTED,
                      "%s begins with the header of an llm.c file; this version reads text, u16 "
                      "and u32 files without a header",
                      path);
    if (pairs >= MIN_PAIRS && low > 0 && high == 0)
        return TV_ERR(TV_BAD_FILE,
                      "%s looks like 32-bit ids (every second 16-bit word is zero); say "
                      "--data-format u32, or u16 if it is not",
                      path);
    return TV_OK;
}

static tv_status_t format_by_name(const char *path, tv_tokens_format_t *format_out)
{
    static const struct {
        const char *end;
        tv_tokens_format_t format;
    } ends[] = {{".txt", TV_TOKENS_TEXT},
                {".text", TV_TOKENS_TEXT},
                {".u16", TV_TOKENS_U16},
                {".u32", TV_TOKENS_U32},
                {".bin", TV_TOKENS_U16}};
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash != NULL ? slash : path, '.');
    for (size_t i = 0; dot != NULL && i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (strcmp(dot, ends[i].end) != 0)
            continue;
        if (strcmp(dot, ".bin") == 0)
            TV_TRY(check_begins_like_u16(path));
        *format_out = ends[i].format;
        return TV_OK;
    }
    return TV_ERR(TV_INVALID,
                  "%s: the name does not end in .txt, .text, .bin, .u16 or .u32; say --data-format "
                  "text, u16 or u32",
                  path);
}

tv_status_t tv_tokens_format_of(const char *path, const char *word, tv_tokens_format_t *format_out)
{
    if (strcmp(word, "auto") == 0)
        return format_by_name(path, format_out);
    for (int i = TV_TOKENS_TEXT; i <= TV_TOKENS_U32; i++) {
        if (strcmp(word, format_names[i]) == 0) {
            *format_out = (tv_tokens_format_t)i;
            return TV_OK;
        }
    }
    if (strcmp(word, "llmc") == 0 || strcmp(word, "megatron") == 0)
        return TV_ERR(TV_UNSUPPORTED,
                      "--data-format %s: this version reads text, u16 and u32 files", word);
    return TV_ERR(TV_INVALID, "--data-format %s is not one of auto, text, u16, u32", word);
}

tv_status_t tv_tokens_open(const char *path, tv_tokens_format_t format,
                           struct tv_tokens **tokens_out)
{
    tv_status_t status = TV_OK;
    struct tv_tokens *tokens = calloc(1, sizeof(*tokens));
    if (tokens == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", path, sizeof(*tokens));
    tokens->format = format;
    tokens->path = strdup(path);
    if (tokens->path == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "%s: its name", path);
        goto fail;
    }
    status = tv_file_map(path, &tokens->map);
    if (status != TV_OK)
        goto fail;
    if (tokens->map.bytes % width_of(format) != 0) {
        status = TV_ERR(TV_BAD_FILE,
                        "%s: %" PRId64 " bytes are not whole %s tokens of %" PRId64
                        " bytes; the file is cut short or of another format",
                        path, tokens->map.bytes, format_names[format], width_of(format));
        goto fail;
    }
    tokens->count = tokens->map.bytes / width_of(format);
    *tokens_out = tokens;
    return TV_OK;

fail:
    tv_tokens_close(tokens);
    return status;
}

tv_status_t tv_tokens_mock(int64_t count, int64_t vocab_size, uint64_t seed,
                           struct tv_tokens **tokens_out)
{
    struct tv_tokens *tokens = calloc(1, sizeof(*tokens));
    if (tokens == NULL)
        return TV_ERR(TV_NO_MEMORY, "--mock-data: %zu bytes", sizeof(*tokens));
    tokens->path = strdup("--mock-data");
    if (tokens->path == NULL) {
        tv_tokens_close(tokens);
        return TV_ERR(TV_NO_MEMORY, "--mock-data: its name");
    }
    tokens->format = TV_TOKENS_U32;
    tokens->count = count;
    tokens->mock_vocab = vocab_size;
    tokens->mock_key = tv_rng_key(seed, "mock-data");
    *tokens_out = tokens;
    return TV_OK;
}

void tv_tokens_close(struct tv_tokens *tokens)
{
    if (tokens == NULL)
        return;
    tv_file_unmap(&tokens->map);
    free(tokens->path);
    free(tokens);
}

int64_t tv_tokens_count(const struct tv_tokens *tokens)
{
    return tokens->count;
}

/* One loop per width, so that the compiler sees a plain maximum. */
static uint32_t largest_id(const struct tv_tokens *tokens, int64_t first, int64_t count)
{
    const unsigned char *data = tokens->map.data;
    uint32_t largest = 0;
    for (int64_t i = first; tokens->format == TV_TOKENS_U16 && i < first + count; i++) {
        const uint32_t id = token_at(data, TV_TOKENS_U16, i);
        largest = id > largest ? id : largest;
    }
    for (int64_t i = first; tokens->format == TV_TOKENS_U32 && i < first + count; i++) {
        const uint32_t id = token_at(data, TV_TOKENS_U32, i);
        largest = id > largest ? id : largest;
    }
    for (int64_t i = first; tokens->format == TV_TOKENS_TEXT && i < first + count; i++)
        largest = data[i] > largest ? data[i] : largest;
    return largest;
}

tv_status_t tv_tokens_check(const struct tv_tokens *tokens, int64_t vocab_size)
{
    const int64_t block = 1 << 16;
    const int64_t largest_possible = (INT64_C(1) << (8 * width_of(tokens->format))) - 1;
    if (largest_possible < vocab_size || tokens->mock_vocab > 0)
        return TV_OK;
    for (int64_t first = 0; first < tokens->count; first += block) {
        const int64_t left = tokens->count - first;
        if (largest_id(tokens, first, left < block ? left : block) < vocab_size)
            continue;
        int64_t index = first;
        while (token_at(tokens->map.data, tokens->format, index) < vocab_size)
            index++;
        return TV_ERR(TV_BAD_FILE,
                      "%s: token %" PRId64 " is %" PRIu32 ", beyond the vocabulary of %" PRId64
                      " (read as %s)",
                      tokens->path, index, token_at(tokens->map.data, tokens->format, index),
                      vocab_size, format_names[tokens->format]);
    }
    return TV_OK;
}

tv_status_t tv_tokens_read(const struct tv_tokens *tokens, int64_t first, int64_t count,
                           int32_t *out)
{
    if (first < 0 || count < 0 || count > tokens->count - first)
        return TV_ERR(TV_INTERNAL, "%s: tokens [%" PRId64 ", +%" PRId64 ") of a file of %" PRId64,
                      tokens->path, first, count, tokens->count);
    for (int64_t i = 0; i < count; i++)
        out[i] = tokens->mock_vocab > 0
                     ? (int32_t)tv_rng_below(tokens->mock_key, (uint64_t)(first + i),
                                             (uint64_t)tokens->mock_vocab)
                     : (int32_t)token_at(tokens->map.data, tokens->format, first + i);
    return TV_OK;
}

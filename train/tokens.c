/* train/tokens.c -- a mapped file of token ids; the vocabulary is checked once, in blocks. */
#include "base/rng.h"
#include "train/tokens_internal.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const format_names[] = {[TV_TOKENS_TEXT] = "text",
                                           [TV_TOKENS_U16] = "u16",
                                           [TV_TOKENS_U32] = "u32",
                                           [TV_TOKENS_LLMC] = "llmc",
                                           [TV_TOKENS_MEGATRON] = "megatron"};
enum { NUM_FORMATS = sizeof(format_names) / sizeof(format_names[0]) };

const char *tv_tokens_format_name(tv_tokens_format_t format)
{
    return format_names[format];
}

/* A .bin file is llm.c's or has 16-bit ids. Ids below 65536 stored in 32 bits show themselves: their
 * upper halves are zero while the lower ones are not. */
static tv_status_t format_of_bin(const char *path, tv_tokens_format_t *format_out)
{
    enum { MIN_PAIRS = 8, MAX_PAIRS = 4096 };
    struct tv_file_map map;
    TV_TRY(tv_file_map(path, &map));
    const int64_t words = map.bytes / 4;
    const int64_t pairs = words < MAX_PAIRS ? words : MAX_PAIRS;
    const int is_llmc = tv_llmc_is(&map);
    int64_t low = 0, high = 0;
    for (int64_t i = 0; i < pairs; i++) {
        low += tv_little_endian(map.data + 4 * i, 2) != 0;
        high += tv_little_endian(map.data + 4 * i + 2, 2) != 0;
    }
    tv_file_unmap(&map);
    if (!is_llmc && pairs >= MIN_PAIRS && low > 0 && high == 0)
        return TV_ERR(TV_BAD_FILE,
                      "%s looks like 32-bit ids (every second 16-bit word is zero); say "
                      "--data-format u32, or u16 if it is not",
                      path);
    *format_out = is_llmc ? TV_TOKENS_LLMC : TV_TOKENS_U16;
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
    if (tv_megatron_is(path)) {
        *format_out = TV_TOKENS_MEGATRON;
        return TV_OK;
    }
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash != NULL ? slash : path, '.');
    for (size_t i = 0; dot != NULL && i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (strcmp(dot, ends[i].end) != 0)
            continue;
        if (strcmp(dot, ".bin") == 0)
            return format_of_bin(path, format_out);
        *format_out = ends[i].format;
        return TV_OK;
    }
    return TV_ERR(
        TV_INVALID,
        "%s: the name does not end in .txt, .text, .bin, .u16 or .u32, and no .idx file is "
        "beside it; say --data-format text, u16, u32, llmc or megatron",
        path);
}

tv_status_t tv_tokens_format_of(const char *path, const char *word, tv_tokens_format_t *format_out)
{
    if (strcmp(word, "auto") == 0)
        return format_by_name(path, format_out);
    for (int i = 0; i < NUM_FORMATS; i++) {
        if (strcmp(word, format_names[i]) == 0) {
            *format_out = (tv_tokens_format_t)i;
            return TV_OK;
        }
    }
    return TV_ERR(TV_INVALID, "--data-format %s is not one of auto, text, u16, u32, llmc, megatron",
                  word);
}

/* A file that is ids from its first byte on. */
static tv_status_t parse_plain(struct tv_tokens *t)
{
    t->width = t->format == TV_TOKENS_TEXT ? 1 : t->format == TV_TOKENS_U16 ? 2 : 4;
    if (t->map.bytes % t->width != 0)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %" PRId64 " bytes are not whole %s tokens of %d bytes; the file is cut "
                      "short or of another format",
                      t->path, t->map.bytes, format_names[t->format], t->width);
    t->ids = t->map.data;
    t->count = t->map.bytes / t->width;
    return TV_OK;
}

static tv_status_t open_format(struct tv_tokens *tokens)
{
    if (tokens->format == TV_TOKENS_MEGATRON)
        return tv_megatron_open(tokens);
    TV_TRY(tv_file_map(tokens->path, &tokens->map));
    return tokens->format == TV_TOKENS_LLMC ? tv_llmc_parse(tokens) : parse_plain(tokens);
}

tv_status_t tv_tokens_open(const char *path, tv_tokens_format_t format,
                           struct tv_tokens **tokens_out)
{
    struct tv_tokens *tokens = calloc(1, sizeof(*tokens));
    if (tokens == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu bytes", path, sizeof(*tokens));
    tokens->format = format;
    tokens->path = strdup(path);
    const tv_status_t status =
        tokens->path != NULL ? open_format(tokens) : TV_ERR(TV_NO_MEMORY, "%s: its name", path);
    if (status != TV_OK) {
        tv_tokens_close(tokens);
        return status;
    }
    *tokens_out = tokens;
    return TV_OK;
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
    tokens->width = 4;
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
    tv_file_unmap(&tokens->index);
    free(tokens->path);
    free(tokens);
}

int64_t tv_tokens_count(const struct tv_tokens *tokens)
{
    return tokens->count;
}

const char *tv_tokens_path(const struct tv_tokens *tokens)
{
    return tokens->path;
}

tv_tokens_format_t tv_tokens_format(const struct tv_tokens *tokens)
{
    return tokens->format;
}

static void draw_ids(const struct tv_tokens *t, int64_t first, int64_t count, uint32_t *out)
{
    for (int64_t i = 0; i < count; i++)
        out[i] =
            (uint32_t)tv_rng_below(t->mock_key, (uint64_t)(first + i), (uint64_t)t->mock_vocab);
}

/* out[count] = the tokens from `first`; one loop per width, which the compiler makes fast. */
static void read_ids(const struct tv_tokens *t, int64_t first, int64_t count, uint32_t *out)
{
    const unsigned char *b = t->ids + first * t->width;
    for (int64_t i = 0; t->width == 1 && i < count; i++)
        out[i] = b[i];
    for (int64_t i = 0; t->width == 2 && i < count; i++)
        out[i] = (uint32_t)b[2 * i] | (uint32_t)b[2 * i + 1] << 8;
    for (int64_t i = 0; t->width == 4 && i < count; i++)
        out[i] = (uint32_t)tv_little_endian(b + 4 * i, 4);
}

tv_status_t tv_tokens_check(const struct tv_tokens *tokens, int64_t vocab_size)
{
    enum { BLOCK = 8192 };
    uint32_t ids[BLOCK];
    if (tokens->mock_vocab > 0 || (INT64_C(1) << (8 * tokens->width)) <= vocab_size)
        return TV_OK;
    for (int64_t first = 0; first < tokens->count; first += BLOCK) {
        const int64_t left = tokens->count - first, num = left < BLOCK ? left : BLOCK;
        uint32_t largest = 0;
        read_ids(tokens, first, num, ids);
        for (int64_t i = 0; i < num; i++)
            largest = ids[i] > largest ? ids[i] : largest;
        for (int64_t i = 0; largest >= vocab_size && i < num; i++) {
            if (ids[i] >= vocab_size)
                return TV_ERR(TV_BAD_FILE,
                              "%s: token %" PRId64 " is %" PRIu32
                              ", beyond the vocabulary of %" PRId64 " (read as %s)",
                              tokens->path, first + i, ids[i], vocab_size,
                              format_names[tokens->format]);
        }
    }
    return TV_OK;
}

tv_status_t tv_tokens_read(const struct tv_tokens *tokens, int64_t first, int64_t count,
                           int32_t *out)
{
    if (first < 0 || count < 0 || count > tokens->count - first)
        return TV_ERR(TV_INTERNAL, "%s: tokens [%" PRId64 ", +%" PRId64 ") of a file of %" PRId64,
                      tokens->path, first, count, tokens->count);
    if (tokens->mock_vocab > 0)
        draw_ids(tokens, first, count, (uint32_t *)out);
    else
        read_ids(tokens, first, count, (uint32_t *)out); /* ids are checked to be below 2^31 */
    return TV_OK;
}

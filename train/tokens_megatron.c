/* train/tokens_megatron.c -- Megatron-LM's indexed data sets (megatron/core/datasets/
 * indexed_dataset.py): the index is proven once, when it is opened, so that all it says later is
 * known to lie in the file. */
#include "train/tokens_internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_VERSION = 9, AT_TYPE = 17, AT_SEQUENCES = 18, AT_DOCUMENTS = 26, AT_ARRAYS = 34 };
static const char magic[AT_VERSION] = "MMIDIDX\0"; /* and the NUL at its end */

/* The name without .bin or .idx, then `end`. The caller frees it. */
static char *name_with(const char *path, const char *end)
{
    size_t length = strlen(path);
    if (length > 4 &&
        (strcmp(path + length - 4, ".bin") == 0 || strcmp(path + length - 4, ".idx") == 0))
        length -= 4;
    char *name = malloc(length + strlen(end) + 1);
    if (name != NULL)
        sprintf(name, "%.*s%s", (int)length, path, end);
    return name;
}

int tv_megatron_is(const char *path)
{
    char *name = name_with(path, ".idx");
    char begin[AT_VERSION];
    FILE *file = name != NULL ? fopen(name, "rb") : NULL;
    const int is = file != NULL && fread(begin, 1, AT_VERSION, file) == AT_VERSION &&
                   memcmp(begin, magic, AT_VERSION) == 0;
    if (file != NULL)
        fclose(file);
    free(name);
    return is;
}

static tv_status_t map_one(const char *path, const char *end, struct tv_file_map *map)
{
    char *name = name_with(path, end);
    if (name == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its name", path);
    const tv_status_t status = tv_file_map(name, map);
    free(name);
    return status;
}

/* Number i of the index: ids of a sequence, its first byte, the first sequence of a document. */
static int64_t length_at(const struct tv_tokens *t, int64_t i)
{
    return (int32_t)tv_little_endian(t->index.data + AT_ARRAYS + 4 * i, 4);
}

static int64_t pointer_at(const struct tv_tokens *t, int64_t i)
{
    return (int64_t)tv_little_endian(t->index.data + AT_ARRAYS + 4 * t->num_sequences + 8 * i, 8);
}

static int64_t first_sequence_at(const struct tv_tokens *t, int64_t i)
{
    return (int64_t)tv_little_endian(t->index.data + AT_ARRAYS + 12 * t->num_sequences + 8 * i, 8);
}

/* Counts that the file has room for. */
static tv_status_t parse_counts(struct tv_tokens *t, int64_t *num_bounds_out)
{
    static const unsigned char width_of_type[] = {[1] = 1, [4] = 4, [8] = 2};
    const unsigned char *b = t->index.data;
    if (t->index.bytes < AT_ARRAYS || memcmp(b, magic, AT_VERSION) != 0)
        return TV_ERR(TV_BAD_FILE, "%s: the .idx file does not begin as Megatron-LM's do", t->path);
    if (tv_little_endian(b + AT_VERSION, 8) != 1)
        return TV_ERR(TV_BAD_FILE, "%s: the .idx file is of version %" PRIu64 ", not 1", t->path,
                      tv_little_endian(b + AT_VERSION, 8));
    const unsigned type = b[AT_TYPE];
    t->width = type < sizeof(width_of_type) ? width_of_type[type] : 0;
    if (t->width == 0)
        return TV_ERR(TV_BAD_FILE,
                      "%s: the .idx file says ids of type %u; 1 (u8), 8 (u16) and 4 (i32) are read",
                      t->path, type);
    const uint64_t n = tv_little_endian(b + AT_SEQUENCES, 8),
                   m = tv_little_endian(b + AT_DOCUMENTS, 8);
    const uint64_t room = (uint64_t)t->index.bytes - AT_ARRAYS;
    /* with n bytes of modes at the end in multimodal ones */
    if (n > room / 12 || m > (room - 12 * n) / 8 ||
        (room != 12 * n + 8 * m && room != 13 * n + 8 * m))
        return TV_ERR(TV_BAD_FILE,
                      "%s: the .idx file says %" PRIu64 " sequences and %" PRIu64
                      " document bounds, which its %" PRId64 " bytes do not hold",
                      t->path, n, m, t->index.bytes);
    t->num_sequences = (int64_t)n;
    *num_bounds_out = (int64_t)m;
    return TV_OK;
}

static tv_status_t check_sequences(const struct tv_tokens *t)
{
    int64_t end = 0; /* bytes of .bin so far */
    for (int64_t i = 0; i < t->num_sequences; i++) {
        const int64_t bytes = length_at(t, i) * t->width;
        if (bytes < 0 || bytes > t->map.bytes - end)
            return TV_ERR(TV_BAD_FILE,
                          "%s: sequence %" PRId64 " of %" PRId64 " tokens leaves the .bin file of "
                          "%" PRId64 " bytes",
                          t->path, i, length_at(t, i), t->map.bytes);
        if (pointer_at(t, i) != end)
            return TV_ERR(TV_BAD_FILE,
                          "%s: sequence %" PRId64 " starts at byte %" PRId64
                          ", not behind the one before it at %" PRId64,
                          t->path, i, pointer_at(t, i), end);
        end += bytes;
    }
    if (end != t->map.bytes)
        return TV_ERR(TV_BAD_FILE,
                      "%s: the sequences end at byte %" PRId64 ", the .bin file at %" PRId64,
                      t->path, end, t->map.bytes);
    return TV_OK;
}

static tv_status_t check_documents(const struct tv_tokens *t, int64_t num_bounds)
{
    int64_t before = 0;
    for (int64_t i = 0; i < num_bounds; i++) {
        const int64_t first = first_sequence_at(t, i);
        if (first < before || first > t->num_sequences || (i == 0 && first != 0))
            return TV_ERR(TV_BAD_FILE,
                          "%s: document %" PRId64 " starts with sequence %" PRId64
                          ", the one before with %" PRId64 "; there are %" PRId64,
                          t->path, i, first, before, t->num_sequences);
        before = first;
    }
    if (num_bounds == 0 ? t->num_sequences > 0 : before != t->num_sequences)
        return TV_ERR(TV_BAD_FILE,
                      "%s: the documents end with sequence %" PRId64 ", there are %" PRId64,
                      t->path, before, t->num_sequences);
    return TV_OK;
}

tv_status_t tv_megatron_parse(struct tv_tokens *tokens)
{
    int64_t num_bounds;
    TV_TRY(parse_counts(tokens, &num_bounds));
    TV_TRY(check_sequences(tokens));
    TV_TRY(check_documents(tokens, num_bounds));
    tokens->num_documents = num_bounds > 0 ? num_bounds - 1 : 0;
    tokens->ids = tokens->map.data;
    tokens->count = tokens->map.bytes / tokens->width;
    return TV_OK;
}

tv_status_t tv_megatron_open(struct tv_tokens *tokens)
{
    TV_TRY(map_one(tokens->path, ".idx", &tokens->index));
    TV_TRY(map_one(tokens->path, ".bin", &tokens->map));
    return tv_megatron_parse(tokens);
}

int64_t tv_tokens_num_documents(const struct tv_tokens *tokens)
{
    return tokens->num_documents;
}

int64_t tv_tokens_document_end(const struct tv_tokens *tokens, int64_t document)
{
    const int64_t next = first_sequence_at(tokens, document + 1);
    return next < tokens->num_sequences ? pointer_at(tokens, next) / tokens->width : tokens->count;
}

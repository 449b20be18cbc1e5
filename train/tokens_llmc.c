/* train/tokens_llmc.c -- the header of llm.c's shards (karpathy/llm.c, dev/data/data_common.py and
 * llmc/dataloader.h). */
#include "train/tokens_internal.h"
#include <inttypes.h>

enum { HEADER_BYTES = 256 * 4 };

static const struct {
    uint32_t magic, version;
    int width;
} kinds[] = {{20240520, 1, 2}, {20240801, 7, 4}};
enum { NUM_KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static uint32_t header_word(const struct tv_file_map *map, int index)
{
    return (uint32_t)tv_little_endian(map->data + (ptrdiff_t)4 * index, 4);
}

/* -1: none of them */
static int kind_of(const struct tv_file_map *map)
{
    for (int i = 0; i < NUM_KINDS && map->bytes >= 4; i++) {
        if (header_word(map, 0) == kinds[i].magic)
            return i;
    }
    return -1;
}

int tv_llmc_is(const struct tv_file_map *map)
{
    return kind_of(map) >= 0;
}

tv_status_t tv_llmc_parse(struct tv_tokens *tokens)
{
    const struct tv_file_map *map = &tokens->map;
    const int kind = kind_of(map);
    if (kind < 0)
        return TV_ERR(TV_BAD_FILE, "%s does not begin as a shard of llm.c does", tokens->path);
    if (map->bytes < HEADER_BYTES)
        return TV_ERR(TV_BAD_FILE, "%s: %" PRId64 " bytes, the header of an llm.c shard has %d",
                      tokens->path, map->bytes, HEADER_BYTES);
    if (header_word(map, 1) != kinds[kind].version)
        return TV_ERR(TV_BAD_FILE,
                      "%s: an llm.c shard of version %" PRIu32 "; this version reads %" PRIu32,
                      tokens->path, header_word(map, 1), kinds[kind].version);
    const int64_t count = header_word(map, 2), width = kinds[kind].width;
    if (map->bytes != HEADER_BYTES + count * width)
        return TV_ERR(TV_BAD_FILE,
                      "%s: the header says %" PRId64 " tokens, that is %" PRId64
                      " bytes; the file has %" PRId64,
                      tokens->path, count, HEADER_BYTES + count * width, map->bytes);
    tokens->ids = map->data + HEADER_BYTES;
    tokens->width = (int)width;
    tokens->count = count;
    return TV_OK;
}

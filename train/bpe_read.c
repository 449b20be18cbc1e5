/* train/bpe_read.c -- vocabulary and merges of a tokenizer.json. There a byte is written as a
 * character: printable ones of Latin-1 as themselves, the others as U+0100 and following, in order
 * (GPT-2's bytes_to_unicode). */
#include "train/bpe_internal.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int is_printable(int byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/* The byte that a character stands for; -1: none. */
static int byte_of(uint32_t character)
{
    if (character < 256)
        return is_printable((int)character) ? (int)character : -1;
    uint32_t next = 256;
    for (int byte = 0; byte < 256; byte++) {
        if (!is_printable(byte) && next++ == character)
            return byte;
    }
    return -1;
}

/* Bytes of a token's text -> out, of room for its length; -1: other characters are in it. All that
 * stand for bytes are of one or two bytes themselves. */
static int64_t decode(const char *text, size_t length, char *out)
{
    int64_t num = 0;
    for (size_t i = 0; i < length; num++) {
        const unsigned char a = (unsigned char)text[i],
                            b = i + 1 < length ? (unsigned char)text[i + 1] : 0;
        const int is_two = a >= 0xC0 && a < 0xE0;
        if (a >= 0x80 && !is_two)
            return -1;
        const int byte = byte_of(is_two ? (uint32_t)(a & 0x1F) << 6 | (b & 0x3F) : a);
        if (byte < 0)
            return -1;
        out[num] = (char)byte;
        i += is_two ? 2 : 1;
    }
    return num;
}

/* Fields of `model` that change the result, with the values at which they do not. */
static tv_status_t check_model(const char *path, const json_t *model)
{
    static const char *const off[] = {
        "dropout",  "unk_token",    "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", "byte_fallback"};
    const char *type = json_string_value(json_object_get(model, "type"));
    if (!json_is_object(model) || (type != NULL && strcmp(type, "BPE") != 0))
        return TV_ERR(TV_UNSUPPORTED, "%s: model.type %s; only BPE over bytes is read", path,
                      type != NULL ? type : "is missing");
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        const json_t *value = json_object_get(model, off[i]);
        const char *text = json_string_value(value);
        if (value != NULL && !json_is_null(value) && !json_is_false(value) &&
            (text == NULL || text[0] != '\0'))
            return TV_ERR(TV_UNSUPPORTED, "%s: model.%s is set, which BPE over bytes does not have",
                          path, off[i]);
    }
    if (!json_is_object(json_object_get(model, "vocab")) ||
        !json_is_array(json_object_get(model, "merges")))
        return TV_ERR(TV_BAD_FILE, "%s: model.vocab is not an object, or model.merges not an array",
                      path);
    return TV_OK;
}

static uint64_t places_for(uint64_t num)
{
    uint64_t places = 1024;
    while (places < 2 * num)
        places *= 2;
    return places;
}

static void insert_word(struct tv_bpe_words *w, const char *bytes, int64_t length, uint32_t id)
{
    const int64_t first = w->num > 0 ? w->words[w->num - 1].first + w->words[w->num - 1].length : 0;
    uint64_t at = XXH3_64bits(bytes, (size_t)length) & w->mask;
    memmove(w->bytes + first, bytes, (size_t)length);
    w->words[w->num++] = (struct tv_bpe_word){first, (uint32_t)length, id};
    while (w->places[at] != 0)
        at = (at + 1) & w->mask;
    w->places[at] = (uint32_t)w->num;
}

static tv_status_t allocate_words(const char *path, json_t *vocab, struct tv_bpe_words *w)
{
    const char *key;
    json_t *value;
    size_t total = 1;
    json_object_foreach(vocab, key, value) total += strlen(key);
    const uint64_t num = json_object_size(vocab), places = places_for(num);
    w->mask = places - 1;
    w->words = calloc(num + 1, sizeof(*w->words));
    w->bytes = malloc(total);
    w->places = calloc(places, sizeof(*w->places));
    if (w->words == NULL || w->bytes == NULL || w->places == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %" PRIu64 " tokens", path, num);
    return TV_OK;
}

/* Added tokens may stand in the vocabulary too, as plain text. */
static int is_added(const json_t *json, const char *text)
{
    const json_t *added = json_object_get(json, "added_tokens");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const char *content =
            json_string_value(json_object_get(json_array_get(added, i), "content"));
        if (content != NULL && strcmp(content, text) == 0)
            return 1;
    }
    return 0;
}

static tv_status_t read_words(const char *path, const json_t *json, json_t *vocab,
                              struct tv_bpe *bpe)
{
    const char *key;
    json_t *value;
    TV_TRY(allocate_words(path, vocab, &bpe->words));
    json_object_foreach(vocab, key, value)
    {
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= INT32_MAX)
            return TV_ERR(TV_BAD_FILE, "%s: model.vocab: the id of \"%s\" is not in 0 .. 2^31 - 2",
                          path, key);
        if (id >= bpe->vocab_size)
            bpe->vocab_size = id + 1;
        const size_t length = strlen(key);
        char *room = malloc(length + 1);
        if (room == NULL)
            return TV_ERR(TV_NO_MEMORY, "%s: a token of %zu bytes", path, length);
        const int64_t bytes = decode(key, length, room);
        const int is_odd = bytes < 1;
        if (!is_odd)
            insert_word(&bpe->words, room, bytes, (uint32_t)id);
        free(room);
        if (is_odd && !is_added(json, key))
            return TV_ERR(TV_UNSUPPORTED,
                          "%s: model.vocab: \"%s\" is not of the byte-level kind (GPT-2, Llama 3)",
                          path, key);
    }
    for (int byte = 0; byte < 256; byte++) {
        const char one = (char)byte;
        const int64_t id = tv_bpe_find_word(&bpe->words, &one, 1);
        if (id < 0)
            return TV_ERR(TV_UNSUPPORTED, "%s: model.vocab has no token for byte %d", path, byte);
        bpe->byte_ids[byte] = (uint32_t)id;
    }
    return TV_OK;
}

/* "left right", or ["left", "right"]; the caller frees both, one allocation. */
static char *split_merge(const json_t *merge, const char **left, const char **right)
{
    const char *text = json_string_value(merge);
    if (text != NULL) {
        char *copy = strdup(text);
        char *blank = copy != NULL ? strchr(copy, ' ') : NULL;
        if (blank == NULL || strchr(blank + 1, ' ') != NULL) {
            free(copy);
            return NULL;
        }
        *blank = '\0';
        *left = copy;
        *right = blank + 1;
        return copy;
    }
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    return json_array_size(merge) == 2 && *left != NULL && *right != NULL ? calloc(1, 1) : NULL;
}

/* Ids of both and of what they make together; 0 when one of them is no token. */
static int find_merge(const struct tv_bpe *bpe, const char *left, const char *right, int64_t ids[3])
{
    const size_t a = strlen(left), b = strlen(right);
    char *room = malloc(a + b + 1);
    if (room == NULL)
        return 0;
    const int64_t first = decode(left, a, room);
    const int64_t second = first > 0 ? decode(right, b, room + first) : -1;
    const int is_known = first > 0 && second > 0;
    if (is_known) {
        ids[0] = tv_bpe_find_word(&bpe->words, room, (size_t)first);
        ids[1] = tv_bpe_find_word(&bpe->words, room + first, (size_t)second);
        ids[2] = tv_bpe_find_word(&bpe->words, room, (size_t)(first + second));
    }
    free(room);
    return is_known && ids[0] >= 0 && ids[1] >= 0 && ids[2] >= 0;
}

static tv_status_t read_merges(const char *path, const json_t *merges, struct tv_bpe *bpe)
{
    const size_t num = json_array_size(merges);
    const uint64_t places = places_for(num);
    bpe->mask = places - 1;
    bpe->merges = malloc(places * sizeof(*bpe->merges));
    if (bpe->merges == NULL || num >= TV_NO_RANK)
        return TV_ERR(TV_NO_MEMORY, "%s: %zu merges", path, num);
    for (uint64_t i = 0; i < places; i++)
        bpe->merges[i] = (struct tv_bpe_merge){0, TV_NO_RANK, 0};
    for (size_t i = 0; i < num; i++) {
        const char *left, *right;
        int64_t ids[3];
        char *kept = split_merge(json_array_get(merges, i), &left, &right);
        const int is_known = kept != NULL && find_merge(bpe, left, right, ids);
        free(kept);
        if (!is_known)
            return TV_ERR(TV_BAD_FILE,
                          "%s: model.merges[%zu] is not two tokens that make a third one of "
                          "model.vocab",
                          path, i);
        *tv_bpe_merge_at(bpe, (uint32_t)ids[0], (uint32_t)ids[1]) = (struct tv_bpe_merge){
            (uint64_t)ids[0] << 32 | (uint64_t)ids[1], (uint32_t)i, (uint32_t)ids[2]};
    }
    return TV_OK;
}

tv_status_t tv_bpe_read(const char *path, const json_t *json, struct tv_bpe **bpe_out)
{
    const json_t *model = json_object_get(json, "model");
    TV_TRY(check_model(path, model));
    struct tv_bpe *bpe = calloc(1, sizeof(*bpe));
    if (bpe == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its tables", path);
    bpe->ignores_merges = json_is_true(json_object_get(model, "ignore_merges"));
    tv_status_t status = read_words(path, json, json_object_get(model, "vocab"), bpe);
    if (status == TV_OK)
        status = read_merges(path, json_object_get(model, "merges"), bpe);
    if (status != TV_OK) {
        tv_bpe_destroy(bpe);
        return status;
    }
    *bpe_out = bpe;
    return TV_OK;
}

/* train/bpe.c -- merging by rank, with a heap over a linked list of what is left of the word. */
#include "train/bpe_internal.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { CACHE_WORDS = 1 << 14, CACHE_BYTES = 16, CACHE_IDS = 6 };
#define DEAD UINT32_MAX /* the id of what was merged into its left neighbour */

struct symbol {
    uint32_t id;
    int32_t before, after; /* -1: none */
};
struct candidate {
    uint32_t rank;
    int32_t at; /* the left one */
    uint32_t left, right, id;
};
struct cached {
    unsigned char length, num_ids; /* length 0: empty */
    char word[CACHE_BYTES];
    uint32_t ids[CACHE_IDS];
};

struct tv_bpe_work {
    struct symbol *symbols; /* [room] */
    struct candidate *heap; /* [3 room]: a start for each pair, two more for each merge */
    int64_t room, num_heap;
    struct cached *cache; /* [CACHE_WORDS] */
};

int64_t tv_bpe_find_word(const struct tv_bpe_words *w, const char *bytes, size_t length)
{
    for (uint64_t at = XXH3_64bits(bytes, length) & w->mask; w->places[at] != 0;
         at = (at + 1) & w->mask) {
        const struct tv_bpe_word *word = &w->words[w->places[at] - 1];
        if (word->length == length && memcmp(w->bytes + word->first, bytes, length) == 0)
            return word->id;
    }
    return -1;
}

struct tv_bpe_merge *tv_bpe_merge_at(const struct tv_bpe *bpe, uint32_t left, uint32_t right)
{
    const uint64_t pair = (uint64_t)left << 32 | right;
    uint64_t at = (pair * UINT64_C(0x9E3779B97F4A7C15)) >> 20 & bpe->mask;
    while (bpe->merges[at].rank != TV_NO_RANK && bpe->merges[at].pair != pair)
        at = (at + 1) & bpe->mask;
    return &bpe->merges[at];
}

tv_status_t tv_bpe_work_create(struct tv_bpe_work **work_out)
{
    struct tv_bpe_work *work = calloc(1, sizeof(*work));
    if (work != NULL)
        work->cache = calloc(CACHE_WORDS, sizeof(*work->cache));
    if (work == NULL || work->cache == NULL) {
        tv_bpe_work_destroy(work);
        return TV_ERR(TV_NO_MEMORY, "%d remembered words", CACHE_WORDS);
    }
    *work_out = work;
    return TV_OK;
}

void tv_bpe_work_destroy(struct tv_bpe_work *work)
{
    if (work == NULL)
        return;
    free(work->symbols);
    free(work->heap);
    free(work->cache);
    free(work);
}

static tv_status_t make_room(struct tv_bpe_work *work, int64_t bytes)
{
    if (bytes <= work->room)
        return TV_OK;
    const int64_t room = bytes < 256 ? 256 : 2 * bytes;
    free(work->symbols);
    free(work->heap);
    work->symbols = malloc((size_t)room * sizeof(*work->symbols));
    work->heap = malloc((size_t)room * 3 * sizeof(*work->heap));
    work->room = work->symbols != NULL && work->heap != NULL ? room : 0;
    if (work->room == 0)
        return TV_ERR(TV_NO_MEMORY, "a word of %" PRId64 " bytes", bytes);
    return TV_OK;
}

static int is_before(const struct candidate *a, const struct candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(struct tv_bpe_work *work, struct candidate candidate)
{
    struct candidate *heap = work->heap;
    int64_t at = work->num_heap++;
    for (; at > 0 && is_before(&candidate, &heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = candidate;
}

static struct candidate pop(struct tv_bpe_work *work)
{
    struct candidate *heap = work->heap;
    const struct candidate top = heap[0], last = heap[--work->num_heap];
    int64_t at = 0;
    for (int64_t child = 1; child < work->num_heap; child = 2 * at + 1) {
        if (child + 1 < work->num_heap && is_before(&heap[child + 1], &heap[child]))
            child++;
        if (!is_before(&heap[child], &last))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

/* Symbol `at` and the one behind it, if they merge. */
static void consider(const struct tv_bpe *bpe, struct tv_bpe_work *work, int32_t at)
{
    if (at < 0 || work->symbols[at].after < 0)
        return;
    const uint32_t left = work->symbols[at].id, right = work->symbols[work->symbols[at].after].id;
    const struct tv_bpe_merge *merge = tv_bpe_merge_at(bpe, left, right);
    if (merge->rank != TV_NO_RANK)
        push(work, (struct candidate){merge->rank, at, left, right, merge->id});
}

static void merge_all(const struct tv_bpe *bpe, struct tv_bpe_work *work)
{
    struct symbol *symbols = work->symbols;
    while (work->num_heap > 0) {
        const struct candidate c = pop(work);
        struct symbol *left = &symbols[c.at];
        if (left->id != c.left || left->after < 0 || symbols[left->after].id != c.right)
            continue; /* one of them has been merged since */
        struct symbol *right = &symbols[left->after];
        left->id = c.id;
        left->after = right->after;
        right->id = DEAD;
        if (left->after >= 0)
            symbols[left->after].before = c.at;
        consider(bpe, work, left->before);
        consider(bpe, work, c.at);
    }
}

static tv_status_t merge_word(const struct tv_bpe *bpe, struct tv_bpe_work *work, const char *word,
                              int64_t bytes, struct tv_ids *ids)
{
    if (bytes > INT32_MAX)
        return TV_ERR(TV_UNSUPPORTED, "a word of %" PRId64 " bytes", bytes);
    TV_TRY(make_room(work, bytes));
    TV_TRY(tv_ids_reserve(ids, bytes));
    for (int32_t i = 0; i < (int32_t)bytes; i++)
        work->symbols[i] = (struct symbol){bpe->byte_ids[(unsigned char)word[i]], i - 1,
                                           i + 1 < bytes ? i + 1 : -1};
    work->num_heap = 0;
    for (int32_t i = 0; i < (int32_t)bytes; i++)
        consider(bpe, work, i);
    merge_all(bpe, work);
    for (int32_t i = 0; i >= 0; i = work->symbols[i].after)
        ids->ids[ids->num++] = work->symbols[i].id;
    return TV_OK;
}

static tv_status_t encode_new(const struct tv_bpe *bpe, struct tv_bpe_work *work, const char *word,
                              int64_t bytes, struct tv_ids *ids)
{
    const int64_t id =
        bpe->ignores_merges ? tv_bpe_find_word(&bpe->words, word, (size_t)bytes) : -1;
    if (id >= 0)
        return tv_ids_add(ids, (uint32_t)id);
    return merge_word(bpe, work, word, bytes, ids);
}

tv_status_t tv_bpe_encode(const struct tv_bpe *bpe, struct tv_bpe_work *work, const char *word,
                          int64_t bytes, struct tv_ids *ids)
{
    if (bytes < 1)
        return TV_OK;
    if (bytes > CACHE_BYTES)
        return encode_new(bpe, work, word, bytes, ids);
    struct cached *c = &work->cache[XXH3_64bits(word, (size_t)bytes) % CACHE_WORDS];
    if (c->length == bytes && memcmp(c->word, word, (size_t)bytes) == 0) {
        TV_TRY(tv_ids_reserve(ids, CACHE_IDS));
        memcpy(ids->ids + ids->num, c->ids, sizeof(c->ids));
        ids->num += c->num_ids;
        return TV_OK;
    }
    const int64_t before = ids->num;
    TV_TRY(encode_new(bpe, work, word, bytes, ids));
    const int64_t num = ids->num - before;
    if (num <= CACHE_IDS) {
        c->length = (unsigned char)bytes;
        c->num_ids = (unsigned char)num;
        memcpy(c->word, word, (size_t)bytes);
        memcpy(c->ids, ids->ids + before, (size_t)num * sizeof(*c->ids));
    }
    return TV_OK;
}

int64_t tv_bpe_vocab_size(const struct tv_bpe *bpe)
{
    return bpe->vocab_size;
}

void tv_bpe_destroy(struct tv_bpe *bpe)
{
    if (bpe == NULL)
        return;
    free(bpe->words.words);
    free(bpe->words.bytes);
    free(bpe->words.places);
    free(bpe->merges);
    free(bpe);
}

/* train/tokenizer.c -- what all kinds of tokenizers share, and the simplest of them: bytes. */
#include "train/tokenizer.h"
#include "train/tokenizer_internal.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

tv_status_t tv_ids_reserve(struct tv_ids *ids, int64_t more)
{
    if (more <= ids->room - ids->num)
        return TV_OK;
    int64_t room = ids->room < 1024 ? 1024 : 2 * ids->room;
    while (room - ids->num < more)
        room *= 2;
    uint32_t *larger = realloc(ids->ids, (size_t)room * sizeof(*larger));
    if (larger == NULL)
        return TV_ERR(TV_NO_MEMORY, "%" PRId64 " ids", room);
    ids->ids = larger;
    ids->room = room;
    return TV_OK;
}

tv_status_t tv_ids_add(struct tv_ids *ids, uint32_t id)
{
    TV_TRY(tv_ids_reserve(ids, 1));
    ids->ids[ids->num++] = id;
    return TV_OK;
}

void tv_ids_free(struct tv_ids *ids)
{
    free(ids->ids);
    *ids = (struct tv_ids){0};
}

/* Length of the character at s, of at most `left` bytes; 0: it is none (RFC 3629). */
static int character_length(const unsigned char *s, int64_t left)
{
    static const struct {
        unsigned char first, last; /* byte */
        int length;
        unsigned char low, high; /* of the second */
    } forms[] = {
        {0x00, 0x7F, 1, 0, 0},       {0xC2, 0xDF, 2, 0x80, 0xBF}, {0xE0, 0xE0, 3, 0xA0, 0xBF},
        {0xE1, 0xEC, 3, 0x80, 0xBF}, {0xED, 0xED, 3, 0x80, 0x9F}, {0xEE, 0xEF, 3, 0x80, 0xBF},
        {0xF0, 0xF0, 4, 0x90, 0xBF}, {0xF1, 0xF3, 4, 0x80, 0xBF}, {0xF4, 0xF4, 4, 0x80, 0x8F}};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (s[0] < forms[i].first || s[0] > forms[i].last)
            continue;
        if (forms[i].length > left)
            return 0;
        if (forms[i].length > 1 && (s[1] < forms[i].low || s[1] > forms[i].high))
            return 0;
        for (int k = 2; k < forms[i].length; k++) {
            if (s[k] < 0x80 || s[k] > 0xBF)
                return 0;
        }
        return forms[i].length;
    }
    return 0;
}

int64_t tv_utf8_length(const char *text, int64_t bytes)
{
    const unsigned char *s = (const unsigned char *)text;
    int64_t at = 0;
    while (at < bytes) {
        uint64_t eight;
        if (bytes - at >= 8 &&
            (memcpy(&eight, s + at, 8), eight & UINT64_C(0x8080808080808080)) == 0) {
            at += 8;
            continue;
        }
        const int length = character_length(s + at, bytes - at);
        if (length == 0)
            break;
        at += length;
    }
    return at;
}

static tv_status_t encode_bytes(const void *state, struct tv_tokenizer_worker *worker,
                                const char *text, int64_t bytes, int64_t first, int64_t end,
                                struct tv_ids *ids)
{
    (void)state, (void)worker, (void)bytes;
    TV_TRY(tv_ids_reserve(ids, end - first));
    for (int64_t i = first; i < end; i++)
        ids->ids[ids->num++] = (unsigned char)text[i];
    return TV_OK;
}

static int64_t find_none(const void *state, const char *text)
{
    (void)state, (void)text;
    return -1;
}

static void close_none(void *state)
{
    (void)state;
}

static const struct tv_tokenizer_ops bytes_ops = {"bytes", 0, encode_bytes, find_none, close_none};

static int ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

tv_status_t tv_tokenizer_open(const char *name, struct tv_tokenizer **tokenizer_out)
{
    struct tv_tokenizer tokenizer = {.ops = &bytes_ops, .vocab_size = 256, .may_cut = 1};
    if (ends_with(name, ".json"))
        TV_TRY(tv_tokenizer_open_bpe(name, &tokenizer));
    else if (strcmp(name, "bytes") != 0)
        TV_TRY(tv_tokenizer_open_sentencepiece(name, &tokenizer));
    struct tv_tokenizer *kept = malloc(sizeof(*kept));
    if (kept == NULL) {
        tokenizer.ops->close(tokenizer.state);
        return TV_ERR(TV_NO_MEMORY, "%s: a tokenizer", name);
    }
    *kept = tokenizer;
    *tokenizer_out = kept;
    return TV_OK;
}

void tv_tokenizer_close(struct tv_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    tokenizer->ops->close(tokenizer->state);
    free(tokenizer);
}

const char *tv_tokenizer_kind(const struct tv_tokenizer *tokenizer)
{
    return tokenizer->ops->kind;
}

int64_t tv_tokenizer_vocab_size(const struct tv_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

int64_t tv_tokenizer_find(const struct tv_tokenizer *tokenizer, const char *text)
{
    return tokenizer->ops->find(tokenizer->state, text);
}

tv_status_t tv_tokenizer_worker_create(struct tv_tokenizer_worker **worker_out)
{
    struct tv_tokenizer_worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL)
        return TV_ERR(TV_NO_MEMORY, "a worker: %zu bytes", sizeof(*worker));
    const tv_status_t status = tv_bpe_work_create(&worker->bpe);
    if (status != TV_OK) {
        tv_tokenizer_worker_destroy(worker);
        return status;
    }
    *worker_out = worker;
    return TV_OK;
}

void tv_tokenizer_worker_destroy(struct tv_tokenizer_worker *worker)
{
    if (worker == NULL)
        return;
    tv_bpe_work_destroy(worker->bpe);
    tv_tokenizer_free_match(worker->match);
    free(worker);
}

tv_status_t tv_tokenizer_check_text(const struct tv_tokenizer *tokenizer, const char *text,
                                    int64_t bytes)
{
    if (!tokenizer->ops->reads_characters)
        return TV_OK;
    const int64_t length = tv_utf8_length(text, bytes);
    if (length < bytes)
        return TV_ERR(TV_BAD_FILE, "byte %" PRId64 " is not UTF-8", length);
    return TV_OK;
}

tv_status_t tv_tokenizer_encode(const struct tv_tokenizer *tokenizer,
                                struct tv_tokenizer_worker *worker, const char *text, int64_t bytes,
                                int64_t first, int64_t end, struct tv_ids *ids)
{
    return tokenizer->ops->encode(tokenizer->state, worker, text, bytes, first, end, ids);
}

/* Every pattern ends a word with a line's end that is not followed by white space; other characters
 * beyond ASCII are not looked at, some of them are white space. */
int64_t tv_tokenizer_cut(const struct tv_tokenizer *tokenizer, const char *text, int64_t bytes,
                         int64_t at)
{
    while (tokenizer->may_cut && at < bytes) {
        const char *line = memchr(text + at, '\n', (size_t)(bytes - at));
        if (line == NULL)
            return bytes;
        at = line - text + 1;
        const unsigned char next = at < bytes ? (unsigned char)text[at] : 0;
        if (next > ' ' && next < 0x7F)
            return at;
    }
    return bytes;
}

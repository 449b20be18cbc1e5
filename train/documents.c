/* train/documents.c -- prefix sums over the documents of a file; a sample is found by halving. */
#include "train/documents.h"
#include <inttypes.h>
#include <stdlib.h>

/* The ends of documents, into ends unless it is NULL, and their number. */
static tv_status_t scan(const struct tv_tokens *tokens, int64_t eod_token, int64_t *ends,
                        int64_t *num_out)
{
    enum { BLOCK = 8192 };
    int32_t ids[BLOCK];
    const int64_t count = tv_tokens_count(tokens);
    int64_t num = 0, last = 0;
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t left = count - first, block = left < BLOCK ? left : BLOCK;
        TV_TRY(tv_tokens_read(tokens, first, block, ids));
        for (int64_t i = 0; i < block; i++) {
            if (ids[i] != eod_token)
                continue;
            last = first + i + 1;
            if (ends != NULL)
                ends[num] = last;
            num++;
        }
    }
    if (last < count) {
        if (ends != NULL)
            ends[num] = count;
        num++;
    }
    *num_out = num;
    return TV_OK;
}

static tv_status_t allocate(struct tv_documents *d, const struct tv_tokens *tokens)
{
    d->starts = calloc((size_t)d->num + 1, sizeof(*d->starts));
    d->first_samples = calloc((size_t)d->num + 1, sizeof(*d->first_samples));
    if (d->starts == NULL || d->first_samples == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: %" PRId64 " documents", tv_tokens_path(tokens), d->num);
    return TV_OK;
}

static tv_status_t find_starts(struct tv_documents *d, const struct tv_tokens *tokens,
                               int64_t eod_token)
{
    d->num = tv_tokens_num_documents(tokens);
    if (d->num > 0) {
        TV_TRY(allocate(d, tokens));
        for (int64_t i = 0; i < d->num; i++)
            d->starts[i + 1] = tv_tokens_document_end(tokens, i);
        return TV_OK;
    }
    if (eod_token < 0)
        return TV_ERR(TV_INVALID,
                      "%s: a %s file does not say where documents end; give --eod-token",
                      tv_tokens_path(tokens), tv_tokens_format_name(tv_tokens_format(tokens)));
    TV_TRY(scan(tokens, eod_token, NULL, &d->num));
    TV_TRY(allocate(d, tokens));
    return scan(tokens, eod_token, d->starts + 1, &d->num);
}

tv_status_t tv_documents_find(const struct tv_tokens *tokens, int64_t eod_token, int64_t seq_length,
                              struct tv_documents *documents_out)
{
    struct tv_documents d = {0};
    const tv_status_t status = find_starts(&d, tokens, eod_token);
    if (status != TV_OK) {
        tv_documents_free(&d);
        return status;
    }
    for (int64_t i = 0; i < d.num; i++) {
        const int64_t n = d.starts[i + 1] - d.starts[i];
        const int64_t samples = n < 2 ? 0 : (n - 2) / seq_length + 1;
        d.num_unused += n < 2 ? n : 0;
        d.first_samples[i + 1] = d.first_samples[i] + samples;
    }
    *documents_out = d;
    return TV_OK;
}

void tv_documents_free(struct tv_documents *documents)
{
    free(documents->starts);
    free(documents->first_samples);
    *documents = (struct tv_documents){0};
}

void tv_documents_place(const struct tv_documents *d, int64_t sample, int64_t seq_length,
                        int64_t *first_out, int64_t *count_out)
{
    int64_t low = 0, high = d->num; /* first_samples[low] <= sample < first_samples[high] */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (d->first_samples[middle] <= sample)
            low = middle;
        else
            high = middle;
    }
    const int64_t first = d->starts[low] + (sample - d->first_samples[low]) * seq_length;
    const int64_t left = d->starts[low + 1] - first;
    *first_out = first;
    *count_out = left < seq_length + 1 ? left : seq_length + 1;
}

/* train/corpus.c -- samples numbered through files and sources; the order of each source. */
#include "train/corpus.h"
#include "base/rng.h"
#include "data/blend.h"
#include "data/samples.h"
#include "train/corpus_words.h"
#include "train/documents.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct file {
    struct tv_tokens *tokens;
    struct tv_documents documents; /* within documents; else zeros */
    int64_t first_sample, num_samples;
};

struct source {
    int first_file, num_files;
    int64_t first_sample, weight;
    struct tv_sample_order order;
};

struct tv_corpus {
    int64_t seq_length;
    int is_within_documents;
    int num_files, num_sources;
    struct file *files;     /* [num_files] */
    struct source *sources; /* [num_sources] */
    struct tv_blend *blend;
    int64_t num_samples;
};

tv_status_t tv_corpus_format(const char *flag, const struct tv_option_list *words,
                             const char *format, tv_tokens_format_t *format_out)
{
    struct tv_corpus_words parsed;
    TV_TRY(tv_corpus_words_parse(flag, words, &parsed));
    tv_tokens_format_t found = TV_TOKENS_TEXT;
    tv_status_t status = TV_OK;
    for (int i = 0; i < parsed.num_paths && status == TV_OK && found == TV_TOKENS_TEXT; i++)
        status = tv_tokens_format_of(parsed.paths[i], format, &found);
    tv_corpus_words_free(&parsed);
    TV_TRY(status);
    *format_out = found;
    return TV_OK;
}

static tv_status_t open_file(const struct tv_corpus_args *args, const char *path, struct file *file)
{
    tv_tokens_format_t format;
    TV_TRY(tv_tokens_format_of(path, args->format, &format));
    TV_TRY(tv_tokens_open(path, format, &file->tokens));
    file->num_samples = tv_samples_count(tv_tokens_count(file->tokens), args->seq_length);
    if (!args->is_within_documents)
        return TV_OK;
    TV_TRY(tv_documents_find(file->tokens, args->eod_token, args->seq_length, &file->documents));
    file->num_samples = file->documents.first_samples[file->documents.num];
    return TV_OK;
}

/* Files [first, first + num) become source `index`. */
static tv_status_t set_source(struct tv_corpus *c, const struct tv_corpus_args *args, int index,
                              int first, int num)
{
    struct source *source = &c->sources[index];
    int64_t samples = 0, tokens = 0;
    for (int i = first; i < first + num; i++) {
        c->files[i].first_sample = c->num_samples + samples;
        samples += c->files[i].num_samples;
        tokens += tv_tokens_count(c->files[i].tokens);
    }
    const char *path = tv_tokens_path(c->files[first].tokens);
    if (samples < 1 && args->is_within_documents)
        return TV_ERR(TV_BAD_FILE, "%s: %" PRId64 " tokens, no document has 2 of them", path,
                      tokens);
    if (samples < 1)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %" PRId64 " tokens, one sample needs %" PRId64 " (--seq-length + 1)",
                      path, tokens, args->seq_length + 1);
    char stream[32];
    snprintf(stream, sizeof(stream), "source %d", index);
    source->first_file = first;
    source->num_files = num;
    source->first_sample = c->num_samples;
    source->order = (struct tv_sample_order){
        samples, index == 0 ? args->seed : tv_rng_key(args->seed, stream), args->shuffle};
    c->num_samples += samples;
    return TV_OK;
}

/* Without weights all files are one source. */
static tv_status_t set_sources(struct tv_corpus *c, const struct tv_corpus_args *args,
                               const struct tv_corpus_words *words)
{
    int64_t weights[TV_BLEND_MAX_SOURCES] = {1};
    if (words->num_sources > TV_BLEND_MAX_SOURCES)
        return TV_ERR(TV_INVALID, "--%s: %d sources; at most %d", args->flag, words->num_sources,
                      TV_BLEND_MAX_SOURCES);
    c->num_sources = words->weights != NULL ? words->num_sources : 1;
    for (int i = 0; i < c->num_sources; i++) {
        const int first = words->weights != NULL ? words->first_path[i] : 0;
        const int end = words->weights != NULL ? words->first_path[i + 1] : words->num_paths;
        TV_TRY(set_source(c, args, i, first, end - first));
    }
    if (words->weights != NULL &&
        tv_blend_weights(c->num_sources, (const char *const *)words->weights, weights) != TV_OK)
        return TV_ERR(TV_INVALID, "--%s: %s", args->flag, tv_error_message());
    for (int i = 0; i < c->num_sources; i++)
        c->sources[i].weight = weights[i];
    if (tv_blend_create(c->num_sources, weights, &c->blend) != TV_OK)
        return TV_ERR(TV_INVALID, "--%s: %s", args->flag, tv_error_message());
    return TV_OK;
}

static tv_status_t open_words(struct tv_corpus *c, const struct tv_corpus_args *args,
                              const struct tv_corpus_words *words)
{
    c->files = calloc((size_t)words->num_paths + 1, sizeof(*c->files));
    c->sources = calloc((size_t)words->num_sources, sizeof(*c->sources));
    if (c->files == NULL || c->sources == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d token files", words->num_paths);
    for (c->num_files = 0; c->num_files < words->num_paths; c->num_files++)
        TV_TRY(open_file(args, words->paths[c->num_files], &c->files[c->num_files]));
    return set_sources(c, args, words);
}

/* One source of one file that nobody wrote. */
static tv_status_t open_mock(struct tv_corpus *c, const struct tv_corpus_args *args)
{
    const struct tv_corpus_words one = {.num_paths = 1, .num_sources = 1};
    const int64_t count = TV_CORPUS_MOCK_SAMPLES * args->seq_length + 1;
    c->files = calloc(2, sizeof(*c->files));
    c->sources = calloc(1, sizeof(*c->sources));
    if (c->files == NULL || c->sources == NULL)
        return TV_ERR(TV_NO_MEMORY, "random tokens in place of files");
    TV_TRY(tv_tokens_mock(count, args->mock_vocab, args->seed, &c->files[0].tokens));
    c->files[0].num_samples = TV_CORPUS_MOCK_SAMPLES;
    c->num_files = 1;
    return set_sources(c, args, &one);
}

tv_status_t tv_corpus_open(const struct tv_corpus_args *args, struct tv_corpus **corpus_out)
{
    struct tv_corpus_words words = {0};
    if (args->mock_vocab == 0)
        TV_TRY(tv_corpus_words_parse(args->flag, &args->words, &words));
    struct tv_corpus *c = calloc(1, sizeof(*c));
    tv_status_t status = TV_OK;
    if (c == NULL) {
        status = TV_ERR(TV_NO_MEMORY, "a corpus: %zu bytes", sizeof(*c));
    } else {
        c->seq_length = args->seq_length;
        c->is_within_documents = args->is_within_documents;
        status = args->mock_vocab > 0 ? open_mock(c, args) : open_words(c, args, &words);
    }
    tv_corpus_words_free(&words);
    if (status != TV_OK) {
        tv_corpus_close(c);
        return status;
    }
    *corpus_out = c;
    return TV_OK;
}

void tv_corpus_close(struct tv_corpus *corpus)
{
    if (corpus == NULL)
        return;
    /* one more: the file that failed to open is not counted, and may hold something */
    for (int i = 0; corpus->files != NULL && i <= corpus->num_files; i++) {
        tv_tokens_close(corpus->files[i].tokens);
        tv_documents_free(&corpus->files[i].documents);
    }
    tv_blend_destroy(corpus->blend);
    free(corpus->files);
    free(corpus->sources);
    free(corpus);
}

tv_status_t tv_corpus_check(const struct tv_corpus *corpus, int64_t vocab_size)
{
    for (int i = 0; i < corpus->num_files; i++)
        TV_TRY(tv_tokens_check(corpus->files[i].tokens, vocab_size));
    return TV_OK;
}

int64_t tv_corpus_num_samples(const struct tv_corpus *corpus)
{
    return corpus->num_samples;
}

int64_t tv_corpus_unused_tokens(const struct tv_corpus *corpus)
{
    int64_t unused = 0;
    for (int i = 0; i < corpus->num_files; i++) {
        const struct file *file = &corpus->files[i];
        const int64_t count = tv_tokens_count(file->tokens);
        if (corpus->is_within_documents)
            unused += file->documents.num_unused;
        else /* a sample's last token is the next one's first */
            unused +=
                file->num_samples > 0 ? count - file->num_samples * corpus->seq_length - 1 : count;
    }
    return unused;
}

int tv_corpus_num_sources(const struct tv_corpus *corpus)
{
    return corpus->num_sources;
}

struct tv_corpus_source tv_corpus_source_at(const struct tv_corpus *corpus, int index)
{
    const struct source *source = &corpus->sources[index];
    double sum = 0;
    for (int i = 0; i < corpus->num_sources; i++)
        sum += (double)corpus->sources[i].weight;
    return (struct tv_corpus_source){tv_tokens_path(corpus->files[source->first_file].tokens),
                                     source->num_files, source->order.num_samples,
                                     (double)source->weight / sum};
}

int64_t tv_corpus_sample_at(const struct tv_corpus *corpus, int64_t position)
{
    int index;
    int64_t draw;
    tv_blend_at(corpus->blend, position, &index, &draw);
    const struct source *source = &corpus->sources[index];
    return source->first_sample + tv_sample_at(&source->order, draw);
}

/* The file of a sample: the last one that starts at or before it and has any. */
static const struct file *file_of(const struct tv_corpus *corpus, int64_t sample)
{
    int low = 0, high = corpus->num_files; /* first_sample of low <= sample < that of high */
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (corpus->files[middle].first_sample <= sample)
            low = middle;
        else
            high = middle;
    }
    return &corpus->files[low];
}

tv_status_t tv_corpus_read(const struct tv_corpus *corpus, int64_t sample, int32_t *out)
{
    const int64_t S = corpus->seq_length;
    if (sample < 0 || sample >= corpus->num_samples)
        return TV_ERR(TV_INTERNAL, "sample %" PRId64 " of %" PRId64, sample, corpus->num_samples);
    const struct file *file = file_of(corpus, sample);
    int64_t first = (sample - file->first_sample) * S, count = S + 1;
    if (corpus->is_within_documents)
        tv_documents_place(&file->documents, sample - file->first_sample, S, &first, &count);
    TV_TRY(tv_tokens_read(file->tokens, first, count, out));
    for (int64_t i = count; i < S + 1; i++)
        out[i] = -1;
    return TV_OK;
}

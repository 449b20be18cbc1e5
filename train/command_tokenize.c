/* train/command_tokenize.c -- `trivet tokenize`: pieces of text to ids on all cores, then to the file in
 * their order, batch by batch. */
#include "base/clock.h"
#include "mesh/binding.h"
#include "train/commands.h"
#include "train/ranks.h"
#include "train/tokenize_options.h"
#include "train/tokenize_pieces.h"
#include "train/tokens_writer.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PIECES_PER_THREAD = 4 };

struct job {
    const struct tv_tokenize_options *options;
    struct tv_tokenizer *tokenizer;
    struct tv_tokenize_rules rules;
    int num_inputs;
    struct tv_tokenize_input *inputs;
    int num_threads;
    struct tv_tokenizer_worker **workers; /* [num_threads] */
    struct tv_tokenize_piece *pieces;     /* [num_threads * PIECES_PER_THREAD] */
    struct tv_tokens_writer *writer;
    int64_t num_bytes, num_documents;
};

static tv_status_t parse_eod(struct job *job)
{
    const char *text = job->options->eod_token;
    char *end = NULL;
    job->rules.eod = -1;
    if (job->options->appends_eod != (text != NULL))
        return TV_ERR(TV_INVALID, text != NULL ? "--eod-token: without --append-eod it says nothing"
                                               : "--append-eod needs --eod-token");
    if (text == NULL)
        return TV_OK;
    errno = 0;
    job->rules.eod = tv_tokenizer_find(job->tokenizer, text);
    if (job->rules.eod < 0)
        job->rules.eod = strtoll(text, &end, 10);
    if (end != NULL && (end == text || *end != '\0' || errno != 0 || job->rules.eod < 0 ||
                        job->rules.eod >= INT32_MAX))
        return TV_ERR(TV_INVALID, "--eod-token %s is neither an id nor a special token", text);
    return TV_OK;
}

/* An end of documents beyond the tokenizer's ids makes the vocabulary larger. */
static int64_t vocab_size_of(const struct job *job)
{
    const int64_t size = tv_tokenizer_vocab_size(job->tokenizer);
    return job->rules.eod >= size ? job->rules.eod + 1 : size;
}

static tv_status_t open_inputs(struct job *job)
{
    const struct tv_tokenize_options *o = job->options;
    const char *format = o->input_format;
    if (strcmp(format, "auto") != 0 && strcmp(format, "text") != 0 && strcmp(format, "jsonl") != 0)
        return TV_ERR(TV_INVALID, "--input-format %s is not one of auto, text, jsonl", format);
    job->inputs = calloc((size_t)o->input.num, sizeof(*job->inputs));
    if (job->inputs == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d inputs", o->input.num);
    for (; job->num_inputs < o->input.num; job->num_inputs++) {
        struct tv_tokenize_input *input = &job->inputs[job->num_inputs];
        const char *path = o->input.words[job->num_inputs], *dot = strrchr(path, '.');
        input->path = path;
        input->is_jsonl = strcmp(format, "auto") == 0 ? dot != NULL && strcmp(dot, ".jsonl") == 0
                                                      : strcmp(format, "jsonl") == 0;
        TV_TRY(tv_file_map(path, &input->map));
        job->num_bytes += input->map.bytes;
        if (!input->is_jsonl &&
            tv_tokenizer_check_text(job->tokenizer, (const char *)input->map.data,
                                    input->map.bytes) != TV_OK) {
            tv_file_unmap(&input->map);
            return TV_ERR(TV_BAD_FILE, "%s: %s", path, tv_error_message());
        }
    }
    return TV_OK;
}

static tv_status_t open_output(struct job *job)
{
    const char *word = job->options->output_format;
    const int64_t vocab_size = vocab_size_of(job);
    tv_tokens_format_t format = vocab_size <= 65536 ? TV_TOKENS_U16 : TV_TOKENS_U32;
    if (strcmp(word, "auto") != 0 && tv_tokens_format_of("", word, &format) != TV_OK)
        return TV_ERR(TV_INVALID, "--output-format %s is not one of auto, u16, u32, llmc, megatron",
                      word);
    if (tv_tokens_writer_open(job->options->output, format, vocab_size, &job->writer) != TV_OK)
        return TV_ERR(TV_INVALID, "--output-format %s, --output %s: %s", word, job->options->output,
                      tv_error_message());
    return TV_OK;
}

static tv_status_t create_workers(struct job *job)
{
    struct tv_cpu_mask allowed;
    job->num_threads = job->options->num_threads;
    if (job->num_threads == 0)
        job->num_threads = tv_cpu_mask_now(&allowed) == TV_OK ? tv_cpu_mask_count(&allowed) : 1;
    job->workers = calloc((size_t)job->num_threads, sizeof(struct tv_tokenizer_worker *));
    job->pieces = calloc((size_t)job->num_threads * PIECES_PER_THREAD, sizeof(*job->pieces));
    if (job->workers == NULL || job->pieces == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d threads", job->num_threads);
    for (int i = 0; i < job->num_threads; i++)
        TV_TRY(tv_tokenizer_worker_create(&job->workers[i]));
    return TV_OK;
}

/* Encodes `num` pieces; each is the same whichever thread takes it. */
static void run_batch(struct job *job, int num)
{
    const int threads = job->num_threads;
    int next = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        for (;;) {
            int mine;
#pragma omp atomic capture
            mine = next++;
            if (mine >= num)
                break;
            tv_tokenize_piece_run(&job->rules, job->workers[t], &job->pieces[mine]);
        }
    }
}

static tv_status_t write_piece(struct job *job, const struct tv_tokenize_piece *piece)
{
    int64_t first = 0;
    if (piece->status != TV_OK)
        return TV_ERR(piece->status, "%s", piece->message);
    for (int64_t i = 0; i < piece->ends.num; i++) {
        const int64_t end = piece->ends.ids[i];
        TV_TRY(tv_tokens_writer_add(job->writer, piece->ids.ids + first, end - first));
        TV_TRY(tv_tokens_writer_end_document(job->writer));
        job->num_documents++;
        first = end;
    }
    return tv_tokens_writer_add(job->writer, piece->ids.ids + first, piece->ids.num - first);
}

static tv_status_t run_pieces(struct job *job)
{
    const int most = job->num_threads * PIECES_PER_THREAD;
    int input = 0;
    int64_t at = 0;
    while (input < job->num_inputs) {
        int num = 0;
        for (; num < most && input < job->num_inputs; num++) {
            struct tv_tokenize_piece *piece = &job->pieces[num];
            piece->input = &job->inputs[input];
            piece->first = at;
            piece->end = tv_tokenize_piece_end(&job->rules, piece->input, at);
            piece->ids.num = piece->ends.num = 0;
            at = piece->end;
            if (at == piece->input->map.bytes) {
                input++;
                at = 0;
            }
        }
        run_batch(job, num);
        for (int i = 0; i < num; i++)
            TV_TRY(write_piece(job, &job->pieces[i]));
    }
    return tv_tokens_writer_finish(job->writer);
}

static tv_status_t run(struct job *job)
{
    const struct tv_tokenize_options *o = job->options;
    if (o->input.num == 0 || o->output == NULL)
        return TV_ERR(TV_INVALID, "--%s is required", o->input.num == 0 ? "input" : "output");
    const double started = tv_clock_seconds();
    TV_TRY(tv_tokenizer_open(o->tokenizer, &job->tokenizer));
    job->rules.tokenizer = job->tokenizer;
    job->rules.json_key = o->json_key;
    TV_TRY(parse_eod(job));
    const double opened = tv_clock_seconds();
    TV_TRY(open_inputs(job));
    TV_TRY(open_output(job));
    TV_TRY(create_workers(job));
    TV_TRY(run_pieces(job));
    const double seconds = tv_clock_seconds() - opened;
    const int64_t count = tv_tokens_writer_count(job->writer);
    printf("%" PRId64 " tokens in %" PRId64 " documents from %" PRId64 " bytes, vocabulary %" PRId64
           " (%s)\n",
           count, job->num_documents, job->num_bytes, vocab_size_of(job),
           tv_tokenizer_kind(job->tokenizer));
    printf("%.1f MB/s on %d thread(s), after %.2f s to open the tokenizer\n",
           (double)job->num_bytes / 1e6 / (seconds > 0 ? seconds : 1e-9), job->num_threads,
           opened - started);
    return TV_OK;
}

static void free_job(struct job *job)
{
    for (int i = 0; job->workers != NULL && i < job->num_threads; i++)
        tv_tokenizer_worker_destroy(job->workers[i]);
    for (int i = 0; job->pieces != NULL && i < job->num_threads * PIECES_PER_THREAD; i++)
        tv_tokenize_piece_free(&job->pieces[i]);
    for (int i = 0; job->inputs != NULL && i < job->num_inputs; i++)
        tv_file_unmap(&job->inputs[i].map);
    tv_tokens_writer_close(job->writer);
    tv_tokenizer_close(job->tokenizer);
    free(job->workers);
    free(job->pieces);
    free(job->inputs);
}

int tv_command_tokenize(int argc, char **argv)
{
    struct tv_tokenize_options options;
    tv_status_t status = tv_tokenize_options_parse(argc, argv, &options);
    if (status != TV_OK)
        return tv_refuse_flags(status);
    if (!tv_is_first_process()) /* of a launcher: one writes */
        return 0;
    if (options.wants_help) {
        tv_options_help(&tv_tokenize_option_table, stdout);
        return 0;
    }
    struct job job = {.options = &options};
    status = run(&job);
    if (status != TV_OK)
        tv_print_error();
    free_job(&job);
    return tv_status_exit_code(status);
}

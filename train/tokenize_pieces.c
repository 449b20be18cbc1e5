/* train/tokenize_pieces.c -- one piece of text or JSON lines to ids. */
#include "train/tokenize_pieces.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20 };

static const char *text_of(const struct tv_tokenize_input *input)
{
    return input->map.bytes > 0 ? (const char *)input->map.data : "";
}

int64_t tv_tokenize_piece_end(const struct tv_tokenize_rules *rules,
                              const struct tv_tokenize_input *input, int64_t first)
{
    const char *text = text_of(input);
    const int64_t bytes = input->map.bytes;
    if (bytes - first <= PIECE_BYTES)
        return bytes;
    if (!input->is_jsonl)
        return tv_tokenizer_cut(rules->tokenizer, text, bytes, first + PIECE_BYTES);
    const char *line =
        memchr(text + first + PIECE_BYTES, '\n', (size_t)(bytes - first - PIECE_BYTES));
    return line != NULL ? line - text + 1 : bytes;
}

static tv_status_t end_document(const struct tv_tokenize_rules *rules,
                                struct tv_tokenize_piece *piece)
{
    if (rules->eod >= 0)
        TV_TRY(tv_ids_add(&piece->ids, (uint32_t)rules->eod));
    if (piece->ids.num > UINT32_MAX)
        return TV_ERR(TV_UNSUPPORTED, "documents of more than 2^32 tokens between two cuts");
    return tv_ids_add(&piece->ends, (uint32_t)piece->ids.num);
}

static tv_status_t run_text(const struct tv_tokenize_rules *rules,
                            struct tv_tokenizer_worker *worker, struct tv_tokenize_piece *piece)
{
    const int64_t bytes = piece->input->map.bytes;
    TV_TRY(tv_tokenizer_encode(rules->tokenizer, worker, text_of(piece->input), bytes, piece->first,
                               piece->end, &piece->ids));
    return piece->end == bytes ? end_document(rules, piece) : TV_OK;
}

static tv_status_t run_line(const struct tv_tokenize_rules *rules,
                            struct tv_tokenizer_worker *worker, const char *line, int64_t bytes,
                            struct tv_tokenize_piece *piece)
{
    json_error_t error;
    json_t *json = json_loadb(line, (size_t)bytes, JSON_ALLOW_NUL, &error);
    if (json == NULL)
        return TV_ERR(TV_BAD_FILE, "not JSON: %s", error.text);
    const json_t *text = json_object_get(json, rules->json_key);
    tv_status_t status = TV_OK;
    if (!json_is_string(text)) {
        status = TV_ERR(TV_BAD_FILE, "no text under \"%s\"", rules->json_key);
    } else {
        const int64_t length = (int64_t)json_string_length(text);
        status = tv_tokenizer_encode(rules->tokenizer, worker, json_string_value(text), length, 0,
                                     length, &piece->ids);
    }
    json_decref(json);
    TV_TRY(status);
    return end_document(rules, piece);
}

static int is_blank(const char *line, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return 0;
    }
    return 1;
}

static tv_status_t run_lines(const struct tv_tokenize_rules *rules,
                             struct tv_tokenizer_worker *worker, struct tv_tokenize_piece *piece)
{
    const char *text = text_of(piece->input);
    for (int64_t at = piece->first; at < piece->end;) {
        const char *line = memchr(text + at, '\n', (size_t)(piece->end - at));
        const int64_t end = line != NULL ? line - text : piece->end;
        if (!is_blank(text + at, end - at) &&
            run_line(rules, worker, text + at, end - at, piece) != TV_OK)
            return TV_ERR(TV_BAD_FILE, "the line at byte %" PRId64 ": %s", at, tv_error_message());
        at = end + 1;
    }
    return TV_OK;
}

void tv_tokenize_piece_run(const struct tv_tokenize_rules *rules,
                           struct tv_tokenizer_worker *worker, struct tv_tokenize_piece *piece)
{
    piece->status =
        piece->input->is_jsonl ? run_lines(rules, worker, piece) : run_text(rules, worker, piece);
    if (piece->status != TV_OK) /* it is this thread's, and another one tells it */
        snprintf(piece->message, sizeof(piece->message), "%s: %s", piece->input->path,
                 tv_error_message());
}

void tv_tokenize_piece_free(struct tv_tokenize_piece *piece)
{
    tv_ids_free(&piece->ids);
    tv_ids_free(&piece->ends);
}

/* train/tokens_writer.c -- ids in one width behind an optional header; Megatron's index at the end. */
#include "train/tokens_writer.h"
#include "train/files.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LLMC_HEADER = 1024, BLOCK = 16384 };

struct tv_tokens_writer {
    tv_tokens_format_t format;
    int64_t vocab_size, count;
    int width;
    struct tv_new_file ids, index;
    int32_t *lengths; /* megatron: [room] ids of each document */
    int64_t num_documents, room, document_start;
};

static int width_for(tv_tokens_format_t format, int64_t vocab_size)
{
    if (format == TV_TOKENS_U16 || format == TV_TOKENS_U32)
        return format == TV_TOKENS_U16 ? 2 : 4;
    return vocab_size <= (format == TV_TOKENS_MEGATRON ? 65499 : 65536) ? 2 : 4;
}

/* Little-endian, whatever this machine is. */
static void put(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (unsigned char)(value >> (8 * i));
}

/* Numbers on their way to a file. */
struct numbers {
    struct tv_new_file *file;
    size_t num_bytes;
    unsigned char bytes[4 * BLOCK];
};

static tv_status_t flush(struct numbers *n)
{
    const size_t bytes = n->num_bytes;
    n->num_bytes = 0;
    return tv_new_file_write(n->file, n->bytes, bytes);
}

static tv_status_t add_number(struct numbers *n, int64_t value, int bytes)
{
    if (n->num_bytes + 8 > sizeof(n->bytes))
        TV_TRY(flush(n));
    put(n->bytes + n->num_bytes, (uint64_t)value, bytes);
    n->num_bytes += (size_t)bytes;
    return TV_OK;
}

static tv_status_t open_pair(const char *path, struct tv_tokens_writer *w)
{
    size_t length = strlen(path);
    if (length > 4 &&
        (strcmp(path + length - 4, ".bin") == 0 || strcmp(path + length - 4, ".idx") == 0))
        length -= 4;
    char *name = malloc(length + 5);
    if (name == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its name", path);
    memcpy(name, path, length);
    memcpy(name + length, ".bin", 5);
    tv_status_t status = tv_new_file_open(name, &w->ids);
    memcpy(name + length, ".idx", 5);
    if (status == TV_OK)
        status = tv_new_file_open(name, &w->index);
    free(name);
    return status;
}

static tv_status_t open_files(const char *path, struct tv_tokens_writer *w)
{
    static const unsigned char header[LLMC_HEADER];
    TV_TRY(tv_folder_make_parent(path));
    if (w->format == TV_TOKENS_MEGATRON)
        return open_pair(path, w);
    TV_TRY(tv_new_file_open(path, &w->ids));
    return w->format == TV_TOKENS_LLMC ? tv_new_file_write(&w->ids, header, sizeof(header)) : TV_OK;
}

tv_status_t tv_tokens_writer_open(const char *path, tv_tokens_format_t format, int64_t vocab_size,
                                  struct tv_tokens_writer **writer_out)
{
    if (format == TV_TOKENS_TEXT)
        return TV_ERR(TV_INVALID, "text is what is read, not a format of ids");
    if (format == TV_TOKENS_U16 && vocab_size > 65536)
        return TV_ERR(TV_INVALID,
                      "a vocabulary of %" PRId64 " does not fit into 16 bits; u32 holds it",
                      vocab_size);
    struct tv_tokens_writer *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: a writer", path);
    w->format = format;
    w->vocab_size = vocab_size;
    w->width = width_for(format, vocab_size);
    const tv_status_t status = open_files(path, w);
    if (status != TV_OK) {
        tv_tokens_writer_close(w);
        return status;
    }
    *writer_out = w;
    return TV_OK;
}

tv_status_t tv_tokens_writer_add(struct tv_tokens_writer *w, const uint32_t *ids, int64_t num)
{
    unsigned char block[4 * BLOCK];
    if (w->format == TV_TOKENS_LLMC && num > INT32_MAX - w->count)
        return TV_ERR(
            TV_INVALID,
            "the header of an llm.c shard counts up to 2^31 - 1 tokens, and there are more; "
            "split the input, or write megatron or u16 files");
    for (int64_t first = 0; first < num; first += BLOCK) {
        const int64_t n = num - first < BLOCK ? num - first : BLOCK;
        for (int64_t i = 0; i < n; i++) {
            if (ids[first + i] >= w->vocab_size)
                return TV_ERR(TV_INVALID,
                              "token %" PRId64 " is %" PRIu32 ", beyond the vocabulary of %" PRId64,
                              w->count + first + i, ids[first + i], w->vocab_size);
            put(block + i * w->width, ids[first + i], w->width);
        }
        TV_TRY(tv_new_file_write(&w->ids, block, (size_t)(n * w->width)));
    }
    w->count += num;
    return TV_OK;
}

tv_status_t tv_tokens_writer_end_document(struct tv_tokens_writer *w)
{
    const int64_t length = w->count - w->document_start;
    w->document_start = w->count;
    if (w->format != TV_TOKENS_MEGATRON)
        return TV_OK;
    if (length > INT32_MAX)
        return TV_ERR(TV_INVALID,
                      "a document of %" PRId64 " tokens; an .idx file holds up to 2^31 - 1",
                      length);
    if (w->num_documents == w->room) {
        const int64_t room = w->room < 1024 ? 1024 : 2 * w->room;
        int32_t *lengths = realloc(w->lengths, (size_t)room * sizeof(*lengths));
        if (lengths == NULL)
            return TV_ERR(TV_NO_MEMORY, "%" PRId64 " documents", room);
        w->lengths = lengths;
        w->room = room;
    }
    w->lengths[w->num_documents++] = (int32_t)length;
    return TV_OK;
}

int64_t tv_tokens_writer_count(const struct tv_tokens_writer *w)
{
    return w->count;
}

static tv_status_t finish_llmc(struct tv_tokens_writer *w)
{
    unsigned char header[LLMC_HEADER] = {0};
    put(header, w->width == 2 ? 20240520 : 20240801, 4);
    put(header + 4, w->width == 2 ? 1 : 7, 4);
    put(header + 8, (uint64_t)w->count, 4);
    if (lseek(w->ids.fd, 0, SEEK_SET) != 0)
        return TV_ERR(TV_IO, "%s: %s", w->ids.path, strerror(errno));
    return tv_new_file_write(&w->ids, header, sizeof(header));
}

/* One sequence per document. */
static tv_status_t write_index(struct tv_tokens_writer *w)
{
    struct numbers n = {.file = &w->index};
    const int64_t num = w->num_documents;
    TV_TRY(tv_new_file_write(&w->index, "MMIDIDX\0", 9));
    TV_TRY(add_number(&n, 1, 8));
    TV_TRY(add_number(&n, w->width == 2 ? 8 : 4, 1));
    TV_TRY(add_number(&n, num, 8));
    TV_TRY(add_number(&n, num + 1, 8));
    for (int64_t i = 0; i < num; i++)
        TV_TRY(add_number(&n, w->lengths[i], 4));
    for (int64_t i = 0, at = 0; i < num; at += (int64_t)w->lengths[i++] * w->width)
        TV_TRY(add_number(&n, at, 8));
    for (int64_t i = 0; i <= num; i++)
        TV_TRY(add_number(&n, i, 8));
    return flush(&n);
}

tv_status_t tv_tokens_writer_finish(struct tv_tokens_writer *w)
{
    if (w->count > w->document_start)
        TV_TRY(tv_tokens_writer_end_document(w));
    if (w->format == TV_TOKENS_LLMC)
        TV_TRY(finish_llmc(w));
    if (w->format == TV_TOKENS_MEGATRON)
        TV_TRY(write_index(w));
    TV_TRY(tv_new_file_finish(&w->ids));
    return w->format == TV_TOKENS_MEGATRON ? tv_new_file_finish(&w->index) : TV_OK;
}

void tv_tokens_writer_close(struct tv_tokens_writer *w)
{
    if (w == NULL)
        return;
    tv_new_file_abandon(&w->ids);
    tv_new_file_abandon(&w->index);
    free(w->lengths);
    free(w);
}

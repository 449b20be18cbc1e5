/* train/sample_text.c -- bytes, and plain numbers. */
#include "train/sample_text.h"
#include "train/files.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static tv_status_t ids_of_bytes(const unsigned char *bytes, int64_t count, int32_t **ids_out,
                                int64_t *count_out)
{
    int32_t *ids = malloc(((size_t)count + 1) * sizeof(*ids));
    if (ids == NULL)
        return TV_ERR(TV_NO_MEMORY, "a prompt of %" PRId64 " tokens", count);
    for (int64_t i = 0; i < count; i++)
        ids[i] = bytes[i];
    *ids_out = ids;
    *count_out = count;
    return TV_OK;
}

static tv_status_t read_text(const struct tv_sample_options *options, int32_t **ids_out,
                             int64_t *count_out)
{
    struct tv_file_map map = {0};
    if (options->prompt_file == NULL) {
        const char *text = options->prompt != NULL ? options->prompt : "\n";
        return ids_of_bytes((const unsigned char *)text, (int64_t)strlen(text), ids_out, count_out);
    }
    TV_TRY(tv_file_map(options->prompt_file, &map));
    const tv_status_t status =
        map.bytes == 0 ? TV_ERR(TV_BAD_FILE, "--prompt-file %s is empty", options->prompt_file)
                       : ids_of_bytes(map.data, map.bytes, ids_out, count_out);
    tv_file_unmap(&map);
    return status;
}

/* Ids that are no byte are shown by their number. */
static void put_byte(int32_t id, int is_first, FILE *out)
{
    (void)is_first;
    if (id < 256)
        fputc(id, out);
    else
        fprintf(out, "<%d>", id);
}

static tv_status_t read_ids(const struct tv_sample_options *options, int32_t **ids_out,
                            int64_t *count_out)
{
    const char *text = options->prompt_ids;
    if (text == NULL)
        return TV_ERR(TV_INVALID, "the ids of this model are not text: give --prompt-ids, or "
                                  "--format text if they are bytes");
    int32_t *ids = malloc((strlen(text) / 2 + 1) * sizeof(*ids));
    int64_t count = 0;
    if (ids == NULL)
        return TV_ERR(TV_NO_MEMORY, "a prompt of ids");
    for (const char *at = text; at != NULL; count++) {
        char *end = NULL;
        errno = 0;
        const long id = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || errno == ERANGE || id < 0 ||
            id > INT32_MAX) {
            free(ids);
            return TV_ERR(TV_INVALID, "--prompt-ids %s: not ids such as 12,7,1024", text);
        }
        ids[count] = (int32_t)id;
        at = *end == ',' ? end + 1 : NULL;
    }
    *ids_out = ids;
    *count_out = count;
    return TV_OK;
}

static void put_id(int32_t id, int is_first, FILE *out)
{
    fprintf(out, is_first ? "%d" : " %d", id);
}

enum { TEXT, IDS, NUM_FORMATS };
static const struct tv_sample_text formats[NUM_FORMATS] = {
    [TEXT] = {"text", read_text, put_byte}, [IDS] = {"ids", read_ids, put_id}};

tv_status_t tv_sample_text_choose(const struct tv_sample_options *options, int64_t vocab_size,
                                  const struct tv_sample_text **text_out)
{
    const struct tv_sample_text *chosen = NULL;
    if (strcmp(options->format, "auto") == 0)
        chosen = &formats[vocab_size == 256 && options->prompt_ids == NULL ? TEXT : IDS];
    for (int i = 0; i < NUM_FORMATS; i++) {
        if (strcmp(options->format, formats[i].name) == 0)
            chosen = &formats[i];
    }
    if (chosen == NULL)
        return TV_ERR(TV_INVALID, "--format %s is not one of auto, text, ids", options->format);
    if (chosen == &formats[TEXT] ? options->prompt_ids != NULL
                                 : options->prompt != NULL || options->prompt_file != NULL)
        return TV_ERR(TV_INVALID, "the prompt is not in the format of the output, %s (--format)",
                      chosen->name);
    *text_out = chosen;
    return TV_OK;
}

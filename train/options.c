/* train/options.c -- the table of flags and its parser; getopt_long does the splitting. */
#include "train/options.h"
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum { OPT_INT, OPT_INT64, OPT_REAL, OPT_TEXT, OPT_SWITCH, OPT_HEADING } option_type_t;

/* One flag: its name, a longer Megatron name or NULL, where the value goes, the least and largest allowed number, the
 * default as text (NULL: none), help. */
struct option_row {
    const char *name, *alias;
    option_type_t type;
    size_t offset;
    double low, high;
    const char *value, *help;
};

#define AT(field) offsetof(struct tv_train_options, field)
#define INT_TOP   2147483647.0
#define BIG       1e15
#define TINY      1e-300

static const struct option_row rows[] = {
    {"Mesh", NULL, OPT_HEADING, 0, 0, 0, NULL, NULL},
    {"pp", "pipeline-model-parallel-size", OPT_INT, AT(pp), 1, INT_TOP, "1", "pipeline stages"},
    {"tp", "tensor-model-parallel-size", OPT_INT, AT(tp), 1, INT_TOP, "1",
     "ranks that share each matrix"},
    {"dp", "data-parallel-size", OPT_INT, AT(dp), 1, INT_TOP, NULL,
     "replicas; inferred from the number of ranks, checked when given"},
    {"local-ranks", NULL, OPT_INT, AT(local_ranks), 1, 1024, NULL,
     "run N ranks as threads of this process, without a launcher"},
    {"placement", NULL, OPT_TEXT, AT(placement), 0, 0, "identity",
     "identity, or FILE with one mesh rank per line, line i for world rank i"},
    {"Schedule", NULL, OPT_HEADING, 0, 0, 0, NULL, NULL},
    {"schedule", NULL, OPT_TEXT, AT(schedule), 0, 0, "1f1b", "gpipe or 1f1b"},
    {"partition", NULL, OPT_TEXT, AT(partition), 0, 0, "uniform",
     "how layers are split over stages: uniform"},
    {"Batch", NULL, OPT_HEADING, 0, 0, 0, NULL, NULL},
    {"micro-batch-size", NULL, OPT_INT64, AT(micro_batch), 1, INT_TOP, "1",
     "sequences per micro-batch and replica"},
    {"global-batch-size", NULL, OPT_INT64, AT(global_batch), 1, INT_TOP, NULL,
     "sequences per step, all replicas; micro-batch x dp by default"},
    {"seq-length", NULL, OPT_INT64, AT(seq_length), 1, INT_TOP, NULL,
     "tokens per sequence; the model's context by default"},
    {"train-iters", NULL, OPT_INT64, AT(train_iters), 1, BIG, NULL, "steps to train (required)"},
    {"Model", NULL, OPT_HEADING, 0, 0, 0, NULL, NULL},
    {"model", NULL, OPT_TEXT, AT(model), 0, 0, "gpt2", "gpt2 or llama"},
    {"preset", NULL, OPT_TEXT, AT(preset), 0, 0, NULL,
     "sizes by name: gpt2, gpt2-medium, gpt2-large, gpt2-xl, llama-1b, tiny-gpt2, tiny-llama"},
    {"config", NULL, OPT_TEXT, AT(config), 0, 0, NULL,
     "a Hugging Face config.json, in place of the flags of this group"},
    {"num-layers", NULL, OPT_INT, AT(num_layers), 1, 100000, NULL, "transformer layers"},
    {"hidden-size", NULL, OPT_INT, AT(hidden_size), 1, 1e7, NULL, "channels"},
    {"num-attention-heads", NULL, OPT_INT, AT(num_heads), 1, 1e6, NULL, "query heads"},
    {"num-query-groups", NULL, OPT_INT, AT(num_query_groups), 1, 1e6, NULL,
     "key/value heads; the query heads by default"},
    {"ffn-hidden-size", NULL, OPT_INT, AT(ffn_size), 1, 1e8, NULL,
     "4 H (gpt2) or 8/3 H rounded up to 64 (llama) by default"},
    {"vocab-size", NULL, OPT_INT64, AT(vocab_size), 1, INT_TOP, NULL, "256 by default for text"},
    {"max-position-embeddings", NULL, OPT_INT, AT(max_positions), 1, INT_TOP, NULL,
     "the model's context; --seq-length by default"},
    {"untie-embeddings-and-output-weights", NULL, OPT_SWITCH, AT(is_untied), 0, 0, NULL,
     "llama: an output matrix of its own"},
    {"init-method-std", NULL, OPT_REAL, AT(init_std), 0, 1e3, "0.02",
     "standard deviation of the initial matrices"},
    {"norm-epsilon", NULL, OPT_REAL, AT(norm_eps), TINY, 1, "1e-5", "epsilon of the norms"},
    {"rotary-base", NULL, OPT_REAL, AT(rope_theta), 1, 1e12, "10000",
     "theta of the rotary embedding (llama)"},
    {"Optimizer (AdamW)", NULL, OPT_HEADING, 0, 0, 0, NULL, NULL},
    {"lr", NULL, OPT_REAL, AT(lr), 0, 1e6, "3e-4", "highest learning rate"},
    {"min-lr", NULL, OPT_REAL, AT(min_lr), 0, 1e6, "0", "learning rate at the end of the decay"},
    {"lr-warmup-iters", NULL, OPT_INT64, AT(warmup_iters), 0, BIG, "0", "steps of linear warm-up"},
    {"lr-decay-iters", NULL, OPT_INT64, AT(decay_iters), 0, BIG, NULL,
     "step at which the decay ends; --train-iters by default"},
    {"lr-decay-style", NULL, OPT_TEXT, AT(lr_decay_style), 0, 0, "cosine",
     "cosine, linear or constant"},
    {"weight-decay", NULL, OPT_REAL, AT(weight_decay), 0, 1e6, "0.1",
     "decoupled decay of matrices"},
    {"adam-beta1", NULL, OPT_REAL, AT(beta1), 0, 0.9999999999, "0.9", "decay of the first moment"},
    {"adam-beta2", NULL, OPT_REAL, AT(beta2), 0, 0.9999999999, "0.95",
     "decay of the second moment"},
    {"adam-eps", NULL, OPT_REAL, AT(adam_eps), TINY, 1, "1e-8",
     "added to the root of the second moment"},
    {"clip-grad", NULL, OPT_REAL, AT(clip_grad), 0, 1e12, "1.0",
     "largest gradient norm; 0 turns clipping off"},
    {"seed", NULL, OPT_INT64, AT(seed), 0, BIG, "1234", "of initial weights and sample order"},
    {"Data", NULL, OPT_HEADING, 0, 0, 0, NULL, NULL},
    {"data", "data-path", OPT_TEXT, AT(data), 0, 0, NULL, "token file to train on (required)"},
    {"data-format", NULL, OPT_TEXT, AT(data_format), 0, 0, "auto",
     "auto, text (bytes), u16 or u32 (little-endian, no header)"},
    {"valid-data", NULL, OPT_TEXT, AT(valid_data), 0, 0, NULL,
     "token file to evaluate on, in the same format"},
    {"eval-interval", NULL, OPT_INT64, AT(eval_interval), 0, BIG, "0",
     "steps between evaluations; 0: only at the end"},
    {"mask-token", NULL, OPT_INT64, AT(mask_token), 0, INT_TOP, NULL,
     "targets equal to this id are not counted"},
    {"shuffle", NULL, OPT_TEXT, AT(shuffle), 0, 0, "on", "on, or off for file order"},
    {"Run", NULL, OPT_HEADING, 0, 0, 0, NULL, NULL},
    {"device", NULL, OPT_TEXT, AT(device), 0, 0, "auto", "auto or cpu"},
    {"threads", NULL, OPT_INT, AT(num_threads), 1, 4096, NULL,
     "threads of each rank's kernels; a fair share of the cores by default"},
    {"init-from", NULL, OPT_TEXT, AT(init_from), 0, 0, NULL,
     "initial weights: a safetensors file or a Hugging Face folder"},
    {"metrics", NULL, OPT_TEXT, AT(metrics), 0, 0, NULL, "write one JSON object per step to FILE"},
    {"export-hf", NULL, OPT_TEXT, AT(export_hf), 0, 0, NULL,
     "write the final weights to this folder in Hugging Face's layout"},
    {"dump-grads", NULL, OPT_TEXT, AT(dump_grads), 0, 0, NULL,
     "write the gradients of step 1, before clipping, to this folder"},
    {"log-sample-ids", NULL, OPT_TEXT, AT(log_sample_ids), 0, 0, NULL,
     "write the sample numbers that each step read to FILE"},
    {"log-interval", NULL, OPT_INT64, AT(log_interval), 1, BIG, "10",
     "steps between lines when the output is not a terminal"},
    {"timeout", NULL, OPT_REAL, AT(timeout_seconds), 0.001, 1e9, "120",
     "seconds a rank waits for another before it gives up"},
    {"dry-run", NULL, OPT_SWITCH, AT(is_dry_run), 0, 0, NULL,
     "print mesh, layer map, parameters and memory, and stop"},
    {"json", NULL, OPT_SWITCH, AT(is_json), 0, 0, NULL, "with --dry-run: as one JSON object"},
    {"deterministic", NULL, OPT_SWITCH, AT(is_deterministic), 0, 0, NULL,
     "same mesh twice, same bits: always so; accepted for scripts"},
    {"args", NULL, OPT_TEXT, AT(args_file), 0, 0, NULL,
     "read flags from FILE (words, # comments); the command line wins"},
    {"log-level", NULL, OPT_TEXT, AT(log_level), 0, 0, "info", "debug, info, warn, error or off"},
    {"help", NULL, OPT_SWITCH, AT(wants_help), 0, 0, NULL, "this text"},
};
enum { NUM_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(NUM_ROWS <= 64 + 7, "tv_train_options.given has 64 bits, headings have none");

/* Bit of a row in `given`: its number without the headings before it. */
static int bit_of(int row)
{
    int bit = 0;
    for (int i = 0; i < row; i++)
        bit += rows[i].type != OPT_HEADING;
    return bit;
}

static int row_of(const char *name, size_t length)
{
    for (int i = 0; i < NUM_ROWS; i++) {
        if (rows[i].type == OPT_HEADING)
            continue;
        if (strlen(rows[i].name) == length && strncmp(rows[i].name, name, length) == 0)
            return i;
        if (rows[i].alias != NULL && strlen(rows[i].alias) == length &&
            strncmp(rows[i].alias, name, length) == 0)
            return i;
    }
    return -1;
}

static tv_status_t set_number(const struct option_row *row, const char *text, void *field)
{
    char *end = NULL;
    errno = 0;
    double number = 0;
    int64_t whole = 0;
    if (row->type == OPT_REAL) {
        number = strtod(text, &end);
    } else {
        whole = strtoll(text, &end, 10);
        number = (double)whole;
    }
    if (end == text || *end != '\0' || errno == ERANGE || !isfinite(number))
        return TV_ERR(TV_INVALID, "--%s %s: not %s", row->name, text,
                      row->type == OPT_REAL ? "a number" : "a whole number");
    if (number < row->low || number > row->high)
        return TV_ERR(TV_INVALID, "--%s %s: must be between %.10g and %.10g", row->name, text,
                      row->low == TINY ? 0 : row->low, row->high);
    if (row->type == OPT_REAL)
        *(double *)field = number;
    else if (row->type == OPT_INT64)
        *(int64_t *)field = whole;
    else
        *(int *)field = (int)whole;
    return TV_OK;
}

static tv_status_t set_value(struct tv_train_options *options, int i, const char *text)
{
    void *field = (char *)options + rows[i].offset;
    switch (rows[i].type) {
    case OPT_TEXT:
        if (text[0] == '\0')
            return TV_ERR(TV_INVALID, "--%s: an empty value", rows[i].name);
        *(const char **)field = text;
        return TV_OK;
    case OPT_SWITCH:
        *(int *)field = 1;
        return TV_OK;
    default:
        return set_number(&rows[i], text, field);
    }
}

static tv_status_t set_defaults(struct tv_train_options *options)
{
    *options = (struct tv_train_options){.decay_iters = -1, .mask_token = -1};
    for (int i = 0; i < NUM_ROWS; i++) {
        if (rows[i].value != NULL)
            TV_TRY(set_value(options, i, rows[i].value));
    }
    return TV_OK;
}

/* getopt_long would take any unambiguous beginning of a name; trivet refuses it, so that a script never changes its
 * meaning when a flag is added. */
static tv_status_t check_word(const char *word)
{
    if (word[0] != '-')
        return TV_ERR(TV_INVALID, "'%s' is not a flag; see trivet train --help", word);
    if (strncmp(word, "--", 2) != 0 || row_of(word + 2, strcspn(word + 2, "=")) < 0)
        return TV_ERR(TV_INVALID, "unknown flag %s; see trivet train --help", word);
    return TV_OK;
}

static void fill_getopt(struct option table[])
{
    int n = 0;
    for (int i = 0; i < NUM_ROWS; i++) {
        if (rows[i].type == OPT_HEADING)
            continue;
        const int takes = rows[i].type == OPT_SWITCH ? no_argument : required_argument;
        table[n++] = (struct option){rows[i].name, takes, NULL, i + 256};
        if (rows[i].alias != NULL)
            table[n++] = (struct option){rows[i].alias, takes, NULL, i + 256};
    }
    table[n] = (struct option){0};
}

static tv_status_t parse_words(int argc, char **argv, struct tv_train_options *options)
{
    struct option table[2 * NUM_ROWS + 1];
    fill_getopt(table);
    optind = 0; /* glibc: start afresh */
    opterr = 0;
    for (;;) {
        const int at = optind == 0 ? 1 : optind;
        if (at < argc)
            TV_TRY(check_word(argv[at]));
        const int code = getopt_long(argc, argv, "+:", table, NULL);
        if (code == -1)
            return TV_OK;
        if (code == ':')
            return TV_ERR(TV_INVALID, "%s needs a value", argv[at]);
        if (code == '?')
            return TV_ERR(TV_INVALID, "%s takes no value", argv[at]);
        const int i = code - 256;
        TV_TRY(set_value(options, i, optarg));
        options->given |= (uint64_t)1 << bit_of(i);
    }
}

/* The whole of a small file, with a final NUL. */
static tv_status_t read_text(const char *path, char **text_out)
{
    enum { MAX_BYTES = 1 << 20 };
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return TV_ERR(TV_BAD_FILE, "--args %s: %s", path, strerror(errno));
    char *text = malloc(MAX_BYTES + 1);
    if (text == NULL) {
        fclose(file);
        return TV_ERR(TV_NO_MEMORY, "--args %s", path);
    }
    const size_t bytes = fread(text, 1, MAX_BYTES + 1, file);
    const int failed = ferror(file);
    fclose(file);
    if (failed || bytes > MAX_BYTES || memchr(text, '\0', bytes) != NULL) {
        free(text);
        return TV_ERR(TV_BAD_FILE, "--args %s: not a text file of at most 1 MiB", path);
    }
    text[bytes] = '\0';
    *text_out = text;
    return TV_OK;
}

/* Cut `text` in place into words; '#' at the start of a word comments the rest of the line. */
static int split_words(char *text, char **words, int max)
{
    static const char *const blank = " \t\r\n";
    int n = 0;
    while (*(text += strspn(text, blank)) != '\0' && n < max) {
        if (*text == '#') {
            text += strcspn(text, "\n");
            continue;
        }
        words[n++] = text;
        text += strcspn(text, blank);
        if (*text != '\0')
            *text++ = '\0';
    }
    return n;
}

static tv_status_t parse_args_file(struct tv_train_options *options)
{
    enum { MAX_WORDS = 4096 };
    TV_TRY(read_text(options->args_file, &options->args_text));
    char **words = calloc(MAX_WORDS + 2, sizeof(*words));
    if (words == NULL)
        return TV_ERR(TV_NO_MEMORY, "--args %s", options->args_file);
    words[0] = options->args_text;
    const char *path = options->args_file;
    const int n = split_words(options->args_text, words + 1, MAX_WORDS);
    tv_status_t status = parse_words(n + 1, words, options);
    free(words);
    if (status == TV_OK && options->args_file != path)
        status = TV_ERR(TV_INVALID, "--args inside the file %s", path);
    if (status != TV_OK)
        return TV_ERR(status, "--args %s: %s", path, tv_error_message());
    return TV_OK;
}

tv_status_t tv_train_options_parse(int argc, char **argv, struct tv_train_options *options)
{
    TV_TRY(set_defaults(options));
    tv_status_t status = parse_words(argc, argv, options);
    if (status == TV_OK && options->args_file != NULL) {
        const char *path = options->args_file;
        status = set_defaults(options);
        options->args_file = path;
        if (status == TV_OK)
            status = parse_args_file(options);
        if (status == TV_OK)
            status = parse_words(argc, argv, options); /* again: the command line wins */
    }
    if (status != TV_OK)
        tv_train_options_free(options);
    return status;
}

void tv_train_options_free(struct tv_train_options *options)
{
    free(options->args_text);
    options->args_text = NULL;
}

int tv_train_options_has(const struct tv_train_options *options, const char *name)
{
    const int row = row_of(name, strlen(name));
    return row >= 0 && (options->given >> bit_of(row) & 1);
}

/* `text` wrapped at 80 columns, continued at column `indent`. */
static void print_wrapped(FILE *out, const char *text, int indent)
{
    int column = indent;
    while (*text != '\0') {
        const int word = (int)strcspn(text, " ");
        if (column > indent && column + 1 + word > 80) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", word, text);
        column += word;
        text += word + (text[word] == ' ');
    }
    fputc('\n', out);
}

void tv_train_options_help(FILE *out)
{
    static const char *const kinds[] = {" N", " N", " X", " TEXT", "", ""};
    enum { INDENT = 28 };
    fputs("Usage: mpiexec -n RANKS trivet train [flags]\n"
          "       trivet train --local-ranks RANKS [flags]\n"
          "Trains a GPT-2 or Llama model over a pipeline x data x tensor mesh of ranks.\n",
          out);
    for (int i = 0; i < NUM_ROWS; i++) {
        if (rows[i].type == OPT_HEADING) {
            fprintf(out, "\n%s\n", rows[i].name);
            continue;
        }
        char text[512];
        snprintf(text, sizeof(text), "%s%s%s%s%s%s%s", rows[i].help,
                 rows[i].value ? " (default " : "", rows[i].value ? rows[i].value : "",
                 rows[i].value ? ")" : "", rows[i].alias ? " [also --" : "",
                 rows[i].alias ? rows[i].alias : "", rows[i].alias ? "]" : "");
        const int used = fprintf(out, "  --%s%s", rows[i].name, kinds[rows[i].type]);
        if (used >= INDENT)
            fprintf(out, "\n%*s", INDENT, "");
        else
            fprintf(out, "%*s", INDENT - used, "");
        print_wrapped(out, text, INDENT);
    }
}

/* train/options.c -- the parser of a table of flags, and its help. */
#include "train/options.h"
#include "train/terminal.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One parse: what is read, and where it goes. */
struct parse {
    const struct tv_option_table *table;
    void *values;
    struct tv_options_given given;
};

static void *field_of(const struct parse *parse, const struct tv_option *row)
{
    return (char *)parse->values + row->offset;
}

/* Is `name` one of `names`, which have commas between them? */
static int is_among(const char *names, const char *name, size_t length)
{
    while (names != NULL) {
        const size_t first = strcspn(names, ",");
        if (first == length && strncmp(names, name, length) == 0)
            return 1;
        names = names[first] == ',' ? names + first + 1 : NULL;
    }
    return 0;
}

static int is_flag(const struct tv_option *row)
{
    return row->type != TV_OPTION_HEADING && row->type != TV_OPTION_WORD;
}

/* The row of a flag; -1: none. */
static int row_of(const struct tv_option_table *table, const char *name, size_t length)
{
    for (int i = 0; i < table->num_rows; i++) {
        const struct tv_option *row = &table->rows[i];
        if (is_flag(row) &&
            (is_among(row->name, name, length) || is_among(row->aliases, name, length)))
            return i;
    }
    return -1;
}

static tv_status_t refuse_range(const struct tv_option *row, const char *text)
{
    if (row->low == TV_OPTION_TINY)
        return TV_ERR(TV_INVALID, "--%s %s: must be above 0 and at most %.10g", row->name, text,
                      row->high);
    return TV_ERR(TV_INVALID, "--%s %s: must be between %.10g and %.10g", row->name, text, row->low,
                  row->high);
}

static tv_status_t set_number(const struct tv_option *row, const char *text, void *field)
{
    char *end = NULL;
    errno = 0;
    double number = 0;
    int64_t whole = 0;
    if (row->type == TV_OPTION_REAL) {
        number = strtod(text, &end);
    } else {
        whole = strtoll(text, &end, 10);
        number = (double)whole;
    }
    if (end == text || *end != '\0' || errno == ERANGE || !isfinite(number))
        return TV_ERR(TV_INVALID, "--%s %s: not %s", row->name, text,
                      row->type == TV_OPTION_REAL ? "a number" : "a whole number");
    if (number < row->low || number > row->high)
        return refuse_range(row, text);
    if (row->type == TV_OPTION_REAL)
        *(double *)field = number;
    else if (row->type == TV_OPTION_INT64)
        *(int64_t *)field = whole;
    else
        *(int *)field = (int)whole;
    return TV_OK;
}

static tv_status_t add_text(const struct tv_option *row, const char *text,
                            struct tv_option_list *list)
{
    if (text[0] == '\0')
        return TV_ERR(TV_INVALID, "--%s: an empty value", row->name);
    if (list->num == TV_OPTION_LIST_MAX)
        return TV_ERR(TV_INVALID, "--%s: more than %d values", row->name, TV_OPTION_LIST_MAX);
    list->words[list->num++] = text;
    return TV_OK;
}

static tv_status_t set_value(struct parse *parse, const struct tv_option *row, const char *text)
{
    void *field = field_of(parse, row);
    switch (row->type) {
    case TV_OPTION_HEADING:
        return TV_OK;
    case TV_OPTION_SWITCH:
        *(int *)field = 1;
        return TV_OK;
    case TV_OPTION_WORD:
    case TV_OPTION_TEXT:
    case TV_OPTION_ARGS:
        if (text[0] == '\0')
            return TV_ERR(TV_INVALID, "--%s: an empty value", row->name);
        *(const char **)field = text;
        return TV_OK;
    case TV_OPTION_LIST:
        return add_text(row, text, field);
    default:
        return set_number(row, text, field);
    }
}

static tv_status_t set_defaults(struct parse *parse)
{
    for (int i = 0; i < parse->table->num_rows; i++) {
        const struct tv_option *row = &parse->table->rows[i];
        if (row->value != NULL)
            TV_TRY(set_value(parse, row, row->value));
    }
    return TV_OK;
}

static tv_status_t give_value(struct parse *parse, int i, const char *text)
{
    TV_TRY(set_value(parse, &parse->table->rows[i], text));
    parse->given.bits[i / 64] |= (uint64_t)1 << i % 64;
    return TV_OK;
}

/* words[*at] is a flag; its value stands behind '=' or is the next word. *at moves behind both. */
static tv_status_t parse_flag(struct parse *parse, int num_words, char **words, int *at)
{
    const struct tv_option_table *table = parse->table;
    const char *word = words[(*at)++];
    if (word[0] != '-')
        return TV_ERR(TV_INVALID, "'%s' is not a flag; see trivet %s --help", word, table->command);
    const size_t length = strcspn(word, "=");
    const int i = strncmp(word, "--", 2) == 0 ? row_of(table, word + 2, length - 2) : -1;
    if (i < 0)
        return TV_ERR(TV_INVALID, "unknown flag %s; see trivet %s --help", word, table->command);
    const char *value = word[length] == '=' ? word + length + 1 : NULL;
    if (table->rows[i].type == TV_OPTION_SWITCH) {
        if (value != NULL)
            return TV_ERR(TV_INVALID, "%s takes no value", word);
    } else if (value == NULL) {
        if (*at == num_words)
            return TV_ERR(TV_INVALID, "%s needs a value", word);
        value = words[(*at)++];
    }
    if (table->rows[i].type != TV_OPTION_LIST)
        return give_value(parse, i, value);
    ((struct tv_option_list *)field_of(parse, &table->rows[i]))->num = 0;
    TV_TRY(give_value(parse, i, value));
    while (*at < num_words && words[*at][0] != '-')
        TV_TRY(give_value(parse, i, words[(*at)++]));
    return TV_OK;
}

static tv_status_t parse_flags(struct parse *parse, int num_words, char **words)
{
    int at = 0;
    while (at < num_words)
        TV_TRY(parse_flag(parse, num_words, words, &at));
    return TV_OK;
}

static tv_status_t parse_command_line(struct parse *parse, int num_words, char **words)
{
    if (parse->table->rows[0].type == TV_OPTION_WORD && num_words > 0 && words[0][0] != '-') {
        TV_TRY(give_value(parse, 0, words[0]));
        num_words--;
        words++;
    }
    return parse_flags(parse, num_words, words);
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

/* The flags of the file `path`, which stays the value of `field`. */
static tv_status_t parse_args_file(struct parse *parse, const char *const *field, const char *path)
{
    enum { MAX_WORDS = 4096 };
    TV_TRY(read_text(path, &parse->given.args_text));
    char **words = calloc(MAX_WORDS + 1, sizeof(*words));
    if (words == NULL)
        return TV_ERR(TV_NO_MEMORY, "--args %s", path);
    const int n = split_words(parse->given.args_text, words, MAX_WORDS + 1);
    tv_status_t status = TV_OK;
    if (n > MAX_WORDS)
        status = TV_ERR(TV_BAD_FILE, "more than %d words", MAX_WORDS);
    else
        status = parse_flags(parse, n, words);
    free(words);
    if (status == TV_OK && *field != path)
        status = TV_ERR(TV_INVALID, "--args inside the file");
    if (status != TV_OK)
        return TV_ERR(status, "--args %s: %s", path, tv_error_message());
    return TV_OK;
}

/* What --args names, NULL without it. */
static const char **args_field(const struct parse *parse)
{
    for (int i = 0; i < parse->table->num_rows; i++) {
        if (parse->table->rows[i].type == TV_OPTION_ARGS)
            return field_of(parse, &parse->table->rows[i]);
    }
    return NULL;
}

static tv_status_t parse_all(struct parse *parse, int num_words, char **words)
{
    TV_TRY(set_defaults(parse));
    TV_TRY(parse_command_line(parse, num_words, words));
    const char **field = args_field(parse);
    if (field == NULL || *field == NULL)
        return TV_OK;
    TV_TRY(parse_args_file(parse, field, *field));
    return parse_command_line(parse, num_words, words); /* again: the command line wins */
}

tv_status_t tv_options_parse(const struct tv_option_table *table, int argc, char **argv,
                             void *values, struct tv_options_given *given_out)
{
    assert(table->num_rows <= TV_OPTION_MAX_ROWS);
    struct parse parse = {.table = table, .values = values};
    const tv_status_t status = parse_all(&parse, argc - 1, argv + 1);
    if (status != TV_OK) {
        tv_options_free(&parse.given);
        return status;
    }
    *given_out = parse.given;
    return TV_OK;
}

tv_status_t tv_options_three(const char *flag, const char *text, const char *form, double high,
                             double numbers_out[3])
{
    double numbers[3];
    const char *at = text;
    for (int i = 0; i < 3; i++) {
        char *end = NULL;
        errno = 0;
        numbers[i] = strtod(at, &end);
        if (end == at || *end != (i < 2 ? ',' : '\0') || errno == ERANGE || !isfinite(numbers[i]))
            return TV_ERR(TV_INVALID, "--%s %s: not three numbers %s", flag, text, form);
        at = end + 1;
    }
    for (int i = 0; i < 3; i++) {
        if (numbers[i] < 0 || numbers[i] > high)
            return TV_ERR(TV_INVALID, "--%s %s: %.10g must be between 0 and %.10g", flag, text,
                          numbers[i], high);
    }
    for (int i = 0; i < 3; i++)
        numbers_out[i] = numbers[i];
    return TV_OK;
}

void tv_options_free(struct tv_options_given *given)
{
    free(given->args_text);
    given->args_text = NULL;
}

int tv_options_has(const struct tv_option_table *table, const struct tv_options_given *given,
                   const char *name)
{
    const int i = row_of(table, name, strlen(name));
    return i >= 0 && (given->bits[i / 64] >> i % 64 & 1);
}

tv_status_t tv_options_give(const struct tv_option_table *table, struct tv_options_given *given,
                            void *values, const char *name, const char *text)
{
    struct parse parse = {.table = table, .values = values, .given = *given};
    const int i = row_of(table, name, strlen(name));
    if (i < 0)
        return TV_ERR(TV_INVALID, "--%s is not a flag of trivet %s", name, table->command);
    TV_TRY(give_value(&parse, i, text));
    *given = parse.given;
    return TV_OK;
}

int tv_options_text(const struct tv_option_table *table, const void *values, const char *name,
                    char *text_out, size_t bytes)
{
    const int i = row_of(table, name, strlen(name));
    const void *field = (const char *)values + (i < 0 ? 0 : table->rows[i].offset);
    const char *text = NULL;
    int length = -1;
    switch (i < 0 ? TV_OPTION_HEADING : table->rows[i].type) {
    case TV_OPTION_HEADING:
        break;
    case TV_OPTION_SWITCH:
        length = *(const int *)field ? snprintf(text_out, bytes, "%s", "") : -1;
        break;
    case TV_OPTION_INT:
        length = snprintf(text_out, bytes, "%d", *(const int *)field);
        break;
    case TV_OPTION_INT64:
        length = snprintf(text_out, bytes, "%" PRId64, *(const int64_t *)field);
        break;
    case TV_OPTION_REAL:
        length = snprintf(text_out, bytes, "%.17g", *(const double *)field);
        break;
    case TV_OPTION_WORD:
    case TV_OPTION_TEXT:
    case TV_OPTION_ARGS:
        text = *(const char *const *)field;
        length = text != NULL ? snprintf(text_out, bytes, "%s", text) : -1;
        break;
    case TV_OPTION_LIST: /* is not one text */
        break;
    }
    return length >= 0 && (size_t)length < bytes;
}

void tv_options_take_back(const struct tv_option_table *table, struct tv_options_given *given,
                          void *values, const void *fresh, const char *name)
{
    const int i = row_of(table, name, strlen(name));
    if (i < 0)
        return;
    static const size_t sizes[] = {
        [TV_OPTION_WORD] = sizeof(char *),   [TV_OPTION_INT] = sizeof(int),
        [TV_OPTION_INT64] = sizeof(int64_t), [TV_OPTION_REAL] = sizeof(double),
        [TV_OPTION_TEXT] = sizeof(char *),   [TV_OPTION_SWITCH] = sizeof(int),
        [TV_OPTION_ARGS] = sizeof(char *)};
    const struct tv_option *row = &table->rows[i];
    memcpy((char *)values + row->offset, (const char *)fresh + row->offset, sizes[row->type]);
    given->bits[i / 64] &= ~((uint64_t)1 << i % 64);
}

/* pipeline stages (default 1) [also --pipeline-model-parallel-size] */
static void print_meaning(struct tv_paragraph *p, const struct tv_option *row)
{
    tv_paragraph_text(p, row->help);
    if (row->value != NULL)
        tv_paragraph_word(p, "(default ", row->value, (int)strlen(row->value), ")");
    for (const char *name = row->aliases; name != NULL;) {
        const int length = (int)strcspn(name, ",");
        const int is_last = name[length] == '\0';
        tv_paragraph_word(p, name == row->aliases ? "[also --" : "--", name, length,
                          is_last ? "]" : ",");
        name = is_last ? NULL : name + length + 1;
    }
    fputc('\n', p->out);
}

void tv_options_help(const struct tv_option_table *table, FILE *out)
{
    static const char *const kinds[] = {
        [TV_OPTION_WORD] = "",         [TV_OPTION_INT] = " N",    [TV_OPTION_INT64] = " N",
        [TV_OPTION_REAL] = " X",       [TV_OPTION_SWITCH] = "",   [TV_OPTION_TEXT] = " TEXT",
        [TV_OPTION_LIST] = " TEXT...", [TV_OPTION_ARGS] = " TEXT"};
    enum { INDENT = 28 };
    fputs(table->usage, out);
    for (int i = 0; i < table->num_rows; i++) {
        const struct tv_option *row = &table->rows[i];
        if (row->type == TV_OPTION_HEADING) {
            fprintf(out, "\n%s\n", row->name);
            continue;
        }
        const char *dashes = row->type == TV_OPTION_WORD ? "" : "--";
        const int used = fprintf(out, "  %s%s%s", dashes, row->name, kinds[row->type]);
        if (used >= INDENT)
            fprintf(out, "\n%*s", INDENT, "");
        else
            fprintf(out, "%*s", INDENT - used, "");
        struct tv_paragraph meaning = {out, INDENT, INDENT, 80};
        print_meaning(&meaning, row);
    }
}

/* train/options.h -- flags from a table: one row per flag, from which parsing and help follow.
 *
 * A flag that is not in the table is refused, never ignored; so are abbreviations: a script does
 * not change its meaning when a flag is added. Parsing is pure: the same verdict on every rank. */
#ifndef TV_TRAIN_OPTIONS_H
#define TV_TRAIN_OPTIONS_H
#include "base/log.h"
#include "base/status.h"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

TV_BEGIN_C
/* What a row is, and the type of its field. */
typedef enum {
    TV_OPTION_HEADING, /* no flag: a title in the help */
    TV_OPTION_WORD,    /* const char *: no flag: a word before all flags; the first row, or none */
    TV_OPTION_INT,     /* int */
    TV_OPTION_INT64,   /* int64_t */
    TV_OPTION_REAL,    /* double */
    TV_OPTION_TEXT,    /* const char *, never empty */
    TV_OPTION_LIST, /* struct tv_option_list: one or more texts, up to the next word with a dash */
    TV_OPTION_SWITCH, /* int: 1 when given; takes no value */
    TV_OPTION_ARGS,   /* const char *: a file with more flags; at most one row */
} tv_option_type_t;

#define TV_OPTION_TOP  2147483647.0 /* the largest int */
#define TV_OPTION_BIG  1e15         /* exact as a double and as an int64_t */
#define TV_OPTION_TINY 1e-300       /* as `low`: above 0 */

/* Texts in the order of the words; a second flag of the name replaces the first one's. */
enum { TV_OPTION_LIST_MAX = 64 };
struct tv_option_list {
    int num;
    const char *words[TV_OPTION_LIST_MAX];
};

struct tv_option {
    const char *name;    /* without dashes */
    const char *aliases; /* other names with commas between them, such as Megatron-LM's; or NULL */
    tv_option_type_t type;
    size_t offset;     /* of the field in the struct of values */
    double low, high;  /* least and largest number allowed */
    const char *value; /* default; NULL: none, or it depends on other flags, and `help` says how */
    const char *help;
};

#define TV_OPTION_MAX_ROWS 128
struct tv_option_table {
    const struct tv_option *rows; /* [num_rows] */
    int num_rows;                 /* at most TV_OPTION_MAX_ROWS */
    const char *command;          /* "train", for messages */
    const char *usage;            /* whole lines at the top of the help */
};

/* What the user said, beside the values themselves. */
struct tv_options_given {
    uint64_t bits[TV_OPTION_MAX_ROWS / 64]; /* bit i: row i was given */
    char *args_text; /* owned: the text of the args file, into which values point; or NULL */
};

/* Fill `values`: defaults, then the args file, then argv, so that the command line wins and so does
 * the last of equal flags. argv[0] is skipped. Fields without a default are left alone. Strings are
 * borrowed from the table, argv and given_out->args_text. On an error `values` is half filled.
 * Errors: TV_INVALID naming flag, value and range, TV_BAD_FILE (args file), TV_NO_MEMORY. */
TV_MUST_CHECK tv_status_t tv_options_parse(const struct tv_option_table *table, int argc,
                                           char **argv, void *values,
                                           struct tv_options_given *given_out);
/* Frees args_text. Nothing to free for a table without an args row. */
void tv_options_free(struct tv_options_given *given);
/* Was the flag with this name or alias (without dashes) given? */
int tv_options_has(const struct tv_option_table *table, const struct tv_options_given *given,
                   const char *name);
/* Set a flag as if it stood on the command line; a switch takes no text but "". The text is borrowed.
 * Errors: TV_INVALID naming flag, value and range. */
TV_MUST_CHECK tv_status_t tv_options_give(const struct tv_option_table *table,
                                          struct tv_options_given *given, void *values,
                                          const char *name, const char *text);
/* The value of a flag as it would be typed, so that tv_options_give gives it back exactly. Returns
 * 0 when there is none or it is too long. */
int tv_options_text(const struct tv_option_table *table, const void *values, const char *name,
                    char *text_out, size_t bytes);
/* Take a flag back: its value becomes that of `fresh`, another struct of values. */
void tv_options_take_back(const struct tv_option_table *table, struct tv_options_given *given,
                          void *values, const void *fresh, const char *name);
/* The value of a text flag that is three numbers with commas between them, each in [0, high].
 * flag: without dashes; form: what stands where, for the message ("F,B,W such as 1,1,1").
 * Errors: TV_INVALID with flag and text. */
TV_MUST_CHECK tv_status_t tv_options_three(const char *flag, const char *text, const char *form,
                                           double high, double numbers_out[3]);
/* Every flag with its meaning and default, 80 columns. */
void tv_options_help(const struct tv_option_table *table, FILE *out);
TV_END_C
#endif

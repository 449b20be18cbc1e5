/* train/terminal.h -- what the commands share when they print for people: width, colour, lines that
 * end before the last column. */
#ifndef TV_TRAIN_TERMINAL_H
#define TV_TRAIN_TERMINAL_H
#include "base/status.h"
#include <stdio.h>

TV_BEGIN_C
/* asked, a --width; 0: those of the terminal, or 80. */
int tv_terminal_columns(int asked, FILE *out);
/* A terminal, and NO_COLOR is not set. */
int tv_terminal_is_coloured(FILE *out);

/* Everything printed has arrived. Errors: TV_IO. */
TV_MUST_CHECK tv_status_t tv_output_check(void);

/* Words put on lines that start at column `indent` and end before column `columns`. The first line
 * is at `column` when it begins. */
struct tv_paragraph {
    FILE *out;
    int indent, column, columns;
};
/* The word between `before` and `after`, all on one line. */
void tv_paragraph_word(struct tv_paragraph *p, const char *before, const char *word, int length,
                       const char *after);
/* Words with single blanks between them. */
void tv_paragraph_text(struct tv_paragraph *p, const char *text);
TV_END_C
#endif

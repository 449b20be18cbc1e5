/* train/train_rows.h -- tables of flags put together out of a command's own rows and some of `trivet train`'s. */
#ifndef TV_TRAIN_TRAIN_ROWS_H
#define TV_TRAIN_TRAIN_ROWS_H
#include "train/train_options.h"

TV_BEGIN_C
struct tv_train_rows {
    struct tv_option rows[TV_OPTION_MAX_ROWS];
    int train_row
        [TV_OPTION_MAX_ROWS]; /* where it is in the train table; -1: a row of the command's own */
    struct tv_option_table table; /* points into this struct, which must stay where it is */
};
/* The own rows, copied; command and usage are borrowed. */
void tv_train_rows_begin(struct tv_train_rows *rows_out, const char *command, const char *usage,
                         const struct tv_option *own, int num_own);
/* Behind them the rows (headings too) of the train table with these names, in this order, each of which must be there;
 * offset: of the struct tv_train_options in the command's options. */
void tv_train_rows_take(struct tv_train_rows *rows, const char *const *names, int num,
                        size_t offset);
/* The same of all rows but those, in the train table's order. */
void tv_train_rows_take_others(struct tv_train_rows *rows, const char *const *names, int num,
                               size_t offset);
/* The train flags among the ones that were given, by their place in the train table. */
struct tv_options_given tv_train_rows_given(const struct tv_train_rows *rows,
                                            const struct tv_options_given *given);
TV_END_C
#endif

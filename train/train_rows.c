/* train/train_rows.c -- rows of the train table in other tables. */
#include "train/train_rows.h"
#include <assert.h>
#include <string.h>

static void add_row(struct tv_train_rows *rows, const struct tv_option *row, int train_row,
                    size_t offset)
{
    const int i = rows->table.num_rows++;
    assert(i < TV_OPTION_MAX_ROWS);
    rows->rows[i] = *row;
    rows->rows[i].offset += offset;
    rows->train_row[i] = train_row;
}

void tv_train_rows_begin(struct tv_train_rows *rows_out, const char *command, const char *usage,
                         const struct tv_option *own, int num_own)
{
    rows_out->table =
        (struct tv_option_table){.rows = rows_out->rows, .command = command, .usage = usage};
    for (int i = 0; i < num_own; i++)
        add_row(rows_out, &own[i], -1, 0);
}

void tv_train_rows_take(struct tv_train_rows *rows, const char *const *names, int num,
                        size_t offset)
{
    const struct tv_option_table *train = &tv_train_option_table;
    for (int i = 0; i < num; i++) {
        int row = 0;
        while (row < train->num_rows && strcmp(train->rows[row].name, names[i]) != 0)
            row++;
        assert(row < train->num_rows);
        add_row(rows, &train->rows[row], row, offset);
    }
}

static int is_among(const char *const *names, int num, const char *name)
{
    for (int i = 0; i < num; i++) {
        if (strcmp(names[i], name) == 0)
            return 1;
    }
    return 0;
}

void tv_train_rows_take_others(struct tv_train_rows *rows, const char *const *names, int num,
                               size_t offset)
{
    for (int i = 0; i < tv_train_option_table.num_rows; i++) {
        const struct tv_option *row = &tv_train_option_table.rows[i];
        if (!is_among(names, num, row->name))
            add_row(rows, row, i, offset);
    }
}

struct tv_options_given tv_train_rows_given(const struct tv_train_rows *rows,
                                            const struct tv_options_given *given)
{
    struct tv_options_given train = {.args_text = given->args_text};
    for (int i = 0; i < rows->table.num_rows; i++) {
        const int at = rows->train_row[i];
        if (at >= 0 && (given->bits[i / 64] >> i % 64 & 1))
            train.bits[at / 64] |= (uint64_t)1 << at % 64;
    }
    return train;
}

/* pipeline/partition_layout.c -- Megatron-LM's layout strings. The text is unrolled into one item
 * per letter and bar, of a bounded number, and then cut at the bars; groups need no recursion. */
#include "pipeline/partition.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_ITEMS  65536
#define MAX_GROUPS 16      /* open at once */
#define MAX_REPEAT 1000000 /* an item; what comes out has at most MAX_ITEMS */

struct item {
    char kind;  /* E, t, L or | */
    int column; /* where it was written, of a repetition its '*'; from 1 */
};

struct unrolled {
    int num_items;
    int last; /* first item of the last letter, bar or group: what *n repeats; -1: nothing */
    int num_groups;
    int group_item[MAX_GROUPS], group_column[MAX_GROUPS]; /* where the open ones began */
    struct item items[MAX_ITEMS];
};

static tv_status_t add_item(struct unrolled *u, char kind, int column)
{
    if (u->num_items == MAX_ITEMS)
        return TV_ERR(TV_INVALID, "stage layout, column %d: more than %d letters and bars", column,
                      MAX_ITEMS);
    u->items[u->num_items++] = (struct item){kind, column};
    return TV_OK;
}

static tv_status_t open_group(struct unrolled *u, int column)
{
    if (u->num_groups == MAX_GROUPS)
        return TV_ERR(TV_INVALID, "stage layout, column %d: more than %d parentheses open", column,
                      MAX_GROUPS);
    u->group_item[u->num_groups] = u->num_items;
    u->group_column[u->num_groups++] = column;
    u->last = -1;
    return TV_OK;
}

static tv_status_t close_group(struct unrolled *u, int column)
{
    if (u->num_groups == 0)
        return TV_ERR(TV_INVALID, "stage layout, column %d: ')' without '('", column);
    u->last = u->group_item[--u->num_groups];
    if (u->last == u->num_items)
        return TV_ERR(TV_INVALID, "stage layout, column %d: nothing in the parentheses", column);
    return TV_OK;
}

/* "*n" at text[*at]; leaves *at at its last digit. */
static tv_status_t repeat(struct unrolled *u, const char *text, size_t *at)
{
    const int column = (int)*at + 1;
    if (u->last < 0)
        return TV_ERR(TV_INVALID, "stage layout, column %d: '*' repeats nothing", column);
    int count = 0;
    for (++*at; isdigit((unsigned char)text[*at]) && count <= MAX_REPEAT; ++*at)
        count = 10 * count + (text[*at] - '0');
    if (count < 1 || count > MAX_REPEAT)
        return TV_ERR(TV_INVALID,
                      "stage layout, column %d: '*' takes a number of 1 to %d behind it", column,
                      MAX_REPEAT);
    --*at;
    const int end = u->num_items;
    for (int n = 1; n < count; n++) {
        for (int i = u->last; i < end; i++)
            TV_TRY(add_item(u, u->items[i].kind, column));
    }
    u->last = -1;
    return TV_OK;
}

static tv_status_t unroll(const char *text, struct unrolled *u)
{
    u->num_items = u->num_groups = 0;
    u->last = -1;
    for (size_t at = 0; text[at] != '\0'; at++) {
        const char c = text[at];
        const int column = (int)at + 1;
        if (c == ',' || c == ' ' || c == '\t' || c == '\n')
            continue;
        if (c == 'E' || c == 't' || c == 'L' || c == '|') {
            u->last = u->num_items;
            TV_TRY(add_item(u, c, column));
        } else if (c == '(') {
            TV_TRY(open_group(u, column));
        } else if (c == ')') {
            TV_TRY(close_group(u, column));
        } else if (c == '*') {
            TV_TRY(repeat(u, text, &at));
        } else if (c == 'm') {
            return TV_ERR(TV_INVALID,
                          "stage layout, column %d: m, multi-token prediction, is not supported",
                          column);
        } else {
            return TV_ERR(
                TV_INVALID,
                isprint((unsigned char)c)
                    ? "stage layout, column %d: '%c' is not one of E t L | ( ) * ,"
                    : "stage layout, column %d: byte 0x%02x is not one of E t L | ( ) * ,",
                column, (unsigned char)c);
        }
    }
    if (u->num_groups > 0)
        return TV_ERR(TV_INVALID, "stage layout, column %d: '(' without ')'",
                      u->group_column[u->num_groups - 1]);
    return TV_OK;
}

static tv_status_t check_counts(const struct unrolled *u, int num_layers, int num_pieces)
{
    int layers = 0, pieces = 1;
    for (int i = 0; i < u->num_items; i++) {
        layers += u->items[i].kind == 't';
        pieces += u->items[i].kind == '|';
    }
    if (layers != num_layers)
        return TV_ERR(TV_INVALID, "the stage layout has %d layers, the model %d", layers,
                      num_layers);
    if (pieces != num_pieces)
        return TV_ERR(TV_INVALID, "the stage layout has %d pieces, the pipeline %d", pieces,
                      num_pieces);
    return TV_OK;
}

/* One E, the layers, one L; no piece without any. */
static tv_status_t check_order(const struct unrolled *u, int num_layers)
{
    int unit = 0, in_piece = 0, column = 1;
    for (int i = 0; i < u->num_items; i++) {
        const char kind = u->items[i].kind;
        column = u->items[i].column;
        if (kind == '|' && in_piece == 0)
            return TV_ERR(TV_INVALID,
                          "stage layout, column %d: the piece before this bar is empty, each holds "
                          "at least one unit",
                          column);
        in_piece = kind == '|' ? 0 : in_piece + 1;
        if (kind == '|')
            continue;
        const char expected = unit == 0 ? 'E' : unit <= num_layers ? 't' : 'L';
        if (kind != expected || unit > num_layers + 1)
            return TV_ERR(TV_INVALID,
                          "stage layout, column %d: %c is out of place: one E (embedding), all t, "
                          "one L (head)",
                          column, kind);
        unit++;
    }
    if (unit != num_layers + 2)
        return TV_ERR(TV_INVALID, "stage layout, column %d: ends without L (head)", column);
    if (in_piece == 0)
        return TV_ERR(TV_INVALID,
                      "stage layout, column %d: the piece behind this bar is empty, each holds at "
                      "least one unit",
                      column);
    return TV_OK;
}

static tv_status_t read_layout(const char *text, int num_layers, int num_pieces, struct unrolled *u)
{
    TV_TRY(unroll(text, u));
    TV_TRY(check_counts(u, num_layers, num_pieces));
    return check_order(u, num_layers);
}

tv_status_t tv_partition_layout(const char *text, int num_layers, int num_pieces,
                                struct tv_unit_range *ranges_out)
{
    struct unrolled *u = malloc(sizeof(*u));
    if (u == NULL)
        return TV_ERR(TV_NO_MEMORY, "stage layout: %zu bytes", sizeof(*u));
    const tv_status_t status = read_layout(text, num_layers, num_pieces, u);
    if (status == TV_OK) {
        struct tv_unit_range *range = ranges_out;
        *range = (struct tv_unit_range){0, 0};
        for (int i = 0; i < u->num_items; i++) {
            if (u->items[i].kind != '|') {
                range->num++;
                continue;
            }
            const int end = range->first + range->num;
            *++range = (struct tv_unit_range){end, 0};
        }
    }
    free(u);
    return status;
}

/* A text that is being written; length counts on when it is full. */
struct text {
    char *at;
    size_t size, length;
};

TV_PRINTF(2, 3) static void append(struct text *t, const char *format, ...)
{
    const size_t used = t->length < t->size ? t->length : t->size;
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(t->at + used, t->size - used, format, args);
    va_end(args);
    t->length += length > 0 ? (size_t)length : 0;
}

static void append_layers(struct text *t, int num_layers)
{
    if (num_layers > 2)
        append(t, "t*%d", num_layers);
    else
        append(t, "%.*s", num_layers, "tt");
}

static void append_pieces(struct text *t, int num_pieces, const struct tv_unit_range *ranges)
{
    int same; /* pieces in a row; the first and the last one stand alone */
    for (int i = 0; i < num_pieces; i += same) {
        const int is_first = i == 0, is_last = i == num_pieces - 1;
        for (same = 1;
             !is_first && i + same < num_pieces - 1 && ranges[i + same].num == ranges[i].num;)
            same++;
        append(t, "%s%s", same > 1 ? "(" : "", is_first ? "E" : "");
        append_layers(t, ranges[i].num - is_first - is_last);
        append(t, "%s", is_last ? "L" : "|");
        if (same > 1)
            append(t, ")*%d", same);
    }
}

tv_status_t tv_partition_format(int num_layers, int num_pieces, const struct tv_unit_range *ranges,
                                char *text_out, size_t size)
{
    TV_TRY(tv_partition_check(num_layers, num_pieces, ranges));
    char nothing;
    struct text count = {&nothing, 0, 0};
    append_pieces(&count, num_pieces, ranges);
    if (count.length >= size)
        return TV_ERR(TV_INVALID, "the layout of %d pieces needs %zu bytes, there are %zu",
                      num_pieces, count.length + 1, size);
    append_pieces(&(struct text){text_out, size, 0}, num_pieces, ranges);
    return TV_OK;
}

/* pipeline/schedule_csv.c -- reads and writes PyTorch's pipelining CSV.
 *
 * The reader collects all cells first, then finds out what they say: the placement, m, the form,
 * the spelling. Positions and micro-batches index memory only once the number of actions has been
 * seen to cover them, so a small file never asks for much. */
#include "pipeline/schedule_csv.h"
#include "base/log.h"
#include "pipeline/schedule_internal.h"
#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_STAGES = 1024,   /* the checker's tables grow with P * P */
    MAX_BYTES = 1 << 28, /* keeps all counts far inside an int */
    WORD_OLD_FULL = 100, /* torch 2.5: BW */
    WORD_OLD_FUSED,      /* torch 2.5: two messages in one */
    WORD_SKIPPED,        /* sharding of parameters */
};

static const struct {
    const char *word;
    int kind; /* tv_action_kind_t or WORD_... */
} words[] = {
    {"F", TV_ACT_FORWARD},
    {"B", TV_ACT_BACKWARD},
    {"I", TV_ACT_BACKWARD_INPUT},
    {"W", TV_ACT_BACKWARD_WEIGHT},
    {"SEND_F", TV_ACT_SEND_FORWARD},
    {"RECV_F", TV_ACT_RECV_FORWARD},
    {"SEND_B", TV_ACT_SEND_BACKWARD},
    {"RECV_B", TV_ACT_RECV_BACKWARD},
    {"BW", WORD_OLD_FULL},
    {"SEND_F_RECV_B", WORD_OLD_FUSED},
    {"SEND_B_RECV_F", WORD_OLD_FUSED},
    {"UNSHARD", WORD_SKIPPED},
    {"RESHARD", WORD_SKIPPED},
    {"REDUCE_GRAD", WORD_SKIPPED},
};
static const char pair_word[] = "OVERLAP_F_B";

struct cell {
    int row, column; /* from 1 */
    int position, kind, micro;
    int is_paired; /* with the next */
};

struct reader {
    const char *name;
    int row, column;        /* of the cell in hand, from 1 */
    const char *text, *end; /* the cell in hand, without blanks around it */
    struct cell *cells;     /* [num_cells] actions */
    int num_cells, capacity, num_rows, num_skipped;
};

/* A piece of the file for a message: printable and short. */
static const char *quote(const char *text, const char *end, char *out, size_t bytes)
{
    size_t n = 0;
    for (; text + n < end && n + 1 < bytes; n++)
        out[n] = isprint((unsigned char)text[n]) ? text[n] : '?';
    out[n] = '\0';
    return out;
}

static tv_status_t refuse(const struct reader *r, const char *why)
{
    char found[48];
    return TV_ERR(TV_BAD_FILE, "%s: row %d, cell %d: '%s' %s", r->name, r->row, r->column,
                  quote(r->text, r->end, found, sizeof(found)), why);
}

static tv_status_t refuse_cell(const struct reader *r, const struct cell *cell, const char *why)
{
    return TV_ERR(TV_BAD_FILE, "%s: row %d, cell %d: position %d, micro-batch %d: %s", r->name,
                  cell->row, cell->column, cell->position, cell->micro, why);
}

/* Digits at *at; 0 when there are none, or too many for an int. */
static int take_number(const char **at, const char *end, int *number_out)
{
    const char *start = *at;
    int number = 0;
    for (; *at < end && isdigit((unsigned char)**at); ++*at) {
        const int digit = **at - '0';
        if (number > (INT_MAX - 1 - digit) / 10)
            return 0;
        number = number * 10 + digit;
    }
    *number_out = number;
    return *at > start;
}

static int kind_of(const char *word, size_t length)
{
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strlen(words[i].word) == length && memcmp(words[i].word, word, length) == 0)
            return words[i].kind;
    }
    return -1;
}

static tv_status_t add_cell(struct reader *r, struct cell cell)
{
    if (r->num_cells == r->capacity) {
        const int capacity = r->capacity > 0 ? 2 * r->capacity : 64;
        struct cell *cells = realloc(r->cells, (size_t)capacity * sizeof(*cells));
        if (cells == NULL)
            return TV_ERR(TV_NO_MEMORY, "%s: %d actions", r->name, capacity);
        r->cells = cells;
        r->capacity = capacity;
    }
    r->cells[r->num_cells++] = cell;
    return TV_OK;
}

/* One action, "2F0", from text to end. */
static tv_status_t read_action(struct reader *r, const char *text, const char *end)
{
    struct cell cell = {.row = r->row, .column = r->column};
    if (!take_number(&text, end, &cell.position))
        return refuse(r, "does not start with a position");
    const char *word = text;
    while (text < end && !isdigit((unsigned char)*text))
        text++;
    cell.kind = kind_of(word, (size_t)(text - word));
    if (cell.kind < 0)
        return refuse(r, "is no action that trivet knows");
    if (cell.kind == WORD_OLD_FUSED)
        return refuse(r, "is two messages in one; give each its own cell");
    if (cell.kind == WORD_SKIPPED) {
        r->num_skipped++;
        return text == end ? TV_OK : refuse(r, "takes no micro-batch");
    }
    if (!take_number(&text, end, &cell.micro))
        return refuse(r, "does not end in a micro-batch");
    if (text != end)
        return refuse(r, "has something behind its micro-batch");
    return add_cell(r, cell);
}

/* "(0F0;7B2)OVERLAP_F_B" */
static tv_status_t read_pair(struct reader *r)
{
    const char *inside = r->text + 1;
    const size_t length = (size_t)(r->end - inside);
    const char *close = memchr(inside, ')', length);
    const char *middle = memchr(inside, ';', length);
    if (close == NULL || middle == NULL || middle > close ||
        (size_t)(r->end - close - 1) != strlen(pair_word) ||
        memcmp(close + 1, pair_word, strlen(pair_word)) != 0)
        return refuse(r, "is no pair like (0F0;7B2)OVERLAP_F_B");
    const int first = r->num_cells;
    TV_TRY(read_action(r, inside, middle));
    TV_TRY(read_action(r, middle + 1, close));
    if (r->num_cells != first + 2 || r->cells[first].kind != TV_ACT_FORWARD ||
        (r->cells[first + 1].kind != TV_ACT_BACKWARD &&
         r->cells[first + 1].kind != TV_ACT_BACKWARD_INPUT))
        return refuse(r, "pairs something else than a forward and a backward");
    r->cells[first].is_paired = 1;
    return TV_OK;
}

static int is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static tv_status_t read_cell(struct reader *r, const char *text, const char *end)
{
    while (text < end && is_blank(*text))
        text++;
    while (text < end && is_blank(end[-1]))
        end--;
    r->text = text;
    r->end = end;
    if (text == end)
        return TV_OK;
    return *text == '(' ? read_pair(r) : read_action(r, text, end);
}

static tv_status_t read_row(struct reader *r, const char *text, const char *end)
{
    for (r->column = 1;; r->column++) {
        const char *comma = text < end ? memchr(text, ',', (size_t)(end - text)) : NULL;
        TV_TRY(read_cell(r, text, comma != NULL ? comma : end));
        if (comma == NULL)
            return TV_OK;
        text = comma + 1;
    }
}

/* Empty lines at the end of the file are no rows. */
static tv_status_t read_rows(struct reader *r, const char *text, size_t bytes)
{
    const char *end = text + bytes;
    for (r->row = 1; text < end; r->row++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline != NULL ? newline : end;
        const char *row_end = stop > text && stop[-1] == '\r' ? stop - 1 : stop;
        TV_TRY(read_row(r, text, row_end));
        if (row_end > text)
            r->num_rows = r->row;
        if (r->num_rows > MAX_STAGES)
            return TV_ERR(TV_BAD_FILE, "%s: row %d: more than %d stages", r->name, r->row,
                          MAX_STAGES);
        text = newline != NULL ? newline + 1 : end;
    }
    return r->num_cells > 0 ? TV_OK : TV_ERR(TV_BAD_FILE, "%s: row 1, cell 1: no action", r->name);
}

/* torch 2.5: B is today's I, BW today's B. */
static tv_status_t translate_old_spelling(struct reader *r)
{
    int has_input = 0, has_weight = 0, has_old_full = 0;
    for (int i = 0; i < r->num_cells; i++) {
        has_input |= r->cells[i].kind == TV_ACT_BACKWARD_INPUT;
        has_weight |= r->cells[i].kind == TV_ACT_BACKWARD_WEIGHT;
        has_old_full |= r->cells[i].kind == WORD_OLD_FULL;
    }
    const int is_old = has_old_full || (has_weight && !has_input);
    for (int i = 0; i < r->num_cells && is_old; i++) {
        struct cell *cell = &r->cells[i];
        if (cell->kind == TV_ACT_BACKWARD_INPUT)
            return refuse_cell(r, cell, "I beside the BW of torch 2.5: two spellings in one file");
        if (cell->kind == TV_ACT_BACKWARD)
            cell->kind = TV_ACT_BACKWARD_INPUT;
        else if (cell->kind == WORD_OLD_FULL)
            cell->kind = TV_ACT_BACKWARD;
    }
    return TV_OK;
}

/* P, v, m. Every position does at least an F and a B of every micro-batch, which bounds both by
 * what the file holds. */
static tv_status_t find_sizes(const struct reader *r, struct tv_schedule_args *args)
{
    int positions = 0, micros = 0, computes = 0;
    for (int i = 0; i < r->num_cells; i++) {
        const struct cell *cell = &r->cells[i];
        positions = cell->position >= positions ? cell->position + 1 : positions;
        micros = cell->micro >= micros ? cell->micro + 1 : micros;
        computes += tv_action_is_compute((tv_action_kind_t)cell->kind);
    }
    if ((double)positions * micros * 2 > computes)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %d computing actions in %d rows are too few for positions 0 to %d and "
                      "micro-batches 0 to %d",
                      r->name, computes, r->num_rows, positions - 1, micros - 1);
    if (positions % r->num_rows != 0)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %d positions cannot be shared equally by %d rows; trivet needs as many "
                      "on each stage",
                      r->name, positions, r->num_rows);
    const char *slash = strrchr(r->name, '/');
    *args = (struct tv_schedule_args){.name = slash != NULL ? slash + 1 : r->name,
                                      .num_stages = r->num_rows,
                                      .num_chunks = positions / r->num_rows,
                                      .num_micro = micros};
    return TV_OK;
}

/* Fill row_of [positions]: the row, from 1, of each position; 0: none. */
static tv_status_t find_rows(const struct reader *r, int *row_of)
{
    for (int i = 0; i < r->num_cells; i++) {
        const struct cell *cell = &r->cells[i];
        int *row = &row_of[cell->position];
        if (*row != 0 && *row != cell->row)
            return TV_ERR(TV_BAD_FILE, "%s: row %d, cell %d: position %d is in row %d already",
                          r->name, cell->row, cell->column, cell->position, *row);
        *row = cell->row;
    }
    return TV_OK;
}

/* Chunks of a stage are numbered in ascending position. */
static tv_status_t set_places(const struct reader *r, const int *row_of, int *num_chunks,
                              struct tv_schedule *schedule)
{
    for (int p = 0; p < schedule->num_stages * schedule->num_chunks; p++) {
        if (row_of[p] == 0)
            return TV_ERR(TV_BAD_FILE, "%s: position %d is in no row", r->name, p);
        const int stage = row_of[p] - 1, chunk = num_chunks[stage]++;
        if (chunk == schedule->num_chunks)
            return TV_ERR(TV_BAD_FILE,
                          "%s: row %d has more than %d positions; trivet needs as many on each "
                          "stage",
                          r->name, row_of[p], schedule->num_chunks);
        const int place = stage * schedule->num_chunks + chunk;
        schedule->position_of[place] = p;
        schedule->place_of[p] = place;
    }
    return TV_OK;
}

static tv_status_t place(const struct reader *r, struct tv_schedule *schedule)
{
    const size_t places = (size_t)schedule->num_stages * (size_t)schedule->num_chunks;
    int *row_of = calloc(places, sizeof(int));
    int *num_chunks = calloc((size_t)schedule->num_stages, sizeof(int));
    tv_status_t status = TV_OK;
    if (row_of == NULL || num_chunks == NULL)
        status = TV_ERR(TV_NO_MEMORY, "%s: %zu positions", r->name, places);
    if (status == TV_OK)
        status = find_rows(r, row_of);
    if (status == TV_OK)
        status = set_places(r, row_of, num_chunks, schedule);
    free(row_of);
    free(num_chunks);
    return status;
}

static tv_status_t append_row(const struct reader *r, int first, int num,
                              struct tv_schedule *schedule)
{
    const int stage = r->cells[first].row - 1;
    TV_TRY(tv_schedule_reserve(schedule, stage, num));
    for (int i = first; i < first + num; i++) {
        const struct cell *cell = &r->cells[i];
        const tv_action_kind_t kind = (tv_action_kind_t)cell->kind;
        const int chunk = tv_schedule_chunk_of(schedule, cell->position);
        tv_schedule_append(schedule, stage, kind, chunk, cell->micro);
        struct tv_action *a = &schedule->stages[stage].actions[i - first];
        a->is_paired = cell->is_paired;
        if (tv_action_is_compute(kind))
            continue;
        const int towards_head = kind == TV_ACT_SEND_FORWARD || kind == TV_ACT_RECV_BACKWARD;
        a->peer = tv_schedule_neighbour(schedule, stage, chunk, towards_head ? 1 : -1);
        if (a->peer < 0 || a->peer == stage)
            return refuse_cell(r, cell, "a message to or from no other stage");
    }
    return TV_OK;
}

static tv_status_t fill(const struct reader *r, struct tv_schedule *schedule)
{
    TV_TRY(place(r, schedule));
    schedule->is_ordered = 0;
    for (int first = 0, num; first < r->num_cells; first += num) {
        for (num = 1; first + num < r->num_cells; num++) {
            if (r->cells[first + num].row != r->cells[first].row)
                break;
        }
        TV_TRY(append_row(r, first, num, schedule));
    }
    return TV_OK;
}

static int has_messages(const struct reader *r)
{
    for (int i = 0; i < r->num_cells; i++) {
        if (!tv_action_is_compute((tv_action_kind_t)r->cells[i].kind))
            return 1;
    }
    return 0;
}

/* Replace compute lists by compute and messages. */
static tv_status_t lower(struct tv_schedule *schedule)
{
    struct tv_schedule lowered;
    TV_TRY(tv_schedule_lower(schedule, &lowered));
    tv_schedule_destroy(schedule);
    *schedule = lowered;
    return TV_OK;
}

static tv_status_t prove(const struct reader *r, const struct tv_schedule *schedule)
{
    const tv_status_t status = tv_schedule_check(schedule, 0);
    if (status != TV_INVALID)
        return status;
    return TV_ERR(TV_BAD_FILE, "%s: (stage 0 is row 1) %s", r->name, tv_error_message());
}

static tv_status_t build(const struct reader *r, struct tv_schedule *schedule_out)
{
    struct tv_schedule_args args;
    struct tv_schedule schedule;
    TV_TRY(find_sizes(r, &args));
    TV_TRY(tv_schedule_alloc(&args, TV_PLACE_LOOP, 1, &schedule));
    tv_status_t status = fill(r, &schedule);
    for (char *c = schedule.name; *c != '\0'; c++) /* to be printed anywhere */
        *c = isprint((unsigned char)*c) ? *c : '_';
    if (status == TV_OK && !has_messages(r))
        status = lower(&schedule);
    if (status == TV_OK)
        status = prove(r, &schedule);
    if (status != TV_OK) {
        tv_schedule_destroy(&schedule);
        return status;
    }
    *schedule_out = schedule;
    return TV_OK;
}

tv_status_t tv_schedule_parse_csv(const char *text, size_t bytes, const char *name,
                                  struct tv_schedule *schedule_out)
{
    struct reader r = {.name = name};
    if (bytes > MAX_BYTES)
        return TV_ERR(TV_BAD_FILE, "%s: %zu bytes; at most %d", name, bytes, MAX_BYTES);
    tv_status_t status = read_rows(&r, text, bytes);
    if (status == TV_OK)
        status = translate_old_spelling(&r);
    if (status == TV_OK)
        status = build(&r, schedule_out);
    if (status == TV_OK && r.num_skipped > 0)
        tv_log(TV_LOG_WARN, "%s: %d UNSHARD, RESHARD or REDUCE_GRAD cells are skipped", name,
               r.num_skipped);
    free(r.cells);
    return status;
}

/* ---- writing ---- */

struct writer {
    const struct tv_schedule *schedule;
    tv_csv_form_t form;
    FILE *out;
    int stage, num_cells; /* of the row so far */
};

static void write_action(const struct writer *w, const struct tv_action *a)
{
    fprintf(w->out, "%d%s%d", tv_schedule_position(w->schedule, w->stage, a->chunk),
            tv_action_kind_name(a->kind), a->micro);
}

static void write_cell(struct writer *w, const struct tv_action *a)
{
    if (!tv_action_is_compute(a->kind) && w->form == TV_CSV_COMPUTE_ONLY)
        return;
    fputs(w->num_cells++ > 0 ? "," : "", w->out);
    write_action(w, a);
}

/* The forward `first`, its backward `last`, and the messages listed between them. */
static void write_pair(struct writer *w, const struct tv_action *first,
                       const struct tv_action *last)
{
    for (const struct tv_action *a = first + 1; a < last; a++) {
        if (tv_action_is_recv(a->kind))
            write_cell(w, a);
    }
    fputs(w->num_cells++ > 0 ? ",(" : "(", w->out);
    write_action(w, first);
    fputc(';', w->out);
    write_action(w, last);
    fprintf(w->out, ")%s", pair_word);
    for (const struct tv_action *a = first + 1; a < last; a++) {
        if (tv_action_is_send(a->kind))
            write_cell(w, a);
    }
}

static void write_row(struct writer *w)
{
    const struct tv_action_list *list = &w->schedule->stages[w->stage];
    const struct tv_action *end = list->actions + list->num_actions;
    for (const struct tv_action *a = list->actions; a < end; a++) {
        const struct tv_action *partner = a + 1;
        while (partner < end && !tv_action_is_compute(partner->kind))
            partner++;
        if (a->is_paired && partner < end) {
            write_pair(w, a, partner);
            a = partner;
        } else {
            write_cell(w, a);
        }
    }
    fputs("\r\n", w->out);
}

tv_status_t tv_schedule_write_csv(const struct tv_schedule *schedule, tv_csv_form_t form, FILE *out)
{
    struct writer writer = {.schedule = schedule, .form = form, .out = out};
    for (; writer.stage < schedule->num_stages; writer.stage++) {
        writer.num_cells = 0;
        write_row(&writer);
    }
    if (fflush(out) != 0 || ferror(out))
        return TV_ERR(TV_IO, "schedule %s: the CSV cannot be written", schedule->name);
    return TV_OK;
}

/* train/schedule_compare.c -- all schedules for the same model, stages and micro-batches. */
#include "train/schedule_report.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Times and slots in units of a whole stage. */
struct row {
    const char *name;
    int num_chunks;
    double makespan, bubble;
    double slots, slots_input; /* of the stage that holds most */
    int fits;                  /* slots are within --slot-limit */
};

enum { MOST_CHUNKS = 4, MAX_ROWS = 64 };

struct table {
    const struct tv_schedule_options *options;
    struct row rows[MAX_ROWS];
    int num_rows;
};

/* The schedule within the limit of slots; where it needs more, without a limit. */
static tv_status_t build(const struct tv_schedule_options *options, const char *name,
                         int num_chunks, struct tv_schedule *schedule_out)
{
    struct tv_schedule_args args = {.name = name,
                                    .num_stages = options->pp,
                                    .num_chunks = num_chunks,
                                    .num_micro = options->num_micro};
    const int64_t limit = (int64_t)options->slot_limit * num_chunks;
    args.slot_limit = limit < (1 << 30) ? (int)limit : 0; /* more than any schedule holds */
    if (args.slot_limit > 0 && tv_schedule_build(&args, schedule_out) == TV_OK)
        return TV_OK;
    args.slot_limit = 0;
    return tv_schedule_build(&args, schedule_out);
}

static void add_row(struct table *table, const struct tv_schedule_plan *plan, const char *name)
{
    const double v = plan->schedule.num_chunks;
    struct row row = {.name = name,
                      .num_chunks = plan->schedule.num_chunks,
                      .makespan = plan->timing.makespan,
                      .bubble = plan->timing.bubble_fraction};
    for (int s = 0; s < plan->schedule.num_stages; s++) {
        const struct tv_stage_timing *t = &plan->timing.stages[s];
        row.slots = t->peak_slots / v > row.slots ? t->peak_slots / v : row.slots;
        row.slots_input =
            t->peak_slots_input / v > row.slots_input ? t->peak_slots_input / v : row.slots_input;
    }
    const int limit = table->options->slot_limit;
    row.fits = limit == 0 || row.slots <= limit;
    table->rows[table->num_rows++] = row;
}

static tv_status_t try_schedule(struct table *table, const char *name, int num_chunks)
{
    const struct tv_schedule_options *o = table->options;
    struct tv_schedule schedule;
    struct tv_schedule_plan plan;
    const struct tv_plan_costs costs = {
        .actions = {o->costs[0] / num_chunks, o->costs[1] / num_chunks, o->costs[2] / num_chunks},
        .send = o->send_cost,
        .joins_pairs = o->overlaps_pairs};
    TV_TRY(build(o, name, num_chunks, &schedule));
    TV_TRY(tv_schedule_plan_time(&schedule, &costs, &plan));
    add_row(table, &plan, name);
    tv_schedule_plan_free(&plan);
    return TV_OK;
}

/* A schedule that takes several numbers of chunks is tried with each up to MOST_CHUNKS, or with
 * --vpp alone. */
static tv_status_t try_chunks(struct table *table, const char *name)
{
    const int vpp = table->options->vpp, usual = tv_schedule_default_chunks(name);
    for (int v = usual; v <= MOST_CHUNKS && vpp == 0; v++) {
        if (tv_schedule_check_chunks(name, v) == TV_OK)
            TV_TRY(try_schedule(table, name, v));
    }
    if (vpp == 0)
        return TV_OK;
    const int takes_vpp = tv_schedule_check_chunks(name, vpp) == TV_OK;
    return try_schedule(table, name, takes_vpp ? vpp : usual);
}

/* What fits first, then the shortest, then what holds least. */
static int compare_rows(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->fits != y->fits)
        return y->fits - x->fits;
    if (x->makespan != y->makespan)
        return x->makespan < y->makespan ? -1 : 1;
    if (x->slots != y->slots)
        return x->slots < y->slots ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void print_text(const struct table *table, FILE *out)
{
    const struct tv_schedule_options *o = table->options;
    fprintf(out, "pp %d, %d micro-batches", o->pp, o->num_micro);
    if (o->slot_limit > 0)
        fprintf(out, ", at most %d slots", o->slot_limit);
    fprintf(out, "\ncosts of a whole stage: F %.5g, I %.5g, W %.5g; message %.5g\n\n", o->costs[0],
            o->costs[1], o->costs[2], o->send_cost);
    fprintf(out, "%-12s %4s %12s %9s %9s %9s\n", "schedule", "vpp", "makespan", "bubble %", "slots",
            "inputs");
    for (int i = 0; i < table->num_rows; i++) {
        const struct row *row = &table->rows[i];
        fprintf(out, "%-12s %4d %12.6g %9.2f %9.4g %9.4g%s\n", row->name, row->num_chunks,
                row->makespan, 100 * row->bubble, row->slots, row->slots_input,
                row->fits ? "" : "  does not fit");
    }
    fputs("\nslots: micro-batches of a whole stage held at once until the end of W or B,\n"
          "on the stage that holds most; inputs: until the end of I or B.\n",
          out);
}

static tv_status_t print_json(const struct table *table, FILE *out)
{
    const struct tv_schedule_options *o = table->options;
    json_t *rows = json_array();
    for (int i = 0; i < table->num_rows; i++) {
        const struct row *row = &table->rows[i];
        json_array_append_new(
            rows, json_pack("{s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:b}", "schedule", row->name,
                            "pp", o->pp, "vpp", row->num_chunks, "micro_batches", o->num_micro,
                            "makespan", row->makespan, "bubble_fraction", row->bubble, "slots",
                            row->slots, "slots_input", row->slots_input, "fits", row->fits));
    }
    const int failed = json_array_size(rows) != (size_t)table->num_rows ||
                       json_dumpf(rows, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0 ||
                       fputc('\n', out) == EOF;
    json_decref(rows);
    return failed ? TV_ERR(TV_IO, "--json: standard output cannot be written") : TV_OK;
}

static tv_status_t check_flags(const struct tv_schedule_options *options)
{
    static const char *const others[] = {"schedule", "svg", "trace", "csv", "csv-form", "run"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (tv_options_has(&tv_schedule_option_table, &options->given, others[i]))
            return TV_ERR(TV_INVALID, "--%s is about one schedule, --compare about all", others[i]);
    }
    if (options->pp == 0 || options->num_micro == 0)
        return TV_ERR(TV_INVALID, "--compare needs --pp and --micro-batches");
    return TV_OK;
}

tv_status_t tv_schedule_compare(const struct tv_schedule_options *options, FILE *out)
{
    struct table table = {.options = options};
    TV_TRY(check_flags(options));
    for (int i = 0; tv_schedule_name(i) != NULL; i++)
        TV_TRY(try_chunks(&table, tv_schedule_name(i)));
    qsort(table.rows, (size_t)table.num_rows, sizeof(table.rows[0]), compare_rows);
    if (options->is_json)
        TV_TRY(print_json(&table, out));
    else
        print_text(&table, out);
    if (fflush(out) != 0 || ferror(out))
        return TV_ERR(TV_IO, "standard output cannot be written");
    return TV_OK;
}

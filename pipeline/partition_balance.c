/* pipeline/partition_balance.c -- the split with the least maximum stage time: arguments, refusals,
 * and the solver for layers of equal cost.
 *
 * Equal layers are water: which of them a stage holds does not matter, only how many. Every piece
 * between the first and the last must have one; each further layer goes to the stage whose time
 * with it is least. That is exact: the times of a stage with one layer more, two more, ... rise,
 * the layers placed are the smallest of all these times, and every split has as many. A stage is
 * full when a further layer, in the chunk where it takes the fewest bytes, is above the limit.
 * Cost: L (P + pieces). */
#include "pipeline/partition_internal.h"
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A stage while layers are added to it. */
struct fill {
    double seconds;
    int64_t bytes;       /* further layers counted where they take the fewest */
    int64_t layer_bytes; /* of one more layer there; -1: the stage has no piece */
    int num_layers;
    int num_further; /* of them, beyond those that its pieces must have */
};

static int64_t unit_bytes(const struct tv_partition_args *args, int piece, int unit)
{
    const struct tv_unit_cost *u = &args->units[unit];
    return u->fixed_bytes + args->num_slots[piece] * u->slot_bytes +
           args->num_works[piece] * u->work_bytes;
}

/* Layers that a piece must have, to hold at least one unit. */
static int least_layers(const struct tv_partition_args *args, int piece)
{
    return piece > 0 && piece < args->num_pieces - 1;
}

/* The ends of the model and the layers that must be there. */
static void start_stages(const struct tv_partition_args *args, struct fill *stages)
{
    for (int s = 0; s < args->num_stages; s++)
        stages[s] = (struct fill){0, tv_partition_stage_bytes(args, s), -1, 0, 0};
    for (int i = 0; i < args->num_pieces; i++) {
        struct fill *stage = &stages[args->stage_of[i]];
        const int64_t layer_bytes = unit_bytes(args, i, 1);
        if (stage->layer_bytes < 0 || layer_bytes < stage->layer_bytes)
            stage->layer_bytes = layer_bytes;
        if (i == 0) {
            stage->seconds += args->units[0].seconds;
            stage->bytes += unit_bytes(args, i, 0);
        }
        if (i == args->num_pieces - 1) {
            stage->seconds += args->units[args->num_layers + 1].seconds;
            stage->bytes += unit_bytes(args, i, args->num_layers + 1);
        }
        stage->seconds += least_layers(args, i) * args->units[1].seconds;
        stage->bytes += least_layers(args, i) * layer_bytes;
        stage->num_layers += least_layers(args, i);
    }
}

/* The stage that is least with one layer more; NULL: all are full. */
static struct fill *least_stage(const struct tv_partition_args *args, enum tv_partition_by by,
                                struct fill *stages)
{
    const int64_t limit = tv_partition_limit(args, by);
    struct fill *least = NULL;
    double least_value = INFINITY;
    for (struct fill *s = stages; s < stages + args->num_stages; s++) {
        if (s->layer_bytes < 0 || s->bytes > limit - s->layer_bytes)
            continue;
        const double value = by == TV_BY_SECONDS ? s->seconds + args->units[1].seconds
                                                 : (double)(s->bytes + s->layer_bytes);
        if (value < least_value || (value == least_value && s->num_layers < least->num_layers)) {
            least = s;
            least_value = value;
        }
    }
    return least;
}

/* Fill the stages. Returns the largest, infinite when the limit is too low. */
static double fill_stages(const struct tv_partition_args *args, enum tv_partition_by by,
                          struct fill *stages)
{
    start_stages(args, stages);
    int num_further = args->num_layers;
    for (int i = 0; i < args->num_pieces; i++)
        num_further -= least_layers(args, i);
    for (; num_further > 0; num_further--) {
        struct fill *stage = least_stage(args, by, stages);
        if (stage == NULL)
            return INFINITY;
        stage->seconds += args->units[1].seconds;
        stage->bytes += stage->layer_bytes;
        stage->num_layers++;
        stage->num_further++;
    }
    double largest = 0;
    for (int s = 0; s < args->num_stages; s++) {
        if (stages[s].bytes > tv_partition_limit(args, by))
            return INFINITY;
        largest = fmax(largest, by == TV_BY_SECONDS ? stages[s].seconds : (double)stages[s].bytes);
    }
    return largest;
}

static double piece_seconds(const struct tv_partition_args *args, int piece, int num_layers)
{
    double seconds = num_layers * args->units[1].seconds;
    if (piece == 0)
        seconds += args->units[0].seconds;
    if (piece == args->num_pieces - 1)
        seconds += args->units[args->num_layers + 1].seconds;
    return seconds;
}

/* One layer more for the piece of the stage that takes the least time with it; `spare` bytes may be
 * spent on not taking the piece where it takes the fewest. num_layers [num_pieces]. */
static void add_layer(const struct tv_partition_args *args, int stage, int64_t layer_bytes,
                      int64_t *spare, int *num_layers)
{
    int least = -1;
    for (int i = 0; i < args->num_pieces; i++) {
        if (args->stage_of[i] != stage || unit_bytes(args, i, 1) - layer_bytes > *spare)
            continue;
        const double seconds = piece_seconds(args, i, num_layers[i] + 1);
        const double least_seconds =
            least < 0 ? INFINITY : piece_seconds(args, least, num_layers[least] + 1);
        if (seconds < least_seconds ||
            (seconds == least_seconds && num_layers[i] < num_layers[least]))
            least = i;
    }
    num_layers[least]++;
    *spare -= unit_bytes(args, least, 1) - layer_bytes;
}

tv_status_t tv_partition_fill(const struct tv_partition_args *args, enum tv_partition_by by,
                              struct tv_unit_range *ranges_out, double *largest_out)
{
    struct fill *stages = calloc((size_t)args->num_stages, sizeof(*stages));
    int *num_layers = calloc((size_t)args->num_pieces, sizeof(*num_layers));
    if (stages == NULL || num_layers == NULL) {
        free(num_layers);
        free(stages);
        return TV_ERR(TV_NO_MEMORY, "a split into %d pieces", args->num_pieces);
    }
    *largest_out = fill_stages(args, by, stages);
    if (*largest_out < INFINITY) {
        for (int i = 0; i < args->num_pieces; i++)
            num_layers[i] = least_layers(args, i);
        for (int s = 0; s < args->num_stages; s++) {
            int64_t spare = tv_partition_limit(args, by) - stages[s].bytes;
            for (int n = 0; n < stages[s].num_further; n++)
                add_layer(args, s, stages[s].layer_bytes, &spare, num_layers);
        }
        int unit = 0;
        for (int i = 0; i < args->num_pieces; i++) {
            const int num = num_layers[i] + (i == 0) + (i == args->num_pieces - 1);
            ranges_out[i] = (struct tv_unit_range){unit, num};
            unit += num;
        }
    }
    free(num_layers);
    free(stages);
    return TV_OK;
}

void tv_partition_costs(const struct tv_partition_args *args, const struct tv_unit_range *ranges,
                        double *seconds_out, int64_t *bytes_out)
{
    for (int s = 0; s < args->num_stages; s++) {
        seconds_out[s] = 0;
        bytes_out[s] = tv_partition_stage_bytes(args, s);
    }
    for (int i = 0; i < args->num_pieces; i++) {
        for (int u = ranges[i].first; u < ranges[i].first + ranges[i].num; u++) {
            seconds_out[args->stage_of[i]] += args->units[u].seconds;
            bytes_out[args->stage_of[i]] += unit_bytes(args, i, u);
        }
    }
}

static tv_status_t check_args(const struct tv_partition_args *args)
{
    const int num_units = args->num_layers + 2;
    const double most_seconds = 1e150; /* of all units: squares are added up too */
    double sum = 0;
    if (args->num_layers < 1 || args->num_pieces < 1 || args->num_pieces > num_units)
        return TV_ERR(TV_INVALID,
                      "%d layers, the embedding and the head cannot be split into %d pieces of one "
                      "or more: 1 to %d pieces, or more layers",
                      args->num_layers, args->num_pieces, num_units);
    for (int i = 0; i < args->num_pieces; i++) {
        if (args->stage_of[i] < 0 || args->stage_of[i] >= args->num_stages)
            return TV_ERR(TV_INVALID, "piece %d is on stage %d of %d", i, args->stage_of[i],
                          args->num_stages);
    }
    for (int u = 0; u < num_units; u++) {
        const struct tv_unit_cost *c = &args->units[u];
        if (!(c->seconds >= 0 && c->seconds < INFINITY) || c->fixed_bytes < 0 ||
            c->slot_bytes < 0 || c->work_bytes < 0)
            return TV_ERR(TV_INVALID,
                          "unit %d costs %g s, %" PRId64 " + %" PRId64 " + %" PRId64
                          " bytes: each must be a number >= 0",
                          u, c->seconds, c->fixed_bytes, c->slot_bytes, c->work_bytes);
        sum += c->seconds;
    }
    if (sum > most_seconds)
        return TV_ERR(TV_INVALID, "%d layers take %g s: at most %g", args->num_layers, sum,
                      most_seconds);
    return TV_OK;
}

static bool layers_are_equal(const struct tv_partition_args *args)
{
    const struct tv_unit_cost *first = &args->units[1];
    for (const struct tv_unit_cost *u = first; u < first + args->num_layers; u++) {
        if (u->seconds != first->seconds || u->fixed_bytes != first->fixed_bytes ||
            u->slot_bytes != first->slot_bytes || u->work_bytes != first->work_bytes)
            return false;
    }
    return true;
}

static tv_status_t balance(const struct tv_partition_args *args, struct tv_unit_range *ranges)
{
    tv_status_t (*solve)(const struct tv_partition_args *, enum tv_partition_by,
                         struct tv_unit_range *, double *) =
        layers_are_equal(args) ? tv_partition_fill : tv_partition_search;
    double seconds, bytes;
    TV_TRY(solve(args, TV_BY_SECONDS, ranges, &seconds));
    if (seconds < INFINITY)
        return TV_OK;
    TV_TRY(solve(args, TV_BY_BYTES, ranges, &bytes));
    return TV_ERR(TV_INVALID,
                  "no split of %d layers into %d pieces fits in %" PRId64
                  " bytes a stage: the best one needs %.0f on its largest stage",
                  args->num_layers, args->num_pieces, args->stage_bytes_limit, bytes);
}

tv_status_t tv_partition_balance(const struct tv_partition_args *args,
                                 struct tv_unit_range *ranges_out)
{
    TV_TRY(check_args(args));
    struct tv_unit_range *ranges = calloc((size_t)args->num_pieces, sizeof(*ranges));
    if (ranges == NULL)
        return TV_ERR(TV_NO_MEMORY, "a split into %d pieces", args->num_pieces);
    const tv_status_t status = balance(args, ranges);
    if (status == TV_OK)
        memcpy(ranges_out, ranges, (size_t)args->num_pieces * sizeof(*ranges));
    free(ranges);
    return status;
}

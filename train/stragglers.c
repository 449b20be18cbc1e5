/* train/stragglers.c -- each rank's compute time beside the median of its stage. */
#include "train/stragglers.h"
#include "base/log.h"
#include "train/place.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct tv_stragglers {
    const struct tv_run *run; /* borrowed */
    int num_ranks;
    int64_t num_steps;             /* of this interval so far */
    double own_seconds;            /* in it */
    double *seconds, *over_median; /* [num_ranks] of the last interval */
    int *num_slow;                 /* [num_ranks] intervals in a row */
};

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

tv_status_t tv_straggler_ratios(struct tv_mesh_coord extent, const double *seconds,
                                double *over_median_out)
{
    const int D = extent.at[TV_DATA], T = extent.at[TV_TENSOR], num = D * T;
    double *of_stage = calloc((size_t)num, sizeof(*of_stage));
    if (of_stage == NULL)
        return TV_ERR(TV_NO_MEMORY, "times of %d ranks", num);
    for (int p = 0; p < extent.at[TV_PIPE]; p++) {
        for (int i = 0; i < num; i++) {
            const struct tv_mesh_coord at = {{p, i / T, i % T}};
            of_stage[i] = seconds[tv_mesh_rank_of(extent, at)];
        }
        qsort(of_stage, (size_t)num, sizeof(*of_stage), by_value);
        const double median = of_stage[(num - 1) / 2];
        for (int i = 0; i < num; i++) {
            const int rank = tv_mesh_rank_of(extent, (struct tv_mesh_coord){{p, i / T, i % T}});
            over_median_out[rank] = median > 0 ? seconds[rank] / median : 1;
        }
    }
    free(of_stage);
    return TV_OK;
}

tv_status_t tv_stragglers_create(const struct tv_run *run, struct tv_stragglers **stragglers_out)
{
    const struct tv_mesh_coord e = run->extent;
    struct tv_stragglers *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return TV_ERR(TV_NO_MEMORY, "stragglers: %zu bytes", sizeof(*s));
    s->run = run;
    s->num_ranks = e.at[TV_PIPE] * e.at[TV_DATA] * e.at[TV_TENSOR];
    s->seconds = calloc((size_t)s->num_ranks, sizeof(*s->seconds));
    s->over_median = calloc((size_t)s->num_ranks, sizeof(*s->over_median));
    s->num_slow = calloc((size_t)s->num_ranks, sizeof(*s->num_slow));
    if (s->seconds == NULL || s->over_median == NULL || s->num_slow == NULL) {
        tv_stragglers_destroy(s);
        return TV_ERR(TV_NO_MEMORY, "times of %d ranks", s->num_ranks);
    }
    *stragglers_out = s;
    return TV_OK;
}

void tv_stragglers_destroy(struct tv_stragglers *s)
{
    if (s == NULL)
        return;
    free(s->seconds);
    free(s->over_median);
    free(s->num_slow);
    free(s);
}

/* "rank 5 of node node1 (stage 1, replica 0, tensor rank 1)"; the rank is the launcher's. */
static void name_rank(const struct tv_run *run, int mesh_rank, char *text, size_t bytes)
{
    const struct tv_mesh_coord at = tv_mesh_coord_of(run->extent, mesh_rank);
    const struct tv_run_place *place = run->place;
    int rank = mesh_rank;
    const char *node = "?";
    for (int r = 0; place != NULL && r < place->placement.num_ranks; r++) {
        if (place->placement.place_of[r] != mesh_rank)
            continue;
        rank = r;
        node = place->nodes.names[place->nodes.node_of[r]];
    }
    snprintf(text, bytes, "rank %d of node %s (stage %d, replica %d, tensor rank %d)", rank, node,
             at.at[TV_PIPE], at.at[TV_DATA], at.at[TV_TENSOR]);
}

static void name_the_slow(struct tv_stragglers *s, int64_t step)
{
    char name[256];
    for (int r = 0; r < s->num_ranks; r++) {
        s->num_slow[r] = s->over_median[r] >= TV_STRAGGLER_RATIO ? s->num_slow[r] + 1 : 0;
        if (s->num_slow[r] != TV_STRAGGLER_INTERVALS)
            continue;
        name_rank(s->run, r, name, sizeof(name));
        tv_log(TV_LOG_WARN,
               "%s computes %.2f times as long as the median of its stage, for %d intervals up to "
               "step %" PRId64,
               name, s->over_median[r], TV_STRAGGLER_INTERVALS, step);
    }
}

static json_t *numbers(const double *values, int num)
{
    json_t *array = json_array();
    for (int i = 0; i < num; i++)
        json_array_append_new(array, tv_metrics_number(values[i]));
    return array;
}

static tv_status_t write_record(const struct tv_stragglers *s, int64_t step,
                                struct tv_metrics *metrics)
{
    return tv_metrics_object(metrics, "ranks",
                             json_pack("{s:I, s:I, s:o, s:o}", "step", (json_int_t)step, "steps",
                                       (json_int_t)s->num_steps, "compute_seconds",
                                       numbers(s->seconds, s->num_ranks), "over_median",
                                       numbers(s->over_median, s->num_ranks)));
}

tv_status_t tv_stragglers_add(struct tv_stragglers *s, struct tv_comm *world, int64_t step,
                              double compute_seconds, struct tv_metrics *metrics)
{
    s->own_seconds += compute_seconds;
    s->num_steps++;
    if (step % s->run->options.log_interval != 0)
        return TV_OK;
    struct tv_request *request = NULL;
    TV_TRY(tv_comm_all_gather(world, &s->own_seconds, s->seconds, 1, TV_F64, NULL, &request));
    TV_TRY(tv_request_wait(&request));
    if (tv_comm_rank(world) == 0) {
        TV_TRY(tv_straggler_ratios(s->run->extent, s->seconds, s->over_median));
        TV_TRY(write_record(s, step, metrics));
        name_the_slow(s, step);
    }
    s->own_seconds = 0;
    s->num_steps = 0;
    return TV_OK;
}

/* train/traffic.c -- the fullest stage and the three formulas. */
#include "train/traffic.h"

static int stage_of_piece(const struct tv_run *run, int position)
{
    const int P = run->extent.at[TV_PIPE];
    if (run->schedule.place_of != NULL)
        return tv_schedule_stage_of(&run->schedule, position);
    const char *name = run->options.schedule;
    if (name != NULL && tv_schedule_is_known(name) && tv_schedule_placement(name) == TV_PLACE_V)
        return position < P ? position : 2 * P - 1 - position;
    return position % P;
}

/* In a loop the last stage's piece is followed by one of the first stage. */
static int wraps(const struct tv_run *run)
{
    const int P = run->extent.at[TV_PIPE];
    return P > 1 && run->num_chunks > 1 && stage_of_piece(run, P) == 0;
}

static int holds(const struct tv_run *run, int position, int unit)
{
    const struct tv_unit_range units = run->pieces[position];
    return unit >= units.first && unit < units.first + units.num;
}

static int stage_layers(const struct tv_run *run, int stage)
{
    int num = 0;
    for (int i = 0; i < run->extent.at[TV_PIPE] * run->num_chunks; i++) {
        if (stage_of_piece(run, i) == stage)
            num += run->pieces[i].num - holds(run, i, 0) - holds(run, i, run->model.num_layers + 1);
    }
    return num;
}

static int stage_holds(const struct tv_run *run, int stage, int unit)
{
    for (int i = 0; i < run->extent.at[TV_PIPE] * run->num_chunks; i++) {
        if (stage_of_piece(run, i) == stage && holds(run, i, unit))
            return 1;
    }
    return 0;
}

/* Parameters of one rank of the stage; a tied weight counts wherever one of its units is. */
static double stage_params(const struct tv_run *run, const struct tv_param_table *table, int stage)
{
    const int T = run->extent.at[TV_TENSOR];
    double sum = 0, layer = 0;
    for (int i = 0; i < table->num_params; i++) {
        const struct tv_param *param = &table->params[i];
        const double count = (double)tv_param_local_count(param, T);
        if (param->unit == 1) /* all layers are alike */
            layer += count;
        else if ((param->unit == 0 || param->unit > run->model.num_layers) &&
                 (stage_holds(run, stage, param->unit) ||
                  (param->tied_unit >= 0 && stage_holds(run, stage, param->tied_unit))))
            sum += count;
    }
    return sum + layer * stage_layers(run, stage);
}

/* Bytes on a cut through one data group whose ranks hold `params` parameters. */
static double data_load(const struct tv_run *run, struct tv_traffic_sizes sizes, double params)
{
    const double D = run->extent.at[TV_DATA], m = run->num_micro;
    const double N = run->zero_stage > 0 ? run->zero_group : D;
    const double scatters = run->zero_stage >= 2 ? m : 1;
    const double passes = run->recompute == TV_RECOMPUTE_FULL ? 3 : 2;
    const double gathers = run->zero_stage == 3 ? passes * m : 1;
    const double inside = (N - 1) / N * (scatters * sizes.gradient + gathers * sizes.gathered);
    const double copies = 2 * (1 - N / D) * sizes.gradient / N;
    return (inside + copies) * params;
}

tv_status_t tv_run_traffic(const struct tv_run *run, struct tv_traffic_sizes sizes,
                           struct tv_traffic *traffic_out)
{
    const struct tv_mesh_coord e = run->extent;
    const double T = e.at[TV_TENSOR], m = run->num_micro;
    const double whole = (double)sizes.activation * (double)(run->micro_batch * run->seq_length) *
                         run->model.hidden_size;
    const int per_layer = run->recompute == TV_RECOMPUTE_FULL ? 6 : 4;
    struct tv_param_table table;
    TV_TRY(tv_model_param_table(&run->model, &table));
    double most_layers = 0, most_params = 0;
    for (int p = 0; p < e.at[TV_PIPE]; p++) {
        const double layers = stage_layers(run, p), params = stage_params(run, &table, p);
        most_layers = layers > most_layers ? layers : most_layers;
        most_params = params > most_params ? params : most_params;
    }
    tv_param_table_destroy(&table);
    struct tv_traffic traffic = {.exposed = {1, 1, 1}, .wraps_pipe = wraps(run)};
    const int rounds = 2; /* of a collective: each piece to its owner, sums to everybody */
    traffic.rounds[TV_TENSOR] = rounds * per_layer * most_layers * m;
    traffic.rounds[TV_PIPE] = (double)m * run->num_chunks;
    traffic.rounds[TV_DATA] = rounds;
    traffic.load[TV_TENSOR] = 2 * (T - 1) / T * whole * per_layer * most_layers * m;
    if (e.at[TV_PIPE] > 1)
        traffic.load[TV_PIPE] =
            m * run->num_chunks * sizes.activation * (double)tv_run_message_count(run);
    traffic.load[TV_DATA] = data_load(run, sizes, most_params);
    *traffic_out = traffic;
    return TV_OK;
}

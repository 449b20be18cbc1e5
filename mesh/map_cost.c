/* mesh/map_cost.c -- what a layout costs: how many groups of each axis every cut carries.
 *
 * A ring that visits subtrees one after the other crosses each cut once each way, however many of
 * its members are inside. So a cut carries w_a s_a, s_a = groups of the axis with members on both
 * sides; for the pipe, pairs of neighbouring stages with one end inside. Counting walks the devices
 * below each vertex: O(devices x levels). */
#include "mesh/map_internal.h"
#include <math.h>
#include <stdlib.h>

tv_status_t tv_map_problem_create(const struct tv_map_tree *tree, struct tv_mesh_coord extent,
                                  const struct tv_traffic *traffic,
                                  struct tv_map_problem *problem_out)
{
    struct tv_map_problem problem = {tree, extent, *traffic, 1, NULL, NULL};
    for (int a = 0; a < TV_NUM_AXES; a++)
        problem.num_cells *= extent.at[a];
    problem.count = calloc((size_t)problem.num_cells, sizeof(int));
    problem.device_of = calloc((size_t)problem.num_cells, sizeof(int));
    if (problem.count == NULL || problem.device_of == NULL) {
        tv_map_problem_free(&problem);
        return TV_ERR(TV_NO_MEMORY, "mapper: counts of %d cells", problem.num_cells);
    }
    *problem_out = problem;
    return TV_OK;
}

void tv_map_problem_free(struct tv_map_problem *problem)
{
    free(problem->count);
    free(problem->device_of);
    *problem = (struct tv_map_problem){0};
}

/* Groups of the tensor or the data axis, numbered from 0. */
static int group_of(struct tv_mesh_coord extent, enum tv_mesh_axis axis, int cell)
{
    const int T = extent.at[TV_TENSOR], D = extent.at[TV_DATA];
    return axis == TV_TENSOR ? cell / T : cell / T / D * T + cell % T;
}

static int count_groups(const struct tv_map_problem *problem, const int *cell_of,
                        enum tv_mesh_axis axis, const struct tv_map_vertex *vertex)
{
    int num_met = 0, num_whole = 0;
    for (int i = vertex->begin; i < vertex->end; i++) {
        if (cell_of[i] < 0)
            continue;
        const int members = ++problem->count[group_of(problem->extent, axis, cell_of[i])];
        num_met += members == 1;
        num_whole += members == problem->extent.at[axis];
    }
    for (int i = vertex->begin; i < vertex->end; i++) {
        if (cell_of[i] >= 0)
            problem->count[group_of(problem->extent, axis, cell_of[i])] = 0;
    }
    return num_met - num_whole;
}

/* Ends inside whose other end is outside; wants device_of. */
static int count_pairs(const struct tv_map_problem *problem, const int *cell_of,
                       const struct tv_map_vertex *vertex)
{
    const int P = problem->extent.at[TV_PIPE], stage_cells = problem->num_cells / P;
    const int wraps = problem->traffic.wraps_pipe;
    int num = 0;
    for (int i = vertex->begin; i < vertex->end; i++) {
        if (cell_of[i] < 0)
            continue;
        const int p = cell_of[i] / stage_cells, within = cell_of[i] % stage_cells;
        for (int step = -1; step <= 1; step += 2) {
            if (!wraps && (p + step < 0 || p + step >= P))
                continue;
            const int other = problem->device_of[(p + step + P) % P * stage_cells + within];
            num += other < vertex->begin || other >= vertex->end;
        }
    }
    return num;
}

double tv_map_total(const struct tv_traffic *traffic, const double axis[TV_NUM_AXES])
{
    double total = 0;
    for (int a = 0; a < TV_NUM_AXES; a++)
        total += traffic->exposed[a] * axis[a];
    return total;
}

double tv_map_cut_seconds(const struct tv_traffic *traffic, int axis, double num, double rate,
                          double latency)
{
    if (num <= 0 || traffic->load[axis] <= 0)
        return 0;
    return traffic->load[axis] * num / rate + traffic->rounds[axis] * latency;
}

static void score_axis(const struct tv_map_problem *problem, const int *cell_of,
                       enum tv_mesh_axis axis, struct tv_map_score *score)
{
    const struct tv_map_tree *tree = problem->tree;
    const double load = problem->traffic.load[axis];
    double slowest = 0;
    for (int v = 1; v < tree->num_vertices && load > 0; v++) {
        const struct tv_map_vertex *vertex = &tree->vertices[v];
        int num;
        if (axis == TV_PIPE)
            num = count_pairs(problem, cell_of, vertex);
        else if (vertex->end - vertex->begin == 1)
            num = cell_of[vertex->begin] >= 0;
        else
            num = count_groups(problem, cell_of, axis, vertex);
        const double seconds =
            tv_map_cut_seconds(&problem->traffic, (int)axis, num, vertex->rate, vertex->latency);
        slowest = fmax(slowest, seconds);
        score->sum += seconds;
    }
    score->cost.axis[axis] = slowest + problem->traffic.alpha[axis];
}

void tv_map_score_of(const struct tv_map_problem *problem, const int *cell_of,
                     struct tv_map_score *score_out)
{
    struct tv_map_score score = {0};
    for (int i = 0; i < problem->tree->num_devices; i++) {
        if (cell_of[i] >= 0)
            problem->device_of[cell_of[i]] = i;
    }
    for (int a = 0; a < TV_NUM_AXES; a++) {
        if (problem->extent.at[a] > 1)
            score_axis(problem, cell_of, (enum tv_mesh_axis)a, &score);
    }
    score.cost.total = tv_map_total(&problem->traffic, score.cost.axis);
    *score_out = score;
}

/* Sums of the same terms in another order differ by rounding, which must not decide. */
static int is_below(double a, double b)
{
    return a < b - 1e-12 * fabs(b);
}

int tv_map_is_better(const struct tv_map_score *a, const struct tv_map_score *b)
{
    if (is_below(a->cost.total, b->cost.total))
        return 1;
    return !is_below(b->cost.total, a->cost.total) && is_below(a->sum, b->sum);
}

int tv_map_split_groups(const struct tv_map_problem *problem, const int *cell_of)
{
    const struct tv_map_tree *tree = problem->tree;
    const int T = problem->extent.at[TV_TENSOR];
    int num_split = 0;
    for (int i = 0; i < tree->num_devices; i++) {
        if (cell_of[i] >= 0)
            problem->device_of[cell_of[i]] = i;
    }
    for (int first = 0; first < problem->num_cells; first += T) {
        int is_split = 0;
        for (int t = 1; t < T; t++)
            is_split |= tree->devices[problem->device_of[first]].unit !=
                        tree->devices[problem->device_of[first + t]].unit;
        num_split += is_split;
    }
    return num_split;
}

/* What no layout can beat on one axis. At a level with vertices of n_i devices at most
 * sum floor(n_i / E) groups stay whole; each other one loads two cuts or more, and the slowest cut
 * carries no less than the average weighted by rate. */
double tv_map_axis_bound(const struct tv_map_problem *problem, enum tv_mesh_axis axis)
{
    const struct tv_map_tree *tree = problem->tree;
    const int extent = problem->extent.at[axis], groups = problem->num_cells / extent;
    if (extent == 1)
        return 0;
    int deepest = 0;
    for (int v = 0; v < tree->num_vertices; v++)
        deepest = tree->vertices[v].depth > deepest ? tree->vertices[v].depth : deepest;
    double bound = 0;
    for (int depth = 1; depth <= deepest; depth++) {
        int num_whole = 0;
        double rate = 0;
        for (int v = 1; v < tree->num_vertices; v++) {
            const struct tv_map_vertex *vertex = &tree->vertices[v];
            const int is_leaf_above = vertex->depth < depth && vertex->next == v + 1;
            if (vertex->depth != depth && !is_leaf_above)
                continue;
            num_whole += (vertex->end - vertex->begin) / extent;
            rate += vertex->rate;
        }
        if (groups > num_whole && rate > 0)
            bound = fmax(bound, problem->traffic.load[axis] * 2.0 * (groups - num_whole) / rate);
    }
    return bound + problem->traffic.alpha[axis];
}

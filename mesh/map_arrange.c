/* mesh/map_arrange.c -- what the cuts leave open: names of stages and replicas, and inside a node
 * which GPUs make a tensor group and in which order.
 *
 * Replicas and tensor ranks may be renamed, and a pipeline turned round, at no cost: the first name
 * goes to the first device. Inside a node the groups are chosen by the slowest link on the ring of
 * the worst group, then by most links inside groups, then by GPUs near each other (map_rings.c). In
 * a group t ascends with the rail, so that equal t of different nodes meet on one rail: the rail of
 * a GPU is the rank of its NIC among the NICs that are near some GPU, not the NIC's index. */
#include "mesh/map_internal.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATTERNS = 64, MAX_GPUS = TV_MAP_MAX_RING_GPUS };

/* Tensor groups' parts on one node: how many GPUs each has, the largest first. */
struct pattern {
    const struct tv_node_shape *shape;
    struct tv_map_parts parts;
};
struct arranging {
    const struct tv_topology *topology;
    const struct tv_map_problem *problem;
    int *cell_of;     /* [num_devices] */
    int keeps_groups; /* only the order inside groups changes */
    int num_patterns;
    struct pattern *patterns; /* already solved, the same for all nodes alike */
};

static int first_device(const struct tv_map_problem *problem, const int *cell_of,
                        enum tv_mesh_axis axis, int *first)
{
    const int num = problem->extent.at[axis];
    for (int k = 0; k < num; k++)
        first[k] = INT_MAX;
    for (int i = problem->tree->num_devices - 1; i >= 0; i--) {
        if (cell_of[i] >= 0)
            first[tv_mesh_coord_of(problem->extent, cell_of[i]).at[axis]] = i;
    }
    return num;
}

struct name {
    int first, old;
};

static int by_first(const void *a, const void *b)
{
    return ((const struct name *)a)->first - ((const struct name *)b)->first;
}

static void rename_axis(const struct tv_map_problem *problem, int *cell_of, enum tv_mesh_axis axis,
                        const int *new_name)
{
    for (int i = 0; i < problem->tree->num_devices; i++) {
        if (cell_of[i] < 0)
            continue;
        struct tv_mesh_coord at = tv_mesh_coord_of(problem->extent, cell_of[i]);
        at.at[axis] = new_name[at.at[axis]];
        cell_of[i] = tv_mesh_rank_of(problem->extent, at);
    }
}

static tv_status_t rename_all(const struct tv_map_problem *problem, int *cell_of)
{
    const size_t max = (size_t)problem->num_cells;
    int *first = calloc(max, sizeof(*first)), *new_name = malloc(max * sizeof(*new_name));
    struct name *names = malloc(max * sizeof(*names));
    const int has_all = first != NULL && new_name != NULL && names != NULL;
    for (int a = 0; a < TV_NUM_AXES && has_all; a++) {
        const enum tv_mesh_axis axis = (enum tv_mesh_axis)a;
        const int num = first_device(problem, cell_of, axis, first);
        const int turns = first[num - 1] < first[0] && !problem->traffic.wraps_pipe;
        for (int k = 0; k < num; k++)
            names[k] = (struct name){first[k], k};
        if (axis != TV_PIPE)
            qsort(names, (size_t)num, sizeof(*names), by_first);
        for (int k = 0; k < num; k++)
            new_name[names[k].old] = axis == TV_PIPE && turns ? num - 1 - k : k;
        rename_axis(problem, cell_of, axis, new_name);
    }
    free(first);
    free(new_name);
    free(names);
    return has_all ? TV_OK : TV_ERR(TV_NO_MEMORY, "mapper: names of %zu cells", max);
}

static int rail_of(const struct tv_node_shape *shape, int gpu)
{
    const int nic = shape->gpus[gpu].nic;
    int rail = 0;
    if (nic < 0)
        return INT_MAX;
    for (int i = 0; i < shape->num_gpus; i++) {
        int is_first = shape->gpus[i].nic >= 0 && shape->gpus[i].nic < nic;
        for (int j = 0; j < i && is_first; j++)
            is_first = shape->gpus[j].nic != shape->gpus[i].nic;
        rail += is_first;
    }
    return rail;
}

/* A GPU with a rank, on the node being arranged. */
struct seat {
    int at;          /* its number in the tree */
    int gpu, rail;   /* of the node */
    int cell, group; /* what it has */
    int group_size;  /* GPUs of this group on this node */
};

static int by_rail(const void *a, const void *b)
{
    const struct seat *x = a, *y = b;
    if (x->rail != y->rail)
        return x->rail < y->rail ? -1 : 1;
    return x->gpu - y->gpu;
}

static int by_group(const void *a, const void *b)
{
    const struct seat *x = a, *y = b;
    if (x->group_size != y->group_size)
        return y->group_size - x->group_size;
    return x->cell - y->cell;
}

/* Give each group the set that its place in the order says, cells in the order of rails. */
static void seat_groups(struct arranging *arranging, const struct seat *seats, int num,
                        const struct seat *ordered, const struct tv_map_parts *parts)
{
    for (int k = 0, part = 0; k < num; part++) {
        int taken = k;
        for (int s = 0; s < num; s++) {
            if ((parts->set[part] >> s & 1) != 0)
                arranging->cell_of[seats[s].at] = ordered[taken++].cell;
        }
        k = taken;
    }
}

/* The sets for this pattern of parts, from those solved or anew. 0: none found. */
static int find_sets(struct arranging *arranging, const struct tv_node_shape *shape,
                     struct tv_map_parts *parts)
{
    for (int k = 0; k < arranging->num_patterns; k++) {
        const struct pattern *pattern = &arranging->patterns[k];
        if (pattern->shape == shape && pattern->parts.num_gpus == parts->num_gpus &&
            memcmp(pattern->parts.gpu, parts->gpu, sizeof(parts->gpu)) == 0 &&
            memcmp(pattern->parts.size, parts->size, sizeof(parts->size)) == 0) {
            *parts = pattern->parts;
            return 1;
        }
    }
    if (!tv_map_choose_parts(shape, parts))
        return 0;
    if (arranging->num_patterns < MAX_PATTERNS)
        arranging->patterns[arranging->num_patterns++] = (struct pattern){shape, *parts};
    return 1;
}

/* The sets as they are, for when only the order inside them may change. */
static void keep_sets(const struct seat *seats, const struct seat *ordered, int num,
                      struct tv_map_parts *parts)
{
    for (int k = 0, part = 0; k < num; k += ordered[k].group_size, part++) {
        for (int s = 0; s < num; s++)
            parts->set[part] |= seats[s].group == ordered[k].group ? 1u << s : 0;
    }
}

/* Devices [begin, end) of the tree are one node's. */
static void arrange_node(struct arranging *arranging, int begin, int end)
{
    const struct tv_map_device *devices = arranging->problem->tree->devices;
    const struct tv_node_shape *shape = tv_topology_shape(arranging->topology, devices[begin].node);
    const int T = arranging->problem->extent.at[TV_TENSOR];
    struct seat seats[MAX_GPUS], ordered[MAX_GPUS];
    int num = 0;
    for (int i = begin; i < end; i++) {
        const int cell = arranging->cell_of[i];
        if (cell < 0)
            continue;
        if (num == MAX_GPUS)
            return; /* too many to choose from: they stay in canonical order */
        seats[num++] = (struct seat){i,    devices[i].device, rail_of(shape, devices[i].device),
                                     cell, cell / T,          0};
    }
    qsort(seats, (size_t)num, sizeof(*seats), by_rail);
    for (int k = 0; k < num; k++) {
        for (int j = 0; j < num; j++)
            seats[k].group_size += seats[j].group == seats[k].group;
    }
    memcpy(ordered, seats, sizeof(*seats) * (size_t)num);
    qsort(ordered, (size_t)num, sizeof(*ordered), by_group);
    struct tv_map_parts parts = {.num_gpus = num};
    for (int k = 0; k < num; k++)
        parts.gpu[k] = seats[k].gpu;
    for (int k = 0; k < num; k += ordered[k].group_size)
        parts.size[parts.num_parts++] = ordered[k].group_size;
    if (arranging->keeps_groups)
        keep_sets(seats, ordered, num, &parts);
    else if (!find_sets(arranging, shape, &parts))
        return;
    seat_groups(arranging, seats, num, ordered, &parts);
}

static void arrange_all(struct arranging *arranging)
{
    const struct tv_map_tree *tree = arranging->problem->tree;
    for (int begin = 0, end; begin < tree->num_devices; begin = end) {
        for (end = begin;
             end < tree->num_devices && tree->devices[end].node == tree->devices[begin].node;)
            end++;
        arrange_node(arranging, begin, end);
    }
}

/* New groups and order, or only a new order, or nothing: the first that costs no more. */
static void arrange(struct arranging *arranging, struct tv_map_best *best)
{
    const struct tv_map_problem *problem = arranging->problem;
    const size_t bytes = (size_t)problem->tree->num_devices * sizeof(int);
    struct tv_map_score score;
    memcpy(best->cell_of, arranging->cell_of, bytes);
    for (int keeps = 0; keeps <= 1; keeps++) {
        arranging->keeps_groups = keeps;
        memcpy(arranging->cell_of, best->cell_of, bytes);
        arrange_all(arranging);
        tv_map_score_of(problem, arranging->cell_of, &score);
        if (tv_map_is_better(&best->score, &score))
            continue;
        memcpy(best->cell_of, arranging->cell_of, bytes);
        best->score = score;
        return;
    }
}

tv_status_t tv_map_arrange(const struct tv_topology *topology, const struct tv_map_problem *problem,
                           struct tv_map_best *best)
{
    const size_t num = (size_t)problem->tree->num_devices;
    struct arranging arranging = {.topology = topology, .problem = problem};
    arranging.cell_of = malloc(num * sizeof(*arranging.cell_of));
    arranging.patterns = malloc(MAX_PATTERNS * sizeof(*arranging.patterns));
    tv_status_t status = arranging.cell_of != NULL && arranging.patterns != NULL
                             ? TV_OK
                             : TV_ERR(TV_NO_MEMORY, "mapper: order of %zu devices", num);
    if (status == TV_OK) {
        memcpy(arranging.cell_of, best->cell_of, num * sizeof(*arranging.cell_of));
        status = rename_all(problem, arranging.cell_of);
    }
    if (status == TV_OK)
        arrange(&arranging, best);
    free(arranging.cell_of);
    free(arranging.patterns);
    return status;
}

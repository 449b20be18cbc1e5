/* mesh/map_boxes.c -- nested boxes for trees whose vertices of one depth are alike.
 *
 * A vertex holds a box of the mesh; its children tile that box. Going up, each level takes factors
 * x y z = number of children out of the tensor, data and pipe extents. All ways are tried (4908 for
 * 131072 devices in six levels); J of one needs O(levels). With powers of two no cheaper layout has
 * been found by exhaustive search; with a factor of 3 there often is one, so packs compete. */
#include "mesh/map_internal.h"
#include <math.h>
#include <string.h>

enum { MAX_DEPTH = 40 };

struct boxes {
    const struct tv_map_problem *problem;
    int height;                          /* depth of the leaves */
    int num_children[MAX_DEPTH];         /* of a vertex, by depth */
    int num_vertices[MAX_DEPTH];         /* by depth */
    double rate[MAX_DEPTH];              /* the least of the depth */
    double latency[MAX_DEPTH];           /* the greatest */
    struct tv_mesh_coord now[MAX_DEPTH]; /* factors chosen at each depth */
    struct tv_mesh_coord chosen[MAX_DEPTH];
    int has_chosen;
    struct tv_map_score best;
};

static int num_children_of(const struct tv_map_tree *tree, int v)
{
    int num = 0;
    for (int child = v + 1; child < tree->vertices[v].next; child = tree->vertices[child].next)
        num++;
    return num;
}

static int is_uniform(const struct tv_map_tree *tree, struct boxes *boxes)
{
    boxes->height = -1;
    for (int v = 0; v < tree->num_vertices; v++) {
        const struct tv_map_vertex *vertex = &tree->vertices[v];
        const int depth = vertex->depth, num = num_children_of(tree, v);
        if (depth >= MAX_DEPTH || (boxes->height >= 0 && depth > boxes->height))
            return 0;
        if (boxes->num_vertices[depth]++ == 0) {
            boxes->num_children[depth] = num;
            boxes->rate[depth] = vertex->rate;
        }
        if (num == 0)
            boxes->height = depth; /* the first leaf comes before any other leaf */
        if (boxes->num_children[depth] != num)
            return 0;
        boxes->rate[depth] = fmin(boxes->rate[depth], vertex->rate);
        boxes->latency[depth] = fmax(boxes->latency[depth], vertex->latency);
    }
    return 1;
}

/* The cuts above all vertices of one depth, each holding a box of `box` cells. */
static void add_cuts(const struct boxes *boxes, int depth, struct tv_mesh_coord box,
                     struct tv_map_score *score)
{
    const struct tv_map_problem *problem = boxes->problem;
    const int cells = box.at[TV_PIPE] * box.at[TV_DATA] * box.at[TV_TENSOR];
    for (int a = 0; a < TV_NUM_AXES; a++) {
        const int pieces = problem->extent.at[a] / box.at[a];
        if (pieces == 1)
            continue;
        const int in_piece = cells / box.at[a];
        double most = in_piece, all = most * boxes->num_vertices[depth];
        if (a == TV_PIPE) {
            const int wraps = problem->traffic.wraps_pipe != 0;
            all *= 2.0 * (pieces - 1 + wraps) / pieces;
            most *= pieces > 2 || wraps ? 2 : 1;
        }
        const double rate = boxes->rate[depth], latency = boxes->latency[depth];
        const int num = boxes->num_vertices[depth];
        score->cost.axis[a] = fmax(score->cost.axis[a],
                                   tv_map_cut_seconds(&problem->traffic, a, most, rate, latency));
        score->sum += num * tv_map_cut_seconds(&problem->traffic, a, all / num, rate, latency);
    }
    score->cost.total = tv_map_total(&problem->traffic, score->cost.axis);
}

/* Choose the factors of `depth` and of all depths above it; `box` is what a child holds. */
static void choose(struct boxes *boxes, int depth, struct tv_mesh_coord box,
                   struct tv_map_score score)
{
    if (boxes->has_chosen && !tv_map_is_better(&score, &boxes->best))
        return; /* costs only grow on the way up */
    if (depth < 0) {
        boxes->best = score;
        boxes->has_chosen = 1;
        memcpy(boxes->chosen, boxes->now, sizeof(boxes->chosen));
        return;
    }
    const struct tv_mesh_coord extent = boxes->problem->extent;
    const int num = boxes->num_children[depth];
    for (int x = num; x >= 1; x--) {
        if (num % x != 0 || extent.at[TV_TENSOR] % (box.at[TV_TENSOR] * x) != 0)
            continue;
        for (int y = num / x; y >= 1; y--) {
            const int z = num / x / y;
            if (num / x % y != 0 || extent.at[TV_DATA] % (box.at[TV_DATA] * y) != 0 ||
                extent.at[TV_PIPE] % (box.at[TV_PIPE] * z) != 0)
                continue;
            boxes->now[depth] = (struct tv_mesh_coord){{z, y, x}};
            const struct tv_mesh_coord held = {
                {box.at[TV_PIPE] * z, box.at[TV_DATA] * y, box.at[TV_TENSOR] * x}};
            struct tv_map_score above = score;
            if (depth > 0)
                add_cuts(boxes, depth, held, &above);
            choose(boxes, depth - 1, held, above);
        }
    }
}

/* A device's number has one digit per depth, the leaves' fastest; each digit is three. */
static int cell_of_device(const struct boxes *boxes, int device)
{
    struct tv_mesh_coord box = {{1, 1, 1}}, at = {{0, 0, 0}};
    for (int depth = boxes->height - 1; depth >= 0; depth--) {
        int digit = device % boxes->num_children[depth];
        device /= boxes->num_children[depth];
        for (int a = TV_NUM_AXES - 1; a >= 0; a--) {
            const int factor = boxes->chosen[depth].at[a];
            at.at[a] += digit % factor * box.at[a];
            digit /= factor;
            box.at[a] *= factor;
        }
    }
    return tv_mesh_rank_of(boxes->problem->extent, at);
}

tv_status_t tv_map_boxes(const struct tv_map_problem *problem, int *cell_of, int *was_made_out)
{
    struct boxes boxes = {.problem = problem};
    *was_made_out = 0;
    if (!is_uniform(problem->tree, &boxes))
        return TV_OK;
    const struct tv_mesh_coord one = {{1, 1, 1}};
    struct tv_map_score leaves = {0};
    if (boxes.height > 0)
        add_cuts(&boxes, boxes.height, one, &leaves);
    choose(&boxes, boxes.height - 1, one, leaves);
    if (!boxes.has_chosen)
        return TV_OK;
    for (int i = 0; i < problem->tree->num_devices; i++)
        cell_of[i] = cell_of_device(&boxes, i);
    *was_made_out = 1;
    return TV_OK;
}

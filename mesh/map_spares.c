/* mesh/map_spares.c -- which devices stay without a rank when there are more than cells.
 *
 * Several answers compete by cost: (0) whole nodes first, those that tensor groups do not fill
 * before others, then what is left over n mod T, then the last devices; (1) the leftovers first;
 * (2) the fewest and fullest subtrees; (3) the last devices. */
#include "mesh/map_internal.h"
#include <stdlib.h>
#include <string.h>

/* The devices of one node, which are neighbours in canonical order. */
struct run {
    int first, count, misfit; /* misfit: count mod T */
};

static int by_misfit(const void *a, const void *b)
{
    const struct run *x = a, *y = b;
    if ((x->misfit != 0) != (y->misfit != 0))
        return x->misfit != 0 ? -1 : 1;
    return y->first - x->first;
}

static int by_last(const void *a, const void *b)
{
    return ((const struct run *)b)->first - ((const struct run *)a)->first;
}

static int find_runs(const struct tv_map_tree *tree, int T, struct run *runs)
{
    int num = 0;
    for (int i = 0; i < tree->num_devices; i++) {
        if (i == 0 || tree->devices[i].node != tree->devices[i - 1].node)
            runs[num++] = (struct run){i, 0, 0};
        runs[num - 1].count++;
        runs[num - 1].misfit = runs[num - 1].count % T;
    }
    return num;
}

/* Take the last `count` devices of the run, if so many may be spared. */
static void spare(struct run *run, int count, unsigned char *is_used, int *left)
{
    if (count > *left)
        return;
    *left -= count;
    run->count -= count;
    memset(is_used + run->first + run->count, 0, (size_t)count);
}

static void spare_nodes(struct run *runs, int num, unsigned char *is_used, int *left)
{
    qsort(runs, (size_t)num, sizeof(*runs), by_misfit);
    for (int r = 0; r < num; r++)
        spare(&runs[r], runs[r].count, is_used, left);
}

static void spare_misfits(struct run *runs, int num, int T, unsigned char *is_used, int *left)
{
    qsort(runs, (size_t)num, sizeof(*runs), by_last);
    for (int r = 0; r < num; r++)
        spare(&runs[r], runs[r].count % T, is_used, left);
}

static void spare_last(const struct tv_map_tree *tree, unsigned char *is_used, int *left)
{
    for (int i = tree->num_devices - 1; i >= 0 && *left > 0; i--) {
        *left -= is_used[i] != 0;
        is_used[i] = 0;
    }
}

struct child {
    int vertex, size;
};

static int by_size(const void *a, const void *b)
{
    const struct child *x = a, *y = b;
    return x->size != y->size ? y->size - x->size : x->vertex - y->vertex;
}

/* Keep `need` devices of v: whole children, the largest first, then a part of the smallest other. */
static tv_status_t keep(const struct tv_map_tree *tree, int v, int need, unsigned char *is_used)
{
    const struct tv_map_vertex *vertex = &tree->vertices[v];
    if (need == vertex->end - vertex->begin) {
        memset(is_used + vertex->begin, 1, (size_t)need);
        return TV_OK;
    }
    struct child *children = malloc((size_t)(vertex->end - vertex->begin) * sizeof(*children));
    if (children == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: spares of %d devices", tree->num_devices);
    int num = 0, smallest = -1;
    for (int c = v + 1; c < vertex->next; c = tree->vertices[c].next)
        children[num++] = (struct child){c, tree->vertices[c].end - tree->vertices[c].begin};
    qsort(children, (size_t)num, sizeof(*children), by_size);
    for (int c = 0; c < num; c++) {
        if (children[c].size <= need) {
            memset(is_used + tree->vertices[children[c].vertex].begin, 1, (size_t)children[c].size);
            need -= children[c].size;
        } else if (smallest < 0 || children[c].size < children[smallest].size) {
            smallest = c;
        }
    }
    const int part = smallest >= 0 ? children[smallest].vertex : v;
    free(children);
    return need > 0 ? keep(tree, part, need, is_used) : TV_OK;
}

tv_status_t tv_map_choose_spares(const struct tv_map_problem *problem, int policy,
                                 unsigned char *is_used)
{
    const struct tv_map_tree *tree = problem->tree;
    const int T = problem->extent.at[TV_TENSOR];
    if (policy == 2) {
        memset(is_used, 0, (size_t)tree->num_devices);
        return keep(tree, 0, problem->num_cells, is_used);
    }
    struct run *runs = malloc((size_t)tree->num_devices * sizeof(*runs));
    if (runs == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: spares of %d devices", tree->num_devices);
    int left = tree->num_devices - problem->num_cells;
    const int num = find_runs(tree, T, runs);
    for (int i = 0; i < tree->num_devices; i++)
        is_used[i] = 1;
    if (policy == 0)
        spare_nodes(runs, num, is_used, &left);
    if (policy == 0 || policy == 1)
        spare_misfits(runs, num, T, is_used, &left);
    if (policy == 1)
        spare_nodes(runs, num, is_used, &left);
    spare_last(tree, is_used, &left);
    free(runs);
    return TV_OK;
}

/* mesh/map_exact.c -- the cheapest layout of up to 16 cells on up to 16 devices, proven.
 *
 * What a cut carries depends only on the set of cells below it. So, from the leaves up, each vertex
 * has a table: for every set of cells that it can hold, the layouts inside that no other beats in
 * all of (slowest cut of each axis, sum over cuts). Children are added one by one. Branch and bound:
 * an entry that already costs as much as the best known layout is dropped, which leaves few. */
#include "mesh/map_internal.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Limits: the proof of the cost is given more than the choice among layouts of equal cost. */
enum { MAX_ENTRIES = 1 << 20, MAX_TESTS = 500 * 1000 * 1000, MAX_TIE_TESTS = 10 * 1000 * 1000 };

struct entry {
    double slowest[TV_NUM_AXES], sum;
    int before, child; /* entries: of the children before the last one, of the last one; or -1 */
    int next;          /* of the same set of cells */
    uint16_t cells;
    uint8_t is_dropped;
};
struct range {
    int begin, end; /* entries of one table */
};
struct exact {
    const struct tv_map_problem *problem;
    int num_cells, num_spares;
    uint8_t *carries[TV_NUM_AXES]; /* [sets] groups or pairs that a cut around the set carries */
    int *first;                    /* [sets] scratch: entries by their set */
    struct entry *entries;
    int num_entries, max_entries;
    long tests_left;
    int decides_ties;          /* an equal cost with a smaller sum is wanted too */
    double floor[TV_NUM_AXES]; /* no layout's slowest cut is faster */
    struct tv_map_score limit; /* only what is better than this is of use */
};

static int bits(unsigned set)
{
    return __builtin_popcount(set);
}

/* Groups of the axis as sets of cells: members differ along it alone. */
static unsigned group_with(struct tv_mesh_coord extent, int axis, int cell)
{
    struct tv_mesh_coord at = tv_mesh_coord_of(extent, cell);
    unsigned group = 0;
    for (at.at[axis] = 0; at.at[axis] < extent.at[axis]; at.at[axis]++)
        group |= 1u << tv_mesh_rank_of(extent, at);
    return group;
}

static int pairs_cut(const struct tv_map_problem *problem, unsigned set)
{
    const int stage = problem->num_cells / problem->extent.at[TV_PIPE];
    int num = 0;
    for (int cell = 0; cell < problem->num_cells; cell++) {
        const int other = (cell + stage) % problem->num_cells;
        if (other == cell + stage || problem->traffic.wraps_pipe)
            num += (set >> cell & 1) != (set >> other & 1);
    }
    return num;
}

static void count_carried(struct exact *exact)
{
    const struct tv_map_problem *problem = exact->problem;
    for (int axis = TV_DATA; axis < TV_NUM_AXES; axis++) {
        for (int cell = 0; cell < exact->num_cells; cell++) {
            const unsigned group = group_with(problem->extent, axis, cell);
            if (cell != __builtin_ctz(group))
                continue;
            for (unsigned set = 0; set >> exact->num_cells == 0; set++)
                exact->carries[axis][set] = (uint8_t)(exact->carries[axis][set] +
                                                      ((set & group) != 0 && (group & ~set) != 0));
        }
    }
    for (unsigned set = 0; set >> exact->num_cells == 0; set++)
        exact->carries[TV_PIPE][set] = (uint8_t)pairs_cut(problem, set);
}

/* Can this entry still become part of a layout better than the limit? */
static int is_hopeless(const struct exact *exact, const struct entry *entry)
{
    struct tv_map_score score = {.sum = entry->sum};
    for (int a = 0; a < TV_NUM_AXES; a++) {
        if (exact->problem->extent.at[a] > 1)
            score.cost.axis[a] = entry->slowest[a] + exact->problem->traffic.alpha[a];
    }
    score.cost.total = tv_map_total(&exact->problem->traffic, score.cost.axis);
    if (!exact->decides_ties)
        score.sum = exact->limit.sum;
    return !tv_map_is_better(&score, &exact->limit);
}

/* The cut above a vertex, for each entry of its table. */
static void add_cut(struct exact *exact, struct range range, const struct tv_map_vertex *vertex)
{
    for (int i = range.begin; i < range.end; i++) {
        struct entry *entry = &exact->entries[i];
        for (int a = 0; a < TV_NUM_AXES; a++) {
            const double seconds =
                tv_map_cut_seconds(&exact->problem->traffic, a, exact->carries[a][entry->cells],
                                   vertex->rate, vertex->latency);
            entry->slowest[a] = fmax(entry->slowest[a], seconds);
            entry->sum += seconds;
        }
        entry->is_dropped |= is_hopeless(exact, entry) != 0;
    }
}

static int dominates(const struct exact *exact, const struct entry *a, const struct entry *b)
{
    for (int axis = 0; axis < TV_NUM_AXES; axis++) {
        if (a->slowest[axis] > b->slowest[axis])
            return 0;
    }
    return !exact->decides_ties || a->sum <= b->sum;
}

/* Append unless another entry of the same set is as good in all; 0: no room. */
static int insert(struct exact *exact, const struct entry *entry)
{
    int *link = &exact->first[entry->cells];
    for (int i = *link; i >= 0; i = exact->entries[i].next) {
        if (dominates(exact, &exact->entries[i], entry))
            return 1;
    }
    while (*link >= 0) {
        struct entry *other = &exact->entries[*link];
        if (dominates(exact, entry, other)) {
            other->is_dropped = 1;
            *link = other->next;
        } else {
            link = &other->next;
        }
    }
    if (exact->num_entries == exact->max_entries) {
        const int max = exact->max_entries * 2;
        struct entry *entries =
            max <= MAX_ENTRIES ? realloc(exact->entries, (size_t)max * sizeof(*entries)) : NULL;
        if (entries == NULL)
            return 0;
        exact->entries = entries;
        exact->max_entries = max;
    }
    struct entry *added = &exact->entries[exact->num_entries];
    *added = *entry;
    added->next = exact->first[entry->cells];
    exact->first[entry->cells] = exact->num_entries++;
    return 1;
}

/* Nothing placed yet: cuts as slow as they will be at least, so that more entries are alike. */
static struct entry empty_entry(const struct exact *exact)
{
    struct entry entry = {.before = -1, .child = -1};
    memcpy(entry.slowest, exact->floor, sizeof(entry.slowest));
    return entry;
}

static void clear_index(struct exact *exact)
{
    memset(exact->first, 0xff, sizeof(int) << exact->num_cells); /* -1 */
}

struct step {
    struct range before, child;
    int min_cells, max_cells; /* of both together */
    int breaks_symmetry;      /* all children so far are alike: the last one has the lowest cell */
};

static int combine_pair(struct exact *exact, int before, int child, const struct step *step)
{
    const struct entry *a = &exact->entries[before], *b = &exact->entries[child];
    const unsigned cells = (unsigned)(a->cells | b->cells);
    const int num = bits(cells);
    if ((a->cells & b->cells) != 0 || num < step->min_cells || num > step->max_cells)
        return 1;
    if (step->breaks_symmetry && b->cells != 0 && (cells & -cells & b->cells) == 0)
        return 1;
    struct entry sum = {
        .sum = a->sum + b->sum, .before = before, .child = child, .cells = (uint16_t)cells};
    for (int axis = 0; axis < TV_NUM_AXES; axis++)
        sum.slowest[axis] = fmax(a->slowest[axis], b->slowest[axis]);
    return is_hopeless(exact, &sum) || insert(exact, &sum);
}

/* All pairs of an entry of the children before and one of the child. 0: too many. */
static int combine(struct exact *exact, const struct step *step, struct range *range_out)
{
    clear_index(exact);
    range_out->begin = exact->num_entries;
    for (int i = step->before.begin; i < step->before.end; i++) {
        if (exact->entries[i].is_dropped)
            continue;
        exact->tests_left -= step->child.end - step->child.begin;
        if (exact->tests_left < 0)
            return 0;
        for (int j = step->child.begin; j < step->child.end; j++) {
            if (!exact->entries[j].is_dropped && !combine_pair(exact, i, j, step))
                return 0;
        }
    }
    range_out->end = exact->num_entries;
    return 1;
}

static int are_alike(const struct tv_map_tree *tree, int a, int b)
{
    const struct tv_map_vertex *x = &tree->vertices[a], *y = &tree->vertices[b];
    const int num = x->next - a;
    if (num != y->next - b)
        return 0;
    for (int i = 0; i < num; i++) {
        if (x[i].rate != y[i].rate || x[i].next - a != y[i].next - b ||
            x[i].end - x[i].begin != y[i].end - y[i].begin)
            return 0;
    }
    return 1;
}

/* Children with their likes together, the largest family first; returns their number. */
static int order_children(const struct tv_map_tree *tree, int v, int *children, int *family)
{
    int all[16], num = 0, num_ordered = 0, size[16] = {0}, like[16];
    for (int c = v + 1; c < tree->vertices[v].next; c = tree->vertices[c].next) {
        like[num] = num;
        for (int k = num - 1; k >= 0; k--)
            like[num] = are_alike(tree, all[k], c) ? k : like[num];
        size[like[num]]++;
        all[num++] = c;
    }
    while (num_ordered < num) {
        int best = 0;
        for (int k = 1; k < num; k++)
            best = size[k] > size[best] ? k : best;
        for (int k = 0; k < num; k++) {
            if (like[k] == best) {
                family[num_ordered] = best;
                children[num_ordered++] = all[k];
            }
        }
        size[best] = 0;
    }
    return num;
}

static int leaf_table(struct exact *exact, struct range *range_out)
{
    clear_index(exact);
    range_out->begin = exact->num_entries;
    for (int cell = exact->num_spares > 0 ? -1 : 0; cell < exact->num_cells; cell++) {
        struct entry entry = empty_entry(exact);
        entry.cells = (uint16_t)(cell < 0 ? 0 : 1u << cell);
        if (!insert(exact, &entry))
            return 0;
    }
    range_out->end = exact->num_entries;
    return 1;
}

static int table_of(struct exact *exact, int v, struct range *range_out);

static int inner_table(struct exact *exact, int v, struct range *range_out)
{
    const struct tv_map_tree *tree = exact->problem->tree;
    int children[16], family[16], num_devices = 0;
    const int num = order_children(tree, v, children, family);
    struct range child = {0, 0}, range = {exact->num_entries, exact->num_entries + 1};
    clear_index(exact);
    const struct entry nothing = empty_entry(exact);
    if (!insert(exact, &nothing))
        return 0;
    for (int c = 0; c < num; c++) {
        const struct tv_map_vertex *vertex = &tree->vertices[children[c]];
        if ((c == 0 || family[c] != family[c - 1]) && !table_of(exact, children[c], &child))
            return 0;
        num_devices += vertex->end - vertex->begin;
        const struct step step = {.before = range,
                                  .child = child,
                                  .min_cells = v == 0 && c + 1 == num
                                                   ? exact->num_cells
                                                   : num_devices - exact->num_spares,
                                  .max_cells = exact->num_cells,
                                  .breaks_symmetry = family[c] == family[0]};
        if (!combine(exact, &step, &range))
            return 0;
    }
    *range_out = range;
    return 1;
}

static int table_of(struct exact *exact, int v, struct range *range_out)
{
    const struct tv_map_vertex *vertex = &exact->problem->tree->vertices[v];
    const int has_table =
        vertex->next == v + 1 ? leaf_table(exact, range_out) : inner_table(exact, v, range_out);
    if (has_table && v > 0)
        add_cut(exact, *range_out, vertex);
    return has_table;
}

static void place(const struct exact *exact, int v, int entry, int *cell_of)
{
    const struct tv_map_tree *tree = exact->problem->tree;
    if (tree->vertices[v].next == v + 1) {
        const unsigned cells = exact->entries[entry].cells;
        cell_of[tree->vertices[v].begin] = cells == 0 ? -1 : __builtin_ctz(cells);
        return;
    }
    int children[16], family[16];
    for (int c = order_children(tree, v, children, family) - 1; c >= 0; c--) {
        place(exact, children[c], exact->entries[entry].child, cell_of);
        entry = exact->entries[entry].before;
    }
}

/* One run through the tree. 0: given up. */
static int run(struct exact *exact, int decides_ties, struct tv_map_best *best)
{
    struct range range;
    exact->num_entries = 0;
    exact->tests_left = decides_ties ? MAX_TIE_TESTS : MAX_TESTS;
    exact->decides_ties = decides_ties;
    exact->limit = best->score;
    if (!table_of(exact, 0, &range))
        return 0;
    for (int i = range.begin; i < range.end; i++) {
        int cell_of[16];
        if (exact->entries[i].is_dropped)
            continue;
        place(exact, 0, i, cell_of);
        tv_map_offer(exact->problem, cell_of, best);
    }
    return 1;
}

static void exact_free(struct exact *exact)
{
    for (int a = 0; a < TV_NUM_AXES; a++)
        free(exact->carries[a]);
    free(exact->first);
    free(exact->entries);
}

tv_status_t tv_map_exact(const struct tv_map_problem *problem, struct tv_map_best *best,
                         int *is_exact_out)
{
    *is_exact_out = 0;
    if (problem->tree->num_devices > 16 || problem->tree->num_devices == 1)
        return TV_OK;
    struct exact exact = {.problem = problem,
                          .num_cells = problem->num_cells,
                          .num_spares = problem->tree->num_devices - problem->num_cells,
                          .max_entries = 1 << 12};
    const size_t num_sets = (size_t)1 << problem->num_cells;
    exact.first = malloc(num_sets * sizeof(int));
    exact.entries = malloc((size_t)exact.max_entries * sizeof(struct entry));
    int has_all = exact.first != NULL && exact.entries != NULL;
    for (int a = 0; a < TV_NUM_AXES; a++) {
        exact.carries[a] = calloc(num_sets, 1);
        exact.floor[a] =
            fmax(0, tv_map_axis_bound(problem, (enum tv_mesh_axis)a) - problem->traffic.alpha[a]);
        has_all = has_all && exact.carries[a] != NULL;
    }
    if (has_all) {
        count_carried(&exact);
        *is_exact_out = run(&exact, 0, best);
        if (*is_exact_out)
            (void)run(&exact, 1, best); /* the cost is proven; the tie may stay undecided */
    }
    exact_free(&exact);
    return has_all ? TV_OK : TV_ERR(TV_NO_MEMORY, "mapper: sets of %d cells", problem->num_cells);
}

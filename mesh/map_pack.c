/* mesh/map_pack.c -- priority packing: whole lines of the first axis in the smallest subtrees that
 * hold them, then whole planes of lines, and leftovers joined one level up.
 *
 * A vertex with n devices keeps floor(n / E) whole groups of E; the n mod E left go to its parent.
 * There leftovers are joined so that few subtrees share a group: the largest first, with the one
 * that fills it exactly, else the largest that fits, else a part of one that does not. */
#include "mesh/map_internal.h"
#include <stdlib.h>

/* Items (devices, then lines) joined into groups of `size`. A chunk is a list of items of one
 * subtree, known by its first item; chunks of one length wait in a queue. */
struct joining {
    const struct tv_map_tree *tree;
    int num_items, size;
    const int *item_vertex; /* the smallest vertex that holds the item */
    int *first_item;        /* [vertices] items of the vertex itself; -1: none */
    int *left;              /* [vertices] chunk that goes to the parent; -1: none */
    int *next_item;         /* [items] within a chunk or a vertex */
    int *last_item;         /* [items] of the chunk that starts here */
    int *length;            /* [items] of the chunk that starts here */
    int *next_chunk;        /* [items] in the queue */
    int *head, *tail;       /* [size] queues by length */
    int longest;            /* no queue beyond this length holds a chunk */
    int num_groups;
    int *groups;       /* [groups, size] items */
    int *group_vertex; /* [groups] */
};

static void joining_free(struct joining *join)
{
    int *arrays[] = {join->first_item, join->left,        join->next_item, join->last_item,
                     join->length,     join->next_chunk,  join->head,      join->tail,
                     join->groups,     join->group_vertex};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++)
        free(arrays[i]);
}

static int *filled(int num, int value)
{
    int *array = calloc((size_t)num + 1, sizeof(*array));
    for (int i = 0; array != NULL && i < num; i++)
        array[i] = value;
    return array;
}

static tv_status_t joining_create(const struct tv_map_tree *tree, int num_items, int size,
                                  const int *item_vertex, struct joining *join_out)
{
    struct joining join = {
        .tree = tree, .num_items = num_items, .size = size, .item_vertex = item_vertex};
    join.first_item = filled(tree->num_vertices, -1);
    join.left = filled(tree->num_vertices, -1);
    join.next_item = filled(num_items, -1);
    join.last_item = filled(num_items, -1);
    join.length = filled(num_items, 0);
    join.next_chunk = filled(num_items, -1);
    join.head = filled(size, -1);
    join.tail = filled(size, -1);
    join.groups = filled(num_items, -1);
    join.group_vertex = filled(num_items / size, -1);
    if (join.first_item == NULL || join.left == NULL || join.next_item == NULL ||
        join.last_item == NULL || join.length == NULL || join.next_chunk == NULL ||
        join.head == NULL || join.tail == NULL || join.groups == NULL ||
        join.group_vertex == NULL) {
        joining_free(&join);
        return TV_ERR(TV_NO_MEMORY, "mapper: packing of %d devices", tree->num_devices);
    }
    for (int i = num_items - 1; i >= 0; i--) {
        join.next_item[i] = join.first_item[item_vertex[i]];
        join.first_item[item_vertex[i]] = i;
    }
    *join_out = join;
    return TV_OK;
}

static void put_last(struct joining *join, int chunk)
{
    const int length = join->length[chunk];
    join->next_chunk[chunk] = -1;
    if (join->head[length] < 0)
        join->head[length] = chunk;
    else
        join->next_chunk[join->tail[length]] = chunk;
    join->tail[length] = chunk;
    join->longest = length > join->longest ? length : join->longest;
}

static int take_first(struct joining *join, int length)
{
    const int chunk = join->head[length];
    join->head[length] = join->next_chunk[chunk];
    return chunk;
}

/* At most `need` items: a whole chunk where one fits, the longest first; else the head of one. */
static int take(struct joining *join, int need)
{
    while (join->longest > 0 && join->head[join->longest] < 0)
        join->longest--;
    const int start = need < join->longest ? need : join->longest;
    for (int length = start; length > 0; length--) {
        if (join->head[length] >= 0)
            return take_first(join, length);
    }
    int length = need + 1;
    while (join->head[length] < 0)
        length++;
    const int chunk = take_first(join, length);
    int cut = chunk;
    for (int i = 1; i < need; i++)
        cut = join->next_item[cut];
    const int rest = join->next_item[cut];
    join->last_item[rest] = join->last_item[chunk];
    join->length[rest] = length - need;
    join->last_item[chunk] = cut;
    join->length[chunk] = need;
    put_last(join, rest);
    return chunk;
}

static int ascending(const void *a, const void *b)
{
    const int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static void make_group(struct joining *join, int v)
{
    int *items = join->groups + (size_t)join->num_groups * (size_t)join->size;
    int num = 0;
    while (num < join->size) {
        int item = take(join, join->size - num);
        for (int left = join->length[item]; left > 0; left--, item = join->next_item[item])
            items[num++] = item;
    }
    qsort(items, (size_t)num, sizeof(*items), ascending);
    join->group_vertex[join->num_groups++] = v;
}

/* All that is still in the queues becomes one chunk. */
static int gather(struct joining *join, int num)
{
    int whole = -1;
    for (int left = num; left > 0;) {
        const int chunk = take(join, left);
        left -= join->length[chunk];
        if (whole < 0) {
            whole = chunk;
            continue;
        }
        join->next_item[join->last_item[whole]] = chunk;
        join->last_item[whole] = join->last_item[chunk];
        join->length[whole] += join->length[chunk];
    }
    return whole;
}

static void join_at(struct joining *join, int v)
{
    const struct tv_map_vertex *vertices = join->tree->vertices;
    int num = 0;
    for (int child = v + 1; child < vertices[v].next; child = vertices[child].next) {
        if (join->left[child] < 0)
            continue;
        num += join->length[join->left[child]];
        put_last(join, join->left[child]);
    }
    for (int item = join->first_item[v], next; item >= 0; item = next) {
        next = join->next_item[item];
        join->last_item[item] = item;
        join->length[item] = 1;
        put_last(join, item);
        num++;
    }
    for (; num >= join->size; num -= join->size)
        make_group(join, v);
    join->left[v] = gather(join, num);
    join->longest = 0;
}

/* Groups in the order of their first items. */
static tv_status_t sort_groups(struct joining *join)
{
    const int size = join->size;
    int *group_at = filled(join->num_items, -1), *groups = filled(join->num_items, -1);
    int *vertex = filled(join->num_groups, -1);
    const int has_all = group_at != NULL && groups != NULL && vertex != NULL;
    if (has_all) {
        for (int g = 0; g < join->num_groups; g++)
            group_at[join->groups[(size_t)g * (size_t)size]] = g;
        for (int i = 0, num = 0; i < join->num_items; i++) {
            if (group_at[i] < 0)
                continue;
            for (int k = 0; k < size; k++)
                groups[num * size + k] = join->groups[group_at[i] * size + k];
            vertex[num++] = join->group_vertex[group_at[i]];
        }
        int *old_groups = join->groups, *old_vertex = join->group_vertex;
        join->groups = groups;
        join->group_vertex = vertex;
        groups = old_groups;
        vertex = old_vertex;
    }
    free(group_at);
    free(groups);
    free(vertex);
    return has_all ? TV_OK : TV_ERR(TV_NO_MEMORY, "mapper: packing of %d items", join->num_items);
}

static tv_status_t join_items(const struct tv_map_tree *tree, int num_items, int size,
                              const int *item_vertex, struct joining *join_out)
{
    struct joining join;
    TV_TRY(joining_create(tree, num_items, size, item_vertex, &join));
    if (size == 1) {
        for (int i = 0; i < num_items; i++) {
            join.groups[i] = i;
            join.group_vertex[i] = item_vertex[i];
        }
        join.num_groups = num_items;
    }
    for (int v = tree->num_vertices - 1; v >= 0 && size > 1; v--)
        join_at(&join, v);
    const tv_status_t status = sort_groups(&join);
    if (status != TV_OK) {
        joining_free(&join);
        return status;
    }
    *join_out = join;
    return TV_OK;
}

tv_status_t tv_map_pack(const struct tv_map_problem *problem,
                        const enum tv_mesh_axis order[TV_NUM_AXES], int *cell_of)
{
    const struct tv_map_tree *tree = problem->tree;
    const int line = problem->extent.at[order[0]], plane = problem->extent.at[order[1]];
    int *leaf_of = filled(tree->num_devices, -1);
    if (leaf_of == NULL)
        return TV_ERR(TV_NO_MEMORY, "mapper: packing of %d devices", tree->num_devices);
    for (int v = 0; v < tree->num_vertices; v++) {
        if (tree->vertices[v].next == v + 1)
            leaf_of[tree->vertices[v].begin] = v;
    }
    struct joining lines = {0}, planes = {0};
    tv_status_t status = join_items(tree, tree->num_devices, line, leaf_of, &lines);
    if (status == TV_OK)
        status = join_items(tree, lines.num_groups, plane, lines.group_vertex, &planes);
    for (int i = 0; status == TV_OK && i < tree->num_devices; i++) {
        const int at_line = i / line, digit[] = {i % line, at_line % plane, at_line / plane};
        const int device = lines.groups[planes.groups[at_line] * line + digit[0]];
        cell_of[device] = tv_map_cell_at(problem->extent, order, digit);
    }
    joining_free(&planes);
    joining_free(&lines);
    free(leaf_of);
    return status;
}

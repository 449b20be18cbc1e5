/* mesh/map_rings.c -- tensor groups inside a node: GPUs shared out so that the slowest link on the
 * ring of the worst group is as fast as can be, then most links lie inside groups, then GPUs of a
 * group are near each other (package, NUMA node, bridge). Exact for up to 16 GPUs, over subsets. */
#include "mesh/map_internal.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct partial {
    double links;
    int near;
    uint16_t set; /* what the next part takes */
    uint8_t is_known, is_possible;
};
struct choosing {
    const struct tv_node_shape *shape;
    const struct tv_map_parts *parts;
    double least;          /* each ring has links of this rate or faster */
    int8_t *has_ring;      /* [sets] 1 yes, 0 no, -1 not tried */
    struct partial *after; /* [sets] the best for what is left, with the set taken */
};

static double link_of(const struct tv_node_shape *shape, int i, int j)
{
    if (shape->links_kind != TV_LINKS_MATRIX)
        return shape->links_kind == TV_LINKS_SWITCH;
    return shape->links[i * shape->num_gpus + j];
}

/* Can the path that ends at `last` be closed over all of `left`? */
static int can_close(const struct tv_node_shape *shape, const int *gpu, double least, unsigned left,
                     int first, int last)
{
    if (left == 0)
        return link_of(shape, gpu[last], gpu[first]) >= least;
    for (unsigned rest = left; rest != 0; rest &= rest - 1) {
        const int next = __builtin_ctz(rest);
        if (link_of(shape, gpu[last], gpu[next]) >= least &&
            can_close(shape, gpu, least, left & ~(1u << next), first, next))
            return 1;
    }
    return 0;
}

static int has_ring(const struct tv_node_shape *shape, const int *gpu, double least, unsigned set)
{
    const int first = __builtin_ctz(set);
    return (set & (set - 1)) == 0 || least <= 0 ||
           can_close(shape, gpu, least, set & (set - 1), first, first);
}

static int ring_in_set(struct choosing *choosing, unsigned set)
{
    if (choosing->has_ring[set] < 0)
        choosing->has_ring[set] =
            (int8_t)has_ring(choosing->shape, choosing->parts->gpu, choosing->least, set);
    return choosing->has_ring[set];
}

static int nearness(const struct tv_gpu *a, const struct tv_gpu *b)
{
    return (a->package >= 0 && a->package == b->package) + (a->numa >= 0 && a->numa == b->numa) +
           (a->pcie_switch >= 0 && a->pcie_switch == b->pcie_switch);
}

static void add_inside(const struct choosing *choosing, unsigned set, struct partial *partial)
{
    const int *gpu = choosing->parts->gpu;
    for (unsigned a = set; a != 0; a &= a - 1) {
        for (unsigned b = a & (a - 1); b != 0; b &= b - 1) {
            const int i = gpu[__builtin_ctz(a)], j = gpu[__builtin_ctz(b)];
            partial->links += link_of(choosing->shape, i, j);
            partial->near += nearness(&choosing->shape->gpus[i], &choosing->shape->gpus[j]);
        }
    }
}

static int is_closer(const struct partial *a, const struct partial *b)
{
    return !b->is_possible || a->links > b->links || (a->links >= b->links && a->near > b->near);
}

/* Share out what `taken` leaves, from part number `part` on. */
static const struct partial *share_out(struct choosing *choosing, unsigned taken, int part)
{
    const struct tv_map_parts *parts = choosing->parts;
    struct partial *after = &choosing->after[taken];
    if (after->is_known)
        return after;
    struct partial best = {.is_known = 1, .is_possible = part == parts->num_parts};
    const unsigned left = ((1u << parts->num_gpus) - 1) & ~taken;
    const int are_alike =
        part < parts->num_parts && parts->size[part] == parts->size[parts->num_parts - 1];
    for (unsigned set = left & -left; set != 0 && part < parts->num_parts;
         set = (set - left) & left) {
        if (__builtin_popcount(set) != parts->size[part] ||
            (are_alike && (set & left & -left) == 0) || !ring_in_set(choosing, set))
            continue;
        const struct partial *rest = share_out(choosing, taken | set, part + 1);
        struct partial option = *rest;
        option.set = (uint16_t)set;
        add_inside(choosing, set, &option);
        if (option.is_possible && is_closer(&option, &best))
            best = option;
    }
    *after = best;
    return after;
}

/* Rates of links, the fastest first: the next one below `rate`; 0 where there is none. */
static double next_rate(const struct tv_node_shape *shape, double rate)
{
    double next = 0;
    for (int i = 0; i < shape->num_gpus; i++) {
        for (int j = 0; j < shape->num_gpus; j++) {
            const double link = i != j ? link_of(shape, i, j) : 0;
            if (link < rate && link > next)
                next = link;
        }
    }
    return next;
}

int tv_map_choose_parts(const struct tv_node_shape *shape, struct tv_map_parts *parts)
{
    const size_t num_sets = (size_t)1 << parts->num_gpus;
    struct choosing choosing = {.shape = shape, .parts = parts};
    choosing.has_ring = malloc(num_sets);
    choosing.after = malloc(num_sets * sizeof(*choosing.after));
    const int has_room = choosing.has_ring != NULL && choosing.after != NULL;
    int is_possible = 0;
    double rate = 1e300;
    while (has_room && !is_possible && rate > 0) {
        choosing.least = rate = next_rate(shape, rate);
        memset(choosing.has_ring, -1, num_sets);
        memset(choosing.after, 0, num_sets * sizeof(*choosing.after));
        is_possible = share_out(&choosing, 0, 0)->is_possible;
    }
    unsigned taken = 0;
    for (int part = 0; part < parts->num_parts && has_room && is_possible; part++) {
        parts->set[part] = choosing.after[taken].set;
        taken |= parts->set[part];
    }
    free(choosing.has_ring);
    free(choosing.after);
    return is_possible;
}

int tv_map_lacks_links(const struct tv_topology *topology, const struct tv_map_tree *tree,
                       const int *devices, int num)
{
    const int node = tree->devices[devices[0]].node;
    const struct tv_node_shape *shape = tv_topology_shape(topology, node);
    int gpu[TV_MAP_MAX_RING_GPUS];
    if (shape->links_kind != TV_LINKS_MATRIX || num > TV_MAP_MAX_RING_GPUS)
        return 0;
    for (int k = 0; k < num; k++) {
        if (tree->devices[devices[k]].node != node)
            return 0;
        gpu[k] = tree->devices[devices[k]].device;
    }
    const double any = 1e-9;
    return next_rate(shape, 1e300) > 0 && !has_ring(shape, gpu, any, (1u << num) - 1);
}

/* train/zero.c -- how many replicas share, and their two communicators. */
#include "train/zero.h"
#include "train/place.h"
#include <stdio.h>
#include <stdlib.h>

/* "1, 2, 4, 8": divisors, as many as there is room for. */
static void list_divisors(int number, char *text, size_t bytes)
{
    size_t used = 0;
    for (int n = 1; n <= number && used + 16 < bytes; n++) {
        if (number % n == 0)
            used += (size_t)snprintf(text + used, bytes - used, "%s%d", used > 0 ? ", " : "", n);
    }
}

tv_status_t tv_run_resolve_zero(struct tv_run *run)
{
    const struct tv_train_options *o = &run->options;
    const int D = run->extent.at[TV_DATA], N = o->zero_group > 0 ? o->zero_group : D;
    char divisors[128];
    if (o->zero_group > 0 && o->zero_stage == 0)
        return TV_ERR(TV_INVALID,
                      "--zero-group-size %d: at --zero-stage 0 replicas share nothing; give "
                      "--zero-stage 1, 2 or 3",
                      N);
    if (N > D || D % N != 0) {
        list_divisors(D, divisors, sizeof(divisors));
        return TV_ERR(TV_INVALID, "--zero-group-size %d does not divide the %d replica(s): %s", N,
                      D, divisors);
    }
    run->zero_stage = N > 1 ? o->zero_stage : 0;
    run->zero_group = run->zero_stage > 0 ? N : 1;
    return TV_OK;
}

/* Is each group of N replicas on one node? */
static int fits_nodes(const struct tv_run *run, const int *node_of, int N)
{
    const struct tv_mesh_coord e = run->extent;
    const int num_ranks = e.at[TV_PIPE] * e.at[TV_DATA] * e.at[TV_TENSOR];
    for (int rank = 0; rank < num_ranks; rank++) {
        struct tv_mesh_coord first = tv_mesh_coord_of(e, rank);
        first.at[TV_DATA] -= first.at[TV_DATA] % N;
        if (node_of[rank] != node_of[tv_mesh_rank_of(e, first)])
            return 0;
    }
    return 1;
}

tv_status_t tv_run_fit_zero_group(struct tv_run *run)
{
    const int D = run->extent.at[TV_DATA];
    int *node_of;
    if (run->zero_stage == 0 || run->options.zero_group > 0 || run->options.memory_limit_mib > 0)
        return TV_OK;
    TV_TRY(tv_run_mesh_nodes(run, &node_of));
    if (node_of == NULL)
        return TV_OK;
    int N = D;
    while (D % N != 0 || !fits_nodes(run, node_of, N)) /* one always fits */
        N--;
    free(node_of);
    run->zero_group = N > 1 ? N : D;
    return TV_OK;
}

tv_status_t tv_zero_groups_create(const struct tv_run *run, struct tv_comm *data,
                                  struct tv_zero_groups *groups_out)
{
    const int N = run->zero_group, d = tv_comm_rank(data);
    struct tv_zero_groups groups = {.shards = data};
    if (run->zero_stage > 0 && N < tv_comm_size(data)) {
        groups = (struct tv_zero_groups){.is_owned = 1};
        tv_status_t status = tv_comm_split(data, d / N, d, &groups.shards);
        if (status == TV_OK)
            status = tv_comm_split(data, d % N, d, &groups.copies);
        if (status != TV_OK) {
            tv_zero_groups_destroy(&groups);
            return status;
        }
        tv_comm_set_name(groups.shards, "data (group that shares)");
        tv_comm_set_name(groups.copies, "data (copies of a shard)");
    }
    *groups_out = groups;
    return TV_OK;
}

void tv_zero_groups_destroy(struct tv_zero_groups *groups)
{
    if (groups->is_owned)
        tv_comm_destroy(groups->shards);
    tv_comm_destroy(groups->copies);
    *groups = (struct tv_zero_groups){0};
}

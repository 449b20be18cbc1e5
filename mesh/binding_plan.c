/* mesh/binding_plan.c -- fair, disjoint shares of CPUs: arithmetic without the system. */
#include "mesh/binding.h"
#include <stdio.h>
#include <stdlib.h>

enum { WORD_BITS = 8 * sizeof(unsigned long) };

void tv_cpu_mask_add(struct tv_cpu_mask *mask, int cpu)
{
    if (cpu >= 0 && cpu < TV_MAX_CPUS)
        mask->bits[cpu / WORD_BITS] |= 1ul << (cpu % WORD_BITS);
}

int tv_cpu_mask_has(const struct tv_cpu_mask *mask, int cpu)
{
    return cpu >= 0 && cpu < TV_MAX_CPUS && (mask->bits[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1);
}

int tv_cpu_mask_count(const struct tv_cpu_mask *mask)
{
    int num = 0;
    for (int cpu = 0; cpu < TV_MAX_CPUS; cpu++)
        num += tv_cpu_mask_has(mask, cpu);
    return num;
}

void tv_cpu_mask_text(const struct tv_cpu_mask *mask, char *text_out, size_t bytes)
{
    size_t used = 0;
    text_out[0] = '\0';
    for (int cpu = 0; cpu < TV_MAX_CPUS && used + 1 < bytes; cpu++) {
        if (!tv_cpu_mask_has(mask, cpu))
            continue;
        int last = cpu;
        while (tv_cpu_mask_has(mask, last + 1))
            last++;
        const char *comma = used > 0 ? "," : "";
        const int wrote = last > cpu
                              ? snprintf(text_out + used, bytes - used, "%s%d-%d", comma, cpu, last)
                              : snprintf(text_out + used, bytes - used, "%s%d", comma, cpu);
        used += (size_t)wrote;
        cpu = last;
    }
}

/* CPUs of one pool and the ranks that share it. */
struct pool {
    int num_cpus, num_ranks;
    const struct tv_cpu **cpus;
    int *ranks;
};

static int num_cores(const struct pool *pool)
{
    int num = 0;
    for (int i = 0; i < pool->num_cpus; i++)
        num += i == 0 || pool->cpus[i]->core < 0 || pool->cpus[i]->core != pool->cpus[i - 1]->core;
    return num;
}

/* Cut the pool in order: rank i of n gets pieces [i N / n, (i+1) N / n) of N cores, of N CPUs when
 * there are more ranks than cores, or everything when there are more ranks than CPUs. */
static void share_pool(const struct pool *pool, struct tv_bind_share *shares)
{
    const int by_core = num_cores(pool) >= pool->num_ranks;
    const int64_t pieces = by_core ? num_cores(pool) : pool->num_cpus, n = pool->num_ranks;
    const int is_shared = pieces < n;
    for (int i = 0; i < pool->num_ranks; i++) {
        struct tv_bind_share *share = &shares[pool->ranks[i]];
        share->is_shared = is_shared;
        int64_t piece = -1;
        for (int c = 0; c < pool->num_cpus; c++) {
            const struct tv_cpu *cpu = pool->cpus[c];
            piece += !by_core || c == 0 || cpu->core < 0 || cpu->core != pool->cpus[c - 1]->core;
            if (!is_shared && (piece < i * pieces / n || piece >= (i + 1) * pieces / n))
                continue;
            tv_cpu_mask_add(&share->cpus, cpu->os_index);
            tv_cpu_mask_add(&share->numas, cpu->numa);
        }
    }
}

static int has_cpus(int num_cpus, const struct tv_cpu *cpus, int numa)
{
    for (int c = 0; c < num_cpus; c++) {
        if (cpus[c].numa == numa)
            return 1;
    }
    return 0;
}

static int is_wished(int num_ranks, const int *wishes, int numa)
{
    for (int r = 0; wishes != NULL && r < num_ranks; r++) {
        if (wishes[r] >= 0 && wishes[r] == numa)
            return 1;
    }
    return 0;
}

/* The ranks that wish for `numa`, on its CPUs. */
static void share_numa(int num_cpus, const struct tv_cpu *cpus, int num_ranks, const int *wishes,
                       int numa, struct pool *pool, struct tv_bind_share *shares)
{
    pool->num_cpus = pool->num_ranks = 0;
    for (int c = 0; c < num_cpus; c++) {
        if (cpus[c].numa == numa)
            pool->cpus[pool->num_cpus++] = &cpus[c];
    }
    for (int r = 0; r < num_ranks; r++) {
        if (wishes[r] == numa)
            pool->ranks[pool->num_ranks++] = r;
    }
    share_pool(pool, shares);
}

/* The other ranks, on the nodes that nobody wishes for. */
static void share_rest(int num_cpus, const struct tv_cpu *cpus, int num_ranks, const int *wishes,
                       struct pool *pool, struct tv_bind_share *shares)
{
    pool->num_cpus = pool->num_ranks = 0;
    for (int c = 0; c < num_cpus; c++) {
        if (!is_wished(num_ranks, wishes, cpus[c].numa))
            pool->cpus[pool->num_cpus++] = &cpus[c];
    }
    const int is_all_taken = pool->num_cpus == 0;
    for (int c = 0; is_all_taken && c < num_cpus; c++)
        pool->cpus[pool->num_cpus++] = &cpus[c];
    for (int r = 0; r < num_ranks; r++) {
        const int wish = wishes != NULL ? wishes[r] : -1;
        shares[r].misses_wish = wish >= 0 && !has_cpus(num_cpus, cpus, wish);
        if (wish < 0 || shares[r].misses_wish)
            pool->ranks[pool->num_ranks++] = r;
    }
    share_pool(pool, shares);
    for (int i = 0; is_all_taken && i < pool->num_ranks; i++)
        shares[pool->ranks[i]].is_shared = 1;
}

tv_status_t tv_binding_plan(int num_cpus, const struct tv_cpu *cpus, int num_ranks,
                            const int *wishes, struct tv_bind_share *shares_out)
{
    if (num_cpus < 1)
        return TV_ERR(TV_INVALID, "no CPU for %d ranks", num_ranks);
    struct pool pool = {.cpus = calloc((size_t)num_cpus, sizeof(const struct tv_cpu *)),
                        .ranks = calloc((size_t)num_ranks, sizeof(int))};
    if (pool.cpus == NULL || pool.ranks == NULL) {
        free(pool.cpus);
        free(pool.ranks);
        return TV_ERR(TV_NO_MEMORY, "shares of %d ranks", num_ranks);
    }
    for (int r = 0; r < num_ranks; r++)
        shares_out[r] = (struct tv_bind_share){0};
    for (int r = 0; wishes != NULL && r < num_ranks; r++) {
        const int is_first = !is_wished(r, wishes, wishes[r]);
        if (wishes[r] >= 0 && is_first && has_cpus(num_cpus, cpus, wishes[r]))
            share_numa(num_cpus, cpus, num_ranks, wishes, wishes[r], &pool, shares_out);
    }
    share_rest(num_cpus, cpus, num_ranks, wishes, &pool, shares_out);
    free(pool.cpus);
    free(pool.ranks);
    return TV_OK;
}
